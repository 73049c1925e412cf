//! The seats of one licence: who holds one, and the one decision about the next.
//!
//! One lock guards the licence; an operation is one step under it, and the lock is never held
//! across an await, nor for longer than a piece of a list. Knows nothing of HTTP, files or the
//! clock: `now` is an argument everywhere. What an [`Authority`] is asked and told is in `shared`,
//! what is counted and listed in `counts`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::authority::{Accepted, Authority, Confirmation, Granted};
use super::lease::{CloseReason, Occupant, Seat, SeatId, Sitting};
use super::state::{Held, Session, State};
use super::users::{CountedUser, UserRecord};
use crate::admission::{self, Reason, Usage};
use crate::licence::{Licence, Metering, user_expiry};
use crate::seat::SeatClass;

/// A longer session id is not remembered; the document server's own have 20 characters.
const SESSION_ID_LIMIT_BYTES: usize = 256;
/// Rows or seats that are copied or cleared under the lock in one go.
pub(super) const PIECE: u32 = 2_048;

/// A connection asks for a seat.
#[derive(Clone, Debug)]
pub struct SeatRequest<'a> {
    pub class: SeatClass,
    pub occupant: Occupant,
    /// The session id that the client presents to go on with, if any.
    pub session_id: Option<&'a str>,
    /// The asking connection's own seat so far: it is left out of the count, and the new one
    /// takes its place. On a refusal it stays as it was.
    pub replaces: Option<SeatId>,
    /// Observe only: take the seat in any case; [`Seat::observed`] has the reason against it.
    pub force: bool,
}

/// No seat, and what was taken at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    pub usage: Usage,
}

/// The seats of one licence.
#[derive(Debug)]
pub struct LicenceSeats {
    pub(super) licence: Arc<str>,
    hasher: RandomState,
    next_id: Arc<AtomicU64>,
    pub(super) state: Mutex<State>,
}

/// Who decides an open.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// The counts here.
    Here,
    /// An authority did: the seat has this id there.
    Granted(SeatId, Granted),
}

/// Why no seat was taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    Refused(Refusal),
    /// This one is to be asked.
    Elsewhere(Arc<dyn Authority>),
}

impl LicenceSeats {
    pub(super) fn new(
        licence: Arc<str>,
        next_id: Arc<AtomicU64>,
        authority: Option<Arc<dyn Authority>>,
    ) -> Self {
        let mut state = State::new();
        state.authority = authority;
        Self { licence, hasher: RandomState::new(), next_id, state: Mutex::new(state) }
    }

    /// The id of the licence.
    pub fn licence_id(&self) -> &Arc<str> {
        &self.licence
    }

    /// Decides one open and takes its seat, in one step.
    ///
    /// Every seat is held as a connection of its class, whatever the licence counts; only what
    /// it counts limits. Under a user licence the user is also held in reserve until
    /// [`Seat::confirm`]; several opens of one user hold one reserve. A request with the session
    /// id and the user of a seat that is held, in grace or by a lingering connection, takes that
    /// seat over; the connection that had it is told [`CloseReason::Superseded`].
    ///
    /// Where an [`Authority`] is set, nothing is decided here: see [`LicenceSeats::open`].
    ///
    /// # Errors
    /// The refusal, by [`admission::decide`]; never with `force`.
    pub fn admit(
        self: &Arc<Self>,
        request: SeatRequest<'_>,
        terms: Option<&Licence>,
        now: Timestamp,
    ) -> Result<Seat, Refusal> {
        match self.take(request, terms, now, Decision::Here) {
            Ok(seat) => Ok(seat),
            Err(NotTaken::Refused(refusal)) => Err(refusal),
            Err(NotTaken::Elsewhere(_)) => {
                Err(Refusal { reason: Reason::StoreUnavailable, usage: Usage::default() })
            }
        }
    }

