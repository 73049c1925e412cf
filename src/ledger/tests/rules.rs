//! The rules of PRODUCT.md about counting, one by one.

use super::*;
use crate::ledger::UserRecord;

#[test]
fn connections_are_counted_tab_by_tab_and_class_by_class() {
    let (seats, terms, now) = (seats(), connections(2, 1), noon());
    let first = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    let second = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    assert_eq!(
        reason(seats.admit(open(EDITOR, "u"), Some(&terms), now)),
        Some(Reason::Connections)
    );
    let live = seats.admit(open(LIVE, "u"), Some(&terms), now).unwrap();
    let refused = seats.admit(open(LIVE, "v"), Some(&terms), now);
    assert_eq!(reason(refused), Some(Reason::ConnectionsView));
    assert_eq!(usage(&seats, EDITORS, now), (2, 0, 0));
    assert_eq!(usage(&seats, VIEWERS, now), (1, 0, 0));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    first.release_goodbye();
    drop(live);
    assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
    assert_eq!(usage(&seats, VIEWERS, now), (0, 0, 0));
    let third = seats.admit(open(EDITOR, "w"), Some(&terms), now).unwrap();
    assert_ne!(third.id(), second.id());
}

#[test]
fn a_refusal_says_what_was_taken() {
    let (seats, terms, now) = (seats(), connections(1, 0), noon());
    let _seat = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    let refusal = seats.admit(open(EDITOR, "v"), Some(&terms), now).unwrap_err();
    assert_eq!((refusal.reason, refusal.usage.connections), (Reason::Connections, 1));
}

#[test]
fn a_user_takes_one_seat_in_however_many_tabs_and_keeps_it_when_gone() {
    let (seats, terms, now) = (seats(), users(2, 1, 30), noon());
    let tabs: Vec<Seat> = ["u", "u", "v"]
        .map(|user| enter(&seats, user, &format!("session of {user}"), &terms))
        .into();
    assert_eq!(usage(&seats, EDITOR_USERS, now), (2, 0, 0));
    assert_eq!(usage(&seats, EDITORS, now), (3, 0, 0));
    assert_eq!(reason(seats.admit(open(EDITOR, "w"), Some(&terms), now)), Some(Reason::Users));
    // Live viewers are a set of their own: the editor u is not known there.
    let live = seats.admit(open(LIVE, "w"), Some(&terms), now).unwrap();
    let _ = live.confirm(None, Some(&terms), now);
    assert_eq!(reason(seats.admit(open(LIVE, "u"), Some(&terms), now)), Some(Reason::UsersView));
    drop((tabs, live));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (2, 0, 0));
    assert_eq!(usage(&seats, VIEWER_USERS, now), (1, 0, 0));
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
    assert!(seats.admit(open(EDITOR, "v"), Some(&terms), now).is_ok());
}

#[test]
fn a_user_is_counted_only_when_the_document_server_accepted_the_open() {
    let (seats, terms, now) = (seats(), users(1, 0, 30), noon());
    let first = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 1));
    assert_eq!(reason(seats.admit(open(EDITOR, "v"), Some(&terms), now)), Some(Reason::Users));
    assert!(counted(&seats, EDITOR, now).is_empty());
    // A second open of the same user shares the reserve, whichever ends first.
    let second = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 1));
    drop(first);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 1));
    drop(second);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    // The reserve of a lost open is given back too: nothing was there to come back to.
    let third = seats.admit(back("u", "s"), Some(&terms), now).unwrap();
    third.lost(now, GRACE);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    assert_eq!(usage(&seats, EDITORS, now), (0, 0, 0));
    let fourth = enter(&seats, "v", "s", &terms);
    drop(fourth);
    assert_eq!(counted(&seats, EDITOR, now), [("v".to_owned(), "2026-08-06T23:59:59Z".to_owned())]);
}

#[test]
fn a_user_counts_until_the_very_end_of_the_last_day_connected_or_not() {
    let (seats, terms) = (seats(), users(1, 0, 1));
    let seat = enter(&seats, "u", "s", &terms);
    for (now, taken) in [
        ("2026-07-07T12:00:00Z", 1),
        ("2026-07-08T23:59:58.999999999Z", 1),
        ("2026-07-08T23:59:59Z", 0),
        ("2026-07-08T23:59:58.5Z", 1),
        ("2026-07-09T00:00:00Z", 0),
    ] {
        assert_eq!(usage(&seats, EDITOR_USERS, at(now)), (taken, 0, 0), "{now}");
        let other = seats.admit(open(EDITOR, "v"), Some(&terms), at(now));
        assert_eq!(other.is_ok(), taken == 0, "{now}");
    }
    assert_eq!(usage(&seats, EDITORS, at("2026-07-09T00:00:00Z")), (1, 0, 0));
    drop(seat);
}

