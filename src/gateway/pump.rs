//! Two byte streams and an inspector between them: the loop of every tunnelled WebSocket.
//!
//! Both directions advance on their own: one that waits for a slow reader does not stop the
//! other. There is no buffer per connection: bytes are read into one buffer of the thread and
//! written on at once; only what the other side did not take, or what waits for a decision, is
//! kept. Pingora's body filters are not used for this (BASELINES.md, "The lesson").

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::session::inspect::{Event, Flow, Violation};

/// Size of the read buffer that the connections of a thread share.
const SCRATCH: usize = 64 * 1024;

/// How many bytes may wait for what was read with them, so that both leave by one system call.
const TOGETHER: usize = 4096;

/// How often a connection looks whether its peers still move.
const TICK: Duration = Duration::from_secs(30);

/// Ticks without a byte taken by a peer that is owed some, until the connection is given up.
const STALL_TICKS: u8 = 4;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// One of the two directions, named after the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Client,
    Server,
}

/// What looks through the bytes of both directions.
pub trait Inspect {
    /// See [`crate::session::inspect::Inspector::inspect`].
    ///
    /// # Errors
    /// Nothing of `input` may pass, and the connection must end.
    fn inspect(&mut self, from: Peer, input: &[u8]) -> Result<Flow, Violation>;

    /// Bytes that may pass before the input's.
    fn released(&mut self, from: Peer) -> &mut Vec<u8>;
}

/// Lets everything pass.
#[derive(Debug, Default)]
pub struct Transparent {
    nothing: Vec<u8>,
}

impl Inspect for Transparent {
    fn inspect(&mut self, _from: Peer, input: &[u8]) -> Result<Flow, Violation> {
        Ok(Flow { taken: input.len(), pass: 0..input.len(), event: None })
    }

    fn released(&mut self, _from: Peer) -> &mut Vec<u8> {
        &mut self.nothing
    }
}

/// Why the pump stopped to ask.
#[derive(Debug)]
pub enum PumpEvent {
    /// The inspector has something to decide or to note. The direction stands still until
    /// [`Pump::next`] is called again.
    Inspected(Peer, Event),
    /// The inspector forbids what the peer sent.
    Violated(Peer, Violation),
    /// The peer sent its last byte.
    Ended(Peer),
    /// The connection to that peer broke.
    Broken(Peer, io::Error),
    /// The client sent nothing for the idle limit.
    Silent,
    /// That peer did not take what it was owed.
    Stalled(Peer),
}

/// One direction: from a source to the other side's sink.
#[derive(Debug, Default)]
struct Lane {
    /// Bytes that the sink has not taken yet, from `sent` on.
    backlog: Vec<u8>,
    sent: usize,
    /// Bytes that were read and wait for the inspector.
    unread: Vec<u8>,
    /// The source sent its last byte, or is not to be read any more.
    ended: bool,
    /// The source is not to be read for now.
    paused: bool,
    /// The sink must still be flushed.
    unflushed: bool,
    /// Whether bytes were read, or taken by the sink, since the last tick.
    read: bool,
    wrote: bool,
    /// Ticks without them.
    idle_ticks: u8,
    stall_ticks: u8,
}

/// The two sides of one tunnel.
pub struct Pump<C, S, I> {
    client: C,
    server: S,
    upward: Lane,
    downward: Lane,
    tick: Pin<Box<Sleep>>,
    idle_ticks: u8,
    pub inspect: I,
}

impl<C, S, I> Pump<C, S, I>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    I: Inspect,
{
    /// A pump between a client and a server. `early` are bytes of the server that came with its
    /// handshake; `idle_limit` is how long a client may be silent (rounded up to half minutes).
    pub fn new(client: C, server: S, inspect: I, early: &[u8], idle_limit: Duration) -> Self {
        let downward = Lane { unread: early.to_vec(), ..Lane::default() };
        let ticks = idle_limit.as_secs().div_ceil(TICK.as_secs());
        Self {
            client,
            server,
            upward: Lane::default(),
            downward,
            tick: Box::pin(tokio::time::sleep(TICK)),
            idle_ticks: u8::try_from(ticks).unwrap_or(u8::MAX),
            inspect,
        }
    }

