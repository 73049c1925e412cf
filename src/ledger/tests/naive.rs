//! The naive ledger: vectors that are scanned, rules straight from PRODUCT.md.

use super::*;
use crate::admission::Usage;
use crate::ledger::CloseReason;
use crate::licence::{Metering, Standing};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Admit {
        class: SeatClass,
        user: u8,
        session: Option<u8>,
        replaces: Option<usize>,
        force: bool,
    },
    Confirm {
        lease: usize,
        session: Option<u8>,
        store: bool,
    },
    Goodbye(usize),
    Drop(usize),
    Lost {
        lease: usize,
        grace_ms: u32,
    },
    Close(u64),
    ReleaseUser {
        class: SeatClass,
        user: u8,
    },
    Load {
        class: SeatClass,
        user: u8,
        day: i64,
    },
    Wait(i64),
    /// To this many milliseconds off the instant at which the day's users expire.
    WaitForExpiry(i64),
    Terms(usize),
    Sweep,
}

#[derive(Debug)]
pub(super) struct ModelSeat {
    pub(super) id: u64,
    pub(super) class: SeatClass,
    pub(super) user: u8,
    pub(super) session: Option<u8>,
    pub(super) established: bool,
    pub(super) reserve: bool,
    pub(super) since_ms: i64,
    pub(super) until_ms: Option<i64>,
}

#[derive(Debug)]
pub(super) struct ModelUser {
    pub(super) class: SeatClass,
    pub(super) user: u8,
    pub(super) expires: i64,
    pub(super) stored: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) seats: Vec<ModelSeat>,
    pub(super) users: Vec<ModelUser>,
    pub(super) asked: Vec<(u64, CloseReason)>,
    pub(super) now_ms: i64,
}

