//! What is measured: Seatgate, a bare Pingora proxy, nginx, HAProxy, and no proxy at all.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::child::Child;
use crate::machine::file_limit;
use crate::{Result, usage};

/// How long a proxy may take to answer its first request.
const START: Duration = Duration::from_secs(20);

/// A kind of peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// The clients talk to the upstream itself: what the generator can do.
    Direct,
    Bare,
    Seatgate,
    Nginx,
    Haproxy,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::Bare, Self::Seatgate, Self::Nginx, Self::Haproxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare",
            Self::Seatgate => "seatgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether its program is there.
    pub(crate) fn is_installed(self) -> bool {
        match self {
            Self::Direct | Self::Bare | Self::Seatgate => true,
            Self::Nginx | Self::Haproxy => find_program(self.name()).is_some(),
        }
    }
}

/// What all peers have in common.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) upstream: SocketAddr,
    pub(crate) threads: usize,
}

/// A peer that runs until this is dropped.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    /// Configuration and temporary files; removed after the process ended.
    _directory: TempDir,
}

impl Peer {
    /// Starts a peer and waits until it forwards.
    pub(crate) fn start(kind: Kind, setting: Setting) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let folder = directory.path();
        // nginx's workers may be another user.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let listen = free_address()?;
        let errors = folder.join("errors.log");
        let (address, child) = match kind {
            Kind::Direct => (setting.upstream, None),
            Kind::Bare => (listen, Some(bare(listen, setting)?)),
            Kind::Seatgate => (listen, Some(seatgate(listen, setting, folder, &errors)?)),
            Kind::Nginx => (listen, Some(nginx(listen, setting, folder, &errors)?)),
            Kind::Haproxy => (listen, Some(haproxy(listen, setting, folder, &errors)?)),
        };
        let mut peer = Self { kind, address, child, _directory: directory };
        peer.await_answer(&errors)?;
        Ok(peer)
    }

    /// CPU time so far; `None` where there is no proxy.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.child.as_ref().map(|child| usage::cpu_time(child.pid()))
    }

    /// Resident memory; 0 where there is no proxy.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.child.as_ref().map_or(0, |child| usage::resident_bytes(child.pid()))
    }

    fn await_answer(&mut self, errors: &Path) -> Result<()> {
        let started = Instant::now();
        loop {
            if ask(self.address).is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().is_some_and(Child::has_ended);
            if ended || started.elapsed() > START {
                let said = fs::read_to_string(errors).unwrap_or_default();
                return Err(format!("{} does not forward: {said}", self.kind.name()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One request; an error unless the answer is 200.
fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /bytes/1 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 13];
    stream.read_exact(&mut status)?;
    if status == *b"HTTP/1.1 200 " { Ok(()) } else { Err("another status".into()) }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Where a program is, the administrator's folders included.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn bare(listen: SocketAddr, setting: Setting) -> Result<Child> {
    let arguments = [listen.to_string(), setting.upstream.to_string(), setting.threads.to_string()];
    Child::start_role("bare", &arguments.each_ref().map(String::as_str))
}

fn seatgate(listen: SocketAddr, setting: Setting, folder: &Path, errors: &Path) -> Result<Child> {
    let Setting { upstream, threads } = setting;
    let ops = free_address()?;
    let config = folder.join("seatgate.toml");
    fs::write(
        &config,
        format!(
            r#"
[server]
listen = ["{listen}"]
workers = {threads}
state_directory = "{}"
[ops]
listen = "{ops}"
[document_server]
addresses = ["{upstream}"]
[log]
level = "error"
access = false
[licences]
files = ["licences.toml"]
default = "bench"
"#,
            folder.display()
        ),
    )?;
    fs::write(
        folder.join("licences.toml"),
        r#"
[[licence]]
id = "bench"
issued_to = "bench"
connections = 1000000
connections_view = 1000000
"#,
    )?;
    let arguments = [OsStr::new("run"), OsStr::new("--config"), config.as_os_str()];
    Child::start_program(env!("CARGO_BIN_EXE_seatgate"), &arguments, folder, errors, false)
}

/// As it is, but for what the workloads need: WebSockets, pooled upstream connections, enough of
/// them.
fn nginx(listen: SocketAddr, setting: Setting, folder: &Path, errors: &Path) -> Result<Child> {
    let Setting { upstream, threads } = setting;
    let directory = folder.display();
    let connections = file_limit().saturating_sub(100).min(65_536);
    let mut paths = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(paths, "{kind}_temp_path {directory}/{kind};")?;
    }
    let config = folder.join("nginx.conf");
    fs::write(
        &config,
        format!(
            r#"
daemon off;
worker_processes {threads};
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  {paths}
  keepalive_requests 1000000000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream document_server {{
    server {upstream};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://document_server;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout 600s;
      proxy_send_timeout 600s;
    }}
  }}
}}
"#
        ),
    )?;
    let program = find_program("nginx").ok_or("nginx is not installed")?;
    let arguments = ["-p", "-c", "-e"].map(OsStr::new);
    let [prefix, file, log] = arguments;
    let arguments =
        [prefix, folder.as_os_str(), file, config.as_os_str(), log, OsStr::new("stderr")];
    Child::start_program(program, &arguments, folder, errors, true)
}

fn haproxy(listen: SocketAddr, setting: Setting, folder: &Path, errors: &Path) -> Result<Child> {
    let Setting { upstream, threads } = setting;
    // Each connection has two ends.
    let connections = (file_limit().saturating_sub(200) / 2).min(65_536);
    let config = folder.join("haproxy.cfg");
    fs::write(
        &config,
        format!(
            r#"
global
  nbthread {threads}
  maxconn {connections}
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 3600s
frontend public
  bind {listen} backlog 4096
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Forwarded-Proto http
  option forwardfor
  default_backend document_server
backend document_server
  server one {upstream}
"#
        ),
    )?;
    let program = find_program("haproxy").ok_or("haproxy is not installed")?;
    let arguments = [OsStr::new("-db"), OsStr::new("-f"), config.as_os_str()];
    Child::start_program(program, &arguments, folder, errors, false)
}
