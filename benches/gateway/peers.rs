//! What is measured: Seatgate, a bare Pingora proxy, nginx, HAProxy, and no proxy at all.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::child::Child;
use crate::ports::free_port;
use crate::requests::{Request, ask_once};
use crate::workload::Workload;
use crate::{Result, prepared, programs, usage};

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
    /// A real one, for what it answers by itself.
    DocumentServer,
}

impl Kind {
    /// Seatgate comes before those that answer what it answers.
    pub(crate) const ALL: [Self; 6] = [
        Self::Direct,
        Self::Bare,
        Self::Seatgate,
        Self::Nginx,
        Self::Haproxy,
        Self::DocumentServer,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare",
            Self::Seatgate => "seatgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::DocumentServer => "document server",
        }
    }

    /// Whether it stands between the clients and the upstream.
    pub(crate) fn is_proxy(self) -> bool {
        !matches!(self, Self::Direct | Self::DocumentServer)
    }

    /// Whether its program is there.
    pub(crate) fn is_installed(self) -> bool {
        match self {
            Self::Nginx | Self::Haproxy => programs::find(self.name()).is_some(),
            _ => true,
        }
    }
}

/// What all peers have in common.
#[derive(Clone, Default)]
pub(crate) struct Setting {
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) document_server: Option<SocketAddr>,
    pub(crate) threads: usize,
    /// Users in Seatgate's store.
    pub(crate) users: u32,
    /// What the other proxies answer by themselves.
    pub(crate) canned: Canned,
}

impl Setting {
    pub(crate) fn upstream(&self) -> Result<SocketAddr> {
        self.upstream.ok_or_else(|| "there is no upstream".into())
    }
}

/// Bodies of Seatgate's own answers.
#[derive(Clone, Default)]
pub(crate) struct Canned {
    pub(crate) validation: Vec<u8>,
    /// By the number of users.
    pub(crate) licenses: Vec<(u32, Vec<u8>)>,
}

impl Canned {
    /// Asks Seatgate for all of them.
    pub(crate) fn of(seatgate: &Peer, users: u32) -> Result<Self> {
        let validation = ask_once(seatgate.address, &Request::validation())?;
        if !validation.starts_with(b"{\"valid\":true") {
            let said = String::from_utf8_lossy(&validation);
            return Err(format!("Seatgate does not validate: {said}").into());
        }
        let mut licenses = Vec::new();
        for users in [0].into_iter().chain(prepared::CROWDS).filter(|it| *it <= users) {
            let body = ask_once(seatgate.address, &Request::license(users))?;
            let listed = memchr::memmem::find_iter(&body, b"\"userid\"").count();
            if listed != users as usize {
                return Err(format!("Seatgate lists {listed} users of {users}").into());
            }
            licenses.push((users, body));
        }
        Ok(Self { validation, licenses })
    }

    /// How long the answer of a workload is; `None` where it is not Seatgate's own.
    pub(crate) fn length(&self, workload: Workload) -> Option<usize> {
        let users = match workload {
            Workload::License0 => 0,
            Workload::License1k => 1_000,
            Workload::License100k => 100_000,
            Workload::Validate => return Some(self.validation.len()),
            _ => return None,
        };
        self.licenses.iter().find(|(of, _)| *of == users).map(|(_, body)| body.len())
    }
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
    pub(crate) fn start(kind: Kind, setting: &Setting) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let folder = directory.path();
        // nginx's workers may be another user.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let listen = free_address();
        let errors = folder.join("errors.log");
        let (address, child) = match kind {
            Kind::Direct => (setting.upstream()?, None),
            Kind::Bare => (listen, Some(programs::bare(listen, setting)?)),
            Kind::Seatgate => (listen, Some(programs::seatgate(listen, setting, folder, &errors)?)),
            Kind::Nginx => (listen, Some(programs::nginx(listen, setting, folder, &errors)?)),
            Kind::Haproxy => (listen, Some(programs::haproxy(listen, setting, folder, &errors)?)),
            Kind::DocumentServer => {
                (setting.document_server.ok_or("no document server was named")?, None)
            }
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
        let request = match self.kind {
            Kind::DocumentServer => Request::license(0),
            _ => Request::bytes(1, &self.address.to_string()),
        };
        loop {
            let failed = match ask_once(self.address, &request) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.child.as_mut().is_some_and(Child::has_ended);
            if ended || started.elapsed() > START {
                let said = fs::read_to_string(errors).unwrap_or_default();
                return Err(format!("{} does not answer: {failed} {said}", self.kind.name()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The folder that a peer has for itself, as its configuration names it.
pub(crate) fn subfolder(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}
