//! The process that runs: it starts its successor and hands everything over.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::succession::{Outgoing, Succession};
use super::{Elder, HandoverError, Heir, PROTOCOL, Passed, VARIABLE, wire};
use crate::clock;
use crate::gateway::site::Shared;
use crate::listen::Access;

/// How long the new process may take to read its configuration.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take from the seats to serving. Opens wait for so long.
const SERVE_LIMIT: Duration = Duration::from_secs(60);

/// How long what is being written may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(15);

/// Seats in one message.
const PIECE: usize = 4_096;

/// How this program was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// As this process was started, under the name by which it was called: a new version that
    /// was put in its place is found there.
    pub fn of_process(arguments: Vec<OsString>) -> std::io::Result<Self> {
        let called = std::env::args_os().next().map(PathBuf::from);
        let path = match called {
            Some(called) if called.components().count() > 1 => std::path::absolute(called)?,
            // Without /proc nobody knows where it is; the same name finds it the same way.
            called => std::env::current_exe().or_else(|error| called.ok_or(error))?,
        };
        Ok(Self { path, arguments })
    }
}

/// Hands the service over.
pub struct Giver {
    pub shared: Arc<Shared>,
    pub program: Program,
    /// Where the socket between the two is made.
    pub folder: PathBuf,
    /// The sockets that listen, as long as this process does.
    pub files: Mutex<Vec<(Passed, OwnedFd)>>,
}

/// A process that has taken over.
pub struct Given {
    pub pid: u32,
    pub succession: Arc<Succession>,
    /// Where it listens on sockets that this process has as well.
    pub listens: Arc<[SocketAddr]>,
    /// Answers for the polling sessions that stay here.
    pub door: (UnixListener, DoorName),
    /// What carries word between the two, until the new one is gone.
    pub carrier: tokio::task::JoinHandle<()>,
}

/// A successor that serves.
struct Handed {
    succession: Arc<Succession>,
    outgoing: Outgoing,
    stream: UnixStream,
    listens: Arc<[SocketAddr]>,
}

/// A socket's name in the file system; it goes with this.
pub struct DoorName(PathBuf);

impl Drop for DoorName {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Giver {
    /// Starts a successor, and returns when it serves.
    ///
    /// # Errors
    /// Nothing was handed over: this process goes on as before.
    pub async fn give(&self) -> Result<Given, HandoverError> {
        let (door, name) = self.open_door()?;
        let mut child = self.start(&name.0)?;
        let pid = child.id().unwrap_or_default();
        tracing::info!(pid, program = %self.program.path.display(), "starting the new process");
        match self.hand_over(&door, &mut child).await {
            Ok(Handed { succession, outgoing, stream, listens }) => {
                let (read, write) = stream.into_split();
                let (carried, ledger) = (Arc::clone(&succession), self.shared.ledger.clone());
                let carrier = async move { carried.carry(outgoing, read, write, &ledger).await };
                let carrier = tokio::spawn(carrier);
                // The child is nobody's to wait for: it is the service from now on.
                tokio::spawn(async move { child.wait().await });
                Ok(Given { pid, succession, listens, door: (door, name), carrier })
            }
            Err(error) => {
                let _ = child.start_kill();
                let _ = child.wait().await;
                Err(error)
            }
        }
    }

    /// Lets go of the sockets: nothing can be handed over any more.
    pub fn close(&self) {
        self.files.lock().clear();
    }

