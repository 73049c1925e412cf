//! What a reload cannot change, because something was opened or started by it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use super::settings::{LogFormat, Settings, StoreBackend};

const BACKEND: &str = "[store] backend";

/// A key whose new value counts only after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub key: &'static str,
    /// What is in force.
    pub old: String,
    pub new: String,
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        write!(f, "{key} stays {old}: it becomes {new} only at a restart")
    }
}

/// What differs between the settings that a process was started with and new ones, as far as it
/// needs a restart.
pub fn fixed_differences(started: &Settings, new: &Settings) -> Vec<Fixed> {
    type Tell = fn(&Settings) -> String;
    let told: [(&'static str, Tell); 11] = [
        ("[server] listen", |settings| listed(&settings.server.listen)),
        ("[server.tls] listen", |settings| {
            listed(settings.server.tls.as_ref().map_or(&[], |tls| &tls.listen))
        }),
        ("[server] workers", |settings| settings.server.workers.to_string()),
        ("[server] state_directory", |settings| quoted(&settings.server.state_directory)),
        ("[ops] listen", |settings| format!("\"{}\"", settings.ops.listen)),
        // A state directory that differs is told once, not again for what lies in it.
        ("[admin] socket", |settings| within(settings, &settings.admin.socket)),
        (BACKEND, |settings| match &settings.store.backend {
            StoreBackend::Embedded { .. } => "\"embedded\"".to_owned(),
            StoreBackend::Redis { .. } => "\"redis\"".to_owned(),
        }),
        ("[store] path", |settings| match &settings.store.backend {
            StoreBackend::Embedded { path } => within(settings, path),
            StoreBackend::Redis { .. } => "unused".to_owned(),
        }),
        // Without the password, which may stand in the URL.
        ("[store] url", |settings| match &settings.store.backend {
            StoreBackend::Embedded { .. } => "unused".to_owned(),
            StoreBackend::Redis(redis) => {
                let address = &redis.engine.address;
                let hosts = address.hosts.iter().map(|(host, port)| format!("{host}:{port}"));
                let hosts = hosts.collect::<Vec<_>>().join(",");
                format!("\"{hosts}/{}\"", address.database)
            }
        }),
        ("[store] lease", |settings| match &settings.store.backend {
            StoreBackend::Embedded { .. } => "unused".to_owned(),
            StoreBackend::Redis(redis) => format!("{:?}", redis.lease),
        }),
        ("[log] format", |settings| {
            let word = match settings.log.format {
                LogFormat::Auto => "auto",
                LogFormat::Human => "human",
                LogFormat::Json => "json",
            };
            format!("\"{word}\"")
        }),
    ];
    let differences = told.into_iter().map(|(key, tell)| (key, tell(started), tell(new)));
    let mut found: Vec<Fixed> = differences
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| Fixed { key, old, new })
        .collect();
    // Another backend has other keys: they need no word of their own.
    if found.iter().any(|fixed| fixed.key == BACKEND) {
        found.retain(|fixed| fixed.key == BACKEND || !fixed.key.starts_with("[store] "));
    }
    found
}

fn listed(addresses: &[SocketAddr]) -> String {
    let addresses = addresses.iter().map(|address| format!("\"{address}\""));
    format!("[{}]", addresses.collect::<Vec<_>>().join(", "))
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn within(settings: &Settings, path: &Path) -> String {
    quoted(path.strip_prefix(&settings.server.state_directory).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn settings(text: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seatgate.toml");
        std::fs::write(&path, format!("[licences]\nfiles = []\n{text}")).unwrap();
        load(&path).unwrap().settings
    }

    #[test]
    fn each_key_is_told_with_both_values() {
        let old = settings("[server]\nworkers = 2");
        let tell = |text: &str| -> Vec<String> {
            fixed_differences(&old, &settings(text)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(tell("[server]\nworkers = 2\n[enforcement]\nmode = \"observe\""), [""; 0]);
        let redis = "[server]\nworkers = 2\n[store]\nbackend = \"redis\"\nurl = \"redis://";
        assert_eq!(
            tell(&format!("{redis}a/1\"")),
            ["[store] backend stays \"embedded\": it becomes \"redis\" only at a restart"]
        );
        let one = settings(&format!("{redis}a/1\""));
        let other = settings(&format!("{redis}u:secret@b:7/2\"\nlease = \"1m\""));
        let told: Vec<_> = fixed_differences(&one, &other).iter().map(Fixed::to_string).collect();
        assert_eq!(
            told,
            [
                "[store] url stays \"a:6379/1\": it becomes \"b:7/2\" only at a restart",
                "[store] lease stays 20s: it becomes 60s only at a restart",
            ]
        );
        assert_eq!(
            tell("[server]\nworkers = 3\nlisten = [\"[::1]:81\", \"127.0.0.1:82\"]"),
            [
                "[server] listen stays [\"0.0.0.0:8080\"]: it becomes [\"[::1]:81\", \
                 \"127.0.0.1:82\"] only at a restart",
                "[server] workers stays 2: it becomes 3 only at a restart",
            ]
        );
        assert_eq!(
            tell("[server]\nworkers = 2\nstate_directory = \"elsewhere\""),
            ["[server] state_directory stays \"data\": it becomes \"elsewhere\" only at a restart"]
        );
        assert_eq!(
            tell(
                "[server]\nworkers = 2\n[ops]\nlisten = \"127.0.0.1:1\"\n[admin]\nsocket = \"a\"\n\
                 [store]\npath = \"b\"\n[log]\nformat = \"json\""
            ),
            [
                "[ops] listen stays \"127.0.0.1:9180\": it becomes \"127.0.0.1:1\" only at a restart",
                "[admin] socket stays \"admin.sock\": it becomes \"a\" only at a restart",
                "[store] path stays \"seatgate.db\": it becomes \"b\" only at a restart",
                "[log] format stays \"auto\": it becomes \"json\" only at a restart",
            ]
        );
    }
}
