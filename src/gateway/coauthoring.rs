//! One co-authoring WebSocket: the pump's events, judged by the session, carried out here.
//!
//! A refused open is told in the way that the editor understands (WIRE.md section 5):
//! `disconnectReason`, the Socket.IO disconnect `41`, then the close.

mod ending;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument as _, Span};

use super::aside::Aside;
use super::judge::{self, Reply};
use super::polling::Upgrade;
use super::pump::{Inspect, Peer, Pump, PumpEvent};
use super::rehome::rehome;
use super::site::{Shared, Tenant};
use crate::clock;
use crate::ledger::{Call, CloseReason, SeatWatch};
use crate::ops::metrics::GaugeGuard;
use crate::session::inspect::{Event, Flow, Inspector, Violation};
use crate::session::{Session, Verdict};
use crate::wire::coauthoring::DisconnectCode;
use crate::wire::websocket::Sender;
pub use ending::farewell_packets;
use ending::{End, LINGER};

/// How long a client may be silent. The document server pings every 25 s and gives up 20 s later
/// (WIRE.md section 2); this only ends what it cannot see.
const CLIENT_IDLE: Duration = Duration::from_secs(90);

/// Both directions' inspectors.
struct Inspectors {
    client: Inspector,
    server: Inspector,
}

impl Inspectors {
    fn of(&mut self, from: Peer) -> &mut Inspector {
        match from {
            Peer::Client => &mut self.client,
            Peer::Server => &mut self.server,
        }
    }
}

impl Inspect for Inspectors {
    fn inspect(&mut self, from: Peer, input: &[u8]) -> Result<Flow, Violation> {
        self.of(from).inspect(input)
    }

    fn released(&mut self, from: Peer) -> &mut Vec<u8> {
        self.of(from).released()
    }
}

/// A connection with both handshakes done.
pub struct Connection {
    pub shared: Arc<Shared>,
    pub tenant: Arc<Tenant>,
    pub address: IpAddr,
    /// The answer to the client's handshake, which is still to be sent.
    pub head: Vec<u8>,
    /// What the server sent behind its handshake.
    pub early: Bytes,
    /// One of the streams is encrypted: its end has to be written.
    pub encrypted: bool,
    /// The session that this connection goes on with, if it began by polling.
    pub upgrades: Option<Upgrade>,
}

impl Connection {
    /// Runs the connection to its end. Whatever ends it, its seat is given back.
    pub async fn run<C, S>(self, client: C, server: S)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let span =
            tracing::info_span!("session", tenant = %self.tenant.name, client = %self.address);
        let inspect = Inspectors {
            client: Inspector::new(Sender::Client),
            server: Inspector::new(Sender::Server),
        };
        let session = match &self.upgrades {
            Some(upgrade) => Arc::clone(&upgrade.polled.session),
            None => Arc::new(Mutex::new(Session::new(self.address))),
        };
        // A probe is no connection of its own: its session is counted as polling until it is upgraded.
        let counted = self.upgrades.is_none().then(|| self.shared.metrics.websocket());
        let under_way = self.upgrades.as_ref().map(|upgrade| upgrade.polled.under_way());
        let mut pump = Pump::new(client, server, inspect, &self.early, CLIENT_IDLE);
        pump.send(Peer::Client, &self.head);
        let mut driver = Driver {
            pump,
            session,
            closing: self.shared.closing.subscribe(),
            shared: self.shared,
            tenant: self.tenant,
            upgrades: self.upgrades,
            counted,
            encrypted: self.encrypted,
            upgraded: false,
            alarm: None,
            client_said_goodbye: false,
            server_said_goodbye: false,
        };
        let end = driver.drive(&span).await;
        span.in_scope(|| {
            driver.leave(end);
            tracing::debug!(?end, "session ended");
        });
        drop(under_way);
    }
}

