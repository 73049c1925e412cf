//! The service manager's side: a real datagram socket hears what the built program tells systemd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use support::gateway::{Gateway, seatgate};
use support::wait::PATIENCE;
use support::{Call, LicenceFile, Open, Setup, StandIn, eventually};

/// What systemd would hear.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: tempfile::TempDir,
}

/// One message: its assignments.
type Told = BTreeMap<String, String>;

impl Manager {
    fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, name: path.display().to_string(), _folder: folder }
    }

    /// In the abstract namespace, as containers have it.
    fn listen_abstractly() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("seatgate{}", folder.path().display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self { socket, name: format!("@{name}"), _folder: folder }
    }

    /// A gateway that is told of this manager.
    fn manages(&self, setup: Setup, more: &str) -> Setup {
        setup.shell(&format!("export NOTIFY_SOCKET='{}'; {more} true", self.name))
    }

    /// The next message, if one comes before `deadline`.
    fn next_before(&self, deadline: Instant) -> Option<Told> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = [0; 65536];
        let length = self.socket.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let pairs = text.lines().map(|line| line.split_once('=').expect(line));
        Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The next message that is more than a status line or a sign of life.
    fn next(&self) -> Told {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.next_before(deadline).expect("the service manager is told something");
            let idle = ["STATUS", "WATCHDOG"];
            if told.keys().any(|name| !idle.contains(&name.as_str())) {
                return told;
            }
        }
    }

    /// Waits for a message that says so.
    fn hear(&self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.next_before(deadline);
            let told = told.unwrap_or_else(|| panic!("the manager never heard {what}"));
            if wanted(&told) {
                return told;
            }
        }
    }
}

fn is(told: &Told, name: &str, value: &str) -> bool {
    told.get(name).is_some_and(|found| found == value)
}

#[tokio::test]
async fn readiness_reload_and_stop_are_told_in_order() {
    let server = StandIn::start().await;
    let manager = Manager::listen();
    let setup = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 3, 2))
        .licence(LicenceFile::users("acme", 5, 0))
        .tenant("acme", &["acme.example"], "acme");
    let mut gateway = manager.manages(setup, "").start().await;
    let ready = manager.next();
    assert!(is(&ready, "READY", "1"), "{ready:?}");
    for part in ["2 tenants", "0 of 3 editor connections", "0 of 5 editor users", "of 1"] {
        assert!(ready["STATUS"].contains(part), "{part}: {ready:?}");
    }
    // Whatever is connected to is open by then.
    assert_eq!(Call::get("/readyz").send(gateway.ops).await.status, 200);

    let _editor = gateway.admit(&Open::editor("d", "one")).await;
    manager.hear("that a seat is taken", |told| {
        told.len() == 1 && told["STATUS"].contains("1 of 3 editor connections")
    });

    gateway.signal("HUP");
    let begins = manager.next();
    assert!(is(&begins, "RELOADING", "1"), "{begins:?}");
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let stamp = begins["MONOTONIC_USEC"].parse::<f64>().unwrap() / 1e6;
    assert!((uptime - stamp).abs() < 60.0, "the monotonic clock: {stamp}, up for {uptime}");
    let ends = manager.next();
    assert!(is(&ends, "READY", "1") && ends["STATUS"].starts_with("Serving"), "{ends:?}");

    let file = gateway.folder().join("seatgate.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\n[sever]\n")).unwrap();
    gateway.signal("HUP");
    assert!(is(&manager.next(), "RELOADING", "1"));
    let refused = manager.next();
    assert!(is(&refused, "READY", "1"), "a refused reload is over, too: {refused:?}");
    assert!(refused["STATUS"].contains("refused"), "{refused:?}");
    fs::write(&file, good).unwrap();

    gateway.signal("TERM");
    let stopping = manager.next();
    assert!(is(&stopping, "STOPPING", "1"), "{stopping:?}");
    let going_on = manager.next();
    let extension: u64 = going_on["EXTEND_TIMEOUT_USEC"].parse().unwrap();
    assert!((2_000_000..=60_000_000).contains(&extension), "{going_on:?}");
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn an_abstract_socket_is_reached() {
    let server = StandIn::start().await;
    let manager = Manager::listen_abstractly();
    let _gateway = manager.manages(Setup::before(server.addr), "").start().await;
    assert!(is(&manager.next(), "READY", "1"));
}

