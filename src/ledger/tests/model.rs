//! The ledger against a naive one: vectors that are scanned, rules straight from PRODUCT.md.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::admission::Usage;
use crate::ledger::{CloseReason, Phase, SeatId, UserRecord};
use crate::licence::{Metering, Standing};

/// Ten seconds before a midnight, so that histories cross it.
const START_MS: i64 = 1_783_468_790_000;

#[derive(Clone, Debug)]
enum Step {
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
struct ModelSeat {
    id: u64,
    class: SeatClass,
    user: u8,
    session: Option<u8>,
    established: bool,
    reserve: bool,
    since_ms: i64,
    until_ms: Option<i64>,
}

#[derive(Debug)]
struct ModelUser {
    class: SeatClass,
    user: u8,
    expires: i64,
    stored: bool,
}

#[derive(Debug, Default)]
struct Model {
    seats: Vec<ModelSeat>,
    users: Vec<ModelUser>,
    asked: Vec<(u64, CloseReason)>,
    now_ms: i64,
}

impl Model {
    fn tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.seats.retain(|seat| seat.until_ms.is_none_or(|until| until > now_ms));
    }

    fn is_counted(&self, class: SeatClass, user: u8) -> bool {
        self.counted(class).any(|found| found.user == user)
    }

    fn counted(&self, class: SeatClass) -> impl Iterator<Item = &ModelUser> {
        let now_ms = self.now_ms;
        self.users.iter().filter(move |u| u.class == class && u.expires * 1_000 > now_ms)
    }

