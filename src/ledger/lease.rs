//! A seat in the hands of a connection: a lease that ends with the connection, however it ends.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::authority::Confirmation;
use super::seats::LicenceSeats;
use crate::admission::Reason;
use crate::licence::Licence;
use crate::seat::SeatClass;

/// The number of a seat: unique in a ledger for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeatId(pub u64);

impl fmt::Display for SeatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who sits on a seat, and where: what an operator's list shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupant {
    #[serde(with = "crate::ledger::shared_text")]
    pub tenant: Arc<str>,
    #[serde(with = "crate::ledger::shared_text")]
    pub document: Arc<str>,
    #[serde(with = "crate::ledger::shared_text")]
    pub user: Arc<str>,
    /// The editor's `IsAnonymousUser`; the `anonym` of the license command.
    pub anonymous: bool,
    pub address: IpAddr,
}

/// Why the connection that holds a seat is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CloseReason {
    /// An operator closed the session. The seat is held until the connection ended.
    Operator,
    /// The same user's same session came back on another connection and took the seat over:
    /// this connection has none any more, and must not go on without one.
    Superseded,
}

/// What the connection that holds a seat is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To end.
    Close(CloseReason),
    /// To take a seat of the licence that its tenant has now: see [`LicenceSeats::move_tenant`].
    Move,
}

/// The value of [`CloseFlag`] for [`Call::Move`].
const MOVE: u8 = 3;

/// A request to the connection, set by the ledger.
#[derive(Debug, Default)]
pub(super) struct CloseFlag {
    reason: AtomicU8,
    asked: Notify,
}

impl CloseFlag {
    pub(super) fn ask(&self, reason: CloseReason) {
        let value = match reason {
            CloseReason::Operator => 1,
            CloseReason::Superseded => 2,
        };
        // Superseding is the last word: the ledger has let go of the seat then.
        self.reason.store(value, Ordering::Release);
        self.asked.notify_waiters();
    }

    pub(super) fn reason(&self) -> Option<CloseReason> {
        match self.reason.load(Ordering::Acquire) {
            0 => None,
            1 => Some(CloseReason::Operator),
            MOVE => None,
            _ => Some(CloseReason::Superseded),
        }
    }

    /// Asks the connection to move, unless it is asked to end.
    pub(super) fn call_to_move(&self) {
        let _ = self.reason.compare_exchange(0, MOVE, Ordering::AcqRel, Ordering::Acquire);
        self.asked.notify_waiters();
    }

    fn stay(&self) {
        let _ = self.reason.compare_exchange(MOVE, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    fn call(&self) -> Option<Call> {
        match self.reason.load(Ordering::Acquire) {
            MOVE => Some(Call::Move),
            _ => self.reason().map(Call::Close),
        }
    }

    async fn asked(&self) -> CloseReason {
        self.until(Self::reason).await
    }

    async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let mut asked = std::pin::pin!(self.asked.notified());
        loop {
            // Registered before the look, so that nothing falls between the two.
            asked.as_mut().enable();
            if let Some(found) = look(self) {
                return found;
            }
            asked.as_mut().await;
            asked.set(self.asked.notified());
        }
    }
}

/// What a seat is from its beginning to its end; shared by the lease and the ledger.
#[derive(Debug)]
pub(super) struct Sitting {
    pub(super) id: SeatId,
    pub(super) class: SeatClass,
    pub(super) occupant: Occupant,
    pub(super) since: Timestamp,
    pub(super) close: CloseFlag,
}

/// A seat, owned by the connection that took it.
///
/// Dropping it gives the seat back at once, also while a panic unwinds or a task is cancelled.
/// [`Seat::lost`] keeps it for the session to come back. A seat that was superseded holds
/// nothing any more: whatever is called on it then does nothing.
#[derive(Debug)]
#[must_use = "a seat is given back when it is dropped"]
pub struct Seat {
    licence: Arc<LicenceSeats>,
    sitting: Arc<Sitting>,
    observed: Option<Reason>,
    ended: bool,
}

impl Seat {
    pub(super) fn new(
        licence: Arc<LicenceSeats>,
        sitting: Arc<Sitting>,
        observed: Option<Reason>,
    ) -> Self {
        Self { licence, sitting, observed, ended: false }
    }