    /// Takes a seat, in one step with the decision unless that was made already.
    pub(super) fn take(
        self: &Arc<Self>,
        request: SeatRequest<'_>,
        terms: Option<&Licence>,
        now: Timestamp,
        decision: Decision,
    ) -> Result<Seat, NotTaken> {
        let SeatRequest { class, mut occupant, session_id, replaces, force } = request;
        let hash = self.hash_user(&occupant.user);
        let mut session = self.session(session_id, &occupant.user);

        let mut state = self.state.lock();
        state.advance(now);
        let own = replaces.and_then(|id| state.get(id));
        let twin = session
            .as_ref()
            .and_then(|session| state.of_session(session, &occupant.user))
            .filter(|id| Some(*id) != replaces)
            .and_then(|id| state.get(id));

        let (id, observed, prior) = match (decision, &state.authority) {
            (Decision::Granted(id, granted), _) => (Some(id), granted.observed, Some(granted)),
            (Decision::Here, Some(authority)) => {
                return Err(NotTaken::Elsewhere(Arc::clone(authority)));
            }
            (Decision::Here, None) => {
                let usage = usage_without(&state, class, &occupant.user, hash, own, twin);
                match admission::decide(terms, class, usage, now) {
                    Ok(()) => (None, None, None),
                    Err(reason) if force => (None, Some(reason), None),
                    Err(reason) => return Err(NotTaken::Refused(Refusal { reason, usage })),
                }
            }
        };

        let own_continued = own.filter(|own| own.sitting.occupant.user == occupant.user);
        let established = [twin, own_continued].iter().flatten().any(|held| held.established)
            || prior.is_some_and(|prior| prior.established);
        // By the authority's clock where it tells, so that processes can compare.
        let since = prior
            .and_then(|prior| prior.since)
            .or(twin.or(own_continued).map(|held| held.sitting.since))
            .unwrap_or(now);
        if session.is_none() {
            session = own_continued
                .and_then(|own| own.session.as_ref())
                .map(|session| Session { key: session.key, id: session.id.clone() });
        }
        let twin = twin.map(|held| held.sitting.id);

        let mut reserve = None;
        if terms.is_some_and(|terms| terms.quota.metering() == Metering::Users)
            && let Some((row, user)) = state.users.of_mut(class).hold(hash, &occupant.user)
        {
            occupant.user = user;
            reserve = Some(row);
        }
        let left_own = replaces.and_then(|id| state.remove(id));
        let left_twin = twin.and_then(|id| state.remove(id));
        let id = id.unwrap_or_else(|| self.new_id());
        let close = Default::default();
        let sitting = Arc::new(Sitting { id, class, occupant, since, close });
        state.insert(Held {
            sitting: Arc::clone(&sitting),
            session,
            reserve,
            established,
            kept_until: None,
        });
        if state.arrived(id) {
            // It was taken over elsewhere between the authority's yes and now.
            state.remove(id);
            sitting.close.ask(CloseReason::Superseded);
        }
        drop(state);

        drop(left_own);
        if let Some(left) = left_twin {
            left.sitting.close.ask(CloseReason::Superseded);
        }
        Ok(Seat::new(Arc::clone(self), sitting, observed))
    }

    pub(super) fn new_id(&self) -> SeatId {
        SeatId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts the users that the store remembers, in its order; those expired at `now` are
    /// left out. May be called at any time: a later expiry stays.
    pub fn load_users(&self, records: impl IntoIterator<Item = UserRecord>, now: Timestamp) {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut state = self.state.lock();
            state.advance(now);
            for record in records.by_ref().take(PIECE as usize) {
                let hash = self.hash_user(&record.user);
                let changed = state.users.of_mut(record.class).load(hash, &record);
                state.version += u64::from(changed);
            }
        }
    }

    /// The store holds this record now: see [`Seat::confirm`].
    pub fn stored(&self, record: &UserRecord) {
        let hash = self.hash_user(&record.user);
        let mut state = self.state.lock();
        let changed = state.users.of_mut(record.class).stored(hash, record);
        state.version += u64::from(changed);
    }

    /// The store could not take this record. `true`: it knows the user from before, and only
    /// their expiry moved, so they may go on. `false`: the user is no longer counted,
    /// and must not be let in, as a crash would forget them.
    pub fn unstored(&self, record: &UserRecord, now: Timestamp) -> bool {
        let hash = self.hash_user(&record.user);
        let mut state = self.state.lock();
        state.advance(now);
        let known = state.users.of_mut(record.class).unstored(hash, record);
        state.version += u64::from(!known);
        known
    }

    pub(super) fn is_unrecorded(&self, class: SeatClass, user: &str) -> bool {
        let hash = self.hash_user(user);
        self.state.lock().users.of(class).is_unrecorded(hash, user)
    }

    /// The seat of the user's session of that id, if it runs over a connection of this process.
    pub fn running(&self, session_id: &str, user: &str) -> Option<(SeatId, SeatClass)> {
        let session = self.session(Some(session_id), user)?;
        let state = self.state.lock();
        let held = state.get(state.of_session(&session, user)?)?;
        let runs = held.established && held.kept_until.is_none();
        runs.then_some((held.sitting.id, held.sitting.class))
    }

    /// An operator stops counting a user; `true` if they were counted. Whoever works goes on,
    /// and an open under way stays in reserve. The caller takes the user out of the store.
    pub fn release_user(&self, class: SeatClass, user: &str, now: Timestamp) -> bool {
        let hash = self.hash_user(user);
        let mut state = self.state.lock();
        state.advance(now);
        let released = state.users.of_mut(class).forget(hash, user);
        state.version += u64::from(released);
        released
    }

    /// An operator closes a session; `false` if there is no such seat. A seat in grace is free
    /// at once; a connection is asked to end ([`Seat::closed`]), and holds its seat until it did.
    pub fn close(&self, id: SeatId) -> bool {
        let state = self.state.lock();
        let Some(held) = state.get(id) else { return false };
        if held.kept_until.is_some() {
            self.free(state, id);
        } else {
            held.sitting.close.ask(CloseReason::Operator);
        }
        true
    }

