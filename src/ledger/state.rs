//! What one licence's lock guards: the seats, the sessions they belong to, and the users.
//!
//! Every change is one step here, and every count is exact after it. Knows no lock, no clock and
//! no terms; [`super::seats`] does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::authority::Authority;
use super::counts::Elsewhere;
use super::grace::Grace;
use super::lease::{CloseReason, SeatId, Sitting};
use super::table::Row;
use super::users::UserSet;
use crate::seat::SeatClass;

/// Seats that are over, and expired users' rows, that an operation looks at in passing.
const CLEAR_STEPS: u32 = 8;

/// One value for each class that takes a seat.
#[derive(Debug, Default)]
pub(super) struct PerClass<T> {
    pub(super) editor: T,
    pub(super) live_viewer: T,
}

impl<T> PerClass<T> {
    pub(super) fn of(&self, class: SeatClass) -> &T {
        match class {
            SeatClass::Editor => &self.editor,
            SeatClass::LiveViewer => &self.live_viewer,
        }
    }

    pub(super) fn of_mut(&mut self, class: SeatClass) -> &mut T {
        match class {
            SeatClass::Editor => &mut self.editor,
            SeatClass::LiveViewer => &mut self.live_viewer,
        }
    }
}

/// The id under which a session may come back.
#[derive(Debug)]
pub(super) struct Session {
    /// A keyed hash of user and id, by which the session is found.
    pub(super) key: u64,
    pub(super) id: Box<str>,
}

/// A seat that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) sitting: Arc<Sitting>,
    pub(super) session: Option<Session>,
    /// The user's row, while the user is held in reserve for this seat.
    pub(super) reserve: Option<Row>,
    /// The document server accepted an open of this session.
    pub(super) established: bool,
    /// The millisecond until which a seat whose connection was lost is kept.
    pub(super) kept_until: Option<i64>,
}

/// A seat's number among those of the gateway that gave it.
fn within_owner(id: SeatId) -> u64 {
    id.0 & u64::from(u32::MAX)
}

