//! What is to be told of one licence's seats: how much is taken, which seats are held, who is
//! counted.

use std::sync::Arc;

use jiff::Timestamp;

use super::lease::{Occupant, SeatId, Sitting};
use super::seats::{LicenceSeats, PIECE};
use super::state::{Held, PerClass, State};
use super::users::CountedUser;
use crate::seat::{SeatClass, SeatKind};

/// How much is taken of one kind of seat (INTERFACE.md, metrics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindUsage {
    pub kind: SeatKind,
    /// All that takes a seat: connected or counted, in reserve, in grace.
    pub used: u64,
    /// Those of `used` that are only kept for a reconnect. Users never are: they stay counted.
    pub grace: u64,
    /// Those of `used` that are users whose open was not accepted yet.
    pub reserve: u64,
}

/// Connections of a class that other processes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// All that takes a seat.
    pub used: u64,
    /// Those of `used` that are only kept for a reconnect.
    pub grace: u64,
    /// Users whose open was not accepted yet.
    pub reserve: u64,
}

/// Where a seat stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Admitted; the document server has not accepted the open yet.
    Opening,
    Connected,
    /// The connection was lost; the seat is kept until then.
    Grace {
        until: Timestamp,
    },
}

/// One seat of an operator's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatInfo {
    pub id: SeatId,
    pub class: SeatClass,
    pub occupant: Occupant,
    /// When the session took its seat; a reconnect does not change it.
    pub since: Timestamp,
    pub phase: Phase,
    /// What the gateway is called that has it, where several share the licence.
    pub gateway: Option<Arc<str>>,
}

/// The counted users of one class, in the order in which they were first counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserList {
    /// What [`LicenceSeats::version`] was for this list.
    pub version: u64,
    pub users: Vec<CountedUser>,
}

impl LicenceSeats {
    /// How much is taken of each kind of seat, in the order of [`SeatKind::ALL`].
    pub fn usage(&self, now: Timestamp) -> [KindUsage; 4] {
        let mut state = self.state.lock();
        state.advance(now);
        SeatKind::ALL.map(|kind| match kind {
            SeatKind::EditorConnections => connections(&state, kind, SeatClass::Editor),
            SeatKind::ViewerConnections => connections(&state, kind, SeatClass::LiveViewer),
            SeatKind::EditorUsers => users(&state, kind, SeatClass::Editor),
            SeatKind::ViewerUsers => users(&state, kind, SeatClass::LiveViewer),
        })
    }

    /// Notes what other processes hold: it is shown, and counts where nobody else decides.
    pub fn set_elsewhere(&self, editor: Elsewhere, live_viewer: Elsewhere) {
        self.state.lock().elsewhere = PerClass { editor, live_viewer };
    }

    /// Notes how much of a kind the authority counted, over all processes, at one moment.
    pub fn note_counted(&self, kind: SeatKind, count: u64) {
        let mut state = self.state.lock();
        let told = state.told.get_or_insert_default();
        if let Some(place) = SeatKind::ALL.iter().position(|one| *one == kind)
            && let Some(number) = told.get_mut(place)
        {
            *number = count;
        }
    }

    /// How much was in use at one moment just past, in the order of [`SeatKind::ALL`]: never more
    /// than there was. What [`Self::usage`] puts together from here and elsewhere can be, for a
    /// second, when sessions go from one process to another; a peak must not be made of that.
    pub fn counted(&self, now: Timestamp) -> [u64; 4] {
        let usage = self.usage(now).map(|usage| usage.used);
        let state = self.state.lock();
        state.told.filter(|_| state.authority.is_some()).unwrap_or(usage)
    }

    /// Users that only this process holds in reserve: editors, live viewers.
    pub fn own_reserve(&self, now: Timestamp) -> (u64, u64) {
        let mut state = self.state.lock();
        state.advance(now);
        (state.users.editor.reserve(), state.users.live_viewer.reserve())
    }

    /// Seats that this process holds, those in grace included, and the sum of their numbers.
    pub fn own_connections(&self, now: Timestamp) -> (u64, u64) {
        let mut state = self.state.lock();
        state.advance(now);
        (state.taken(SeatClass::Editor) + state.taken(SeatClass::LiveViewer), state.sum())
    }

    /// Changes whenever a list of counted users changes, be it that `now` is past an expiry, so
    /// that an answer made from the lists can be kept as long as the version stays.
    pub fn version(&self, now: Timestamp) -> u64 {
        let mut state = self.state.lock();
        state.advance(now);
        state.version
    }

    /// The counted users of a class, in the order in which they were first counted.
    ///
    /// O(n log n), and a vector of n: keep the answer by its version. The lock is held for pieces
    /// of 2,048 rows at a time; what changes meanwhile may or may not be in the list, and the
    /// version is another one then.
    pub fn users(&self, class: SeatClass, now: Timestamp) -> UserList {
        let (version, before, counted) = {
            let mut state = self.state.lock();
            state.advance(now);
            let users = state.users.of(class);
            (state.version, users.next_place(), users.counted())
        };
        let mut found = Vec::with_capacity(usize::try_from(counted).unwrap_or_default());
        let mut from = Some(0);
        while let Some(row) = from {
            from = self.state.lock().users.of(class).copy(row, PIECE, before, &mut found);
        }
        found.sort_unstable_by_key(|(place, _)| *place);
        UserList { version, users: found.into_iter().map(|(_, user)| user).collect() }
    }

    /// The seats held, oldest number first. Taken in pieces: a seat that is taken or given back
    /// meanwhile may or may not be there.
    pub fn seats(&self, now: Timestamp) -> Vec<SeatInfo> {
        let mut found = Vec::new();
        let mut last = SeatId(0);
        loop {
            let before = found.len();
            {
                let mut state = self.state.lock();
                state.advance(now);
                let piece = state.after(last).take(PIECE as usize);
                found.extend(piece.map(|held| (Arc::clone(&held.sitting), phase(held))));
            }
            match found.get(before..).and_then(|piece| piece.last()) {
                Some((sitting, _)) => last = sitting.id,
                None => break,
            }
        }
        let info = |(sitting, phase): (Arc<Sitting>, Phase)| SeatInfo {
            id: sitting.id,
            class: sitting.class,
            occupant: sitting.occupant.clone(),
            since: sitting.since,
            phase,
            gateway: None,
        };
        found.into_iter().map(info).collect()
    }
}

fn connections(state: &State, kind: SeatKind, class: SeatClass) -> KindUsage {
    let elsewhere = state.elsewhere.of(class);
    KindUsage {
        kind,
        used: state.taken(class) + elsewhere.used,
        grace: state.grace(class) + elsewhere.grace,
        reserve: 0,
    }
}

fn users(state: &State, kind: SeatKind, class: SeatClass) -> KindUsage {
    let users = state.users.of(class);
    let elsewhere = state.elsewhere.of(class).reserve;
    KindUsage {
        kind,
        used: users.taken() + elsewhere,
        grace: 0,
        reserve: users.reserve() + elsewhere,
    }
}

fn phase(held: &Held) -> Phase {
    match held.kept_until {
        Some(until) => {
            let until = Timestamp::from_millisecond(until).unwrap_or(Timestamp::MAX);
            Phase::Grace { until }
        }
        None if held.established => Phase::Connected,
        None => Phase::Opening,
    }
}