    /// Users in reserve who are not counted, but for what these seats hold.
    fn reserve(&self, class: SeatClass, without: &[u64]) -> Vec<u8> {
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

    fn decide(
        &self,
        class: SeatClass,
        user: u8,
        mine: &[u64],
        terms: Option<&Licence>,
    ) -> Result<(), Reason> {
        let Some(terms) = terms else { return Err(Reason::LicenceMissing) };
        match terms.standing(Timestamp::from_millisecond(self.now_ms).unwrap()) {
            Standing::Valid => {}
            Standing::NotStarted => return Err(Reason::LicenceNotStarted),
            Standing::Expired => return Err(Reason::LicenceExpired),
            Standing::Revoked => return Err(Reason::LicenceRevoked),
        }
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
    fn mine(&self, step: &Step, replaces: Option<u64>) -> Vec<u64> {
        let Step::Admit { user, session, .. } = *step else { unreachable!() };
        let is_mine = |seat: &&ModelSeat| {
            Some(seat.id) == replaces
                || session.is_some() && seat.session == session && seat.user == user
        };
        self.seats.iter().filter(is_mine).map(|seat| seat.id).collect()
    }

    fn usage(&self, step: &Step, replaces: Option<u64>) -> Usage {
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
        }
    }

    fn bind(&mut self, id: u64, user: u8, session: u8) {
        for seat in &mut self.seats {
            if seat.id == id {
                seat.session = Some(session);
            } else if seat.user == user && seat.session == Some(session) {
                seat.session = None;
            }
        }
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.seats.iter().position(|seat| seat.id == id)
    }

    /// Everything but the number of the new seat, which is given.
    fn admit(
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

    fn confirm(
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

    fn count(&mut self, class: SeatClass, user: u8, expires: i64) -> Option<(SeatClass, u8, i64)> {
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

    fn forget(&mut self, class: SeatClass, user: u8) {
        self.users.retain(|u| u.class != class || u.user != user);
    }

    fn set_stored(&mut self, class: SeatClass, user: u8) {
        for found in self.users.iter_mut().filter(|u| u.class == class && u.user == user) {
            found.stored = true;
        }
    }

    fn lose(&mut self, id: u64, grace_ms: u32) {
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

    fn close(&mut self, id: u64) -> bool {
        let Some(at) = self.position(id) else { return false };
        if self.seats[at].until_ms.is_some() {
            self.seats.remove(at);
        } else {
            self.asked.push((id, CloseReason::Operator));
        }
        true
    }

    fn asked(&self, id: u64) -> Option<CloseReason> {
        let asked = |reason| self.asked.contains(&(id, reason)).then_some(reason);
        asked(CloseReason::Superseded).or_else(|| asked(CloseReason::Operator))
    }
}

fn terms() -> Vec<Option<Licence>> {
    let mixed = licence(Quota {
        connections: 2,
        connections_view: 1,
        users_count: 1,
        users_view_count: 1,
        users_expire_days: 0,
    });
    let ends = Timestamp::from_millisecond(START_MS + 60_000).unwrap();
    vec![
        Some(connections(2, 1)),
        Some(connections(1, 0)),
        Some(connections(3, 3)),
        Some(users(2, 1, 1)),
        Some(users(3, 3, 0)),
        Some(users(1, 2, 3)),
        Some(mixed),
        Some(Licence { revoked: true, ..users(2, 2, 1) }),
        Some(Licence { end: Some(ends), ..users(4, 4, 2) }),
        None,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let class = || prop_oneof![3 => Just(EDITOR), 2 => Just(LIVE)];
    let session = || prop::option::of(0u8..3);
    let lease = || 0usize..64;
    prop_oneof![
        10 => (class(), 0u8..5, session(), prop::option::weighted(0.25, lease()),
               prop::bool::weighted(0.1))
            .prop_map(|(class, user, session, replaces, force)| {
                Step::Admit { class, user, session, replaces, force }
            }),
        8 => (lease(), session(), any::<bool>())
            .prop_map(|(lease, session, store)| Step::Confirm { lease, session, store }),
        2 => lease().prop_map(Step::Goodbye),
        2 => lease().prop_map(Step::Drop),
        5 => (lease(), prop_oneof![Just(0u32), Just(1), 1_000u32..40_000])
            .prop_map(|(lease, grace_ms)| Step::Lost { lease, grace_ms }),
        1 => (1u64..60).prop_map(Step::Close),
        1 => (class(), 0u8..5).prop_map(|(class, user)| Step::ReleaseUser { class, user }),
        1 => (class(), 0u8..5, -1i64..4)
            .prop_map(|(class, user, day)| Step::Load { class, user, day }),
        4 => prop_oneof![
            -1_500i64..0, 1i64..2_000, Just(1_000), Just(30_000), Just(3_600_000),
            Just(40_000_000), Just(86_400_000), Just(4 * 86_400_000),
        ].prop_map(Step::Wait),
        2 => prop_oneof![-1_001i64..1_001, -1i64..2].prop_map(Step::WaitForExpiry),
        1 => (0..terms().len()).prop_map(Step::Terms),
        1 => Just(Step::Sweep),
    ]
}

/// The two ledgers and the leases of the real one.
struct Run {
    real: Arc<LicenceSeats>,
    model: Model,
    leases: Vec<Seat>,
    terms: Vec<Option<Licence>>,
    current: usize,
    now_ms: i64,
    latest_ms: i64,
    admitted: u64,
    shown: (Vec<Vec<(String, i64)>>, u64),
}

impl Run {
    fn new(first_terms: usize) -> Self {
        Self {
            real: seats(),
            model: Model::default(),
            leases: Vec::new(),
            terms: terms(),
            current: first_terms,
            now_ms: START_MS,
            latest_ms: START_MS,
            admitted: 0,
            shown: (vec![Vec::new(), Vec::new()], 0),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms).unwrap()
    }

    /// Takes a lease out of the connections' hands, if there are any.
    fn take(&mut self, lease: usize) -> Option<Seat> {
        (!self.leases.is_empty()).then(|| self.leases.swap_remove(lease % self.leases.len()))
    }

    fn step(&mut self, step: &Step) {
        let now = self.now();
        let terms = self.terms[self.current].clone();
        let terms = terms.as_ref();
        match step {
            Step::Admit { class, user, session, replaces, force } => {
                let user = format!("user-{user}");
                let session_id = session.map(|session| format!("session-{session}"));
                let own = replaces.and_then(|lease| self.take(lease));
                let request = SeatRequest {
                    class: *class,
                    occupant: occupant(&user),
                    session_id: session_id.as_deref(),
                    replaces: own.as_ref(),
                    force: *force,
                };
                let real = self.real.admit(request, terms, now);
                let replaces = own.as_ref().map(|own| own.id().0);
                let expected_usage = self.model.usage(step, replaces);
                let (admitted, reason) = self.model.admit(step, replaces, terms, self.admitted + 1);
                match real {
                    Ok(seat) => {
                        assert!(admitted, "let in against {reason:?}");
                        assert_eq!(seat.observed(), reason);
                        self.admitted += 1;
                        assert_eq!(seat.id(), SeatId(self.admitted));
                        // Its own seat is void from here on, whatever is done with it.
                        self.leases.extend(own);
                        self.leases.push(seat);
                    }
                    Err(refusal) => {
                        assert!(!admitted, "refused for {:?}", refusal.reason);
                        assert_eq!(Some(refusal.reason), reason);
                        assert_eq!(refusal.usage, expected_usage);
                        self.leases.extend(own);
                    }
                }
            }
            Step::Confirm { lease, session, store } => {
                let Some(seat) = self.take(*lease) else { return };
                let session_id = session.map(|session| format!("session-{session}"));
                let real = seat.confirm(session_id.as_deref(), terms, now);
                let model = self.model.confirm(seat.id().0, *session, terms);
                let expected = model.map(|(class, user, expires)| UserRecord {
                    class,
                    user: format!("user-{user}").into(),
                    expires: Timestamp::from_second(expires).unwrap(),
                    anonymous: false,
                });
                assert_eq!(real, expected);
                if let (true, Some(record), Some((class, user, _))) = (store, &real, model) {
                    self.real.stored(record);
                    self.model.set_stored(class, user);
                }
                self.leases.push(seat);
            }
            Step::Goodbye(lease) | Step::Drop(lease) => {
                let Some(seat) = self.take(*lease) else { return };
                let id = seat.id().0;
                self.model.seats.retain(|seat| seat.id != id);
                if matches!(step, Step::Goodbye(_)) { seat.release_goodbye() } else { drop(seat) }
            }
            Step::Lost { lease, grace_ms } => {
                let Some(seat) = self.take(*lease) else { return };
                self.model.lose(seat.id().0, *grace_ms);
                seat.lost(now, Duration::from_millis(u64::from(*grace_ms)));
            }
            Step::Close(id) => {
                assert_eq!(self.real.close(SeatId(*id)), self.model.close(*id));
            }
            Step::ReleaseUser { class, user } => {
                let expected = self.model.is_counted(*class, *user);
                self.model.forget(*class, *user);
                let name = format!("user-{user}");
                assert_eq!(self.real.release_user(*class, &name, now), expected);
            }
            Step::Load { class, user, day } => {
                let expires = (self.now_ms / 86_400_000 + day) * 86_400 + 86_399;
                let record = UserRecord {
                    class: *class,
                    user: format!("user-{user}").into(),
                    expires: Timestamp::from_second(expires).unwrap(),
                    anonymous: false,
                };
                let before = self.model.counted(*class).find(|u| u.user == *user);
                if before.is_none_or(|before| expires > before.expires)
                    && self.model.count(*class, *user, expires).is_some()
                {
                    self.model.set_stored(*class, *user);
                }
                self.real.load_users([record], now);
            }
            Step::Wait(ms) => {
                self.now_ms = (self.now_ms + ms).max(self.latest_ms - 2_000);
                self.latest_ms = self.latest_ms.max(self.now_ms);
            }
            Step::WaitForExpiry(ms) => {
                let expiry = self.now_ms / 86_400_000 * 86_400_000 + 86_399_000;
                self.now_ms = (expiry + ms).max(self.latest_ms - 2_000);
                self.latest_ms = self.latest_ms.max(self.now_ms);
            }
            Step::Terms(number) => self.current = *number,
            Step::Sweep => self.real.sweep(now),
        }
    }

    /// Everything that can be seen is the same.
    fn check(&mut self) {
        let now = self.now();
        self.model.tick(self.now_ms);
        let model = &self.model;
        let expected: Vec<_> = SeatKind::ALL
            .into_iter()
            .map(|kind| {
                let of = |class: SeatClass| model.seats.iter().filter(move |s| s.class == class);
                let seats = |class| {
                    let grace = of(class).filter(|s| s.until_ms.is_some()).count();
                    (kind, of(class).count(), grace, 0)
                };
                let users = |class| {
                    let reserve = model.reserve(class, &[]).len();
                    (kind, model.counted(class).count() + reserve, 0, reserve)
                };
                match kind {
                    SeatKind::EditorConnections => seats(EDITOR),
                    SeatKind::ViewerConnections => seats(LIVE),
                    SeatKind::EditorUsers => users(EDITOR),
                    SeatKind::ViewerUsers => users(LIVE),
                }
            })
            .collect();
        let real = self.real.usage(now).map(|usage| {
            let count = |number: u64| usize::try_from(number).unwrap();
            (usage.kind, count(usage.used), count(usage.grace), count(usage.reserve))
        });
        assert_eq!(real.to_vec(), expected);

        let mut seats: Vec<_> = model
            .seats
            .iter()
            .map(|seat| {
                let until = |ms| Timestamp::from_millisecond(ms).unwrap();
                let phase = match seat.until_ms {
                    Some(ms) => Phase::Grace { until: until(ms) },
                    None if seat.established => Phase::Connected,
                    None => Phase::Opening,
                };
                (seat.id, seat.class, format!("user-{}", seat.user), until(seat.since_ms), phase)
            })
            .collect();
        seats.sort_by_key(|seat| seat.0);
        let real = self.real.seats(now);
        let real: Vec<_> = real
            .iter()
            .map(|s| (s.id.0, s.class, s.occupant.user.to_string(), s.since, s.phase))
            .collect();
        assert_eq!(real, seats);

        let mut shown = Vec::new();
        let mut version = 0;
        for class in [EDITOR, LIVE] {
            let expected: Vec<_> =
                model.counted(class).map(|u| (format!("user-{}", u.user), u.expires)).collect();
            let list = self.real.users(class, now);
            let real: Vec<_> =
                list.users.iter().map(|u| (u.user.to_string(), u.expires.as_second())).collect();
            assert_eq!(real, expected);
            version = list.version;
            shown.push(real);
        }
        assert_eq!(version, self.real.version(now));
        assert_eq!(shown == self.shown.0, version == self.shown.1, "version against lists");
        self.shown = (shown, version);

        let sessions = model.seats.iter().filter(|seat| seat.session.is_some()).count();
        assert_eq!(self.real.sessions(), sessions);
        for lease in &self.leases {
            assert_eq!(lease.close_reason(), model.asked(lease.id().0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_the_naive_one(
        first_terms in 0..terms().len(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut run = Run::new(first_terms);
        run.check();
        for step in &steps {
            run.step(step);
            run.check();
        }
        // Whatever happened: with the connections and the graces gone, no seat is left.
        run.leases.clear();
        run.now_ms += 60_000;
        for usage in run.real.usage(run.now()) {
            assert_eq!((usage.grace, usage.reserve), (0, 0));
            if matches!(usage.kind, SeatKind::EditorConnections | SeatKind::ViewerConnections) {
                assert_eq!(usage.used, 0);
            }
        }
    }
}
