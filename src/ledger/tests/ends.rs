//! How seats end, are kept, come back and are taken away.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::ledger::{CloseReason, Phase, SeatId};

#[test]
fn a_lost_connections_seat_is_kept_for_its_session_alone() {
    let (seats, terms, now) = (seats(), connections(1, 0), noon());
    let seat = enter(&seats, "u", "s", &terms);
    seat.lost(now, GRACE);
    assert_eq!(usage(&seats, EDITORS, now), (1, 1, 0));
    let later = at("2026-07-07T12:00:29.999Z");
    for request in [back("v", "s"), back("u", "t"), open(EDITOR, "u"), back("us", "")] {
        assert_eq!(reason(seats.admit(request, Some(&terms), later)), Some(Reason::Connections));
    }
    let list = seats.seats(later);
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].phase, Phase::Grace { until: at("2026-07-07T12:00:30Z") });
    let restored = seats.admit(back("u", "s"), Some(&terms), later).unwrap();
    assert_eq!(usage(&seats, EDITORS, later), (1, 0, 0));
    assert_eq!(seats.seats(later)[0].since, now);
    // Lost again before the document server answered: it is still that session's seat.
    restored.lost(later, GRACE);
    let end = at("2026-07-07T12:00:59.999Z");
    assert_eq!(usage(&seats, EDITORS, end), (0, 0, 0));
    assert!(seats.admit(open(EDITOR, "v"), Some(&terms), end).is_ok());
}

#[test]
fn a_grace_that_is_over_keeps_nothing() {
    let (seats, terms, now) = (seats(), connections(1, 0), noon());
    enter(&seats, "u", "s", &terms).lost(now, GRACE);
    let end = at("2026-07-07T12:00:30Z");
    let other = seats.admit(open(EDITOR, "v"), Some(&terms), end).unwrap();
    assert_eq!(reason(seats.admit(back("u", "s"), Some(&terms), end)), Some(Reason::Connections));
    drop(other);
    // No grace at all, and no session to come back.
    enter(&seats, "u", "s", &terms).lost(end, Duration::ZERO);
    assert_eq!(usage(&seats, EDITORS, end), (0, 0, 0));
    let seat = seats.admit(open(EDITOR, "u"), Some(&terms), end).unwrap();
    let _ = seat.confirm(None, Some(&terms), end);
    seat.lost(end, GRACE);
    assert_eq!(usage(&seats, EDITORS, end), (0, 0, 0));
    // A grace without end does not overflow.
    enter(&seats, "u", "s", &terms).lost(end, Duration::MAX);
    assert_eq!(usage(&seats, EDITORS, end), (1, 1, 0));
}

#[test]
fn a_goodbye_and_a_plain_drop_keep_nothing() {
    let (seats, terms, now) = (seats(), connections(1, 0), noon());
    enter(&seats, "u", "s", &terms).release_goodbye();
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
    drop(enter(&seats, "u", "s", &terms));
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
}

#[test]
fn the_session_that_comes_back_takes_its_lingering_connections_seat() {
    let (seats, terms, now) = (seats(), connections(1, 0), noon());
    let old = enter(&seats, "u", "s", &terms);
    assert_eq!(reason(seats.admit(back("v", "s"), Some(&terms), now)), Some(Reason::Connections));
    let new = seats.admit(back("u", "s"), Some(&terms), now).unwrap();
    assert_eq!(old.close_reason(), Some(CloseReason::Superseded));
    assert_eq!(new.close_reason(), None);
    assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
    // The old lease is void, however it ends and whatever it says first.
    assert_eq!(old.confirm(Some("s"), Some(&terms), now).record, None);
    old.lost(now, GRACE);
    assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
    assert_eq!(seats.seats(now)[0].id, new.id());
    // The same session cannot be used twice at a time: the new one is closed in its turn.
    let third = seats.admit(back("u", "s"), Some(&terms), now).unwrap();
    assert_eq!(new.close_reason(), Some(CloseReason::Superseded));
    drop(new);
    assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
    drop(third);
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
}