#[derive(Debug)]
pub(super) struct State {
    /// In the order of their ids, so that lists can be made piece by piece.
    seats: BTreeMap<SeatId, Held>,
    /// Seats held, those in grace included.
    taken: PerClass<u64>,
    /// Grows and shrinks with the seats: two lists of seats that differ hardly ever agree in it.
    sum: u64,
    grace: Grace,
    sessions: BTreeMap<u64, SeatId>,
    pub(super) users: PerClass<UserSet>,
    /// What other processes hold.
    pub(super) elsewhere: PerClass<Elsewhere>,
    /// How much was in use when the authority last told, in the order of `SeatKind::ALL`.
    pub(super) told: Option<[u64; 4]>,
    /// Grows whenever a list of counted users changed.
    pub(super) version: u64,
    /// Who decides, if these counts do not.
    pub(super) authority: Option<Arc<dyn Authority>>,
    /// The authority cannot be reached: it is told of everything when it is back.
    pub(super) alone: bool,
    /// Seats that the authority is being asked for, and whether they were taken over since.
    asking: HashMap<SeatId, bool>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            seats: BTreeMap::new(),
            taken: PerClass::default(),
            sum: 0,
            grace: Grace::new(),
            sessions: BTreeMap::new(),
            users: PerClass { editor: UserSet::new(), live_viewer: UserSet::new() },
            elsewhere: PerClass::default(),
            told: None,
            version: 0,
            authority: None,
            alone: false,
            asking: HashMap::new(),
        }
    }

    /// The authority is being asked for this seat.
    pub(super) fn asks(&mut self, id: SeatId) {
        self.asking.insert(id, false);
    }

    /// The answer about a seat is here, or nobody waits for it any more; `true` if the seat was
    /// taken over in the meantime.
    pub(super) fn arrived(&mut self, id: SeatId) -> bool {
        !self.asking.is_empty() && self.asking.remove(&id) == Some(true)
    }

    /// A seat that is being asked for was taken over elsewhere; `false` if it is none of those.
    pub(super) fn is_taken_over(&mut self, id: SeatId) -> bool {
        self.asking.get_mut(&id).map(|taken| *taken = true).is_some()
    }

    /// All seats.
    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.seats.values().filter(|held| !self.is_over(held))
    }

    /// Brings all counts to `now`: ends the graces that are over, and the users' days.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let ended = self.grace.end(now.as_millisecond());
        self.taken.editor = self.taken.editor.saturating_sub(ended.editor);
        self.taken.live_viewer = self.taken.live_viewer.saturating_sub(ended.live_viewer);
        self.clear(CLEAR_STEPS);
        let second = now.as_second();
        for users in [&mut self.users.editor, &mut self.users.live_viewer] {
            self.version += u64::from(users.advance(second));
            users.purge(CLEAR_STEPS);
        }
    }

    /// Looks at `steps` seats whose grace ended and clears them away; `false` when there are none.
    pub(super) fn clear(&mut self, steps: u32) -> bool {
        for _ in 0..steps {
            let Some(id) = self.grace.next_over() else { return false };
            if self.seats.get(&id).is_some_and(|held| self.is_over(held))
                && let Some(held) = self.seats.remove(&id)
            {
                self.sum = self.sum.wrapping_sub(within_owner(id));
                self.forget_session(id, held.session.as_ref());
            }
            self.grace.looked_at();
        }
        true
    }

    fn is_over(&self, held: &Held) -> bool {
        held.kept_until.is_some_and(|until| self.grace.is_over(until))
    }

    pub(super) fn taken(&self, class: SeatClass) -> u64 {
        *self.taken.of(class)
    }

    /// The sum of the seats' numbers, those whose grace is over and not cleared away among them.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    pub(super) fn grace(&self, class: SeatClass) -> u64 {
        self.grace.kept(class)
    }

    pub(super) fn get(&self, id: SeatId) -> Option<&Held> {
        self.seats.get(&id).filter(|held| !self.is_over(held))
    }

    /// The seats after `after` in the order of their ids.
    pub(super) fn after(&self, after: SeatId) -> impl Iterator<Item = &Held> {
        use std::ops::Bound::{Excluded, Unbounded};
        let seats = self.seats.range((Excluded(after), Unbounded)).map(|(_, held)| held);
        seats.filter(|held| !self.is_over(held))
    }

    /// The seat that this user holds with this session.
    pub(super) fn of_session(&self, session: &Session, user: &str) -> Option<SeatId> {
        let id = *self.sessions.get(&session.key)?;
        let held = self.get(id)?;
        // The key is only a hash: another person's session must not be taken for this one.
        let same = held.session.as_ref().is_some_and(|found| found.id == session.id)
            && *held.sitting.occupant.user == *user;
        same.then_some(id)
    }

    pub(super) fn insert(&mut self, held: Held) {
        let id = held.sitting.id;
        *self.taken.of_mut(held.sitting.class) += 1;
        let key = held.session.as_ref().map(|session| session.key);
        self.seats.insert(id, held);
        self.sum = self.sum.wrapping_add(within_owner(id));
        if let Some(key) = key {
            self.bind(key, id);
        }
    }

    /// Ends a seat: its connection's place, its session and its reserve. `None` if it was void.
    pub(super) fn remove(&mut self, id: SeatId) -> Option<Held> {
        self.get(id)?;
        let held = self.seats.remove(&id)?;
        self.sum = self.sum.wrapping_sub(within_owner(id));
        let class = held.sitting.class;
        let taken = self.taken.of_mut(class);
        *taken = taken.saturating_sub(1);
        if let Some(until) = held.kept_until {
            self.grace.stop(class, until);
        }
        self.forget_session(id, held.session.as_ref());
        if let Some(row) = held.reserve {
            self.users.of_mut(class).release(row);
        }
        Some(held)
    }

    /// The document server accepted the open. Returns the row of the user in reserve, whose hold
    /// passes to the caller; `None` if there is none, or the seat is void.
    pub(super) fn establish(&mut self, id: SeatId, session: Option<Session>) -> Option<Row> {
        let held = self.seats.get_mut(&id)?;
        held.established = true;
        let reserve = held.reserve.take();
        if let Some(session) = session {
            let key = session.key;
            let before = held.session.replace(session);
            self.forget_session(id, before.as_ref());
            self.bind(key, id);
        }
        reserve
    }

    /// Keeps a seat whose connection was lost until that millisecond, if its session can come
    /// back; else ends it.
    pub(super) fn keep(&mut self, id: SeatId, until: i64) -> Option<Held> {
        let held = self.seats.get_mut(&id)?;
        let class = held.sitting.class;
        let can_return = held.established
            && held.session.is_some()
            && held.kept_until.is_none()
            && held.sitting.close.reason() != Some(CloseReason::Operator);
        if !can_return || !self.grace.keep(class, id, until) {
            return self.remove(id);
        }
        held.kept_until = Some(until);
        // Grace keeps a place, not an open under way.
        if let Some(row) = held.reserve.take() {
            self.users.of_mut(class).release(row);
        }
        None
    }

    /// A session belongs to one seat: the last that it was bound to.
    fn bind(&mut self, key: u64, id: SeatId) {
        if let Some(before) = self.sessions.insert(key, id)
            && before != id
            && let Some(held) = self.seats.get_mut(&before)
        {
            held.session = None;
        }
    }

    /// Sessions that can be found.
    #[cfg(test)]
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn forget_session(&mut self, id: SeatId, session: Option<&Session>) {
        if let Some(session) = session
            && self.sessions.get(&session.key) == Some(&id)
        {
            self.sessions.remove(&session.key);
        }
    }
}