    /// Moves bytes until something happens. Cancel-safe: nothing is lost if the future is
    /// dropped.
    pub async fn next(&mut self) -> PumpEvent {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<PumpEvent> {
        if let Poll::Ready(event) = self.poll_lane(Peer::Client, context) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_lane(Peer::Server, context) {
            return Poll::Ready(event);
        }
        while self.tick.as_mut().poll(context).is_ready() {
            self.tick.as_mut().reset(Instant::now() + TICK);
            if let Some(event) = self.check_progress() {
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }

    fn poll_lane(&mut self, from: Peer, context: &mut Context<'_>) -> Poll<PumpEvent> {
        let Self { client, server, upward, downward, inspect, .. } = self;
        match from {
            Peer::Client => upward.poll(from, client, server, inspect, context),
            Peer::Server => downward.poll(from, server, client, inspect, context),
        }
    }

    fn check_progress(&mut self) -> Option<PumpEvent> {
        for (from, lane) in [(Peer::Client, &mut self.upward), (Peer::Server, &mut self.downward)] {
            let read = std::mem::take(&mut lane.read);
            let wrote = std::mem::take(&mut lane.wrote);
            lane.idle_ticks = if read { 0 } else { lane.idle_ticks.saturating_add(1) };
            let owes = lane.owes() || lane.unflushed;
            lane.stall_ticks = if owes && !wrote { lane.stall_ticks + 1 } else { 0 };
            if lane.stall_ticks >= STALL_TICKS {
                return Some(PumpEvent::Stalled(from.other()));
            }
        }
        // A client whose bytes wait for a slow server is not silent.
        let silent = self.upward.idle_ticks >= self.idle_ticks && !self.upward.owes();
        silent.then_some(PumpEvent::Silent)
    }

    /// Appends bytes of our own to what `to` is sent. They are written by the next call of
    /// [`Self::next`] or [`Self::flush`].
    pub fn send(&mut self, to: Peer, bytes: &[u8]) {
        let lane = match to {
            Peer::Client => &mut self.downward,
            Peer::Server => &mut self.upward,
        };
        lane.backlog.extend_from_slice(bytes);
    }

    /// Reads from that peer, or not for now: what it sent waits in the sockets.
    pub fn pause(&mut self, from: Peer, paused: bool) {
        match from {
            Peer::Client => self.upward.paused = paused,
            Peer::Server => self.downward.paused = paused,
        }
    }

    /// Reads no more from that peer; what it sent and was not inspected yet is forgotten.
    pub fn stop_reading(&mut self, from: Peer) {
        let lane = match from {
            Peer::Client => &mut self.upward,
            Peer::Server => &mut self.downward,
        };
        lane.ended = true;
        lane.unread = Vec::new();
    }

    /// Writes what `to` is owed, without reading anything.
    ///
    /// # Errors
    /// The connection to `to` is broken.
    pub async fn flush(&mut self, to: Peer) -> io::Result<()> {
        let Self { client, server, upward, downward, .. } = self;
        poll_fn(|context| match to {
            Peer::Client => downward.poll_flush(client, context),
            Peer::Server => upward.poll_flush(server, context),
        })
        .await
    }

    /// Writes what `to` is owed and then the end of the stream.
    ///
    /// # Errors
    /// The connection to `to` is broken.
    pub async fn finish(&mut self, to: Peer) -> io::Result<()> {
        self.flush(to).await?;
        match to {
            Peer::Client => self.client.shutdown().await,
            Peer::Server => self.server.shutdown().await,
        }
    }

    /// Reads and forgets what `from` still sends, until it ends. Closing a socket with unread
    /// bytes would reset it, and the peer might never see our last words.
    pub async fn discard(&mut self, from: Peer) {
        let Self { client, server, .. } = self;
        poll_fn(|context| {
            READ_BUFFER.with_borrow_mut(|buffer| {
                loop {
                    let mut buffer = ReadBuf::new(buffer);
                    let read = match from {
                        Peer::Client => Pin::new(&mut *client).poll_read(context, &mut buffer),
                        Peer::Server => Pin::new(&mut *server).poll_read(context, &mut buffer),
                    };
                    match ready!(read) {
                        Ok(()) if !buffer.filled().is_empty() => {}
                        Ok(()) | Err(_) => return Poll::Ready(()),
                    }
                }
            })
        })
        .await;
    }
}

impl Peer {
    /// The other peer.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl Lane {
    fn owes(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Moves bytes from `source` to `sink` until one of them is not ready or something happens.
    fn poll<A: AsyncRead + Unpin, B: AsyncWrite + Unpin>(
        &mut self,
        from: Peer,
        source: &mut A,
        sink: &mut B,
        inspect: &mut impl Inspect,
        context: &mut Context<'_>,
    ) -> Poll<PumpEvent> {
        let to = from.other();
        loop {
            // What an answered event set free.
            self.backlog.append(inspect.released(from));
            let has_unread = !self.unread.is_empty() && !self.paused;
            let waits = has_unread && self.backlog.len() < TOGETHER;
            if !waits && let Err(error) = ready!(self.poll_flush(sink, context)) {
                return Poll::Ready(PumpEvent::Broken(to, error));
            }
            if has_unread {
                let unread = std::mem::take(&mut self.unread);
                match self.pass_on(from, &unread, inspect, sink, context) {
                    Ok(None) => continue,
                    Ok(Some(event)) => return Poll::Ready(event),
                    Err(error) => return Poll::Ready(PumpEvent::Broken(to, error)),
                }
            }
            if self.ended || self.paused {
                return Poll::Pending;
            }
            let event = READ_BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                if let Err(error) = ready!(Pin::new(&mut *source).poll_read(context, &mut buffer)) {
                    self.ended = true;
                    return Poll::Ready(Some(PumpEvent::Broken(from, error)));
                }
                let bytes = buffer.filled();
                if bytes.is_empty() {
                    self.ended = true;
                    return Poll::Ready(Some(PumpEvent::Ended(from)));
                }
                self.read = true;
                let passed = self.pass_on(from, bytes, inspect, sink, context);
                Poll::Ready(passed.unwrap_or_else(|error| Some(PumpEvent::Broken(to, error))))
            });
            if let Some(event) = ready!(event) {
                return Poll::Ready(event);
            }
        }
    }

    /// Writes the backlog, and flushes the sink if it was written to.
    fn poll_flush(
        &mut self,
        sink: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.owes() {
            let rest = self.backlog.get(self.sent..).unwrap_or_default();
            let written = ready!(Pin::new(&mut *sink).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote = true;
            self.unflushed = true;
            self.sent += written;
            if self.sent >= self.backlog.len() {
                // Idle connections keep no memory.
                self.backlog = Vec::new();
                self.sent = 0;
            }
        }
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Shows `input` to the inspector and writes what may pass, behind what waits already.
    fn pass_on(
        &mut self,
        from: Peer,
        input: &[u8],
        inspect: &mut impl Inspect,
        sink: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> io::Result<Option<PumpEvent>> {
        let flow = match inspect.inspect(from, input) {
            Ok(flow) => flow,
            Err(violation) => return Ok(Some(PumpEvent::Violated(from, violation))),
        };
        let pass = input.get(flow.pass).unwrap_or_default();
        let rest = input.get(flow.taken..).unwrap_or_default();
        let released = inspect.released(from);
        // What is only to be noted is done with at once, and the rest comes along.
        let is_noted = |event| !matches!(event, Event::Auth | Event::Save);
        let goes_on = flow.event.is_some_and(is_noted) && !rest.is_empty();
        if released.is_empty() && !self.owes() && !goes_on {
            let written = match pass.is_empty() {
                true => 0,
                false => match Pin::new(&mut *sink).poll_write(context, pass) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                },
            };
            if written > 0 {
                self.wrote = true;
                self.unflushed = true;
            }
            self.backlog.extend_from_slice(pass.get(written..).unwrap_or_default());
        } else {
            self.backlog.append(released);
            *released = Vec::new();
            self.backlog.extend_from_slice(pass);
        }
        match flow.event {
            Some(event) => {
                self.unread = rest.to_vec();
                Ok(Some(PumpEvent::Inspected(from, event)))
            }
            None => Ok(None),
        }
    }
}