#[test]
fn an_open_that_midnight_overtakes_keeps_its_user_in_reserve() {
    let (seats, terms) = (seats(), users(1, 0, 0));
    drop(enter(&seats, "u", "s", &terms));
    let late = at("2026-07-07T23:59:58Z");
    let seat = seats.admit(open(EDITOR, "u"), Some(&terms), late).unwrap();
    let after = at("2026-07-08T00:00:01Z");
    assert_eq!(usage(&seats, EDITOR_USERS, after), (1, 0, 1));
    assert_eq!(reason(seats.admit(open(EDITOR, "v"), Some(&terms), after)), Some(Reason::Users));
    let record = seat.confirm(None, Some(&terms), after).record.unwrap();
    assert_eq!(record.expires, at("2026-07-08T23:59:59Z"));
    assert_eq!(usage(&seats, EDITOR_USERS, after), (1, 0, 0));
}

#[test]
fn opening_again_pushes_the_expiry_out_and_never_in() {
    let seats = seats();
    let long = users(5, 5, 30);
    let short = users(5, 5, 1);
    for (terms, now, expires) in [
        (&short, "2026-07-07T12:00:00Z", "2026-07-08T23:59:59Z"),
        (&short, "2026-07-08T00:00:00Z", "2026-07-09T23:59:59Z"),
        (&long, "2026-07-08T00:00:00Z", "2026-08-07T23:59:59Z"),
        (&short, "2026-07-09T00:00:00Z", "2026-08-07T23:59:59Z"),
    ] {
        let seat = seats.admit(open(EDITOR, "u"), Some(terms), at(now)).unwrap();
        let _ = seat.confirm(None, Some(terms), at(now));
        assert_eq!(counted(&seats, EDITOR, at(now)), [("u".to_owned(), expires.to_owned())]);
    }
}

#[test]
fn confirm_returns_the_record_until_the_store_has_it() {
    let (seats, terms, now) = (seats(), users(5, 5, 1), noon());
    let confirm = |now, anonymous| {
        let mut request = open(EDITOR, "u");
        request.occupant.anonymous = anonymous;
        let seat = seats.admit(request, Some(&terms), now).unwrap();
        seat.confirm(None, Some(&terms), now).record
    };
    let record = confirm(now, false).unwrap();
    let expected = UserRecord {
        class: EDITOR,
        user: "u".into(),
        expires: at("2026-07-08T23:59:59Z"),
        anonymous: false,
    };
    assert_eq!(record, expected);
    // Another open while the first one's record is being written must wait for it as well.
    assert_eq!(confirm(now, false).as_ref(), Some(&record));
    seats.stored(&record);
    assert_eq!(confirm(now, false), None);
    let anonymous = confirm(now, true).unwrap();
    assert!(anonymous.anonymous);
    // A word about an older record is no word about this one.
    seats.stored(&record);
    assert_eq!(confirm(now, true), Some(anonymous));
    assert_eq!(
        confirm(at("2026-07-08T12:00:00Z"), true).unwrap().expires,
        at("2026-07-09T23:59:59Z")
    );
}

#[test]
fn who_cannot_be_stored_is_not_counted_unless_known_from_before() {
    let (seats, terms, now) = (seats(), users(5, 5, 1), noon());
    let confirm = |now| {
        let seat = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
        seat.confirm(None, Some(&terms), now).record
    };
    let first = confirm(now).unwrap();
    assert!(!seats.unstored(&first, now));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    // Two opens side by side: the store takes one of the records after it refused the other.
    let (one, other) = (confirm(now).unwrap(), confirm(now).unwrap());
    assert!(!seats.unstored(&one, now));
    let version = seats.version(now);
    seats.stored(&other);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 0));
    assert_ne!(seats.version(now), version);
    assert!(seats.unstored(&one, now));
    // The next day only the expiry moves: it may be lost, as long as the old one holds.
    let tomorrow = at("2026-07-08T12:00:00Z");
    let moved = confirm(tomorrow).unwrap();
    assert!(seats.unstored(&moved, tomorrow));
    assert_eq!(usage(&seats, EDITOR_USERS, tomorrow), (1, 0, 0));
    let after = at("2026-07-09T12:00:00Z");
    let again = confirm(after).unwrap();
    assert!(!seats.unstored(&again, after), "what the store knows is over");
    assert_eq!(usage(&seats, EDITOR_USERS, after), (0, 0, 0));
}

