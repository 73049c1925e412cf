//! What is lost, ended or taken over while an open is under way, and who comes back.

use super::*;

const GRACE: Duration = Duration::from_secs(30);

#[test]
fn a_session_that_is_lost_again_before_it_is_back_keeps_its_seat() {
    let desk = Desk::connections(1, 0);
    let grace = Duration::from_secs(30);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    session.lose(desk.now, grace);
    let restoring = auth("u", r#","mode":"edit","sessionId":"s1""#);
    let mut back = desk.session();
    assert!(matches!(desk.auth(&mut back, &restoring), Verdict::Pass(_)));
    back.lose(desk.now, grace);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    assert!(desk.open(&mut desk.session(), &restoring).is_ok());
}

#[test]
fn a_lost_connection_keeps_its_seat_for_the_same_session_alone() {
    let mut desk = Desk::connections(1, 0);
    let grace = Duration::from_secs(30);
    let mut lost = desk.session();
    assert!(desk.open(&mut lost, &editor("u")).is_ok());
    lost.lose(desk.now, grace);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    let restoring = |user: &str, session: &str| {
        auth(user, &format!(r#","mode":"edit","sessionId":"{session}""#))
    };
    for (user, session) in [("other", "s1"), ("u", "s2")] {
        let text = restoring(user, session);
        assert_eq!(desk.open(&mut desk.session(), &text), Err(Some(Reason::Connections)));
    }
    if let Some(licence) = &mut desk.licence {
        licence.revoked = true;
    }
    let mut back = desk.session();
    assert!(desk.open(&mut back, &restoring("u", "s1")).is_ok(), "what runs goes on");
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    back.lose(desk.now, grace);
    desk.now += grace;
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
}

#[test]
fn a_goodbye_frees_the_seat_at_once() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    session.end();
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
}

#[test]
fn who_gave_editing_up_comes_back_as_a_viewer_and_takes_no_seat() {
    let desk = Desk::connections(0, 1);
    let mut session = desk.session();
    let back = auth("u", r#","mode":"edit","sessionId":"s","isCloseCoAuthoring":true"#);
    let verdict = desk.auth(&mut session, &back);
    let Verdict::Replace(report, text) = verdict else { panic!("{verdict:?}") };
    assert_eq!((report.class, report.reason), (SessionClass::Viewer, None));
    assert!(text.contains(r#""mode":"view""#) && text.contains(r#""coEditingMode":"strict""#));
    assert!(matches!(desk.reply(&mut session, REPLY).verdict, ReplyVerdict::Pass));
    assert_eq!(desk.ledger.viewers("acme"), 1);

    // What the server would not take for true is an editor's.
    for no in ["false", "0", "null", "\"\""] {
        let editor = auth("u", &format!(r#","mode":"edit","isCloseCoAuthoring":{no}"#));
        let refused = desk.open(&mut desk.session(), &editor);
        assert_eq!(refused, Err(Some(Reason::Connections)), "{no}");
    }
}

#[test]
fn an_answer_that_comes_after_the_end_takes_no_seat() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    let text = editor("u");
    let Judged::Ask(opening) = session.on_auth(text.as_bytes(), &desk.terms()) else { panic!() };
    session.end();
    let seat = desk.seats.admit(opening.request(), desk.licence.as_ref(), desk.now);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    let verdict = session.on_decided(*opening, seat, text.as_bytes(), &desk.terms());
    assert!(matches!(verdict, Verdict::Refuse(..)));
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
}

#[test]
fn a_seat_that_was_taken_over_before_the_reply_admits_nobody() {
    let desk = Desk::connections(1, 0);
    let same = auth("u", r#","mode":"edit","sessionId":"s1""#);
    let mut first = desk.session();
    assert!(matches!(desk.auth(&mut first, &same), Verdict::Pass(_)));
    let mut second = desk.session();
    assert!(matches!(desk.auth(&mut second, &same), Verdict::Pass(_)));
    let replied = desk.reply(&mut first, REPLY);
    assert!(matches!(replied.verdict, ReplyVerdict::Forbid), "its seat is the other's now");
    let replied = desk.reply(&mut second, REPLY);
    assert!(matches!(replied.verdict, ReplyVerdict::Pass));
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
}

#[test]
fn a_seat_that_moves_on_while_the_server_thinks_leaves_no_editor_behind() {
    let desk = Desk::connections(1, 0);
    let mut first = desk.session();
    assert!(desk.open(&mut first, &editor("u")).is_ok());
    // Its seat goes over to an open under another name, and with that to another connection.
    let same = auth("v", r#","mode":"edit","sessionId":"s9""#);
    assert!(matches!(desk.auth(&mut first, &same), Verdict::Pass(_)));
    assert_eq!((first.close_reason(), first.watches().len()), (None, 2));
    let mut second = desk.session();
    assert!(matches!(desk.auth(&mut second, &same), Verdict::Pass(_)));
    assert_eq!(first.close_reason(), Some(CloseReason::Superseded));
    assert_eq!(second.close_reason(), None);
}

#[test]
fn who_cannot_prove_who_they_are_end_nobody_before_the_server_takes_them() {
    let desk = Desk::connections(1, 0);
    let mut running = desk.session();
    assert!(desk.open(&mut running, &editor("u")).is_ok());
    let same = auth("u", r#","mode":"edit","sessionId":"s1""#);

    // The server does not answer, and the connection ends.
    for ends in [Session::end, |session: &mut Session| session.lose(Timestamp::MIN, GRACE)] {
        let mut forged = desk.session();
        assert!(matches!(desk.auth(&mut forged, &same), Verdict::Pass(_)));
        assert!(forged.awaits_counting() && forged.seat_ids().is_empty());
        ends(&mut forged);
        assert!(!forged.awaits_counting());
        assert_eq!((running.close_reason(), desk.used(SeatKind::EditorConnections)), (None, 1));
    }

    // It is the session indeed.
    let mut back = desk.session();
    assert!(matches!(desk.auth(&mut back, &same), Verdict::Pass(_)));
    let replied = desk.reply(&mut back, REPLY);
    assert!(matches!(replied.verdict, ReplyVerdict::Pass) && !replied.corrected);
    assert!(!back.awaits_counting() && back.seat().is_some());
    assert_eq!(running.close_reason(), Some(CloseReason::Superseded));
    drop(running);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    assert!(desk.open(&mut back, &same).is_ok(), "its own seat will do");
}

#[test]
fn who_proves_who_they_are_goes_on_at_once() {
    let mut desk = Desk::connections(1, 0);
    let mut running = desk.session();
    assert!(desk.open(&mut running, &editor("u")).is_ok());
    let same = desk.signed("u", "s1");
    let mut back = desk.session();
    assert!(matches!(desk.auth(&mut back, &same), Verdict::Pass(_)));
    assert_eq!(running.close_reason(), Some(CloseReason::Superseded));
    assert!(back.seat_ids().len() == 1 && !back.awaits_counting());
}

#[test]
fn a_session_that_cannot_be_taken_over_any_more_lets_nobody_in_beyond_the_licence() {
    let desk = Desk::connections(1, 0);
    let mut running = desk.session();
    assert!(desk.open(&mut running, &editor("u")).is_ok());
    let same = auth("u", r#","mode":"edit","sessionId":"s1""#);
    let mut back = desk.session();
    assert!(matches!(desk.auth(&mut back, &same), Verdict::Pass(_)));
    running.end();
    let mut other = desk.session();
    assert!(desk.open(&mut other, &editor("v")).is_ok());
    let replied = desk.reply(&mut back, REPLY);
    assert!(matches!(replied.verdict, ReplyVerdict::Forbid), "{replied:?}");
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
}

#[test]
fn saves_wait_until_the_user_is_counted() {
    let desk = Desk::users(1, 1);
    let mut session = desk.session();
    assert!(!session.awaits_counting());
    assert!(matches!(desk.auth(&mut session, &editor("u")), Verdict::Pass(_)));
    assert!(session.awaits_counting());
    let replied = desk.reply(&mut session, REPLY);
    let ReplyVerdict::Settle(settlement) = replied.verdict else { panic!("{replied:?}") };
    assert!(session.awaits_counting(), "not yet stored");
    desk.seats.stored(&settlement.confirmation.record.unwrap());
    session.on_settled();
    assert!(!session.awaits_counting());
    // Who is counted saves at once, on whatever connection, and with whatever open under way.
    assert!(matches!(desk.auth(&mut session, &editor("u")), Verdict::Pass(_)));
    let mut other = desk.session();
    assert!(matches!(desk.auth(&mut other, &editor("u")), Verdict::Pass(_)));
    assert!(!session.awaits_counting() && !other.awaits_counting());

    // Where connections are counted, each holds its seat for as long as it is there.
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    assert!(matches!(desk.auth(&mut session, &editor("u")), Verdict::Pass(_)));
    assert!(!session.awaits_counting());
}

#[test]
fn an_open_beside_one_that_failed_takes_the_session_over_all_the_same() {
    let desk = Desk::connections(1, 0);
    let mut running = desk.session();
    assert!(desk.open(&mut running, &editor("u")).is_ok());
    let same = auth("u", r#","mode":"edit","sessionId":"s1""#);
    let mut back = desk.session();
    for _ in 0..2 {
        assert!(matches!(desk.auth(&mut back, &same), Verdict::Pass(_)));
    }
    back.on_open_failed(&desk.terms(), &desk.ledger);
    assert!(back.awaits_counting() && running.close_reason().is_none());
    assert!(matches!(desk.reply(&mut back, REPLY).verdict, ReplyVerdict::Pass));
    assert!(!back.awaits_counting() && back.seat().is_some());
    assert_eq!(running.close_reason(), Some(CloseReason::Superseded));
    drop(running);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
}

#[test]
fn opens_that_failed_hold_back_nobody_who_is_counted() {
    let counts = |desk: &Desk, session: &mut Session| {
        let replied = desk.reply(session, REPLY);
        let ReplyVerdict::Settle(settlement) = replied.verdict else { panic!("{replied:?}") };
        desk.seats.stored(&settlement.confirmation.record.unwrap());
        session.on_settled();
        assert!(!session.awaits_counting());
    };
    // It goes on with the seat of two that failed.
    let desk = Desk::users(1, 1);
    let mut session = desk.session();
    for _ in 0..2 {
        assert!(matches!(desk.auth(&mut session, &editor("u")), Verdict::Pass(_)));
    }
    session.on_open_failed(&desk.terms(), &desk.ledger);
    assert!(matches!(desk.auth(&mut session, &editor("u")), Verdict::Pass(_)));
    assert!(session.awaits_counting());
    counts(&desk, &mut session);

    // A live viewer's open failed beside it.
    let desk = Desk::users(1, 1);
    let mut session = desk.session();
    for text in [editor("u"), live_viewer("u")] {
        assert!(matches!(desk.auth(&mut session, &text), Verdict::Pass(_)));
    }
    session.on_open_failed(&desk.terms(), &desk.ledger);
    counts(&desk, &mut session);
}

#[test]
fn saves_wait_while_a_seat_is_asked_for() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    assert!(matches!(desk.auth(&mut session, &viewer("u")), Verdict::Pass(_)));
    let reply = REPLY.replace(
        "[]",
        r#"[{"id":"u1","idOriginal":"u","view":false,"connectionId":"s1","isLiveViewer":false}]"#,
    );
    let terms = desk.terms();
    let Answered::Ask(correction) = session.on_reply(reply.as_bytes(), &terms, &desk.ledger) else {
        panic!("it is an editor, not a viewer")
    };
    assert!(session.awaits_counting());
    let decision = desk.seats.admit(correction.request(), desk.licence.as_ref(), desk.now);
    let replied =
        session.on_corrected(*correction, decision, reply.as_bytes(), &terms, &desk.ledger);
    assert!(matches!(replied.verdict, ReplyVerdict::Pass) && !session.awaits_counting());
}

#[test]
fn saves_wait_where_a_token_that_nobody_verified_says_who_it_is() {
    let desk = Desk::users(2, 1);
    assert!(desk.open(&mut desk.session(), &editor("known")).is_ok());
    let token = |mode: &str, user: &str| {
        let claims = serde_json::json!({
            "document": { "key": "k" },
            "editorConfig": { "user": { "id": user }, "mode": mode },
        });
        let token = token::sign(claims.as_object().unwrap(), &Secret::new("any"), desk.now);
        auth("new", &format!(r#","mode":"edit","jwtOpen":"{token}""#))
    };
    for text in [token("view", "known"), token("edit", "known"), viewer("known")] {
        let mut session = desk.session();
        assert!(matches!(desk.auth(&mut session, &text), Verdict::Pass(_)), "{text}");
        assert!(session.awaits_counting(), "{text}");
        // Nor does it help to have one of two alike fail.
        assert!(matches!(desk.auth(&mut session, &text), Verdict::Pass(_)), "{text}");
        session.on_open_failed(&desk.terms(), &desk.ledger);
        assert!(session.awaits_counting(), "{text}");
        assert!(matches!(desk.reply(&mut session, REPLY).verdict, ReplyVerdict::Pass), "{text}");
        assert!(!session.awaits_counting(), "{text}");
    }
}