    pub fn id(&self) -> SeatId {
        self.sitting.id
    }

    pub fn class(&self) -> SeatClass {
        self.sitting.class
    }

    pub fn occupant(&self) -> &Occupant {
        &self.sitting.occupant
    }

    /// When the session took its seat; a reconnect does not change it.
    pub fn since(&self) -> Timestamp {
        self.sitting.since
    }

    /// Whether the document server accepted an open of the session.
    pub fn is_established(&self) -> bool {
        self.licence.is_established(self.sitting.id)
    }

    /// Whether the licence counts users, and the seat's one takes a place that is recorded nowhere
    /// yet: if the session ended now, nobody would have been counted.
    pub fn is_unrecorded(&self) -> bool {
        self.licence.is_unrecorded(self.sitting.class, &self.sitting.occupant.user)
    }

    /// The licence that the seat belongs to.
    pub fn licence(&self) -> &Arc<LicenceSeats> {
        &self.licence
    }

    /// Why the seat would have been refused, had it not been taken by force.
    pub fn observed(&self) -> Option<Reason> {
        self.observed
    }

    /// The document server accepted the open, under `session_id`.
    ///
    /// From here on a lost connection's seat can be kept for that session, and under a user
    /// licence the user is counted: until the expiry that `terms` give at `now`, never shorter
    /// than before. That takes the open to have been admitted by users, and `terms` to count by
    /// users still; otherwise nobody is counted, and a reserve is given back.
    ///
    /// Returns what is to be done *before* the document server's reply goes on to the client: an
    /// authority to be told, or a record that the store does not know yet, so that no user works
    /// who would be forgotten by a crash. [`LicenceSeats::stored`] says that it was written; until
    /// then every open of the user returns the record again, for opens side by side must all wait.
    pub fn confirm(
        &self,
        session_id: Option<&str>,
        terms: Option<&Licence>,
        now: Timestamp,
    ) -> Confirmation {
        self.licence.confirm(&self.sitting, session_id, terms, now)
    }

    /// Whether the connection was asked to end.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.sitting.close.reason()
    }

    /// Waits until the connection is asked to end.
    pub async fn closed(&self) -> CloseReason {
        self.sitting.close.asked().await
    }

    /// The id under which the session may come back.
    pub fn session_id(&self) -> Option<String> {
        self.licence.session_id(self.sitting.id)
    }

    /// The connection cannot move: it is not called for that any more.
    pub fn stay(&self) {
        self.sitting.close.stay();
    }

    /// A look-out for that request which does not hold the seat.
    pub fn watch(&self) -> SeatWatch {
        SeatWatch { sitting: Arc::clone(&self.sitting) }
    }

    /// The session said goodbye, or was refused: the seat is free now. The same as dropping.
    pub fn release_goodbye(self) {}

    /// The connection ended without a goodbye: the seat is kept until `now + grace` for the same
    /// user with the same session id. A seat that nobody could come back to (never confirmed, no
    /// session id, closed by an operator) is free at once.
    pub fn lost(mut self, now: Timestamp, grace: Duration) {
        self.ended = true;
        self.licence.lose(self.sitting.id, now, grace);
    }
}

/// Sees when the connection that holds a seat is asked to end.
#[derive(Clone, Debug)]
pub struct SeatWatch {
    sitting: Arc<Sitting>,
}

impl SeatWatch {
    /// Waits until the connection is asked to end; for ever if its seat is given back before.
    pub async fn closed(&self) -> CloseReason {
        self.sitting.close.asked().await
    }

    /// Waits until the connection is called for anything; for ever if its seat is given back before.
    pub async fn called(&self) -> Call {
        self.sitting.close.until(CloseFlag::call).await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.ended {
            self.licence.end(self.sitting.id);
        }
    }
}