impl Model {
    pub(super) fn tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.seats.retain(|seat| seat.until_ms.is_none_or(|until| until > now_ms));
    }

    pub(super) fn is_counted(&self, class: SeatClass, user: u8) -> bool {
        self.counted(class).any(|found| found.user == user)
    }

    pub(super) fn counted(&self, class: SeatClass) -> impl Iterator<Item = &ModelUser> {
        let now_ms = self.now_ms;
        self.users.iter().filter(move |u| u.class == class && u.expires * 1_000 > now_ms)
    }

    /// Users in reserve who are not counted, but for what these seats hold.
    pub(super) fn reserve(&self, class: SeatClass, without: &[u64]) -> Vec<u8> {
        let mut reserve: Vec<u8> = self
            .seats
            .iter()
            .filter(|s| s.class == class && s.reserve && !without.contains(&s.id))
            .map(|s| s.user)
            .filter(|user| !self.is_counted(class, *user))
            .collect();
        reserve.sort_unstable();
        reserve.dedup();
        reserve
    }

    pub(super) fn decide(
        &self,
        class: SeatClass,
        user: u8,
        mine: &[u64],
        terms: Option<&Licence>,
    ) -> Result<(), Reason> {
        let now = Timestamp::from_millisecond(self.now_ms).unwrap();
        let against = match terms.map(|terms| terms.standing(now)) {
            Some(Standing::Valid) => None,
            Some(Standing::NotStarted) => Some(Reason::LicenceNotStarted),
            Some(Standing::Expired) => Some(Reason::LicenceExpired),
            Some(Standing::Revoked) => Some(Reason::LicenceRevoked),
            None => Some(Reason::LicenceMissing),
        };
        if let Some(reason) = against {
            let goes_on = self
                .seats
                .iter()
                .any(|s| mine.contains(&s.id) && s.class == class && s.user == user);
            return if goes_on { Ok(()) } else { Err(reason) };
        }
        let Some(terms) = terms else { unreachable!() };
        let quota = terms.quota;
        if quota.users_count > 0 {
            let (limit, reason) = match class {
                EDITOR => (quota.users_count, Reason::Users),
                LIVE => (quota.users_view_count, Reason::UsersView),
            };
            let known = self.is_counted(class, user) || self.reserve(class, &[]).contains(&user);
            let taken = self.counted(class).count() + self.reserve(class, mine).len();
            if known || taken < limit as usize { Ok(()) } else { Err(reason) }
        } else {
            let (limit, reason) = match class {
                EDITOR => (quota.connections, Reason::Connections),
                LIVE => (quota.connections_view, Reason::ConnectionsView),
            };
            let of_class = |mine_too: bool| {
                let seats = self.seats.iter().filter(|s| s.class == class);
                seats.filter(|s| mine.contains(&s.id) == mine_too).count()
            };
            if of_class(true) > 0 || of_class(false) < limit as usize {
                Ok(())
            } else {
                Err(reason)
            }
        }
    }

    /// The seats that the asker holds itself.
    pub(super) fn mine(&self, step: &Step, replaces: Option<u64>) -> Vec<u64> {
        let Step::Admit { user, session, .. } = *step else { unreachable!() };
        let is_mine = |seat: &&ModelSeat| {
            Some(seat.id) == replaces
                || session.is_some() && seat.session == session && seat.user == user
        };
        self.seats.iter().filter(is_mine).map(|seat| seat.id).collect()
    }

    pub(super) fn usage(&self, step: &Step, replaces: Option<u64>) -> Usage {
        let Step::Admit { class, user, .. } = *step else { unreachable!() };
        let mine = self.mine(step, replaces);
        let (own, others): (Vec<_>, Vec<_>) =
            self.seats.iter().filter(|s| s.class == class).partition(|s| mine.contains(&s.id));
        let user_is_counted =
            self.is_counted(class, user) || self.reserve(class, &[]).contains(&user);
        let mut reserve = self.reserve(class, &mine);
        if user_is_counted && !self.is_counted(class, user) && !reserve.contains(&user) {
            reserve.push(user);
        }
        Usage {
            connections: others.len() as u64,
            users: (self.counted(class).count() + reserve.len()) as u64,
            user_is_counted,
            holds_connection: !own.is_empty(),
            goes_on: own.iter().any(|s| s.user == user),
        }
    }

    pub(super) fn bind(&mut self, id: u64, user: u8, session: u8) {
        for seat in &mut self.seats {
            if seat.id == id {
                seat.session = Some(session);
            } else if seat.user == user && seat.session == Some(session) {
                seat.session = None;
            }
        }
    }

    pub(super) fn position(&self, id: u64) -> Option<usize> {
        self.seats.iter().position(|seat| seat.id == id)
    }

    /// Everything but the number of the new seat, which is given.
    pub(super) fn admit(
        &mut self,
        step: &Step,
        replaces: Option<u64>,
        terms: Option<&Licence>,
        id: u64,
    ) -> (bool, Option<Reason>) {
        let Step::Admit { class, user, session, force, .. } = step.clone() else { unreachable!() };
        let own = replaces.and_then(|id| self.position(id));
        let mine = self.mine(step, replaces);
        let twin = mine.iter().filter_map(|id| self.position(*id)).find(|at| Some(*at) != own);
        let outcome = self.decide(class, user, &mine, terms);
        if outcome.is_err() && !force {
            return (false, outcome.err());
        }
        let own = own.map(|at| &self.seats[at]).filter(|own| own.user == user);
        let twin = twin.map(|at| &self.seats[at]);
        let seat = ModelSeat {
            id,
            class,
            user,
            session: session.or(own.and_then(|own| own.session)),
            established: own.is_some_and(|s| s.established) || twin.is_some_and(|s| s.established),
            reserve: terms.is_some_and(|terms| terms.quota.users_count > 0),
            since_ms: twin.or(own).map_or(self.now_ms, |s| s.since_ms),
            until_ms: None,
        };
        if let Some(twin) = twin {
            self.asked.push((twin.id, CloseReason::Superseded));
        }
        self.seats.retain(|seat| !mine.contains(&seat.id));
        let bound = seat.session;
        self.seats.push(seat);
        if let Some(session) = bound {
            self.bind(id, user, session);
        }
        (true, outcome.err())
    }

    pub(super) fn confirm(
        &mut self,
        id: u64,
        session: Option<u8>,
        terms: Option<&Licence>,
    ) -> Option<(SeatClass, u8, i64)> {
        let at = self.position(id)?;
        let (class, user) = (self.seats[at].class, self.seats[at].user);
        self.seats[at].established = true;
        let reserve = std::mem::take(&mut self.seats[at].reserve);
        if let Some(session) = session {
            self.bind(id, user, session);
        }
        let quota = terms?.quota;
        if !reserve || quota.metering() != Metering::Users {
            return None;
        }
        let day = self.now_ms / 86_400_000 + i64::from(quota.users_expire_days);
        self.count(class, user, day * 86_400 + 86_399)
    }

    pub(super) fn count(
        &mut self,
        class: SeatClass,
        user: u8,
        expires: i64,
    ) -> Option<(SeatClass, u8, i64)> {
        let now_ms = self.now_ms;
        let known = self
            .users
            .iter_mut()
            .find(|u| u.class == class && u.user == user && u.expires * 1_000 > now_ms);
        if let Some(known) = known {
            if expires > known.expires {
                (known.expires, known.stored) = (expires, false);
            }
            return (!known.stored).then_some((class, user, known.expires));
        }
        if expires * 1_000 <= now_ms {
            return None;
        }
        self.forget(class, user);
        self.users.push(ModelUser { class, user, expires, stored: false });
        Some((class, user, expires))
    }

    pub(super) fn forget(&mut self, class: SeatClass, user: u8) {
        self.users.retain(|u| u.class != class || u.user != user);
    }

    pub(super) fn set_stored(&mut self, class: SeatClass, user: u8) {
        for found in self.users.iter_mut().filter(|u| u.class == class && u.user == user) {
            found.stored = true;
        }
    }

    pub(super) fn lose(&mut self, id: u64, grace_ms: u32) {
        let Some(at) = self.position(id) else { return };
        let closed = self.asked.contains(&(id, CloseReason::Operator));
        let seat = &mut self.seats[at];
        if seat.established && seat.session.is_some() && grace_ms > 0 && !closed {
            seat.until_ms = Some(self.now_ms + i64::from(grace_ms));
            seat.reserve = false;
        } else {
            self.seats.remove(at);
        }
    }

    pub(super) fn close(&mut self, id: u64) -> bool {
        let Some(at) = self.position(id) else { return false };
        if self.seats[at].until_ms.is_some() {
            self.seats.remove(at);
        } else {
            self.asked.push((id, CloseReason::Operator));
        }
        true
    }

    pub(super) fn asked(&self, id: u64) -> Option<CloseReason> {
        let asked = |reason| self.asked.contains(&(id, reason)).then_some(reason);
        asked(CloseReason::Superseded).or_else(|| asked(CloseReason::Operator))
    }
}