#[test]
fn a_session_that_comes_back_in_another_class_needs_a_seat_of_that() {
    let (seats, terms, now) = (seats(), connections(1, 1), noon());
    let live = seats.admit(open(LIVE, "u"), Some(&terms), now).unwrap();
    let _ = live.confirm(Some("s"), Some(&terms), now);
    live.lost(now, GRACE);
    let editor = enter(&seats, "v", "t", &terms);
    assert_eq!(reason(seats.admit(back("u", "s"), Some(&terms), now)), Some(Reason::Connections));
    assert_eq!(usage(&seats, VIEWERS, now), (1, 1, 0));
    drop(editor);
    let _editor = seats.admit(back("u", "s"), Some(&terms), now).unwrap();
    assert_eq!(usage(&seats, VIEWERS, now), (0, 0, 0));
}

#[test]
fn a_session_comes_back_although_the_limit_was_lowered() {
    let (seats, now) = (seats(), noon());
    let kept = enter(&seats, "u", "s", &connections(3, 0));
    let _others = ["v", "w"].map(|user| enter(&seats, user, user, &connections(3, 0)));
    kept.lost(now, GRACE);
    let terms = connections(1, 0);
    assert_eq!(
        reason(seats.admit(open(EDITOR, "x"), Some(&terms), now)),
        Some(Reason::Connections)
    );
    assert!(seats.admit(back("u", "s"), Some(&terms), now).is_ok());
}

#[test]
fn a_panic_gives_the_seat_back() {
    let (seats, terms, now) = (seats(), users(1, 0, 1), noon());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _seat = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
        assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
        std::panic::resume_unwind(Box::new("a connection's task panics"));
    }));
    assert!(outcome.is_err());
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
}

#[test]
fn an_operator_closes_sessions_and_releases_users() {
    let ledger = Ledger::new();
    let seats = ledger.licence("b");
    let (terms, now) = (users(1, 0, 1), noon());
    ledger.licence("a");
    let seat = enter(&seats, "u", "s", &terms);
    assert!(!ledger.close(SeatId(999)));
    assert!(ledger.close(seat.id()));
    assert_eq!(seat.close_reason(), Some(CloseReason::Operator));
    // The seat is held until the connection ended, and not kept for it then.
    assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
    seat.lost(now, GRACE);
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
    let seat = enter(&seats, "u", "s", &terms);
    let id = seat.id();
    seat.lost(now, GRACE);
    assert!(ledger.close(id));
    assert!(!ledger.close(id));
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));

    assert!(!seats.release_user(LIVE, "u", now));
    assert!(seats.release_user(EDITOR, "u", now));
    assert!(!seats.release_user(EDITOR, "u", now));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    assert!(seats.admit(open(EDITOR, "v"), Some(&terms), now).is_ok());
}

#[tokio::test]
async fn a_connection_can_wait_for_being_closed() {
    let (seats, terms, now) = (seats(), connections(9, 0), noon());
    let seat = Arc::new(enter(&seats, "u", "s", &terms));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let seat = Arc::clone(&seat);
            tokio::spawn(async move { seat.closed().await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(seats.close(seat.id()));
    for task in waiting {
        assert_eq!(task.await.unwrap(), CloseReason::Operator);
    }
    assert_eq!(seat.closed().await, CloseReason::Operator);
    let _new = seats.admit(back("u", "s"), Some(&terms), now).unwrap();
    assert_eq!(seat.closed().await, CloseReason::Superseded);
}

#[test]
fn many_graces_that_end_at_once_are_cleared_away_little_by_little() {
    let (seats, terms, now) = (seats(), connections(5_000, 0), noon());
    for number in 0..5_000 {
        enter(&seats, &format!("user-{number}"), "s", &terms).lost(now, GRACE);
    }
    assert_eq!(usage(&seats, EDITORS, now), (5_000, 5_000, 0));
    let end = at("2026-07-07T12:00:30Z");
    assert_eq!(usage(&seats, EDITORS, end), (0, 0, 0));
    assert!(seats.seats(end).is_empty());
    assert!((0..6_000).all(|id| !seats.close(SeatId(id))));
    // Over is over, also for a clock that steps back.
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
    for number in 0..5_000 {
        let user = format!("user-{number}");
        let seat = seats.admit(back(&user, "s"), Some(&terms), end).unwrap();
        assert_eq!(seat.close_reason(), None);
        assert_eq!(seats.seats(end)[0].phase, Phase::Opening, "{number}");
        assert_eq!(usage(&seats, EDITORS, end), (1, 0, 0));
    }
    seats.sweep(end);
    assert_eq!(usage(&seats, EDITORS, end), (0, 0, 0));
}
