//! The tables of the configuration file that need no other file: server, ops, admin, enforcement,
//! validate, log, notify, usage.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::addresses::{API_PATH, NETWORK, ORIGIN, PATH, SOCKET, WEB_URL};
use super::credentials::{self, Many};
use super::errors::Problem;
use super::files::Env;
use super::reader::Table;
use super::settings::{
    Admin, Enforcement, Language, Log, LogFormat, Notify, Ops, Server, Usage, UserIds, Validate,
};
use super::tls;
use super::values::{DURATION, LOG_FILTER, tell_duration};
use crate::tenant::{Mode, Policy, RefusalPolicy};

const MOST_WORKERS: u64 = 1024;
/// Longer than this the address of a Unix socket does not fit into the system's structure.
const LONGEST_SOCKET_PATH: usize = 107;
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST_COOLDOWN: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) fn server(mut table: Table<'_>, env: &Env) -> Server {
    let listen = listen(&mut table, "listen");
    let workers = table.integer("workers", 0..=MOST_WORKERS).unwrap_or(0);
    let stated = table.read("state_directory", &PATH).unwrap_or_else(|| "data".to_owned());
    let mut server = Server {
        listen: listen.unwrap_or_else(|| vec![SocketAddr::from(([0, 0, 0, 0], 8080))]),
        workers: match usize::try_from(workers) {
            Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, NonZero::get),
            Ok(workers) => workers,
        },
        state_directory: env.state_directory().unwrap_or_else(|| PathBuf::from(stated)),
        operators: networks(&mut table, "operators").unwrap_or_default(),
        trusted_proxies: networks(&mut table, "trusted_proxies").unwrap_or_else(loopback),
        proxy_protocol: networks(&mut table, "proxy_protocol").unwrap_or_default(),
        stop_limit: limit(&mut table, "stop_limit", Duration::from_secs(10)),
        drain_limit: limit(&mut table, "drain_limit", Duration::from_secs(4 * 60 * 60)),
        tls: None,
    };
    let stated = table.has("tls");
    let sub = table.table("tls");
    server.tls = if stated { tls::server(sub) } else { None };
    for address in server.tls.iter().flat_map(|tls| &tls.listen) {
        if let Some(other) = server.listen.iter().find(|other| collide(**other, *address)) {
            let what = format!(
                "[server.tls] listen {address} cannot be listened on beside listen {other}"
            );
            table.fail(Problem::Invalid { what, mend: "choose another port".to_owned() });
        }
    }
    table.finish();
    server
}

fn limit(table: &mut Table<'_>, key: &'static str, default: Duration) -> Duration {
    let within = Duration::ZERO..=LONGEST_DRAIN;
    table.read_within(key, &DURATION, within, tell_duration).unwrap_or(default)
}

pub(super) fn listen(table: &mut Table<'_>, key: &'static str) -> Option<Vec<SocketAddr>> {
    let value = table.value(key)?;
    let items = value.items(SOCKET.list_mend)?;
    if items.is_empty() {
        value.invalid("there is no address to listen on", SOCKET.mend);
        return None;
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for item in items {
        let Some(address) = item.read(&SOCKET) else { continue };
        if let Some(other) = addresses.iter().find(|other| collide(**other, address)) {
            item.invalid(
                format!("{address} cannot be listened on beside {other}"),
                "remove one of the two",
            );
        }
        addresses.push(address);
    }
    Some(addresses)
}

/// Whether the second of two listeners would be refused by the system.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn networks(table: &mut Table<'_>, key: &'static str) -> Option<Vec<IpNet>> {
    let items = table.value(key)?.items(NETWORK.list_mend)?;
    let mut networks = Vec::new();
    for item in items {
        let Some(network) = item.read(&NETWORK) else { continue };
        let whole = network.trunc();
        if whole != network {
            item.warn(format!("{network} is read as {whole}; write that, or a longer mask"));
        }
        networks.push(whole);
    }
    Some(networks)
}

fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok()).collect()
}

pub(super) fn ops(mut table: Table<'_>, server: &Server) -> Ops {
    let value = table.value("listen");
    let stated = value.as_ref().and_then(|value| value.read(&SOCKET));
    let listen = stated.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9180)));
    let plain = server.listen.iter().map(|other| ("[server]", other));
    let over_tls = server.tls.iter().flat_map(|tls| &tls.listen);
    let mut public = plain.chain(over_tls.map(|other| ("[server.tls]", other)));
    if let Some((section, other)) = public.find(|(_, other)| collide(**other, listen)) {
        let what = format!("{listen} cannot be listened on beside {section} listen {other}");
        let mend = "choose another port";
        match value {
            Some(value) => value.invalid(what, mend),
            None => table.fail(Problem::Invalid { what, mend: mend.to_owned() }),
        }
    }
    let show_people = table.boolean("show_people").unwrap_or(false);
    table.finish();
    Ops { listen, show_people }
}