#[test]
fn a_second_confirm_and_one_without_terms_count_nobody() {
    let (seats, terms, now) = (seats(), users(1, 0, 1), noon());
    let seat = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    assert_eq!(seat.confirm(None, None, now).record, None);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    assert_eq!(seat.confirm(None, Some(&terms), now).record, None);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    let next = enter(&seats, "v", "s", &terms);
    assert_eq!(next.confirm(None, Some(&terms), now).record, None);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 0));
}

#[test]
fn a_change_of_metering_keeps_both_countings() {
    let (seats, by_connection, by_user, now) = (seats(), connections(2, 0), users(1, 0, 1), noon());
    let first = enter(&seats, "u", "s", &by_connection);
    let under_way = seats.admit(open(EDITOR, "w"), Some(&by_connection), now).unwrap();
    // Now it counts users: who is in stays in, and takes a seat with the next open.
    assert_eq!(under_way.confirm(None, Some(&by_user), now).record, None);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
    let second = enter(&seats, "v", "t", &by_user);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 0));
    assert_eq!(usage(&seats, EDITORS, now), (3, 0, 0));
    assert_eq!(reason(seats.admit(open(EDITOR, "u"), Some(&by_user), now)), Some(Reason::Users));
    // And back: three connections are open, the limit is two.
    let refused = seats.admit(open(EDITOR, "v"), Some(&by_connection), now);
    assert_eq!(reason(refused), Some(Reason::Connections));
    drop((first, under_way));
    assert!(seats.admit(open(EDITOR, "x"), Some(&by_connection), now).is_ok());
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 0));
    drop(second);
}

#[test]
fn an_invalid_licence_lets_nobody_in_and_throws_nobody_out() {
    let (seats, now) = (seats(), noon());
    let mut terms = connections(2, 0);
    let seat = enter(&seats, "u", "s", &terms);
    terms.end = Some(now);
    for (terms, expected) in
        [(Some(&terms), Reason::LicenceExpired), (None, Reason::LicenceMissing)]
    {
        assert_eq!(reason(seats.admit(open(EDITOR, "v"), terms, now)), Some(expected));
    }
    assert_eq!(usage(&seats, EDITORS, now), (1, 0, 0));
    drop(seat);
}

#[test]
fn force_takes_the_seat_and_tells_the_reason() {
    let (seats, terms, now) = (seats(), users(1, 0, 1), noon());
    let force = |user| SeatRequest { force: true, ..open(EDITOR, user) };
    let first = seats.admit(force("u"), Some(&terms), now).unwrap();
    assert_eq!(first.observed(), None);
    let second = seats.admit(force("v"), Some(&terms), now).unwrap();
    assert_eq!(second.observed(), Some(Reason::Users));
    let third = seats.admit(force("w"), None, now).unwrap();
    assert_eq!(third.observed(), Some(Reason::LicenceMissing));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (2, 0, 2));
    assert_eq!(usage(&seats, EDITORS, now), (3, 0, 0));
    drop((first, second, third));
    assert_eq!(usage(&seats, EDITOR_USERS, now), (0, 0, 0));
}

#[test]
fn another_auth_on_the_same_connection_takes_no_second_seat() {
    let (seats, terms, now) = (seats(), connections(1, 1), noon());
    let mut seat = enter(&seats, "u", "s", &terms);
    for (class, editors, viewers) in [(EDITOR, 1, 0), (LIVE, 0, 1), (LIVE, 0, 1), (EDITOR, 1, 0)] {
        let request = SeatRequest { replaces: Some(seat.id()), ..open(class, "u") };
        let next = seats.admit(request, Some(&terms), now).unwrap();
        assert_eq!(seat.close_reason(), None);
        // The old lease is dropped here, and frees nothing.
        seat = next;
        assert_eq!(usage(&seats, EDITORS, now).0, editors);
        assert_eq!(usage(&seats, VIEWERS, now).0, viewers);
    }
    // A refused change of class leaves the seat as it was.
    let _live = seats.admit(open(LIVE, "v"), Some(&terms), now).unwrap();
    let request = SeatRequest { replaces: Some(seat.id()), ..open(LIVE, "u") };
    assert_eq!(reason(seats.admit(request, Some(&terms), now)), Some(Reason::ConnectionsView));
    assert_eq!(usage(&seats, EDITORS, now).0, 1);
    // The session goes along, so the seat is kept for it when the connection is lost.
    seat.lost(now, GRACE);
    assert_eq!(usage(&seats, EDITORS, now), (1, 1, 0));
    assert!(seats.admit(back("u", "s"), Some(&terms), now).is_ok());
}