struct Driver<C, S> {
    pump: Pump<C, S, Inspectors>,
    session: Arc<Mutex<Session>>,
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    closing: watch::Receiver<bool>,
    upgrades: Option<Upgrade>,
    counted: Option<GaugeGuard>,
    encrypted: bool,
    /// The WebSocket has taken the session over from polling.
    upgraded: bool,
    alarm: Option<Alarm>,
    client_said_goodbye: bool,
    server_said_goodbye: bool,
}

/// What the driver looks after at a time.
#[derive(Clone, Copy)]
enum Alarm {
    /// What the client saves waits, until then at the latest; look at `at`.
    Save { at: Instant, until: Instant },
    /// The server closed its WebSocket, and waits for the client's close frame.
    Closed { at: Instant },
}

/// What woke the driver.
enum Wake {
    Pump(PumpEvent),
    Alarm(Alarm),
    Closed(CloseReason),
    /// Its tenant has another licence now.
    Moved,
    /// The session was refused by polling.
    Refused,
    Closing,
}

impl<C, S> Driver<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn drive(&mut self, span: &Span) -> End {
        loop {
            // Not within the span: most of what comes passes on without a word in the log.
            let wake = self.wait().await;
            if let Some(end) = self.on_wake(wake).instrument(span.clone()).await {
                return end;
            }
        }
    }

    /// Deals with what woke the driver; `Some` ends the connection.
    async fn on_wake(&mut self, wake: Wake) -> Option<End> {
        match wake {
            Wake::Pump(event) => self.on_event(event).await,
            Wake::Alarm(Alarm::Save { until, .. }) => self.on_save(until),
            Wake::Alarm(Alarm::Closed { .. }) => Some(self.finish_after(Peer::Server).await),
            Wake::Moved => {
                rehome(&self.shared, &self.shared.present(&self.tenant), &self.session).await;
                None
            }
            Wake::Closed(reason) if self.is_probing() => {
                tracing::debug!(?reason, "the polling session is closed");
                Some(End::ProbeEnded)
            }
            Wake::Closed(reason) => {
                tracing::info!(?reason, "session is closed");
                self.dismiss(DisconnectCode::Drop).await;
                Some(End::Closed)
            }
            Wake::Refused => {
                self.dismiss(DisconnectCode::AccessDenied).await;
                Some(End::Refused)
            }
            Wake::Closing => {
                self.farewell(&[], 1001).await;
                Some(End::ShutDown)
            }
        }
    }

    /// Waits for bytes that matter, or for somebody who wants the session to end.
    async fn wait(&mut self) -> Wake {
        let watches = self.session.lock().watches();
        let asked = pin!(async {
            tokio::select! {
                biased;
                call = called(&watches) => match call {
                    Call::Close(reason) => Wake::Closed(reason),
                    Call::Move => Wake::Moved,
                },
                () = refused(self.upgrades.as_ref()) => Wake::Refused,
                alarm = due(self.alarm) => Wake::Alarm(alarm),
                _ = self.closing.wait_for(|closing| *closing) => Wake::Closing,
            }
        });
        tokio::select! {
            biased;
            wake = Aside::new(asked) => wake,
            event = self.pump.next() => Wake::Pump(event),
        }
    }

    /// Deals with what the pump reports; `Some` ends the connection.
    async fn on_event(&mut self, event: PumpEvent) -> Option<End> {
        match event {
            // Before it took over, a WebSocket is heard by the server for its probe alone: nothing
            // that it says may touch the session, which goes on by polling.
            PumpEvent::Inspected(
                Peer::Client,
                Event::Auth | Event::Goodbye | Event::GaveUpEditing,
            ) if self.is_probing() => Some(End::ProbeEnded),
            // No editor opens anything after its goodbye; what the server makes of it is unknown.
            PumpEvent::Inspected(Peer::Client, Event::Auth) if self.client_said_goodbye => {
                self.dismiss(DisconnectCode::AccessDenied).await;
                Some(End::Violation)
            }
            PumpEvent::Inspected(Peer::Client, Event::Auth) => self.on_auth().await,
            PumpEvent::Inspected(Peer::Server, Event::Auth) => self.on_reply().await,
            PumpEvent::Inspected(Peer::Client, Event::Goodbye) => {
                self.client_said_goodbye = true;
                self.session.lock().end();
                None
            }
            PumpEvent::Inspected(Peer::Server, Event::Connected) => {
                let text = self.pump.inspect.server.text();
                self.session.lock().on_connected(text);
                None
            }
            PumpEvent::Inspected(Peer::Client, Event::Connected) => None,
            PumpEvent::Inspected(Peer::Client, Event::GaveUpEditing) => {
                let tenant = self.shared.present(&self.tenant);
                let terms = tenant.terms(clock::now());
                self.session.lock().on_gave_up_editing(&terms, &self.shared.ledger);
                None
            }
            PumpEvent::Inspected(Peer::Server, Event::OpenFailed) => {
                let tenant = self.shared.present(&self.tenant);
                let terms = tenant.terms(clock::now());
                self.session.lock().on_open_failed(&terms, &self.shared.ledger);
                None
            }
            PumpEvent::Inspected(Peer::Client, Event::Save) => {
                self.pump.pause(Peer::Client, true);
                // No reply comes any more: what waits waits for the end.
                if matches!(self.alarm, Some(Alarm::Closed { .. })) {
                    return None;
                }
                self.on_save(Instant::now() + judge::SAVES_WAIT)
            }
            PumpEvent::Inspected(Peer::Server, Event::Closed) => {
                self.alarm = Some(Alarm::Closed { at: Instant::now() + LINGER });
                None
            }
            PumpEvent::Inspected(Peer::Client, Event::OpenFailed | Event::Closed)
            | PumpEvent::Inspected(Peer::Server, Event::Save) => None,
            PumpEvent::Inspected(Peer::Client, Event::Upgraded) => {
                self.upgraded = true;
                self.hold_saves();
                if self.counted.is_none() {
                    self.counted = Some(self.shared.metrics.websocket());
                }
                if let Some(upgrade) = &self.upgrades {
                    upgrade.polled.upgraded();
                }
                None
            }
            PumpEvent::Inspected(Peer::Server, Event::Goodbye) => {
                self.server_said_goodbye = true;
                None
            }
            PumpEvent::Inspected(Peer::Server, Event::GaveUpEditing | Event::Upgraded) => None,
            PumpEvent::Violated(Peer::Client, violation) => {
                Some(self.on_violation(violation).await)
            }
            PumpEvent::Violated(Peer::Server, violation) => {
                tracing::warn!(%violation, "the document server sent what cannot be read");
                if !matches!(violation, Violation::HeldTooLong { .. }) {
                    return Some(End::ServerLost);
                }
                // It would be as long after a reconnect: the editor is to say so, not to try for ever.
                self.dismiss(DisconnectCode::AccessDenied).await;
                Some(End::Refused)
            }
            PumpEvent::Ended(from) => Some(self.finish_after(from).await),
            PumpEvent::Broken(Peer::Client, error) => {
                tracing::debug!(%error, "the client is gone");
                Some(End::ClientLost)
            }
            PumpEvent::Broken(Peer::Server, error) => {
                tracing::debug!(%error, "the document server is gone");
                let _ = timeout(LINGER, self.pump.finish(Peer::Client)).await;
                Some(End::ServerLost)
            }
            PumpEvent::Silent | PumpEvent::Stalled(_) => {
                tracing::debug!("a peer does not move any more");
                Some(End::TimedOut)
            }
        }
    }

    async fn on_auth(&mut self) -> Option<End> {
        let tenant = self.shared.present(&self.tenant);
        let text = self.pump.inspect.client.text();
        match judge::auth(&self.shared, &tenant, &self.session, text).await {
            Verdict::Ignore | Verdict::Pass(_) => self.pump.inspect.client.pass_held(),
            Verdict::Replace(_, text) => self.pump.inspect.client.replace_held(text.as_bytes()),
            Verdict::Refuse(_, code) => {
                self.dismiss(code).await;
                return Some(End::Refused);
            }
        }
        self.hold_saves();
        None
    }

    /// Has what the client saves wait, if it has to.
    fn hold_saves(&mut self) -> bool {
        let wait = judge::saves_wait(&self.shared.present(&self.tenant), &self.session);
        self.pump.inspect.client.hold_saves(wait);
        wait
    }

    /// What the client saves waits: it passes, or waits on.
    fn on_save(&mut self, until: Instant) -> Option<End> {
        let now = Instant::now();
        self.alarm = None;
        if !self.hold_saves() {
            self.pump.inspect.client.pass_save();
            self.pump.pause(Peer::Client, false);
            return None;
        }
        if now >= until {
            tracing::info!("the client saves, and its open is not answered");
            return Some(End::TimedOut);
        }
        self.alarm = Some(Alarm::Save { at: now + judge::SAVES_LOOK, until });
        None
    }

    async fn on_reply(&mut self) -> Option<End> {
        let tenant = self.shared.present(&self.tenant);
        let text = self.pump.inspect.server.text();
        match judge::reply(&self.shared, &tenant, &self.session, text).await {
            Reply::Pass => self.pump.inspect.server.pass_held(),
            Reply::Replace(text) => self.pump.inspect.server.replace_held(text.as_bytes()),
            Reply::Refuse => {
                self.dismiss(DisconnectCode::AccessDenied).await;
                return Some(End::Refused);
            }
            Reply::Forbid => {
                self.dismiss(DisconnectCode::AccessDenied).await;
                return Some(End::Violation);
            }
        }
        match self.alarm {
            // At once: the client may be gone, and what it saved is not to go with it.
            Some(Alarm::Save { until, .. }) => self.on_save(until),
            Some(Alarm::Closed { .. }) | None => {
                self.hold_saves();
                None
            }
        }
    }

    async fn on_violation(&mut self, violation: Violation) -> End {
        tracing::info!(%violation, "the client broke the protocol");
        match violation {
            Violation::Frame(error) => self.farewell(&[], error.close_code()).await,
            Violation::Ambiguous | Violation::HeldTooLong { .. } | Violation::NoBudget => {
                self.dismiss(DisconnectCode::AccessDenied).await;
            }
        }
        End::Violation
    }

    /// Whether the WebSocket was opened for a session that still goes on by polling.
    fn is_probing(&self) -> bool {
        self.upgrades.is_some() && !self.upgraded
    }
}

