//! What is lost, ended or taken over while an open is under way, and who comes back.

use super::*;

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
