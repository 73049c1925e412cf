//! The new process: it takes sockets, the store's lock and seats over.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::{Asked, Elder, HandoverError, Heir, PROTOCOL, Passed, VARIABLE, wire};
use crate::clock;
use crate::gateway::site::Shared;
use crate::ledger::{
    Accepted, CloseReason, Confirmation, Denied, Granted, Ledger, LicenceSeats, Refusal, Seat,
    SeatId, SeatRequest, SeatState, Unconfirmed,
};

/// How long the old process may take for an answer. Before its seats it waits for what is under way.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that hands over to this one.
#[derive(Debug)]
pub struct Taking {
    stream: UnixStream,
    path: PathBuf,
    version: String,
    files: Vec<(Passed, Option<OwnedFd>)>,
}

impl Taking {
    /// The process that this one's environment names, if any.
    ///
    /// # Errors
    /// It is not there, or speaks another protocol.
    pub fn from_process() -> Result<Option<Self>, HandoverError> {
        std::env::var_os(VARIABLE).map(Self::connect).transpose()
    }

    fn connect(path: OsString) -> Result<Self, HandoverError> {
        let path = PathBuf::from(path);
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let received = wire::receive_files(&stream)?;
        let Elder::Hello { protocol, version, files } = wire::read_blocking(&mut stream)? else {
            return Err(HandoverError::Unexpected);
        };
        if protocol != PROTOCOL {
            return Err(HandoverError::Protocol { found: protocol });
        }
        if files.len() != received.len() {
            return Err(HandoverError::Unexpected);
        }
        let files = files.into_iter().zip(received.into_iter().map(Some)).collect();
        Ok(Self { stream, path, version, files })
    }

    /// The version of the process that hands over.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn take(&mut self, wanted: &Passed) -> Option<OwnedFd> {
        self.files.iter_mut().find(|(file, _)| file == wanted).and_then(|(_, file)| file.take())
    }

    /// The socket that listens on `address`, if the old process has one.
    pub fn listener(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.take(&Passed::Listener(address)).map(TcpListener::from)
    }

    /// The socket of the administration API.
    pub fn administration(&mut self) -> Option<UnixListener> {
        self.take(&Passed::Administration).map(UnixListener::from)
    }

    /// The lock on the store.
    pub fn store_lock(&mut self) -> Option<File> {
        self.take(&Passed::Store).map(File::from)
    }

    /// Says that this process can serve, and waits for the seats. From here on the old process
    /// decides no more, unless this one fails.
    ///
    /// # Errors
    /// The old process is gone, or could not come to rest.
    pub fn prepared(&mut self) -> Result<Seats, HandoverError> {
        let listens = self.files.iter().filter_map(|file| match file {
            (Passed::Listener(address), None) => Some(*address),
            _ => None,
        });
        let listens = listens.collect();
        wire::write_blocking(&mut self.stream, &Heir::Prepared { listens })?;
        let mut held = Vec::new();
        loop {
            match wire::read_blocking(&mut self.stream)? {
                Elder::Seats { licence, seats } => held.push((licence, seats)),
                Elder::Counted => return Ok(Seats(held)),
                _ => return Err(HandoverError::Unexpected),
            }
        }
    }

    /// The link to the old process, for as long as it has sessions; `adopted` are its seats.
    pub fn link(self, adopted: Adopted) -> Link {
        Link { stream: self.stream, path: self.path, adopted }
    }
}

/// The seats that the old process holds.
#[derive(Debug)]
pub struct Seats(Vec<(Arc<str>, Vec<SeatState>)>);

impl Seats {
    /// Counts them in `ledger`, in which the users are already.
    pub fn adopt(self, ledger: &Ledger) -> Adopted {
        let now = clock::now();
        let mut seats = HashMap::new();
        for (licence, states) in self.0 {
            let there = ledger.licence(&licence);
            for state in states {
                let id = state.id;
                if let Some(seat) = there.adopt(state, now) {
                    seats.insert((Arc::clone(&licence), id), seat);
                }
            }
        }
        Adopted(seats)
    }
}

/// Seats whose connections the old process has, under its own ids.
#[derive(Debug)]
pub struct Adopted(HashMap<(Arc<str>, SeatId), Seat>);