/// Waits for an alarm's time; for ever without one.
async fn due(alarm: Option<Alarm>) -> Alarm {
    match alarm {
        Some(alarm @ (Alarm::Save { at, .. } | Alarm::Closed { at })) => {
            sleep_until(at).await;
            alarm
        }
        None => std::future::pending().await,
    }
}

/// Waits until a session that began by polling is refused there; for ever for any other.
async fn refused(upgrade: Option<&Upgrade>) {
    match upgrade {
        Some(upgrade) => upgrade.polled.refused().await,
        None => std::future::pending().await,
    }
}

/// Waits until a connection that holds one of the watched seats is asked to end; for ever without one.
pub async fn closed(watches: &[SeatWatch]) -> CloseReason {
    any(watches, SeatWatch::closed).await
}

/// Waits until such a connection is called for anything.
async fn called(watches: &[SeatWatch]) -> Call {
    any(watches, SeatWatch::called).await
}

/// The first answer about any of the seats.
async fn any<'w, T>(watches: &'w [SeatWatch], ask: impl AsyncFn(&'w SeatWatch) -> T) -> T {
    let mut asked: Vec<_> = watches.iter().map(|watch| Box::pin(ask(watch))).collect();
    poll_fn(|context| {
        let polled = asked.iter_mut().map(|one| one.as_mut().poll(context));
        polled.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}
