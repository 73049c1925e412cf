//! What an engine says of itself, held against what a store that must not lose anything needs.
//!
//! Nothing is changed in the engine. Who may not ask hears that.

use redis::{Cmd, Value, from_redis_value};

use super::{Engine, EngineError};
use crate::config::Topology;

/// The oldest release that has all commands which are used.
const LEAST_VERSION: (u32, u32) = (7, 0);

/// Of the memory that it may have: hundredths from which on it is told, and is an error.
const MEMORY_SHORT: u64 = 80;
const MEMORY_OVER: u64 = 95;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    Well,
    Risk,
    /// It does not work so, or loses what was acknowledged.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub weight: Weight,
    pub message: String,
    /// What to do; empty where all is well.
    pub mend: &'static str,
}

impl Observation {
    fn well(message: impl Into<String>) -> Self {
        Self { weight: Weight::Well, message: message.into(), mend: "" }
    }

    fn risk(message: impl Into<String>, mend: &'static str) -> Self {
        Self { weight: Weight::Risk, message: message.into(), mend }
    }

    fn wrong(message: impl Into<String>, mend: &'static str) -> Self {
        Self { weight: Weight::Wrong, message: message.into(), mend }
    }
}

/// What one server answered.
#[derive(Debug)]
struct Server {
    /// Empty where there is one only.
    name: String,
    information: String,
    /// `CONFIG GET`; nothing where that may not be asked.
    settings: Vec<(String, String)>,
}

impl Server {
    fn field(&self, name: &str) -> Option<&str> {
        self.information.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn told(&self) -> String {
        if self.name.is_empty() { "Redis".to_owned() } else { format!("Redis at {}", self.name) }
    }
}

impl Engine {
    /// Looks at every server that takes writes: version, persistence, memory, replicas; and whether
    /// it is what `topology` takes it for.
    ///
    /// # Errors
    /// The engine's, such as that it may not be asked.
    pub async fn survey(&self, topology: &Topology) -> Result<Vec<Observation>, EngineError> {
        let information = self.of_each(redis::cmd("INFO")).await?;
        let mut asked = redis::cmd("CONFIG");
        asked.arg("GET");
        for name in ["appendfsync", "save", "min-replicas-to-write"] {
            asked.arg(name);
        }
        // Managed servers do not tell.
        let settings = self.of_each(asked).await.unwrap_or_default();
        let mut found = Vec::new();
        for (name, information) in information {
            let known = settings.iter().find(|(of, _)| *of == name);
            let settings = known.and_then(|(_, value)| from_redis_value(value.clone()).ok());
            let information = from_redis_value(information).map_err(redis::RedisError::from)?;
            let server = Server { name, information, settings: settings.unwrap_or_default() };
            judge(&server, topology, &mut found);
        }
        Ok(found)
    }

    /// What its clock shows: microseconds of Unix time.
    ///
    /// # Errors
    /// The engine's.
    pub async fn micros(&self) -> Result<i64, EngineError> {
        let (seconds, micros): (i64, i64) = self.run(&redis::cmd("TIME")).await?;
        Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
    }