impl Adopted {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What goes between the two processes while the old one drains.
pub struct Link {
    stream: UnixStream,
    path: PathBuf,
    adopted: Adopted,
}

impl Link {
    /// Says that this process serves, and waits until the old one has let go.
    ///
    /// # Errors
    /// The old process is gone.
    pub fn serving(&mut self) -> Result<(), HandoverError> {
        wire::write_blocking(&mut self.stream, &Heir::Serving)?;
        match wire::read_blocking(&mut self.stream)? {
            Elder::Go => Ok(()),
            _ => Err(HandoverError::Unexpected),
        }
    }

    /// Where the old process answers for the polling sessions that it has.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Decides for the old process until it is gone. What is left of its seats then is kept for
    /// sessions that come back.
    pub async fn run(self, shared: &Arc<Shared>) {
        let Self { stream, adopted, .. } = self;
        let mut desk = Desk::new(shared, adopted);
        if let Err(error) = desk.run(stream).await {
            tracing::warn!(%error, "the old process is out of reach");
        }
        desk.end();
    }
}

/// A seat of the old process.
struct Foreign {
    seat: Seat,
    _watching: Watching,
}

/// Looks out for the end of a seat for as long as this lives.
struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Key = (Arc<str>, SeatId);

/// Decides for the old process; or asks, where this one has been taken over from in its turn.
struct Desk {
    shared: Arc<Shared>,
    seats: HashMap<Key, Foreign>,
    /// Seats that are being decided, and whether they were released since.
    deciding: HashMap<Key, bool>,
    /// Connections that are to end.
    closes: mpsc::UnboundedReceiver<(Key, CloseReason)>,
    closing: mpsc::UnboundedSender<(Key, CloseReason)>,
}

/// What took a while.
enum Done {
    Decided { number: u64, key: Key, replaced: Option<Key>, decision: Result<Seat, Refusal> },
    Recorded(Heir),
}

impl Desk {
    fn new(shared: &Arc<Shared>, adopted: Adopted) -> Self {
        let (closing, closes) = mpsc::unbounded_channel();
        let shared = Arc::clone(shared);
        let (seats, deciding) = Default::default();
        let mut desk = Self { shared, seats, deciding, closes, closing };
        for (key, seat) in adopted.0 {
            desk.hold(key, seat);
        }
        desk
    }

    fn hold(&mut self, key: Key, seat: Seat) {
        let (watch, closing, told) = (seat.watch(), self.closing.clone(), key.clone());
        let watching = tokio::spawn(async move {
            let reason = watch.closed().await;
            let _ = closing.send((told, reason));
        });
        let _watching = Watching(watching.abort_handle());
        self.seats.insert(key, Foreign { seat, _watching });
    }