#[tokio::test]
async fn without_a_manager_and_with_a_dead_one_it_runs_as_well() {
    let server = StandIn::start().await;
    for name in ["/nowhere/notify", "vsock:2:99", ""] {
        let shell = format!("export NOTIFY_SOCKET='{name}' WATCHDOG_USEC=2000000");
        let mut gateway = Setup::before(server.addr).shell(&shell).start().await;
        gateway.admit(&Open::editor("d", "one")).await.goodbye().await;
        assert!(gateway.stop().await.success(), "{name}");
    }
}

#[tokio::test]
async fn the_watchdog_is_fed_while_it_is_meant_for_this_process() {
    let server = StandIn::start().await;
    let manager = Manager::listen();
    let setup = manager.manages(Setup::before(server.addr), "export WATCHDOG_USEC=2000000;");
    let _gateway = setup.start().await;
    manager.hear("a sign of life", |told| is(told, "WATCHDOG", "1"));
    let from = Instant::now();
    for _ in 0..3 {
        manager.hear("another", |told| is(told, "WATCHDOG", "1"));
    }
    let each = from.elapsed() / 3;
    assert!(each < Duration::from_secs(2), "at half of its time, not at {each:?}");

    let manager = Manager::listen();
    let other = "export WATCHDOG_USEC=200000 WATCHDOG_PID=1;";
    let _gateway = manager.manages(Setup::before(server.addr), other).start().await;
    assert!(is(&manager.next(), "READY", "1"));
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Some(told) = manager.next_before(deadline) {
        assert!(!told.contains_key("WATCHDOG"), "it is another process's: {told:?}");
    }
}

#[tokio::test]
async fn the_watchdog_starves_when_the_stores_thread_hangs() {
    let server = StandIn::start().await;
    let manager = Manager::listen();
    let setup = manager.manages(Setup::before(server.addr), "export WATCHDOG_USEC=4000000;");
    let gateway = setup.start().await;
    manager.hear("a sign of life", |told| is(told, "WATCHDOG", "1"));
    // Another process keeps the database locked: SQLite's own wait for it is longer than the
    // watchdog's.
    let database = gateway.folder().join("state").join("seatgate.db");
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    gateway.await_log("the watchdog is not fed").await;
    gateway.await_log("the store").await;
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    while manager.next_before(Instant::now() + Duration::from_millis(1)).is_some() {}
    manager.hear("that it is alive again", |told| is(told, "WATCHDOG", "1"));
}

#[tokio::test]
async fn the_reload_command_waits_and_says_what_came_of_it() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let config = gateway.folder().join("seatgate.toml");
    let good = fs::read_to_string(&config).unwrap();
    let run = || {
        let output = seatgate(&["reload", "--config", config.to_str().unwrap()], gateway.folder());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let in_force = async || {
        gateway.metrics().await.get("seatgate_config_last_reload_successful", &[]) == Some(1.0)
    };
    assert_eq!(run(), (Some(0), "the configuration is reloaded\n".to_owned(), String::new()));

    // What needs a restart is said, and the rest is in force.
    let port = gateway.ops.port();
    let changed = good
        .replace(&format!("127.0.0.1:{port}"), "127.0.0.1:1")
        .replace("workers = 2", "workers = 3")
        .replace("[enforcement]", "[enforcement]\nmode = \"observe\"");
    assert_ne!(changed, good);
    fs::write(&config, &changed).unwrap();
    let (code, _, said) = run();
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "warning: [server] workers stays 2: it becomes 3 only at a restart".to_owned(),
        format!(
            "warning: [ops] listen stays \"127.0.0.1:{port}\": it becomes \"127.0.0.1:1\" only at \
             a restart"
        ),
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    let mut editors = Vec::new();
    for user in ["one", "two", "three"] {
        editors.push(gateway.admit(&Open::editor("d", user)).await);
    }
    assert!(in_force().await);

    // A bad one is told whole, by the gateway itself, and nothing of it is in force.
    fs::write(&config, format!("{good}\n[sever]\nx = 1\n[store]\nbackend = \"paper\"\n")).unwrap();
    let (code, _, said) = run();
    assert_eq!(code, Some(2), "{said}");
    for part in ["the old one stays", "seatgate.toml:", "sever", "paper"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!in_force().await);
    drop(gateway.admit(&Open::editor("d", "four")).await);
}

#[tokio::test]
async fn the_log_level_follows_a_reload() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr).set("log.level", "warn").start().await;
    gateway.get("/before").await;
    let config = gateway.folder().join("seatgate.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("level = \"warn\"", "level = \"info\"")).unwrap();
    gateway.signal("HUP");
    eventually("a line of the access log", async || {
        gateway.get("/after").await;
        gateway.log().contains("/after").then_some(())
    })
    .await;
    assert!(!gateway.log().contains("/before"));
}
