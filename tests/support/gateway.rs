//! The gateway as a child process: the built binary, a configuration of its own in a temporary
//! folder, and free ports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use toml::{Table, Value};

use super::editor::{Dial, Editor, Open, Opened};
use super::http::{Answer, Call};
use super::ports::free_port;
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

/// One `[[licence]]`.
#[derive(Clone, Debug)]
pub struct LicenceFile(Table);

impl LicenceFile {
    fn new(id: &str) -> Self {
        let mut table = Table::new();
        table.insert("id".to_owned(), id.into());
        table.insert("issued_to".to_owned(), "A customer".into());
        Self(table)
    }

    /// A licence of so many open connections.
    pub fn connections(id: &str, editors: i64, viewers: i64) -> Self {
        Self::new(id).with("connections", editors).with("connections_view", viewers)
    }

    /// A licence of so many unique users.
    pub fn users(id: &str, editors: i64, viewers: i64) -> Self {
        Self::new(id).with("users_count", editors).with("users_view_count", viewers)
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Sets a date: `start` or `end`.
    pub fn at(self, key: &str, date: &str) -> Self {
        let date: toml::value::Datetime = date.parse().expect("a date");
        self.with(key, date)
    }
}

/// What a gateway is started with. Ports and folders are added at the start.
#[derive(Clone, Debug)]
pub struct Setup {
    config: Table,
    licences: Vec<LicenceFile>,
    apps: Vec<Table>,
    /// What a shell does before it becomes the gateway.
    shell: Option<String>,
}

impl Setup {
    /// A gateway in front of `upstream`, whose default licence has two editor and two live-viewer
    /// connections, with no grace for lost connections and little for a stop.
    pub fn before(upstream: SocketAddr) -> Self {
        let licence = LicenceFile::connections(DEFAULT_LICENCE, 2, 2);
        Self { config: Table::new(), licences: vec![licence], apps: Vec::new(), shell: None }
            .set("document_server.addresses", vec![upstream.to_string()])
            .set("enforcement.reconnect_grace", "0s")
            .set("server.workers", 2)
            .set("server.stop_limit", "200ms")
            .set("licences.default", DEFAULT_LICENCE)
    }

    /// Sets a key by its dotted path.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.config, path, value.into());
        self
    }

    /// Replaces the default licence.
    pub fn default_licence(mut self, make: impl FnOnce(&str) -> LicenceFile) -> Self {
        self.licences[0] = make(DEFAULT_LICENCE);
        self
    }

    pub fn licence(mut self, licence: LicenceFile) -> Self {
        self.licences.push(licence);
        self
    }

    /// Who may call the validation API.
    pub fn app(mut self, id: &str, api_key: &str) -> Self {
        let mut app = Table::new();
        app.insert("id".to_owned(), id.into());
        app.insert("api_key".to_owned(), api_key.into());
        self.apps.push(app);
        self
    }

    /// Runs commands of a shell in the gateway's process before it starts.
    pub fn shell(mut self, commands: &str) -> Self {
        self.shell = Some(commands.to_owned());
        self
    }

    pub fn tenant(mut self, name: &str, hosts: &[&str], licence: &str) -> Self {
        let mut tenant = Table::new();
        tenant.insert("name".to_owned(), name.into());
        tenant.insert("hosts".to_owned(), hosts.to_vec().into());
        tenant.insert("licence".to_owned(), licence.into());
        let tenants = self.config.entry("tenant").or_insert_with(|| Value::Array(Vec::new()));
        tenants.as_array_mut().expect("tenants are a list").push(Value::Table(tenant));
        self
    }

    /// Sets a key of the tenant that was added last.
    pub fn tenant_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        let tenants = self.config.get_mut("tenant").and_then(Value::as_array_mut);
        let last = tenants.and_then(|tenants| tenants.last_mut()).and_then(Value::as_table_mut);
        last.expect("there is a tenant").insert(key.to_owned(), value.into());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Gateway {
        Gateway::start(self).await
    }

    /// Writes the configuration into `folder` and returns its path.
    pub fn write(&self, folder: &Path, listen: SocketAddr, ops: SocketAddr) -> PathBuf {
        let state = folder.join("state");
        fs::create_dir_all(&state).expect("a folder for the state");
        let mut config = self.config.clone();
        for (path, value) in [
            ("server.listen", Value::from(vec![listen.to_string()])),
            ("server.state_directory", state.display().to_string().into()),
            ("ops.listen", ops.to_string().into()),
            ("licences.files", vec!["licences.toml"].into()),
        ] {
            let (section, key) = path.split_once('.').expect("a dotted path");
            let set_already = config.get(section).is_some_and(|table| table.get(key).is_some());
            if !set_already {
                set(&mut config, path, value);
            }
        }
        let licences = self.licences.iter().map(|licence| Value::Table(licence.0.clone()));
        let mut licence_file = Table::new();
        let apps = self.apps.iter().cloned().map(Value::Table).collect();
        licence_file.insert("app".to_owned(), Value::Array(apps));
        licence_file.insert("licence".to_owned(), Value::Array(licences.collect()));
        let write = |name: &str, table: &Table| {
            let path = folder.join(name);
            fs::write(&path, toml::to_string(table).expect("TOML")).expect("a file is written");
            path
        };
        write("licences.toml", &licence_file);
        write("seatgate.toml", &config)
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            set(inner.as_table_mut().expect("a section"), rest, value);
        }
    }
}

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

    async fn start(setup: Setup) -> Self {
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

/// `/metrics`, parsed.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(lines.map(|line| parse_line(line).unwrap_or_else(|| panic!("{line}"))).collect())
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = f64> + 'a {
        let wanted = move |own: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| own.get(*key).is_some_and(|own| own == value))
        };
        let series = self.0.iter().filter(move |(own, set, _)| own == name && wanted(set));
        series.map(|(_, _, value)| *value)
    }

    /// The sum over all series of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// The one series of this name with these labels, if it is there.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).next()
    }

    /// Every name, once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn parse_line(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), BTreeMap::new(), value));
    };
    let labels = labels.strip_suffix('}')?;
    let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    let owned = |(key, value): (&str, &str)| {
        (key.trim().to_owned(), value.trim_end_matches('"').to_owned())
    };
    Some((name.to_owned(), pairs.map(owned).collect(), value))
}
