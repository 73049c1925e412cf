//! `[store]`: where durable facts are, and for several gateways their shared seats.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::addresses::PATH;
use super::credentials::{self, Many};
use super::engine_url::ENGINE_URL;
use super::errors::Problem;
use super::files::{SECRET_LIMIT, read_text};
use super::reader::Table;
use super::secret::Secret;
use super::settings::{
    Engine, EngineAddress, EngineIdentity, EngineTls, OnFailure, Redis, Store, StoreBackend,
    Topology,
};
use super::values::{DURATION, tell_duration};

const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const LONGEST_LEASE: Duration = Duration::from_secs(60 * 60);

/// The keys that mean something for Redis only.
const OF_REDIS: [&str; 12] = [
    "url",
    "password",
    "password_file",
    "sentinel_user",
    "sentinel_password",
    "sentinel_password_file",
    "ca_file",
    "certificate",
    "private_key",
    "key_file",
    "on_failure",
    "lease",
];

pub(super) fn store(mut table: Table<'_>, state_directory: &Path) -> Store {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Backend {
        Embedded,
        Redis,
    }
    let backends = [("embedded", Backend::Embedded), ("redis", Backend::Redis)];
    let backend = table.choice("backend", &backends).unwrap_or(Backend::Embedded);
    let path = table.read("path", &PATH).unwrap_or_else(|| "seatgate.db".to_owned());
    let redis = redis(&mut table);
    let backend = match backend {
        Backend::Embedded => {
            for key in OF_REDIS {
                if let Some(value) = table.value(key) {
                    value.warn("the embedded store does not use it; remove it");
                }
            }
            StoreBackend::Embedded { path: state_directory.join(path) }
        }
        Backend::Redis => {
            if let Some(value) = table.value("path") {
                value.warn("the Redis store does not use it; remove it");
            }
            if !table.has("url") {
                table.missing("url", ENGINE_URL.mend);
            }
            StoreBackend::Redis(Box::new(redis))
        }
    };
    table.finish();
    Store { backend }
}

/// Both stores that `[store]` names, whichever of them is in use.
pub(super) fn both(mut table: Table<'_>, state_directory: &Path) -> (PathBuf, Redis) {
    table.value("backend");
    let path = table.read("path", &PATH).unwrap_or_else(|| "seatgate.db".to_owned());
    let redis = redis(&mut table);
    if !table.has("url") {
        table.missing("url", ENGINE_URL.mend);
    }
    (state_directory.join(path), redis)
}

/// Reads the keys of Redis, whether or not the backend uses them: what is wrong is told.
fn redis(table: &mut Table<'_>) -> Redis {
    let address = table.read("url", &ENGINE_URL);
    let mut address = address.unwrap_or_else(|| EngineAddress {
        topology: Topology::Single,
        hosts: Vec::new(),
        tls: false,
        user: None,
        password: None,
        database: 0,
    });
    let said = credentials::read(table, "password", "password_file", Many::One).one();
    match (said, &address.password) {
        (None, _) => {}
        (Some(said), None) => address.password = Some(said),
        (Some(_), Some(_)) => {
            let file = table.value("password").or_else(|| table.value("password_file"));
            if let Some(value) = file {
                value.invalid(
                    "the password is stated twice, in the url too",
                    "remove it from the url",
                );
            }
        }
    }
    let sentinel_user = table.read("sentinel_user", &super::values::IDENTIFIER);
    let sentinel_password =
        credentials::read(table, "sentinel_password", "sentinel_password_file", Many::One).one();
    if !matches!(address.topology, Topology::Sentinel { .. }) && table.has("url") {
        for key in ["sentinel_user", "sentinel_password", "sentinel_password_file"] {
            if let Some(value) = table.value(key) {
                value.warn("the url names no sentinels; remove it");
            }
        }
    }
    let tls = tls(table, &address);
    let folder = table.folder();
    let key_file = table.read("key_file", &PATH).map(|path| folder.join(path));
    let on_failure =
        table.choice("on_failure", &[("deny", OnFailure::Deny), ("allow", OnFailure::Allow)]);
    let leases = SHORTEST_LEASE..=LONGEST_LEASE;
    let lease = table.read_within("lease", &DURATION, leases, tell_duration);
    Redis {
        engine: Engine { address, sentinel_user, sentinel_password, tls },
        key_file,
        on_failure: on_failure.unwrap_or(OnFailure::Deny),
        lease: lease.unwrap_or(Duration::from_secs(20)),
    }
}

fn tls(table: &mut Table<'_>, address: &EngineAddress) -> EngineTls {
    let authority = pem(table, "ca_file", "CERTIFICATE");
    let certificate = pem(table, "certificate", "CERTIFICATE");
    let private_key = pem(table, "private_key", "PRIVATE KEY");
    for (key, other) in [("certificate", "private_key"), ("private_key", "certificate")] {
        if table.has(key) && !table.has(other) {
            table.missing(other, "write the path of a PEM file");
        }
    }
    if !address.tls && table.has("url") {
        for key in ["ca_file", "certificate", "private_key"] {
            if let Some(value) = table.value(key) {
                value.warn("the url is not rediss://, so there is no TLS; remove it");
            }
        }
    }
    let identity = certificate
        .zip(private_key)
        .map(|(certificate, key)| EngineIdentity { certificate, private_key: Secret::new(key) });
    EngineTls { authority, identity }
}

/// Reads a PEM file that a key names.
fn pem(table: &mut Table<'_>, key: &'static str, label: &str) -> Option<String> {
    let folder = table.folder();
    let value = table.value(key)?;
    let path: PathBuf = folder.join(value.read(&PATH)?);
    let mend = "create it, readable for the user that the gateway runs as";
    match read_text(&path, SECRET_LIMIT, mend) {
        // "RSA PRIVATE KEY" and "EC PRIVATE KEY" end alike.
        Ok(text) if text.contains(&format!("{label}-----")) => Some(text),
        Ok(_) => {
            value.fail(Problem::Unreadable {
                path,
                reason: format!("it has no PEM block of a {}", label.to_lowercase()),
                mend: "name the right file",
            });
            None
        }
        Err(problem) => {
            value.fail(problem);
            None
        }
    }
}