    /// Ends what is over at `now` and clears it away. Counts are exact without it; called every
    /// second or so, it gives memory back.
    pub fn sweep(&self, now: Timestamp) {
        self.state.lock().advance(now);
        for _ in 0..64 {
            if !self.state.lock().clear(PIECE / 8) {
                break;
            }
        }
        for class in [SeatClass::Editor, SeatClass::LiveViewer] {
            // Enough for a million users in a minute, and never long in one go.
            for _ in 0..64 {
                if !self.state.lock().users.of_mut(class).purge(PIECE / 8) {
                    break;
                }
            }
        }
    }

    pub(super) fn confirm(
        &self,
        sitting: &Sitting,
        session_id: Option<&str>,
        terms: Option<&Licence>,
        now: Timestamp,
    ) -> Confirmation {
        let session = self.session(session_id, &sitting.occupant.user);
        let expires = terms
            .filter(|terms| terms.quota.metering() == Metering::Users)
            .map(|terms| user_expiry(now, terms.quota.users_expire_days).as_second());
        let mut state = self.state.lock();
        state.advance(now);
        let authority = state.authority.clone();
        let row = state.establish(sitting.id, session);
        let record = row.and_then(|row| {
            let users = state.users.of_mut(sitting.class);
            let Some(expires) = expires else {
                users.release(row);
                return None;
            };
            let (changed, unknown) = users.record(row, expires, sitting.occupant.anonymous);
            state.version += u64::from(changed);
            unknown.map(|CountedUser { user, expires, anonymous }| UserRecord {
                class: sitting.class,
                user,
                expires,
                anonymous,
            })
        });
        drop(state);
        let authority = authority.map(|authority| {
            let user = expires.and_then(|expires| Timestamp::from_second(expires).ok());
            let user = user.map(|expires| UserRecord {
                class: sitting.class,
                user: Arc::clone(&sitting.occupant.user),
                expires,
                anonymous: sitting.occupant.anonymous,
            });
            let session_id = session_id.map(str::to_owned);
            (authority, Accepted { seat: sitting.id, session_id, user })
        });
        Confirmation { authority, record }
    }

    pub(super) fn lose(&self, id: SeatId, now: Timestamp, grace: Duration) {
        let until = now.saturating_add(grace).unwrap_or(Timestamp::MAX);
        // Whole milliseconds, and never a part of one too short.
        let rest = until.subsec_nanosecond().rem_euclid(1_000_000) > 0;
        let until = until.as_millisecond().saturating_add(i64::from(rest));
        let mut state = self.state.lock();
        state.advance(now);
        let authority = state.authority.clone();
        let left = if grace.is_zero() { state.remove(id) } else { state.keep(id, until) };
        let kept = state.get(id).is_some_and(|held| held.kept_until.is_some());
        drop(state);
        drop(left);
        match authority {
            Some(authority) if kept => authority.keep(&self.licence, id, grace),
            Some(authority) => authority.release(&self.licence, id),
            None => {}
        }
    }

    pub(super) fn end(&self, id: SeatId) {
        self.free(self.state.lock(), id);
    }

    /// Gives a seat back, to the authority as well.
    fn free(&self, mut state: MutexGuard<'_, State>, id: SeatId) {
        let authority = state.authority.clone();
        let left = state.remove(id);
        drop(state);
        drop(left);
        if let Some(authority) = authority {
            authority.release(&self.licence, id);
        }
    }

    /// Rows of users in memory, the expired ones included.
    #[cfg(test)]
    pub(super) fn user_rows(&self, class: SeatClass) -> usize {
        self.state.lock().users.of(class).len()
    }

    /// Sessions in memory.
    #[cfg(test)]
    pub(super) fn sessions(&self) -> usize {
        self.state.lock().sessions()
    }

    /// Keyed at random: user ids come from outside.
    #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
    pub(super) fn hash_user(&self, user: &str) -> u32 {
        self.hasher.hash_one(user) as u32
    }

    pub(super) fn session(&self, id: Option<&str>, user: &str) -> Option<Session> {
        let id = id.filter(|id| !id.is_empty() && id.len() <= SESSION_ID_LIMIT_BYTES)?;
        Some(Session { key: self.hasher.hash_one((user, id)), id: id.into() })
    }
}

/// What is taken, without what the asker itself holds: the seat that the new one replaces, and
/// the one of the session that comes back.
fn usage_without(
    state: &State,
    class: SeatClass,
    user: &str,
    hash: u32,
    own: Option<&Held>,
    twin: Option<&Held>,
) -> Usage {
    let mine = [own, twin];
    let of_class = || mine.iter().flatten().filter(|held| held.sitting.class == class);
    let held = of_class().count() as u64;
    let users = state.users.of(class);
    // The seats' reserves are their own users'; another's falls with the seat.
    let others = of_class()
        .filter_map(|held| held.reserve)
        .filter(|row| users.is_reserve_of_one_other_than(*row, user))
        .count() as u64;
    Usage {
        connections: (state.taken(class) + state.elsewhere.of(class).used).saturating_sub(held),
        users: users.taken().saturating_sub(others),
        user_is_counted: users.takes(hash, user),
        holds_connection: held > 0,
        goes_on: of_class().any(|held| *held.sitting.occupant.user == *user),
    }
}
