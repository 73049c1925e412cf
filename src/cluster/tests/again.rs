//! What is lost, and asked for again.

use super::*;
use crate::ledger::SeatState;

const PREFIX: &str = "seatgate:l:{l}:";

/// Carries out Lua on the keys of the licence; `call` is Redis' with the prefix.
fn tamper(server: &RedisServer, source: &str) {
    let whole = format!(
        "local function call(c, k, ...) return redis.call(c, '{PREFIX}' .. k, ...) end {source}"
    );
    let said = server.ask(&["EVAL", &whole, "0"]);
    assert!(!said.starts_with('-'), "{said}");
}

async fn two(server: &RedisServer, quota: Quota) -> (Gateway, Gateway) {
    (
        Gateway::join(server, quota, OnFailure::Deny).await,
        Gateway::join(server, quota, OnFailure::Deny).await,
    )
}

async fn open(gateway: &Gateway, user: &str, licence: &Licence) -> Result<Seat, Refusal> {
    gateway.seats().open(request(EDITOR, user, None), Some(licence), clock::now()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_seats_whose_lease_ends_is_in_nobodys_way() {
    let server = RedisServer::start();
    let quota = Quota { connections: 2, ..Quota::default() };
    let (one, other) = two(&server, quota).await;
    let licence = terms(quota);
    let _held = open(&other, "stays", &licence).await.unwrap();
    drop(open(&one, "leaves", &licence).await.unwrap());
    eventually("it is given back", async || other.used(SeatKind::EditorConnections).await == 1)
        .await;
    let owner = one.cluster.inner.members.lock().get("l").unwrap().owner;
    tamper(&server, &format!("call('ZADD', 'owners', 1, '{owner}')"));
    assert!(open(&other, "a", &licence).await.is_ok());
    // It has a place again, as if nothing had been.
    eventually("the gateway is back", async || open(&one, "b", &licence).await.is_ok()).await;
    assert_eq!(one.cluster.standing().ended, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_engine_forgot_is_asked_for_again() {
    let server = RedisServer::start();
    let quota = Quota { connections: 3, ..Quota::default() };
    let (one, other) = two(&server, quota).await;
    let licence = terms(quota);
    let held = [open(&one, "a", &licence).await.unwrap(), open(&one, "b", &licence).await.unwrap()];
    one.cluster.look(&one.seats()).await.unwrap();
    let owner = one.cluster.inner.members.lock().get("l").unwrap().owner;
    let id = held[1].id().0;
    let within = id & u64::from(u32::MAX);
    // As after a failover: an admission is lost, alone or together with the end of another seat.
    let forget = format!(
        "local was = call('HGET', 'seats:{owner}', '{id}') call('HDEL', 'seats:{owner}', '{id}') \
         call('HINCRBY', 'count', '{owner}:sum', -{within}) "
    );
    let fewer =
        format!("call('HINCRBY', 'count', 'e', -1) call('HINCRBY', 'count', '{owner}:e', -1) ");
    let another = format!(
        "call('HSET', 'seats:{owner}', '{}', was) call('HINCRBY', 'count', '{owner}:sum', {})",
        id + 1_000,
        within + 1_000
    );
    for lost in [format!("{forget}{fewer}"), format!("{forget}{another}")] {
        tamper(&server, &lost);
        eventually("the engine knows it again", async || {
            let seats =
                super::super::call::own(&one.cluster.inner.engine, "l", owner).await.unwrap();
            seats.len() == 2 && seats.contains(&id)
        })
        .await;
        assert_eq!(other.used(SeatKind::EditorConnections).await, 2);
    }
    assert!(held.iter().all(|seat| seat.close_reason().is_none()));
    assert_eq!(one.cluster.standing().ended, 0);
    let third = open(&other, "c", &licence).await;
    assert!(third.is_ok() && open(&other, "d", &licence).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_went_on_elsewhere_is_not_asked_back() {
    for on_failure in [OnFailure::Deny, OnFailure::Allow] {
        let server = RedisServer::start();
        let quota = Quota { connections: 2, ..Quota::default() };
        let one = Gateway::join(&server, quota, on_failure).await;
        let other = Gateway::join(&server, quota, on_failure).await;
        let licence = terms(quota);
        // A gateway whose clock is ahead.
        let ahead = clock::now() + Duration::from_secs(5);
        let lost = one.seats().open(request(EDITOR, "u", None), Some(&licence), ahead).await;
        let lost = lost.unwrap();
        let began = lost.since();
        assert!(confirm(&lost, Some("s"), Some(&licence)).await);
        let id = lost.id();
        lost.lost(clock::now(), Duration::from_secs(60));
        eventually("it is kept", async || other.used(SeatKind::EditorConnections).await == 1).await;
        let back = other.seats().open(request(EDITOR, "u", Some("s")), Some(&licence), ahead).await;
        let back = back.unwrap();
        assert_eq!(back.since(), began);
        eventually("the gateway that kept it hears of it", async || {
            one.seats().seats(clock::now()).is_empty()
        })
        .await;
        // What it had not heard of it would ask for; the engine knows better.
        let state = SeatState {
            id,
            class: EDITOR,
            occupant: request(EDITOR, "u", None).occupant,
            session_id: Some("s".to_owned()),
            since: began,
            established: true,
            reserve: false,
            kept_until: Some(clock::now() + Duration::from_secs(60)),
        };
        let owner = one.cluster.inner.members.lock().get("l").unwrap().owner;
        one.cluster.ask_again(&one.seats(), owner, &[state]).await.unwrap();
        assert_eq!(other.used(SeatKind::EditorConnections).await, 1);
        assert_eq!(back.close_reason(), None);
        assert_eq!(one.cluster.standing().ended, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_leases_end_at_once_nobody_loses_a_seat() {
    let server = RedisServer::start();
    let quota = Quota { connections: 2, ..Quota::default() };
    let (one, other) = two(&server, quota).await;
    let licence = terms(quota);
    let held =
        [open(&one, "a", &licence).await.unwrap(), open(&other, "b", &licence).await.unwrap()];
    let owners = || [&one, &other].map(|g| g.cluster.inner.members.lock().get("l").unwrap().owner);
    let before = owners();
    tamper(
        &server,
        "for _, owner in ipairs(call('ZRANGE', 'owners', 0, -1)) do \
         call('ZADD', 'owners', 1, owner) end",
    );
    assert_eq!(open(&one, "c", &licence).await.unwrap_err().reason, Reason::Connections);
    for gateway in [&one, &other] {
        assert_eq!(gateway.used(SeatKind::EditorConnections).await, 2);
    }
    assert_eq!(owners(), before);
    assert!(held.iter().all(|seat| seat.close_reason().is_none()));
}
