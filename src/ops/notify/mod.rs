//! What the service manager is told: systemd's notify protocol (sd_notify(3)).
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Notifier`]: the messages, and the socket that they go to |
//! | `telling` | the status line, and the watchdog for as long as the process is really alive |
//!
//! Without `$NOTIFY_SOCKET` nobody is told, and nothing else is different.

mod telling;

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sd_notify::NotifyState;

pub use telling::{keep_told, status_text};

/// How long the service manager may leave a message lying before it is given up.
const PATIENCE: Duration = Duration::from_millis(500);

/// By how much a stop that goes on asks to be let go on.
const EXTENSION: Duration = Duration::from_secs(10);

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
    /// The status line that was told last.
    status: Mutex<String>,
    /// The manager was out of reach, and the log has it.
    unheard: AtomicBool,
    /// Another process is the service: of this one the manager hears nothing more.
    replaced: AtomicBool,
}

impl Notifier {
    /// The service manager that this process's environment names, if any.
    pub fn from_process() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET");
        let socket = named.as_deref().and_then(|name| {
            let address = address(name);
            if let Err(error) = &address {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used: the service manager is told nothing");
            }
            address.ok()
        });
        let watchdog = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket, ..Self::default() }
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// Within what time the manager wants a sign of life.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The listeners are open; or a reload is over, whatever came of it.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready], Some(status));
    }

    /// A reload begins. [`Self::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now], Some("Reloading")),
            Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
        }
    }

    /// The process stops.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping], Some(status));
    }

    /// What there is to see in `systemctl status`. Told only when it is another than before.
    pub fn status(&self, status: &str) {
        let known = *self.status.lock() == status;
        if !known {
            self.send(&[], Some(status));
        }
    }

    /// What began (a stop) goes on: the manager's time limit is not to end it yet. Say it again
    /// within `EXTENSION`.
    pub fn still_at_it(&self, status: &str) {
        let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(micros)], Some(status));
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog], None);
    }

    /// From now on another process is the service: the one that took the listeners over. It feeds
    /// the watchdog, too, so it must not inherit `$WATCHDOG_PID`, which names this one. The manager
    /// takes no word from any but the main process, so this is the last one from here.
    pub fn main_pid(&self, pid: u32) {
        self.send(&[NotifyState::MainPid(pid)], None);
        self.replaced.store(true, Ordering::Relaxed);
    }

    fn send(&self, states: &[NotifyState<'_>], status: Option<&str>) {
        let Some(socket) = &self.socket else { return };
        if self.replaced.load(Ordering::Relaxed) {
            return;
        }
        let mut message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Some(status) = status {
            // A line break would begin another message.
            let line = status.replace(['\n', '\r'], " ");
            message.push_str(&format!("{}\n", NotifyState::Status(&line)));
            status.clone_into(&mut self.status.lock());
        }
        match deliver(socket, message.as_bytes()) {
            Ok(()) => self.unheard.store(false, Ordering::Relaxed),
            Err(error) if !self.unheard.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "the service manager cannot be told");
            }
            Err(_) => {}
        }
    }
}

/// A socket for each message, as sd_notify(3) itself does it: the manager may have been replaced.
fn deliver(socket: &SocketAddr, message: &[u8]) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(PATIENCE))?;
    datagram.connect_addr(socket)?;
    datagram.send(message).map(drop)
}

/// `/path` is a file, `@name` a name in the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it begins with neither / nor @")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn notifier(socket: SocketAddr) -> Notifier {
        Notifier { socket: Some(socket), ..Notifier::default() }
    }

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("seatgate-test-{}", std::process::id());
        let listeners = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap())
                    .unwrap(),
                format!("@{abstract_name}").into(),
            ),
        ];
        for (listener, name) in listeners {
            let notifier = notifier(address(&name).unwrap());
            notifier.ready("well\nREADY=0");
            assert_eq!(hear(&listener), "READY=1\nSTATUS=well READY=0\n", "{name:?}");
            notifier.alive();
            assert_eq!(hear(&listener), "WATCHDOG=1\n");
            notifier.still_at_it("draining");
            assert_eq!(hear(&listener), "EXTEND_TIMEOUT_USEC=10000000\nSTATUS=draining\n");
            notifier.reloading();
            let told = hear(&listener);
            let micros = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            let micros: u128 = micros.lines().next().unwrap().parse().unwrap();
            assert!(micros > 0);
            notifier.main_pid(77);
            assert_eq!(hear(&listener), "MAINPID=77\n");
            notifier.alive();
            listener.set_nonblocking(true).unwrap();
            let error = listener.recv(&mut [0; 64]).expect_err("the manager would warn of it");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        for wrong in ["", "relative", "vsock:2:1234"] {
            assert!(address(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_status_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(SocketAddr::from_pathname(&path).unwrap());
        for status in ["one", "one", "two", "one"] {
            notifier.status(status);
        }
        for status in ["one", "two", "one"] {
            assert_eq!(hear(&listener), format!("STATUS={status}\n"));
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.recv(&mut [0; 16]).is_err());
        drop(listener);
        // Nobody listens any more: no harm.
        notifier.status("three");
        Notifier::default().ready("nobody ever did");
    }
}
