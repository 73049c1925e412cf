//! Gateways that share an engine: a real one.

mod again;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::{Cluster, Sharing};
use crate::admission::Reason;
use crate::clock::{self, Clock};
use crate::config::OnFailure;
use crate::ledger::{CloseReason, Ledger, LicenceSeats, Occupant, Refusal, Seat, SeatRequest};
use crate::licence::tests::licence as terms;
use crate::licence::{Licence, Quota};
use crate::seat::{SeatClass, SeatKind};
use crate::store::tests::engine;
use crate::store::tests::server::RedisServer;

const LIMIT: Duration = Duration::from_secs(20);
const EDITOR: SeatClass = SeatClass::Editor;
const LIVE: SeatClass = SeatClass::LiveViewer;

/// A gateway, as far as seats are concerned.
struct Gateway {
    cluster: Cluster,
    ledger: Ledger,
}

impl Gateway {
    async fn join(server: &RedisServer, quota: Quota, on_failure: OnFailure) -> Self {
        Self::join_for(server, quota, on_failure, Duration::from_secs(2)).await
    }

    async fn join_for(
        server: &RedisServer,
        quota: Quota,
        on_failure: OnFailure,
        lease: Duration,
    ) -> Self {
        let licence = Arc::new(terms(quota));
        let terms = Arc::new(move |_: &str| Some(Arc::clone(&licence)));
        let engine = engine(&server.url()).await;
        let sharing = Sharing { lease, on_failure };
        let (cluster, ledger) =
            Cluster::join(engine, sharing, terms, Clock::system()).await.unwrap();
        Self { cluster, ledger }
    }

    fn seats(&self) -> Arc<LicenceSeats> {
        self.ledger.licence("l")
    }

    /// The connections of a class over all gateways, as the engine tells now.
    async fn used(&self, kind: SeatKind) -> u64 {
        self.cluster.look(&self.seats()).await.unwrap();
        let usage = self.seats().usage(clock::now());
        usage.iter().find(|usage| usage.kind == kind).unwrap().used
    }
}

fn request<'a>(class: SeatClass, user: &str, session_id: Option<&'a str>) -> SeatRequest<'a> {
    let occupant = Occupant {
        tenant: "t".into(),
        document: "d".into(),
        user: user.into(),
        anonymous: false,
        address: [127, 0, 0, 1].into(),
    };
    SeatRequest { class, occupant, session_id, replaces: None, force: false }
}

/// The document server accepts an open.
async fn confirm(seat: &Seat, session: Option<&str>, terms: Option<&Licence>) -> bool {
    let confirmation = seat.confirm(session, terms, clock::now());
    let (authority, accepted) = confirmation.authority.unwrap();
    let confirmed = authority.confirm(seat.licence().licence_id(), &accepted).await.is_ok();
    if let Some(record) = confirmation.record {
        seat.licence().stored(&record);
    }
    confirmed
}

