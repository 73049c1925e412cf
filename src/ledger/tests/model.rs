//! The ledger against the naive one under random histories.

use proptest::prelude::*;

use super::naive::{Model, Step};
use super::*;
use crate::ledger::{Phase, SeatId, UserRecord};

/// Ten seconds before a midnight, so that histories cross it.
const START_MS: i64 = 1_783_468_790_000;

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
                    replaces: own.as_ref().map(Seat::id),
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
                let real = seat.confirm(session_id.as_deref(), terms, now).record;
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
