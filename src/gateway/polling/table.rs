//! The co-authoring sessions that were opened by polling, found by their engine id.
//!
//! The id is not bound to a path or a TCP connection (WIRE.md section 2), so this table is what a
//! request is judged by. A session that is not in it is nobody's: it never reaches the document
//! server.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::gateway::site::Tenant;
use crate::ledger::SeatId;
use crate::ops::metrics::GaugeGuard;
use crate::session::Session;
use crate::wire::coauthoring::EngineHandshake;

/// The most sessions opened by polling at a time.
const MAX_SESSIONS: usize = 200_000;

/// How long a refused client has to fetch the reason.
const FAREWELL_KEPT: Duration = Duration::from_secs(45);

/// One session that was opened by polling.
pub struct PolledSession {
    pub tenant: Arc<Tenant>,
    /// The document server that has it.
    pub server: SocketAddr,
    pub address: IpAddr,
    /// The client is silent for this long: it is gone. The server's own numbers.
    silence_limit: Duration,
    pub session: Arc<Mutex<Session>>,
    state: Mutex<State>,
    /// Requests and upgraded connections under way.
    under_way: AtomicUsize,
    /// Whether a WebSocket is about to take the session over, or has.
    claimed: AtomicBool,
    /// Wakes a parked request when there are last words.
    pub wake: Notify,
}

struct State {
    /// Counts the session as one of polling until it is upgraded.
    open: Option<GaugeGuard>,
    last_seen: Instant,
    /// The last words for a client that was refused.
    farewell: Option<Vec<u8>>,
    refused: bool,
}

/// All of them.
#[derive(Default)]
pub struct PolledSessions {
    by_id: Mutex<HashMap<Box<str>, Arc<PolledSession>>>,
}

/// A WebSocket's claim on a session that began by polling. Given up when dropped, unless the
/// WebSocket has taken the session over.
pub struct Upgrade {
    pub id: String,
    pub polled: Arc<PolledSession>,
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        if self.polled.state.lock().open.is_some() {
            self.polled.claimed.store(false, Ordering::Release);
        }
    }
}

/// Marks a request as under way.
pub struct UnderWay(Arc<PolledSession>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.state.lock().last_seen = Instant::now();
    }
}

/// Ends a session when dropped.
pub struct Ending(Arc<Mutex<Session>>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().end();
    }
}

impl PolledSession {
    /// The session of a handshake that `server` just answered.
    pub fn new(
        tenant: Arc<Tenant>,
        server: SocketAddr,
        address: IpAddr,
        handshake: &EngineHandshake,
        open: GaugeGuard,
    ) -> Self {
        Self {
            tenant,
            server,
            address,
            silence_limit: handshake.ping_interval.saturating_add(handshake.ping_timeout),
            session: Arc::new(Mutex::new(Session::new(address))),
            state: Mutex::new(State {
                open: Some(open),
                last_seen: Instant::now(),
                farewell: None,
                refused: false,
            }),
            under_way: AtomicUsize::new(0),
            claimed: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Counts a request under way for as long as the guard lives.
    pub fn under_way(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.state.lock().last_seen = Instant::now();
        UnderWay(Arc::clone(self))
    }

    /// Ends the session for the client, with these packets as its last words. What it held is
    /// free when the guard is dropped.
    #[must_use = "the document server is to be told first"]
    pub fn refuse(&self, farewell: Vec<u8>) -> Ending {
        let ending = Ending(Arc::clone(&self.session));
        let mut state = self.state.lock();
        state.farewell = Some(farewell);
        state.refused = true;
        drop(state);
        self.wake.notify_waiters();
        ending
    }

    /// Claims the session for one WebSocket; `None` if another has it. The document server takes
    /// no second one either, and the end of one must never end what another goes on with.
    pub fn claim(self: &Arc<Self>, id: String) -> Option<Upgrade> {
        let claimed = self.claimed.swap(true, Ordering::AcqRel);
        (!claimed).then(|| Upgrade { id, polled: Arc::clone(self) })
    }

    /// A WebSocket carries the session from here on.
    pub fn upgraded(&self) {
        self.state.lock().open = None;
    }

    /// Whether a WebSocket carries the session.
    pub fn is_upgraded(&self) -> bool {
        self.state.lock().open.is_none()
    }

    /// Whether a WebSocket carries the session, or tries to.
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// Waits until the session is refused.
    pub async fn refused(&self) {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            // Registered before the look, so that nothing falls between the two.
            woken.as_mut().enable();
            if self.is_refused() {
                return;
            }
            woken.await;
        }
    }

    /// Whether the session was refused; then nothing of it is forwarded any more.
    pub fn is_refused(&self) -> bool {
        self.state.lock().refused
    }

    /// The last words, once.
    pub fn take_farewell(&self) -> Option<Vec<u8>> {
        self.state.lock().farewell.take()
    }

    fn is_over(&self, now: Instant) -> bool {
        if self.under_way.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let state = self.state.lock();
        let limit = if state.refused { FAREWELL_KEPT } else { self.silence_limit };
        now.saturating_duration_since(state.last_seen) > limit
    }
}

impl PolledSessions {
    /// Adds a session; `false` if there are too many, or one with this id.
    pub fn insert(&self, id: &str, session: Arc<PolledSession>) -> bool {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= MAX_SESSIONS || by_id.contains_key(id) {
            return false;
        }
        by_id.insert(id.into(), session);
        true
    }

    /// The session of an id, if it belongs to that tenant; it stays while the guard lives.
    pub fn find(&self, id: &str, tenant: &Tenant) -> Option<(Arc<PolledSession>, UnderWay)> {
        let by_id = self.by_id.lock();
        let found = by_id.get(id).filter(|found| found.tenant.name == tenant.name)?;
        // In one step with the look, or a sweep between the two could end what goes on.
        Some((Arc::clone(found), found.under_way()))
    }

    /// Gives all of them up; their seats are kept for `grace` from `at` on.
    pub fn lose(&self, at: Timestamp, grace: Duration) {
        let sessions = std::mem::take(&mut *self.by_id.lock());
        for session in sessions.into_values() {
            session.session.lock().lose(at, grace);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, as they are now.
    pub fn sessions(&self) -> Vec<Arc<PolledSession>> {
        self.by_id.lock().values().cloned().collect()
    }

    /// The seats that are held by polling.
    pub fn seats(&self) -> HashSet<SeatId> {
        let sessions = self.sessions();
        let polling = sessions.iter().filter(|session| session.state.lock().open.is_some());
        polling.flat_map(|session| session.session.lock().seat_ids()).collect()
    }

    /// Forgets a session; its seat is free when the last request under way is done.
    pub fn remove(&self, id: &str) {
        // Dropped outside of the lock.
        let _removed = self.by_id.lock().remove(id);
    }

    /// Forgets the sessions whose clients were silent for too long; their seats are kept for
    /// `grace` from `at` on. O(sessions).
    pub fn sweep(&self, at: Timestamp, grace: Duration) {
        let now = Instant::now();
        let mut over = Vec::new();
        self.by_id.lock().retain(|_, session| {
            let is_over = session.is_over(now);
            if is_over {
                over.push(Arc::clone(session));
            }
            !is_over
        });
        for session in over {
            session.session.lock().lose(at, grace);
        }
    }
}
