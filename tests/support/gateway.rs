//! The gateway as a child process: the built binary, a configuration of its own in a temporary
//! folder, and free ports.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::editor::{Dial, Editor, Open, Opened};
use super::http::{Answer, Call};
use super::metrics::Metrics;
use super::ports::free_port;
use super::setup::{LicenceFile, Setup};
use super::standin::StandIn;
use super::wait::{PATIENCE, eventually};

/// The licence of hosts that no tenant names.
pub const DEFAULT_LICENCE: &str = "licence-of-the-house";

/// The kinds of seat, as the metrics call them.
pub const EDITORS: &str = "editor_connections";
pub const VIEWERS: &str = "viewer_connections";
pub const EDITOR_USERS: &str = "editor_users";
pub const VIEWER_USERS: &str = "viewer_users";

const BINARY: &str = env!("CARGO_BIN_EXE_seatgate");

/// Runs a subcommand to its end.
pub fn seatgate(arguments: &[&str], folder: &Path) -> std::process::Output {
    command(folder).args(arguments).output().expect("the binary runs")
}

fn command(folder: &Path) -> Command {
    clean(Command::new(BINARY), folder)
}

/// A command without what would reach it from the test's own environment.
fn clean(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder).stdin(Stdio::null());
    for name in ["RUST_LOG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// Starts the gateway; what it writes goes to files in `folder`.
fn spawn(folder: &Path, config: &Path, shell: Option<&str>) -> Child {
    let log = |name| {
        let file = File::options().append(true).create(true).open(folder.join(name));
        file.expect("a log file")
    };
    let mut command = match shell {
        None => command(folder),
        Some(commands) => {
            let mut shell = clean(Command::new("sh"), folder);
            shell.arg("-c").arg(format!("{commands}; exec \"$0\" \"$@\"")).arg(BINARY);
            shell
        }
    };
    command.arg("--config").arg(config).arg("run");
    command.stdout(log("stdout")).stderr(log("stderr")).spawn().expect("the binary starts")
}

/// An address that nobody else listens on, nor will.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// The running gateway; killed when dropped.
pub struct Gateway {
    /// The public listener.
    pub addr: SocketAddr,
    /// The operations listener.
    pub ops: SocketAddr,
    child: Child,
    folder: TempDir,
    shell: Option<String>,
}

impl Gateway {
    /// A gateway with the default setup in front of a stand-in.
    pub async fn before(server: &StandIn) -> Self {
        Setup::before(server.addr).start().await
    }

    /// A gateway whose default licence counts connections.
    pub async fn connections(server: &StandIn, editors: i64, viewers: i64) -> Self {
        let licence = |id: &str| LicenceFile::connections(id, editors, viewers);
        Setup::before(server.addr).default_licence(licence).start().await
    }

    /// A gateway whose default licence counts users.
    pub async fn users(server: &StandIn, editors: i64, viewers: i64) -> Self {
        let licence = |id: &str| LicenceFile::users(id, editors, viewers);
        Setup::before(server.addr).default_licence(licence).start().await
    }

    pub(super) async fn start(setup: Setup) -> Self {
        for attempt in 1.. {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let stated = setup.config.get("ops").and_then(|ops| ops.get("listen"));
            let stated = stated.map(|ops| ops.as_str().and_then(|ops| ops.parse().ok()));
            let ops = stated.map_or_else(free_address, |ops| ops.expect("an address"));
            let addr = free_address();
            let config = setup.write(folder.path(), addr, ops);
            let child = spawn(folder.path(), &config, setup.shell.as_deref());
            let shell = setup.shell.clone();
            let mut gateway = Self { addr, ops, child, folder, shell };
            match gateway.wait_until_ready().await {
                Ok(()) => return gateway,
                Err(reason) => {
                    let clash = gateway.log().to_lowercase().contains("in use");
                    assert!(clash && attempt < 5, "the gateway did not start: {reason}");
                }
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    /// A gateway with the configuration that is shipped, but for ports and folders.
    pub async fn shipped() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let (addr, ops) = (free_address(), free_address());
        let text = fs::read_to_string(conf.join("seatgate.toml")).expect("the configuration");
        let text = [
            ("\"0.0.0.0:8080\"", format!("\"{addr}\"")),
            ("\"127.0.0.1:9180\"", format!("\"{ops}\"")),
            ("state_directory = \"data\"", "state_directory = \"state\"".to_owned()),
        ]
        .iter()
        .fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let config = folder.path().join("seatgate.toml");
        fs::write(&config, text).expect("a file is written");
        fs::copy(conf.join("licences.toml"), folder.path().join("licences.toml")).expect("a copy");
        let child = spawn(folder.path(), &config, None);
        let mut gateway = Self { addr, ops, child, folder, shell: None };
        gateway.wait_until_ready().await.expect("the shipped configuration starts");
        gateway
    }

    /// Kills the process as a crash would.
    pub fn crash(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child ends");
    }

    /// Starts it again in the same place, after it ended.
    pub async fn start_again(&mut self) {
        let config = self.folder.path().join("seatgate.toml");
        self.child = spawn(self.folder.path(), &config, self.shell.as_deref());
        self.wait_until_ready().await.expect("the gateway starts again");
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return Err(format!("it ended with {status}"));
            }
            if let Ok(answer) = Call::get("/readyz").try_send(self.ops).await
                && answer.status == 200
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("it never became ready".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that it wrote, standard output first.
    pub fn log(&self) -> String {
        let read = |name| fs::read(self.folder.path().join(name)).unwrap_or_default();
        let text = |name| String::from_utf8_lossy(&read(name)).into_owned();
        text("stdout") + &text("stderr")
    }

    /// Waits until it wrote that: the log is written behind the answers.
    pub async fn await_log(&self, words: &str) {
        eventually(words, async || self.log().contains(words).then_some(())).await;
    }

    /// Its folder: configuration, licences, `state/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).expect("a number") * 1024
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_none()
    }

    /// An editor's way to `document` through this gateway.
    pub fn dial(&self, document: &str) -> Dial {
        Dial::new(self.addr, document)
    }

    /// The whole flow of an open.
    pub async fn open(&self, open: &Open) -> (Editor, Opened) {
        self.dial(open.document()).open(open).await
    }

    pub async fn admit(&self, open: &Open) -> Editor {
        self.dial(open.document()).admit(open).await
    }

    pub async fn refuse(&self, open: &Open) {
        self.dial(open.document()).refuse(open).await;
    }

    pub async fn get(&self, target: &str) -> Answer {
        Call::get(target).send(self.addr).await
    }

    pub async fn metrics_text(&self) -> String {
        let answer = Call::get("/metrics").send(self.ops).await;
        assert_eq!(answer.status, 200, "/metrics");
        answer.text()
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.metrics_text().await)
    }

    /// Seats of one kind that are taken, over all tenants that share the licence once.
    pub async fn seats(&self, tenant: &str, kind: &str) -> f64 {
        let labels = [("tenant", tenant), ("kind", kind)];
        self.metrics().await.sum("seatgate_seats_used", &labels)
    }

    /// How many opens of the default tenant ended like this.
    pub async fn admissions(&self, class: &str, outcome: &str, reason: &str) -> f64 {
        let labels =
            [("tenant", "default"), ("class", class), ("outcome", outcome), ("reason", reason)];
        self.metrics().await.sum("seatgate_admissions_total", &labels)
    }

    /// The process lives, and serves an honest client.
    pub async fn assert_alive(&mut self) {
        assert!(self.is_running(), "the gateway died");
        assert_eq!(self.get("/healthcheck").await.text(), "true");
        self.admit(&Open::viewer("alive", "honest")).await.goodbye().await;
    }

    /// Waits until so many seats are taken.
    pub async fn await_seats(&self, kind: &str, count: f64) {
        let what = format!("{kind} of the default tenant becomes {count}");
        eventually(&what, async || (self.seats("default", kind).await == count).then_some(()))
            .await;
    }

    /// Waits until so many connections of a transport are open; who was refused lingers a moment.
    pub async fn await_connections(&self, transport: &str, count: f64) {
        let what = format!("{count} connections over {transport}");
        let labels = [("transport", transport)];
        eventually(&what, async || {
            (self.metrics().await.get("seatgate_connections", &labels) == Some(count)).then_some(())
        })
        .await;
    }

    /// Asks it to stop and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let child = &mut self.child;
        eventually("the gateway stops", async || child.try_wait().expect("the child can be asked"))
            .await
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        assert!(self.try_signal(name), "the signal can be sent");
    }

    fn try_signal(&self, name: &str) -> bool {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        sent.is_ok_and(|status| status.success())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            // What it logs last is written by a thread of its own: let it end in peace.
            self.try_signal("TERM");
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if panicking {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the gateway's last words ---");
            for line in tail.into_iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