    fn open_door(&self) -> std::io::Result<(UnixListener, DoorName)> {
        let path = self.folder.join(format!(".handover-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let name = DoorName(path);
        fs::set_permissions(&name.0, Permissions::from_mode(0o600))?;
        Ok((listener, name))
    }

    fn start(&self, door: &Path) -> Result<Child, HandoverError> {
        Command::new(&self.program.path)
            .args(&self.program.arguments)
            .env(VARIABLE, door)
            // It names this process; the service manager accepts whoever is the main process.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .spawn()
            .map_err(HandoverError::Start)
    }

    async fn hand_over(
        &self,
        door: &UnixListener,
        child: &mut Child,
    ) -> Result<Handed, HandoverError> {
        let pid = child.id();
        let prepared = async {
            let mut stream = self.admit_child(door, pid).await?;
            match wire::read::<Heir>(&mut stream).await? {
                Some(Heir::Prepared { listens }) => Ok((stream, listens.into())),
                Some(_) => Err(HandoverError::Unexpected),
                // Its exit code says more.
                None => std::future::pending().await,
            }
        };
        let (mut stream, listens) = tokio::select! {
            prepared = timeout(START_LIMIT, prepared) => {
                prepared.map_err(|_| HandoverError::Late(START_LIMIT))??
            }
            status = child.wait() => return Err(HandoverError::Ended(status?)),
        };

        let (succession, outgoing) = Succession::pending();
        // Gateways that share their seats need not pass them on: each is one more of them.
        let shares = self.shared.ledger.has_authority();
        let handed = async {
            // Nobody changes licences while they pass from process to process.
            let turn = self.shared.registrar.pause().await;
            self.pass_seats(&mut stream, (!shares).then_some(&succession)).await?;
            let serving = async {
                match wire::read::<Heir>(&mut stream).await? {
                    Some(Heir::Serving) => Ok(()),
                    Some(_) => Err(HandoverError::Unexpected),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                serving = timeout(SERVE_LIMIT, serving) => {
                    serving.map_err(|_| HandoverError::Late(SERVE_LIMIT))??;
                }
                status = child.wait() => return Err(HandoverError::Ended(status?)),
            }
            Ok(turn)
        };
        match handed.await {
            Ok(turn) => {
                // For good: what is changed from here on is changed there.
                turn.keep();
                succession.begin();
                Ok(Handed { succession, outgoing, stream, listens })
            }
            Err(error) => {
                if !shares {
                    self.shared.ledger.withdraw();
                }
                succession.withdraw();
                self.change_access(Access::Paused, Access::Open);
                Err(error)
            }
        }
    }

    /// Not if the process is to end meanwhile: that is for good.
    fn change_access(&self, from: Access, to: Access) {
        self.shared.access.send_if_modified(|access| {
            let changes = *access == from;
            if changes {
                *access = to;
            }
            changes
        });
    }

    /// Waits for the child, and for nobody else, and passes it the files.
    async fn admit_child(
        &self,
        door: &UnixListener,
        pid: Option<u32>,
    ) -> Result<UnixStream, HandoverError> {
        let stream = loop {
            let (stream, _) = door.accept().await?;
            let peer = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
            if peer == pid {
                break stream;
            }
            tracing::warn!(?peer, "somebody else came for what is handed over");
        };
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let names = {
            let lock = self.shared.registrar.store().lock();
            let lock = lock.map(|lock| (Passed::Store, lock.as_fd()));
            let files = self.files.lock();
            let files = files.iter().map(|(what, file)| (what.clone(), file.as_fd()));
            let (names, files): (Vec<Passed>, Vec<BorrowedFd<'_>>) = files.chain(lock).unzip();
            wire::send_files(&stream, &files)?;
            names
        };
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let hello = Elder::Hello { protocol: PROTOCOL, version, files: names };
        write(&mut stream, &hello).await?;
        Ok(stream)
    }

    /// Stops deciding, and sends every seat that is held at that moment.
    async fn pass_seats(
        &self,
        stream: &mut UnixStream,
        succession: Option<&Arc<Succession>>,
    ) -> Result<(), HandoverError> {
        self.change_access(Access::Open, Access::Paused);
        let now = clock::now();
        let held = succession.map_or_else(Vec::new, |succession| {
            self.shared.ledger.hand_to(Arc::<Succession>::clone(succession), now)
        });
        // Users who were counted just now must be in the store before the new process reads it.
        let rest = async {
            while self.shared.settling_count() > 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(REST_LIMIT, rest).await.map_err(|_| HandoverError::Restless)?;
        // The store says by itself when it fails.
        let _ = self.shared.usage.write(true, clock::now()).await;
        for (licence, mut seats) in held {
            while !seats.is_empty() {
                let piece = seats.split_off(seats.len().saturating_sub(PIECE));
                write(stream, &Elder::Seats { licence: Arc::clone(&licence), seats: piece })
                    .await?;
            }
        }
        write(stream, &Elder::Counted).await?;
        Ok(())
    }
}

async fn write(stream: &mut UnixStream, message: &Elder) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    stream.write_all(&wire::frame(message)?).await
}