    async fn run(&mut self, stream: UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (mut read, mut write) = stream.into_split();
        // A frame is read to its end by a task of its own: half of one must not be lost.
        let (sender, mut messages) = mpsc::channel(64);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            loop {
                let message = wire::read::<Elder>(&mut read).await;
                let is_last = !matches!(message, Ok(Some(_)));
                if sender.send(message).await.is_err() || is_last {
                    return;
                }
            }
        });
        let mut working = JoinSet::new();
        loop {
            let reply = tokio::select! {
                message = messages.recv() => match message {
                    Some(Ok(Some(message))) => self.take(message, &mut working),
                    Some(Ok(None)) | None => return Ok(()),
                    Some(Err(error)) => return Err(error),
                },
                Some(Ok(done)) = working.join_next() => Some(self.finish(done)),
                Some(((licence, seat), reason)) = self.closes.recv() => {
                    Some(Heir::Close { licence, seat, reason })
                }
            };
            if let Some(reply) = reply {
                write.write_all(&wire::frame(&reply)?).await?;
            }
        }
    }

    fn take(&mut self, message: Elder, working: &mut JoinSet<Done>) -> Option<Heir> {
        match message {
            Elder::Admit { number, asked } => {
                working.spawn(self.decide(number, asked));
            }
            Elder::Confirm { number, licence, accepted } => {
                working.spawn(self.record(number, licence, &accepted));
            }
            Elder::Release { licence, seat } => {
                let key = (licence, seat);
                match self.deciding.get_mut(&key) {
                    Some(is_released) => *is_released = true,
                    None => drop(self.seats.remove(&key)),
                }
            }
            Elder::Keep { licence, seat, milliseconds } => {
                if let Some(foreign) = self.seats.remove(&(licence, seat)) {
                    foreign.seat.lost(clock::now(), Duration::from_millis(milliseconds));
                }
            }
            Elder::Sync { number } => return Some(Heir::Confirmed { number, answer: Ok(()) }),
            Elder::Hello { .. } | Elder::Seats { .. } | Elder::Counted | Elder::Go => {}
        }
        None
    }

    fn decide(&mut self, number: u64, asked: Asked) -> impl Future<Output = Done> + use<> {
        let Asked { licence, seat, class, occupant, session_id, replaces, force } = asked;
        let key = (Arc::clone(&licence), seat);
        self.deciding.insert(key.clone(), false);
        let replaced = replaces.map(|seat| (Arc::clone(&licence), seat));
        let replaces = replaced.as_ref().and_then(|key| self.seats.get(key));
        let replaces = replaces.map(|foreign| foreign.seat.id());
        let shared = Arc::clone(&self.shared);
        async move {
            let registry = shared.registrar.registry();
            let terms = registry.find(&licence).and_then(|slot| slot.licence());
            let session_id = session_id.as_deref();
            let request = SeatRequest { class, occupant, session_id, replaces, force };
            let there = shared.ledger.licence(&licence);
            let decision = there.open(request, terms.as_deref(), clock::now()).await;
            Done::Decided { number, key, replaced, decision }
        }
    }

    /// Counts who was accepted; the answer comes when that is on disk.
    fn record(
        &self,
        number: u64,
        licence: Arc<str>,
        accepted: &Accepted,
    ) -> impl Future<Output = Done> + use<> {
        let now = clock::now();
        let foreign = self.seats.get(&(Arc::clone(&licence), accepted.seat));
        let confirmation = foreign.map(|foreign| {
            let slot = self.shared.registrar.registry().find(&licence);
            let terms = slot.and_then(|slot| slot.licence());
            foreign.seat.confirm(accepted.session_id.as_deref(), terms.as_deref(), now)
        });
        let shared = Arc::clone(&self.shared);
        let settling = self.shared.settling();
        async move {
            let seats = shared.ledger.licence(&licence);
            let answer = match confirmation {
                Some(confirmation) => settle(&shared, &seats, confirmation, now).await,
                // It was taken over by another connection, which is confirmed by itself.
                None => Ok(()),
            };
            drop(settling);
            Done::Recorded(Heir::Confirmed { number, answer })
        }
    }

    fn finish(&mut self, done: Done) -> Heir {
        let (number, key, replaced, decision) = match done {
            Done::Recorded(reply) => return reply,
            Done::Decided { number, key, replaced, decision } => (number, key, replaced, decision),
        };
        let is_released = self.deciding.remove(&key) == Some(true);
        let answer = match decision {
            Ok(seat) => {
                if let Some(replaced) = replaced {
                    self.seats.remove(&replaced);
                }
                let granted = Granted {
                    observed: seat.observed(),
                    since: Some(seat.since()),
                    established: seat.is_established(),
                };
                if !is_released {
                    self.hold(key, seat);
                }
                Ok(granted)
            }
            Err(refusal) => Err(Denied::Refused(refusal)),
        };
        Heir::Admitted { number, answer }
    }

    /// The old process is gone: its connections with it.
    fn end(&mut self) {
        let grace = self.shared.site.load().reconnect_grace;
        let left = self.seats.len();
        for (_, foreign) in self.seats.drain() {
            foreign.seat.lost(clock::now(), grace);
        }
        tracing::info!(left, "the old process has ended");
    }
}

/// Makes an accepted open durable.
async fn settle(
    shared: &Shared,
    seats: &LicenceSeats,
    confirmation: Confirmation,
    now: Timestamp,
) -> Result<(), Unconfirmed> {
    let Confirmation { authority, record } = confirmation;
    if let Some((authority, accepted)) = authority {
        match authority.confirm(seats.licence_id(), &accepted).await {
            Err(Unconfirmed::Withdrawn) => {}
            answer => return answer,
        }
    }
    let Some(record) = record else { return Ok(()) };
    match shared.registrar.store().put_user(seats.licence_id(), &record, now).await {
        Ok(()) => {
            seats.stored(&record);
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "a user of the old process cannot be stored");
            // A user whom the store knows may go on.
            if seats.unstored(&record, now) { Ok(()) } else { Err(Unconfirmed::Unavailable) }
        }
    }
}