#[test]
fn another_user_on_the_same_connection_gives_the_first_ones_reserve_back() {
    let (seats, terms, now) = (seats(), users(1, 0, 1), noon());
    let first = seats.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    let request = SeatRequest { replaces: Some(first.id()), ..open(EDITOR, "v") };
    let second = seats.admit(request, Some(&terms), now).unwrap();
    drop(first);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (1, 0, 1));
    assert!(second.confirm(None, Some(&terms), now).record.is_some());
    // A counted user stays counted, so this one finds no seat.
    let request = SeatRequest { replaces: Some(second.id()), ..open(EDITOR, "w") };
    assert_eq!(reason(seats.admit(request, Some(&terms), now)), Some(Reason::Users));
}

#[test]
fn a_seat_of_another_licence_is_no_seat_here() {
    let (ledger, terms, now) = (Ledger::new(), connections(1, 0), noon());
    let (here, there) = (ledger.licence("here"), ledger.licence("there"));
    let elsewhere = there.admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    let _taken = here.admit(open(EDITOR, "v"), Some(&terms), now).unwrap();
    let request = SeatRequest { replaces: Some(elsewhere.id()), ..open(EDITOR, "u") };
    assert_eq!(reason(here.admit(request, Some(&terms), now)), Some(Reason::Connections));
    assert_eq!(usage(&there, EDITORS, now).0, 1);
}

#[test]
fn the_store_brings_users_back_in_their_order() {
    let (seats, now) = (seats(), noon());
    let record = |user: &str, expires: &str, class| UserRecord {
        class,
        user: user.into(),
        expires: at(expires),
        anonymous: user == "c",
    };
    let before = seats.version(now);
    seats.load_users(
        [
            record("c", "2026-07-09T23:59:59Z", EDITOR),
            record("gone", "2026-07-06T23:59:59Z", EDITOR),
            record("a", "2026-07-07T23:59:59Z", EDITOR),
            record("b", "2026-07-08T23:59:59Z", LIVE),
            record("c", "2026-07-08T23:59:59Z", EDITOR),
        ],
        now,
    );
    assert_ne!(seats.version(now), before);
    let entry = |user: &str, expires: &str| (user.to_owned(), expires.to_owned());
    assert_eq!(
        counted(&seats, EDITOR, now),
        [entry("c", "2026-07-09T23:59:59Z"), entry("a", "2026-07-07T23:59:59Z")]
    );
    assert_eq!(counted(&seats, LIVE, now), [entry("b", "2026-07-08T23:59:59Z")]);
    assert!(seats.users(EDITOR, now).users[0].anonymous);
    // The store knows them: an open that changes nothing is not written again.
    let terms = users(2, 1, 2);
    let mut request = open(EDITOR, "c");
    request.occupant.anonymous = true;
    let seat = seats.admit(request, Some(&terms), now).unwrap();
    assert_eq!(seat.confirm(None, Some(&terms), now).record, None);
    assert_eq!(reason(seats.admit(open(EDITOR, "d"), Some(&terms), now)), Some(Reason::Users));
}

#[test]
fn licences_are_apart_and_tenants_viewers_are_counted() {
    let (ledger, terms, now) = (Ledger::new(), connections(1, 0), noon());
    let _a = ledger.licence("a").admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    let _b = ledger.clone().licence("b").admit(open(EDITOR, "u"), Some(&terms), now).unwrap();
    assert!(ledger.licence("a").admit(open(EDITOR, "u"), Some(&terms), now).is_err());
    assert_eq!(ledger.licences().len(), 2);
    let viewers = [ledger.viewer("t"), ledger.viewer("t")];
    assert_eq!((ledger.viewers("t"), ledger.viewers("other")), (2, 0));
    drop(viewers);
    assert_eq!(ledger.viewers("t"), 0);
}

#[test]
fn many_expired_users_are_cleared_away_little_by_little() {
    let (seats, now) = (seats(), noon());
    let record = |number: u32| UserRecord {
        class: EDITOR,
        user: format!("user-{number:06}").into(),
        expires: at("2026-07-07T23:59:59Z"),
        anonymous: false,
    };
    seats.load_users((0..20_000).map(record), now);
    assert_eq!(usage(&seats, EDITOR_USERS, now), (20_000, 0, 0));
    let list = seats.users(EDITOR, now);
    assert!(list.users.iter().map(|u| &u.user).is_sorted());
    let version = list.version;
    let after = at("2026-07-08T12:00:00Z");
    assert_eq!(usage(&seats, EDITOR_USERS, after), (0, 0, 0));
    assert_ne!(seats.version(after), version);
    assert!(seats.users(EDITOR, after).users.is_empty());
    for _ in 0..5 {
        seats.sweep(after);
    }
    assert_eq!(seats.user_rows(EDITOR), 0);
    assert_eq!(usage(&seats, EDITOR_USERS, after), (0, 0, 0));
}