async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_at_a_limit_of_fifty_over_three_gateways_are_fifty() {
    let server = RedisServer::start();
    for (quota, kind) in [
        (Quota { connections: 50, ..Quota::default() }, SeatKind::EditorConnections),
        (Quota { users_count: 50, ..Quota::default() }, SeatKind::EditorUsers),
    ] {
        server.ask(&["FLUSHALL"]);
        let mut gateways = Vec::new();
        for _ in 0..3 {
            gateways.push(Gateway::join(&server, quota, OnFailure::Deny).await);
        }
        let licence = Arc::new(terms(quota));
        let opens: Vec<_> = (0..300)
            .map(|number| {
                let (seats, licence) = (gateways[number % 3].seats(), Arc::clone(&licence));
                tokio::spawn(async move {
                    let user = format!("u{number}");
                    let asked = request(EDITOR, &user, None);
                    seats.open(asked, Some(&licence), clock::now()).await
                })
            })
            .collect();
        let mut held = Vec::new();
        for open in opens {
            match open.await.unwrap() {
                Ok(seat) => held.push(seat),
                Err(Refusal { reason, .. }) => {
                    assert!(matches!(reason, Reason::Connections | Reason::Users), "{reason:?}");
                }
            }
        }
        assert_eq!(held.len(), 50);
        for gateway in &gateways {
            assert_eq!(gateway.used(kind).await, 50);
        }
        // Each that ends makes room for one.
        held.truncate(49);
        eventually("a seat is free again", async || {
            let asked = request(EDITOR, "next", None);
            let opened = gateways[0].seats().open(asked, Some(&licence), clock::now()).await;
            opened.map(|seat| held.push(seat)).is_ok()
        })
        .await;
        let asked = request(EDITOR, "one more", None);
        assert!(gateways[1].seats().open(asked, Some(&licence), clock::now()).await.is_err());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        gateway: usize,
        class: SeatClass,
        user: u8,
        session: Option<u8>,
        own: Option<usize>,
        force: bool,
    },
    Confirm {
        seat: usize,
        session: Option<u8>,
    },
    End(usize),
    Lose(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let open = (
        0..2_usize,
        prop_oneof![Just(EDITOR), Just(LIVE)],
        0..4_u8,
        prop::option::of(0..3_u8),
        prop::option::weighted(0.2, 0..4_usize),
        prop::bool::weighted(0.1),
    );
    let step = prop_oneof![
        5 => open.prop_map(|(gateway, class, user, session, own, force)| {
            Step::Open { gateway, class, user, session, own, force }
        }),
        3 => (0..6_usize, prop::option::weighted(0.8, 0..3_u8))
            .prop_map(|(seat, session)| Step::Confirm { seat, session }),
        1 => (0..6_usize).prop_map(Step::End),
        2 => (0..6_usize).prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..40)
}

/// A seat in the model and the one that goes with it.
struct Pair {
    gateway: usize,
    modelled: Seat,
    shared: Seat,
}

/// Everything that decides gives the answers of the ledger of one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_opens_are_decided_as_one_process_would() {
    const GRACE: Duration = Duration::from_secs(3_600);
    let server = RedisServer::start();
    let quotas = [
        Quota { connections: 2, connections_view: 1, ..Quota::default() },
        Quota { users_count: 2, users_view_count: 1, ..Quota::default() },
    ];
    let mut gateways = Vec::new();
    // No lease may end meanwhile, however slow the machine is.
    let lease = Duration::from_secs(600);
    for _ in 0..2 {
        gateways.push(Gateway::join_for(&server, quotas[0], OnFailure::Deny, lease).await);
    }
    let settled = async |gateways: &[Gateway]| {
        eventually("the queues are empty", async || {
            use std::sync::atomic::Ordering::Acquire;
            gateways.iter().all(|one| one.cluster.inner.queued.load(Acquire) == 0)
        })
        .await;
    };
    let mut runner = TestRunner::deterministic();
    for case in 0..120 {
        let plan = steps().new_tree(&mut runner).unwrap().current();
        let licence = terms(quotas[case % 2]);
        let name = format!("case-{case}");
        let model = Ledger::new().licence(&name);
        let mut pairs: Vec<Pair> = Vec::new();
        for (number, step) in plan.iter().enumerate() {
            let told = || format!("case {case}, step {number} of {plan:#?}");
            match step.clone() {
                Step::Open { gateway, class, user, session, own, force } => {
                    let user = format!("u{user}");
                    let session = session.map(|session| format!("s{session}"));
                    let own =
                        own.filter(|own| pairs.get(*own).is_some_and(|p| p.gateway == gateway));
                    let asked = |replaces| SeatRequest {
                        replaces,
                        force,
                        ..request(class, &user, session.as_deref())
                    };
                    let seats = gateways[gateway].ledger.licence(&name);
                    let now = clock::now();
                    let modelled = model.admit(
                        asked(own.map(|own| pairs[own].modelled.id())),
                        Some(&licence),
                        now,
                    );
                    let shared = seats
                        .open(asked(own.map(|own| pairs[own].shared.id())), Some(&licence), now)
                        .await;
                    match (modelled, shared) {
                        (Ok(modelled), Ok(shared)) => {
                            assert_eq!(modelled.observed(), shared.observed(), "{}", told());
                            if let Some(own) = own {
                                drop(pairs.remove(own));
                            }
                            pairs.push(Pair { gateway, modelled, shared });
                        }
                        (Err(modelled), Err(shared)) => assert_eq!(modelled, shared, "{}", told()),
                        (modelled, shared) => {
                            panic!("{modelled:?} but {shared:?}: {}", told())
                        }
                    }
                }
                Step::Confirm { seat, session } => {
                    let Some(pair) = pairs.get(seat) else { continue };
                    let session = session.map(|session| format!("s{session}"));
                    let session = session.as_deref();
                    let _ = pair.modelled.confirm(session, Some(&licence), clock::now());
                    confirm(&pair.shared, session, Some(&licence)).await;
                }
                Step::End(seat) => {
                    if seat < pairs.len() {
                        drop(pairs.remove(seat));
                    }
                }
                Step::Lose(seat) => {
                    if seat < pairs.len() {
                        let pair = pairs.remove(seat);
                        pair.modelled.lost(clock::now(), GRACE);
                        pair.shared.lost(clock::now(), GRACE);
                    }
                }
            }
            settled(&gateways).await;
        }
        drop(pairs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_comes_back_elsewhere_takes_its_seat_along() {
    let server = RedisServer::start();
    let quota = Quota { connections: 1, ..Quota::default() };
    let (one, other) = (
        Gateway::join(&server, quota, OnFailure::Deny).await,
        Gateway::join(&server, quota, OnFailure::Deny).await,
    );
    let licence = terms(quota);
    let first = one.seats().open(request(EDITOR, "u", None), Some(&licence), clock::now()).await;
    let first = first.unwrap();
    assert!(confirm(&first, Some("s"), Some(&licence)).await);
    let stranger = request(EDITOR, "v", Some("s"));
    assert!(other.seats().open(stranger, Some(&licence), clock::now()).await.is_err());
    let back = request(EDITOR, "u", Some("s"));
    let second = other.seats().open(back, Some(&licence), clock::now()).await.unwrap();
    let told = tokio::time::timeout(LIMIT, first.closed()).await.unwrap();
    assert_eq!(told, CloseReason::Superseded);
    drop(first);
    // Lost there, it is kept for the same session anywhere.
    assert!(confirm(&second, Some("s"), Some(&licence)).await);
    second.lost(clock::now(), Duration::from_secs(60));
    eventually("it is kept", async || {
        one.cluster.look(&one.seats()).await.unwrap();
        one.seats().usage(clock::now())[0].grace == 1
    })
    .await;
    assert!(
        one.seats().open(request(EDITOR, "v", None), Some(&licence), clock::now()).await.is_err()
    );
    let back = request(EDITOR, "u", Some("s"));
    assert!(one.seats().open(back, Some(&licence), clock::now()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_lost_the_lease_asks_again_and_ends_what_was_given_away() {
    let server = RedisServer::start();
    let quota = Quota { connections: 2, ..Quota::default() };
    let (one, other) = (
        Gateway::join(&server, quota, OnFailure::Deny).await,
        Gateway::join(&server, quota, OnFailure::Deny).await,
    );
    let licence = terms(quota);
    let mut held = Vec::new();
    for user in ["a", "b"] {
        let asked = request(EDITOR, user, None);
        held.push(one.seats().open(asked, Some(&licence), clock::now()).await.unwrap());
    }
    // As if the gateway had been stopped for longer than its lease.
    let owner = one.cluster.inner.members.lock().get("l").unwrap().owner;
    server.ask(&["ZADD", "seatgate:l:{l}:owners", "1", &owner.to_string()]);
    let taken = other.seats().open(request(EDITOR, "c", None), Some(&licence), clock::now()).await;
    assert!(taken.is_ok());
    let ended = tokio::time::timeout(LIMIT, async {
        loop {
            if held.iter().any(|seat| seat.close_reason().is_some()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.unwrap();
    let ended = held.iter().filter(|seat| seat.close_reason().is_some()).count();
    assert_eq!((ended, other.used(SeatKind::EditorConnections).await), (1, 2));
    assert_eq!(one.cluster.standing().ended, 1);
    // Nobody holds one too many, and none is lost.
    drop((held, taken));
    eventually("all are free", async || other.used(SeatKind::EditorConnections).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_engine_opens_are_refused_or_counted_alone() {
    for on_failure in [OnFailure::Deny, OnFailure::Allow] {
        let mut server = RedisServer::start();
        let quota = Quota { connections: 3, ..Quota::default() };
        let (one, other) = (
            Gateway::join(&server, quota, on_failure).await,
            Gateway::join(&server, quota, on_failure).await,
        );
        let licence = terms(quota);
        let open = async |gateway: &Gateway, user: &str| {
            let asked = request(EDITOR, user, None);
            gateway.seats().open(asked, Some(&licence), clock::now()).await
        };
        let first = open(&one, "a").await.unwrap();
        assert_eq!(other.used(SeatKind::EditorConnections).await, 1);
        let mut before = Vec::new();
        server.kill();
        let second = open(&other, "b").await;
        match on_failure {
            OnFailure::Deny => {
                assert_eq!(second.unwrap_err().reason, Reason::StoreUnavailable);
            }
            OnFailure::Allow => {
                before.push(second.unwrap());
                // Two more here, beside the one that was known of elsewhere: full.
                before.push(open(&other, "c").await.unwrap());
                assert_eq!(open(&other, "d").await.unwrap_err().reason, Reason::Connections);
                before.push(open(&one, "e").await.unwrap());
            }
        }
        assert_eq!(first.close_reason(), None);
        server.restart();
        let expected = if on_failure == OnFailure::Allow { 4 } else { 1 };
        eventually("everything counts again", async || {
            let looked = one.cluster.look(&one.seats()).await.is_ok()
                && other.cluster.look(&other.seats()).await.is_ok();
            looked && one.seats().usage(clock::now())[0].used == expected
        })
        .await;
        let over = one.cluster.standing().overshoot + other.cluster.standing().overshoot;
        assert_eq!(over, u64::from(on_failure == OnFailure::Allow));
        assert_eq!(first.close_reason(), None);
        assert_eq!(open(&one, "f").await.is_ok(), on_failure == OnFailure::Deny);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_all_gateways_are_known_on_each() {
    let server = RedisServer::start();
    let quota = Quota { users_count: 9, users_expire_days: 1, ..Quota::default() };
    let (one, other) = (
        Gateway::join(&server, quota, OnFailure::Deny).await,
        Gateway::join(&server, quota, OnFailure::Deny).await,
    );
    let licence = terms(quota);
    for (gateway, user) in [(&one, "b"), (&other, "a"), (&one, "c")] {
        let asked = request(EDITOR, user, None);
        let seat = gateway.seats().open(asked, Some(&licence), clock::now()).await.unwrap();
        assert!(confirm(&seat, None, Some(&licence)).await);
    }
    let names = |gateway: &Gateway| -> Vec<String> {
        let users = gateway.seats().users(EDITOR, clock::now()).users;
        users.iter().map(|user| user.user.to_string()).collect()
    };
    for gateway in [&one, &other] {
        eventually("all users are known", async || names(gateway).len() == 3).await;
    }
    server.ask(&["ZREM", "seatgate:l:{l}:users:e", "a"]);
    server.ask(&["HINCRBY", "seatgate:l:{l}:meta", "users", "1"]);
    for gateway in [&one, &other] {
        eventually("the released one is not", async || !names(gateway).contains(&"a".to_owned()))
            .await;
    }
}
