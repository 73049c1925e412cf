//! A real Redis server for tests: on a free port, in a folder of its own, ended when it is dropped.
//!
//! `./setup --tests` installs it. That it is missing is a failure: what could not be tried is not
//! known to work.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[allow(clippy::duplicate_mod, reason = "an engine is run without the other support, too")]
#[path = "ports.rs"]
mod ports;

pub use ports::free_port;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server. What it acknowledged is on disk.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    pub port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments, as on its command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self {
            folder: folder(),
            port: 0,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            child: None,
        };
        // Another process can take a port that was free a moment ago.
        for _ in 0..20 {
            server.port = free_port();
            if server.try_run() {
                return server;
            }
        }
        panic!("redis-server does not start: {}", server.log());
    }

    /// Starts it again on its port and with its data, after [`Self::kill`].
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.try_run(), "redis-server does not start again: {}", self.log());
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in the middle of whatever it does.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// What the server says to a command, as it came over the wire.
    pub fn ask(&self, command: &[&str]) -> String {
        ask(self.port, command).expect("the server answers")
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.id().try_into().expect("a process id")).expect("a process id");
        kill_process(id, signal).expect("the server is there");
    }

    /// `false` if it ended at once.
    fn try_run(&mut self) -> bool {
        let log = self.folder.path().join("redis.log");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", &self.folder.path().display().to_string()])
            .args(["--logfile", &log.display().to_string()])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command
            .spawn()
            .expect("redis-server is not installed: run ./setup --tests, which installs it");
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            if child.try_wait().expect("a child").is_some() {
                return false;
            }
            // A password is as good an answer.
            if ask(self.port, &["PING"]).is_some_and(|said| !said.starts_with("-LOADING")) {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
        self.kill();
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In memory where there is such a place: what a process wrote outlasts its end there too, and how
/// long a busy disk takes is not what is tried.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A sentinel that watches one master, and decides by itself that it is down.
#[derive(Debug)]
pub struct Sentinel {
    _folder: TempDir,
    pub port: u16,
    child: Child,
}

impl Sentinel {
    /// Watches the server on `master` under the name `mymaster`.
    pub fn start(master: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sentinel.conf");
        for _ in 0..20 {
            let port = free_port();
            let told = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nlogfile sentinel.log\n\
                 sentinel monitor mymaster 127.0.0.1 {master} 1\n\
                 sentinel down-after-milliseconds mymaster 1000\n\
                 sentinel failover-timeout mymaster 5000\n",
                folder.path().display()
            );
            std::fs::write(&file, told).expect("a file is written");
            let mut child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server is installed");
            let limit = Instant::now() + PATIENCE;
            while Instant::now() < limit && child.try_wait().expect("a child").is_none() {
                if ask(port, &["PING"]).is_some() {
                    return Self { _folder: folder, port, child };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the sentinel does not start");
    }

    /// What it says to a command.
    pub fn ask(&self, command: &[&str]) -> String {
        ask(self.port, command).expect("the sentinel answers")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first piece of the answer to a command.
pub fn ask(port: u16, command: &[&str]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = format!("*{}\r\n", command.len());
    for part in command {
        text.push_str(&format!("${}\r\n{part}\r\n", part.len()));
    }
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = vec![0; 64 * 1024];
    let read = stream.read(&mut answer).ok()?;
    answer.truncate(read);
    (read > 0).then(|| String::from_utf8_lossy(&answer).into_owned())
}