pub(super) fn admin(mut table: Table<'_>, env: &Env, state_directory: &Path) -> Admin {
    let value = table.value("socket");
    let name = value.as_ref().and_then(|value| value.read(&PATH));
    let folder = env.runtime_directory().unwrap_or_else(|| state_directory.to_owned());
    let socket = folder.join(name.unwrap_or_else(|| "admin.sock".to_owned()));
    let length = socket.as_os_str().len();
    if length > LONGEST_SOCKET_PATH {
        let what = format!(
            "{} has {length} bytes, the path of a socket at most {LONGEST_SOCKET_PATH}",
            socket.display()
        );
        let mend = "choose a shorter path, or a shorter state directory";
        match value {
            Some(value) => value.invalid(what, mend),
            None => table.fail(Problem::Invalid { what, mend: mend.to_owned() }),
        }
    }
    table.finish();
    Admin { socket }
}

const REFUSALS: [(&str, RefusalPolicy); 2] =
    [("reject", RefusalPolicy::Reject), ("view", RefusalPolicy::View)];

/// The keys of a policy, in `[enforcement]` or in a tenant; what they do not say is as in `base`.
pub(super) fn policy(table: &mut Table<'_>, base: Policy) -> Policy {
    let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    Policy {
        mode: table.choice("mode", &modes).unwrap_or(base.mode),
        over_limit: table.choice("over_limit", &REFUSALS).unwrap_or(base.over_limit),
        licence_invalid: table.choice("licence_invalid", &REFUSALS).unwrap_or(base.licence_invalid),
    }
}

pub(super) fn enforcement(mut table: Table<'_>) -> Enforcement {
    let built_in = Policy {
        mode: Mode::Enforce,
        over_limit: RefusalPolicy::Reject,
        licence_invalid: RefusalPolicy::Reject,
    };
    let policy = policy(&mut table, built_in);
    let grace = Duration::ZERO..=LONGEST_GRACE;
    let cooldown = Duration::ZERO..=LONGEST_COOLDOWN;
    let enforcement = Enforcement {
        policy,
        reconnect_grace: table
            .read_within("reconnect_grace", &DURATION, grace, tell_duration)
            .unwrap_or(Duration::from_secs(30)),
        warning_percent: table.integer("warning_percent", 1..=100).unwrap_or(90),
        release_cooldown: table
            .read_within("release_cooldown", &DURATION, cooldown, tell_duration)
            .unwrap_or(DAY),
    };
    table.finish();
    enforcement
}

pub(super) fn validate(mut table: Table<'_>) -> Validate {
    let validate = Validate {
        path: table.read("path", &API_PATH).unwrap_or_else(|| "/licences/api/validate".to_owned()),
        language: table
            .choice("language", &[("zh", Language::Zh), ("en", Language::En)])
            .unwrap_or(Language::Zh),
        allowed_origins: table.read_list("allowed_origins", &ORIGIN).unwrap_or_default(),
        failures_per_minute: table.integer("failures_per_minute", 0_u32..=1_000_000).unwrap_or(30),
    };
    table.finish();
    validate
}

pub(super) fn log(mut table: Table<'_>) -> Log {
    let formats =
        [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
    let log = Log {
        level: table.read("level", &LOG_FILTER).unwrap_or_else(|| "info".to_owned()),
        format: table.choice("format", &formats).unwrap_or(LogFormat::Auto),
        access: table.boolean("access").unwrap_or(true),
    };
    table.finish();
    log
}

pub(super) fn notify(mut table: Table<'_>) -> Option<Notify> {
    let url = table.read("url", &WEB_URL);
    let secret = credentials::read(&mut table, "secret", "secret_file", Many::One).one();
    if secret.is_some() && !table.has("url") {
        table.missing("url", WEB_URL.mend);
    }
    table.finish();
    url.map(|url| Notify { url, secret })
}

pub(super) fn usage(mut table: Table<'_>) -> Usage {
    let words = [
        ("plain", UserIds::Plain),
        ("pseudonymous", UserIds::Pseudonymous),
        ("none", UserIds::None),
    ];
    let usage = Usage {
        user_ids: table.choice("user_ids", &words).unwrap_or(UserIds::Pseudonymous),
        retention: table
            .read_within("retention", &DURATION, DAY..=DAY * 3_660, tell_duration)
            .unwrap_or(DAY * 400),
    };
    table.finish();
    usage
}