    /// The answer of each server that takes writes, by its name where there are several.
    async fn of_each(&self, command: Cmd) -> Result<Vec<(String, Value)>, EngineError> {
        let (number, link) = self.link().await?;
        let answered = link.send_to_each(&command).await;
        Ok(self.judge(number, answered)??)
    }
}

fn judge(server: &Server, topology: &Topology, found: &mut Vec<Observation>) {
    let before = found.len();
    kind(server, topology, found);
    persistence(server, found);
    memory(server, found);
    replicas(server, topology, found);
    if found.len() == before {
        found.push(Observation::well(format!("{} says nothing of itself", server.told())));
    }
}

/// What it is, and of which version.
fn kind(server: &Server, topology: &Topology, found: &mut Vec<Observation>) {
    let told = server.told();
    if let Some(version) = server.field("redis_version").map(str::trim) {
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let version_of = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        // A Valkey says which Redis it is like, and beside that its own.
        let shown = match server.field("valkey_version") {
            Some(own) => format!("Valkey {}", own.trim()),
            None => format!("version {version}"),
        };
        found.push(match version_of >= LEAST_VERSION {
            true => Observation::well(format!("{told} is {shown}")),
            false => Observation::wrong(
                format!("{told} is {shown}, which lacks commands that are used"),
                "upgrade it: Redis 7.0 or Valkey 7.2 is the least",
            ),
        });
    }
    // So Redis, so Valkey.
    let mode = server.field("redis_mode").or_else(|| server.field("server_mode")).map(str::trim);
    match (mode, topology) {
        (Some("cluster"), Topology::Single | Topology::Sentinel { .. }) => {
            found.push(Observation::wrong(
                format!("{told} is part of a cluster, and [store] url names one server"),
                "write redis+cluster:// in front of its address",
            ));
        }
        (Some("sentinel"), _) => found.push(Observation::wrong(
            format!("{told} is a sentinel, and not a server"),
            "write redis+sentinel://HOST:PORT/SERVICE/0",
        )),
        _ => {}
    }
    if server.field("role").map(str::trim) == Some("slave") {
        found.push(Observation::wrong(
            format!("{told} is a replica, and takes no writes"),
            "name the master, or the sentinels: redis+sentinel://",
        ));
    }
}

/// Whether what it acknowledged outlasts it.
fn persistence(server: &Server, found: &mut Vec<Observation>) {
    let told = server.told();
    match server.field("aof_enabled").map(str::trim) {
        Some("0") => {
            let snapshots = server.setting("save").is_some_and(|save| !save.trim().is_empty());
            let what = if snapshots {
                "what came since its last snapshot is lost if it stops"
            } else {
                "what it acknowledged is lost if it stops"
            };
            let message = format!("{told} writes no append-only file: {what}");
            let mend = "set appendonly yes";
            found.push(match snapshots {
                true => Observation::risk(message, mend),
                false => Observation::wrong(message, mend),
            });
        }
        Some("1") => found.push(match server.setting("appendfsync") {
            Some("no") => Observation::risk(
                format!("{told} leaves it to the system when its file is on disk"),
                "set appendfsync always, or everysec if the last second may be lost in a power cut",
            ),
            Some("always") => Observation::well(format!("{told} has on disk what it acknowledged")),
            Some(_) => Observation::well(format!(
                "{told} writes an append-only file, and may lose the last second in a power cut"
            )),
            None => Observation::well(format!("{told} writes an append-only file")),
        }),
        _ => {}
    }
    for (field, what) in [
        ("aof_last_write_status", "could not write its append-only file"),
        ("rdb_last_bgsave_status", "could not write its last snapshot"),
    ] {
        if server.field(field).map(str::trim) == Some("err") {
            found.push(Observation::wrong(
                format!("{told} {what}, and may refuse writes"),
                "see its log; is its disk full?",
            ));
        }
    }
}

/// Whether it has room, and what it does when it has none.
fn memory(server: &Server, found: &mut Vec<Observation>) {
    let told = server.told();
    match server.field("maxmemory_policy").map(str::trim) {
        Some("noeviction") | None => {}
        Some(policy) => {
            let message =
                format!("{told} throws away keys when memory is short (maxmemory-policy {policy})");
            let mend = "set maxmemory-policy noeviction";
            // No key of ours ever expires: those are spared by the others.
            found.push(match policy.starts_with("allkeys") {
                true => Observation::wrong(format!("{message}, licences too"), mend),
                false => Observation::risk(message, mend),
            });
        }
    }
    let (used, limit) = (server.number("used_memory"), server.number("maxmemory"));
    let (of, whose) = match limit {
        0 => (server.number("total_system_memory"), "the host has"),
        limit => (limit, "it may use"),
    };
    if used == 0 || of == 0 {
        return;
    }
    let message = format!("{told} uses {} of the {} MiB that {whose}", used >> 20, of >> 20);
    let mend = "raise maxmemory, or give it more: when it is full, nothing can be stored";
    let share = used.saturating_mul(100) / of;
    found.push(match share {
        MEMORY_OVER.. => Observation::wrong(message, mend),
        MEMORY_SHORT.. => Observation::risk(message, mend),
        _ => Observation::well(message),
    });
}

/// Whether another has a copy.
fn replicas(server: &Server, topology: &Topology, found: &mut Vec<Observation>) {
    let told = server.told();
    let count = server.number("connected_slaves");
    if count == 0 {
        if *topology != Topology::Single {
            found.push(Observation::risk(
                format!("{told} has no replica: nobody takes over from it"),
                "give it one",
            ));
        }
        return;
    }
    found.push(match server.setting("min-replicas-to-write") {
        Some("0") => Observation::risk(
            format!(
                "{told} has {count} replica(s), and takes writes when it is cut off from all of \
                 them; those are lost when another takes over"
            ),
            "set min-replicas-to-write 1",
        ),
        _ => Observation::well(format!("{told} has {count} replica(s)")),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\n\
        aof_enabled:1\r\nmaxmemory_policy:noeviction\r\nused_memory:1048576\r\nmaxmemory:0\r\n\
        total_system_memory:104857600\r\nconnected_slaves:0\r\n";

    fn seen(
        changes: &[(&str, &str)],
        settings: &[(&str, &str)],
        topology: &Topology,
    ) -> Vec<Observation> {
        let mut information = WELL.to_owned();
        for (name, value) in changes {
            let line = WELL.lines().find(|line| line.starts_with(&format!("{name}:")));
            match line {
                Some(line) => information = information.replace(line, &format!("{name}:{value}")),
                None => information.push_str(&format!("{name}:{value}\r\n")),
            }
        }
        for (_, name) in settings.iter().filter(|(what, _)| *what == "without") {
            let lines = information.split("\r\n").filter(|line| !line.starts_with(name));
            information = lines.collect::<Vec<_>>().join("\r\n");
        }
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let server = Server { name: String::new(), information, settings: settings.collect() };
        let mut found = Vec::new();
        judge(&server, topology, &mut found);
        found.retain(|seen| seen.weight > Weight::Well);
        found
    }

    #[test]
    fn nothing_is_wrong_with_a_good_server() {
        assert_eq!(seen(&[], &[("appendfsync", "everysec")], &Topology::Single), []);
        let changes = [("redis_version", "7.2.4"), ("valkey_version", "8.1.0")];
        assert_eq!(seen(&changes, &[], &Topology::Single), []);
        let replicated = [("connected_slaves", "1")];
        let sentinel = Topology::Sentinel { service: "m".into() };
        assert_eq!(seen(&replicated, &[("min-replicas-to-write", "1")], &sentinel), []);
    }

    #[test]
    fn each_fault_is_found_alone() {
        let (single, cluster) = (Topology::Single, Topology::Cluster);
        let sentinel = Topology::Sentinel { service: "m".into() };
        for (changes, settings, topology, weight, told) in [
            (("redis_version", "6.2.7"), ("", ""), &single, Weight::Wrong, "lacks commands"),
            (("redis_mode", "cluster"), ("", ""), &single, Weight::Wrong, "part of a cluster"),
            (
                ("server_mode", "cluster"),
                ("without", "redis_mode"),
                &single,
                Weight::Wrong,
                "a cluster",
            ),
            (("redis_mode", "sentinel"), ("", ""), &single, Weight::Wrong, "a sentinel"),
            (("role", "slave"), ("", ""), &single, Weight::Wrong, "a replica"),
            (("aof_enabled", "0"), ("save", ""), &single, Weight::Wrong, "append-only"),
            (("aof_enabled", "0"), ("save", "3600 1"), &single, Weight::Risk, "snapshot"),
            (("aof_enabled", "1"), ("appendfsync", "no"), &single, Weight::Risk, "on disk"),
            (("aof_last_write_status", "err"), ("", ""), &single, Weight::Wrong, "append-only"),
            (("rdb_last_bgsave_status", "err"), ("", ""), &single, Weight::Wrong, "snapshot"),
            (("maxmemory_policy", "allkeys-lru"), ("", ""), &single, Weight::Wrong, "licences"),
            (("maxmemory_policy", "volatile-lru"), ("", ""), &single, Weight::Risk, "throws"),
            (("used_memory", "99614720"), ("", ""), &single, Weight::Wrong, "of the 100 MiB"),
            (("maxmemory", "1258291"), ("", ""), &single, Weight::Risk, "it may use"),
            (("connected_slaves", "0"), ("", ""), &sentinel, Weight::Risk, "no replica"),
            (("connected_slaves", "0"), ("", ""), &cluster, Weight::Risk, "no replica"),
            (
                ("connected_slaves", "1"),
                ("min-replicas-to-write", "0"),
                &single,
                Weight::Risk,
                "cut off",
            ),
        ] {
            let found = seen(&[changes], &[settings], topology);
            let [one] = &found[..] else { panic!("{changes:?}: {found:?}") };
            assert_eq!(one.weight, weight, "{changes:?}");
            assert!(one.message.contains(told) && !one.mend.is_empty(), "{one:?}");
        }
    }
}
