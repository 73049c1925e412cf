//! Opens that come to nothing, replies that are about another open than the first that waits, and
//! what they say of the class.

use super::*;
use crate::seat::SeatClass;

/// A reply in which the server lists the open itself.
fn reply_as(view: bool, live: bool) -> String {
    format!(
        r#"42["message",{{"type":"auth","result":1,"sessionId":"s1","participants":[{{"id":"u1","idOriginal":"u","view":{view},"connectionId":"s1","isLiveViewer":{live}}}],"licenseType":3}}]"#
    )
}

/// A reply in which the server lists this connection as an editor of `user`.
fn editing(user: &str) -> String {
    format!(
        r#"42["message",{{"type":"auth","result":1,"sessionId":"s1","participants":[{{"id":"{user}1","idOriginal":"{user}","view":false,"connectionId":"s1","isLiveViewer":false}}],"licenseType":3}}]"#
    )
}

fn passes(desk: &Desk, session: &mut Session, auth: &str) {
    let verdict = desk.auth(session, auth);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
}

/// Takes a reply in, and makes durable what it asks for; `false` if it is forbidden.
fn replies(desk: &Desk, session: &mut Session, reply: &str) -> bool {
    match desk.reply(session, reply).verdict {
        ReplyVerdict::Pass | ReplyVerdict::Replace(_) => true,
        ReplyVerdict::Settle(Settlement { seats, confirmation, .. }) => {
            seats.stored(&confirmation.record.unwrap());
            true
        }
        ReplyVerdict::Forbid => false,
    }
}

fn counted(desk: &Desk) -> Vec<String> {
    let list = desk.seats.users(SeatClass::Editor, desk.now);
    list.users.iter().map(|user| user.user.to_string()).collect()
}

#[test]
fn an_open_that_fails_leaves_a_viewer_and_a_free_seat() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    passes(&desk, &mut session, &editor("u"));
    session.on_open_failed(&desk.terms(), &desk.ledger);
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
    assert_eq!(desk.ledger.viewers(&desk.tenant), 1);
    assert!(!replies(&desk, &mut session, &editing("u")), "nobody judged this one");

    // The next one is its own.
    passes(&desk, &mut session, &editor("u"));
    assert!(replies(&desk, &mut session, &editing("u")));
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    session.on_gave_up_editing(&desk.terms(), &desk.ledger);
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
}

#[test]
fn a_failed_open_takes_no_place_in_the_reserve() {
    let desk = Desk::users(1, 0);
    let mut session = desk.session();
    passes(&desk, &mut session, &editor("u"));
    assert_eq!(desk.used(SeatKind::EditorUsers), 1);
    session.on_open_failed(&desk.terms(), &desk.ledger);
    assert_eq!(desk.used(SeatKind::EditorUsers), 0);
    assert!(desk.open(&mut desk.session(), &editor("v")).is_ok());
}

#[test]
fn of_two_opens_at_once_nobody_knows_which_failed() {
    let desk = Desk::connections(2, 0);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    passes(&desk, &mut session, &editor("u"));
    passes(&desk, &mut session, &editor("v"));
    session.on_open_failed(&desk.terms(), &desk.ledger);
    assert_eq!(desk.used(SeatKind::EditorConnections), 2);
    assert!(replies(&desk, &mut session, &editing("v")));
    assert_eq!(desk.used(SeatKind::EditorConnections), 2, "the other one may yet be edited with");
    session.end();
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
}

#[test]
fn an_open_that_was_never_answered_stands_for_no_other_user() {
    let desk = Desk::users(2, 0);
    assert!(desk.open(&mut desk.session(), &editor("known")).is_ok());
    assert_eq!(counted(&desk), ["known"]);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    // The server lets the first one fall; the reply is about the second.
    passes(&desk, &mut session, &editor("known"));
    passes(&desk, &mut session, &editor("new"));
    assert!(replies(&desk, &mut session, &editing("new")));
    assert_eq!(counted(&desk), ["known", "new"]);
}

#[test]
fn who_the_server_let_in_is_who_is_counted() {
    let desk = Desk::users(1, 0);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    passes(&desk, &mut session, &editor("said"));
    assert!(replies(&desk, &mut session, &editing("meant")), "one place, and one user");
    assert_eq!(counted(&desk), ["meant"]);
    let mut another = desk.session();
    another.on_connected(CONNECTED);
    passes(&desk, &mut another, &editor("meant"));
    assert!(!replies(&desk, &mut another, &editing("third")), "there is no place for a third");
}

#[test]
fn a_reply_that_is_repeated_answers_no_other_open() {
    let desk = Desk::connections(2, 0);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    passes(&desk, &mut session, &editor("u"));
    assert!(replies(&desk, &mut session, &editing("u")));
    passes(&desk, &mut session, &editor("v"));
    for _ in 0..2 {
        assert!(replies(&desk, &mut session, &editing("u")), "repeated when a lock is released");
    }
    assert_eq!(session.seat().map(|seat| seat.occupant().user.to_string()).as_deref(), Some("u"));
    assert!(replies(&desk, &mut session, &editing("v")));
    assert_eq!(session.seat().map(|seat| seat.occupant().user.to_string()).as_deref(), Some("v"));
}

/// The server repeats its replies to all in a document when a lock is released, with the list of
/// participants of an earlier moment. It lets some opens fall without a word.
#[test]
fn a_reply_of_an_earlier_time_frees_no_seat_of_an_editor() {
    for (live, class) in [(false, viewer("u")), (true, live_viewer("u"))] {
        let desk = Desk::connections(1, 1);
        let mut session = desk.session();
        session.on_connected(CONNECTED);
        passes(&desk, &mut session, &class);
        let earlier = reply_as(true, live);
        assert!(replies(&desk, &mut session, &earlier));
        // It comes before the answer to an open that asks for more ...
        passes(&desk, &mut session, &editor("u"));
        assert!(replies(&desk, &mut session, &earlier));
        assert_eq!(desk.used(SeatKind::EditorConnections), 1, "{live}");
        assert!(replies(&desk, &mut session, &editing("u")), "an honest editor gets in");
        assert_eq!(desk.used(SeatKind::EditorConnections), 1, "{live}");
        // ... and after one for less that was never answered.
        passes(&desk, &mut session, &class);
        assert!(replies(&desk, &mut session, &earlier));
        assert_eq!(desk.used(SeatKind::EditorConnections), 1, "{live}: it may still edit");
        // Who goes to and fro has no more than one seat of a kind.
        for _ in 0..4 {
            passes(&desk, &mut session, &editor("u"));
            assert!(replies(&desk, &mut session, &editing("u")));
            passes(&desk, &mut session, &class);
            assert!(replies(&desk, &mut session, &earlier));
        }
        assert_eq!(desk.used(SeatKind::EditorConnections), 1, "{live}");
        assert!(desk.used(SeatKind::ViewerConnections) <= 1, "{live}");
        session.end();
        assert_eq!(desk.used(SeatKind::EditorConnections), 0, "{live}");
        assert_eq!(desk.used(SeatKind::ViewerConnections), 0, "{live}");
    }
}

#[test]
fn an_open_told_twice_does_not_use_up_another_ones_reply() {
    let desk = Desk::connections(2, 1);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    for auth in [editor("u"), editor("u"), live_viewer("u")] {
        passes(&desk, &mut session, &auth);
    }
    for _ in 0..2 {
        assert!(replies(&desk, &mut session, &editing("u")));
    }
    let viewing = editing("u").replace(r#""view":false"#, r#""view":true"#);
    let viewing = viewing.replace(r#""isLiveViewer":false"#, r#""isLiveViewer":true"#);
    assert!(replies(&desk, &mut session, &viewing));
    assert_eq!(desk.used(SeatKind::ViewerConnections), 1, "who was told so is counted so");
}

#[test]
fn a_live_viewer_that_nobody_judged_is_forbidden() {
    let desk = Desk::connections(1, 1);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    passes(&desk, &mut session, &editor("u"));
    assert!(replies(&desk, &mut session, &editing("u")));
    let viewing = editing("u").replace(r#""view":false"#, r#""view":true"#);
    let viewing = viewing.replace(r#""isLiveViewer":false"#, r#""isLiveViewer":true"#);
    assert!(!replies(&desk, &mut session, &viewing));
}

#[test]
fn a_session_whose_tenant_has_another_licence_counts_there() {
    let mut desk = Desk::connections(1, 0);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    assert!(session.moving(&desk.terms()).is_none());
    let mut lost = desk.session();
    desk.licence.as_mut().unwrap().quota.connections = 2;
    assert!(desk.open(&mut lost, &auth("v", r#","mode":"edit""#)).is_ok());
    lost.lose(desk.now, Duration::from_secs(30));
    let before = Arc::clone(&desk.seats);
    desk.seats = desk.ledger.licence("another");
    desk.licence.as_mut().unwrap().quota.connections = 1;
    before.move_tenant(&desk.tenant, &desk.seats, desk.now);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1, "what is kept has moved");
    assert_eq!(session.close_reason(), None, "it goes on");
    let moving = session.moving(&desk.terms()).unwrap();
    let seat = desk.seats.admit(moving.request(), desk.licence.as_ref(), desk.now).unwrap();
    assert!(session.on_moved(&moving, seat, &desk.terms()).is_none());
    assert_eq!(desk.used(SeatKind::EditorConnections), 2);
    assert_eq!(before.own_connections(desk.now).0, 0);
    assert!(session.moving(&desk.terms()).is_none());
    // Both are still the same sessions.
    let again = auth("v", r#","mode":"edit","sessionId":"s1""#);
    assert!(desk.open(&mut desk.session(), &again).is_ok());
    session.lose(desk.now, Duration::from_secs(30));
    assert!(desk.open(&mut desk.session(), &editor("w")).is_err());
    assert!(
        desk.open(&mut desk.session(), &auth("u", r#","mode":"edit","sessionId":"s1""#)).is_ok()
    );
}

#[test]
fn a_downgrade_that_overtakes_an_upgrade_frees_nothing() {
    let desk = Desk::connections(1, 1);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    for text in [editor("u"), viewer("u")] {
        assert!(matches!(desk.auth(&mut session, &text), Verdict::Pass(_)));
    }
    for _ in 0..2 {
        let verdict = desk.reply(&mut session, REPLY).verdict;
        assert!(matches!(verdict, ReplyVerdict::Pass));
    }
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
}

#[test]
fn giving_up_editing_frees_the_seat_unless_an_auth_is_under_way() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    let text = editor("u");
    assert!(matches!(desk.auth(&mut session, &text), Verdict::Pass(_)));
    session.on_gave_up_editing(&desk.terms(), &desk.ledger);
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    let _ = desk.reply(&mut session, REPLY).verdict;
    session.on_gave_up_editing(&desk.terms(), &desk.ledger);
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
    assert_eq!(desk.ledger.viewers("acme"), 1);
}

#[test]
fn a_reply_that_nobody_judged_is_forbidden() {
    let desk = Desk::connections(5, 5);
    let mut session = desk.session();
    let verdict = desk.reply(&mut session, REPLY).verdict;
    assert!(matches!(verdict, ReplyVerdict::Forbid));
    assert!(desk.open(&mut session, &viewer("u")).is_ok());
    let verdict = desk.reply(&mut session, REPLY).verdict;
    assert!(matches!(verdict, ReplyVerdict::Pass), "the server repeats its replies");
}

#[test]
fn a_session_id_that_names_another_connection_tells_nothing() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    session.on_connected(br#"40{"sid":"own"}"#);
    let text = auth("u", r#","mode":"edit","sessionId":"s1""#);
    let _ = desk.auth(&mut session, &text);
    let reply = reply_as(true, false);
    let replied = desk.reply(&mut session, &reply);
    assert!(!replied.corrected, "the viewer that is listed as s1 is somebody else");
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
}

#[test]
fn a_class_that_changes_twice_in_one_breath_leaves_no_editor_without_a_seat() {
    let desk = Desk::connections(1, 1);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    let with = |mode: &str| auth("u", &format!(r#"{mode},"sessionId":"zzz""#));
    let live = with(r#","mode":"view","coEditingMode":"fast""#);
    let edit = with(r#","mode":"edit""#);
    for text in [&live, &edit] {
        let verdict = desk.auth(&mut session, text);
        assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    }
    for _ in 0..2 {
        let replied = desk.reply(&mut session, REPLY);
        assert!(!matches!(replied.verdict, ReplyVerdict::Forbid));
        assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    }
    session.end();
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
    assert_eq!(desk.used(SeatKind::ViewerConnections), 0);
}

#[test]
fn the_document_server_has_the_last_word_about_the_class() {
    let desk = Desk::connections(1, 1);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    let _ = desk.auth(&mut session, &editor("u"));
    let reply = reply_as(true, false);
    let replied = desk.reply(&mut session, &reply);
    assert!(replied.corrected && matches!(replied.verdict, ReplyVerdict::Pass));
    assert_eq!(desk.used(SeatKind::EditorConnections), 0, "the server's own limit");

    let mut session = desk.session();
    session.on_connected(CONNECTED);
    let _ = desk.auth(&mut session, &viewer("u"));
    let reply = reply_as(false, false);
    let replied = desk.reply(&mut session, &reply);
    assert!(replied.corrected && matches!(replied.verdict, ReplyVerdict::Pass));
    assert_eq!(desk.used(SeatKind::EditorConnections), 1, "a seat was free");

    let mut third = desk.session();
    third.on_connected(CONNECTED);
    let _ = desk.auth(&mut third, &viewer("v"));
    let replied = desk.reply(&mut third, &reply);
    assert!(matches!(replied.verdict, ReplyVerdict::Forbid), "none is left");
}

#[test]
fn replies_that_answer_another_open_leave_no_editor_without_a_seat() {
    let desk = Desk::connections(2, 0);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    let passes = |session: &mut Session, text: &str| {
        let verdict = desk.auth(session, text);
        assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    };
    let answer = |session: &mut Session, view: bool| {
        let verdict = desk.reply(session, &reply_as(view, false)).verdict;
        !matches!(verdict, ReplyVerdict::Forbid)
    };
    // An open said twice is answered twice: no later reply may meet the open behind its own.
    passes(&mut session, &editor("u"));
    passes(&mut session, &editor("u"));
    passes(&mut session, &viewer("u"));
    assert!(answer(&mut session, false) && answer(&mut session, false));
    passes(&mut session, &editor("v"));
    assert!(answer(&mut session, true), "the viewer's");
    assert!(answer(&mut session, false), "the first editor's, repeated");
    assert_eq!(desk.used(SeatKind::EditorConnections), 2, "an editor, and another under way");
    assert_eq!(desk.open(&mut desk.session(), &editor("w")), Err(Some(Reason::Connections)));
}

#[test]
fn a_seat_that_went_over_to_another_name_lets_nobody_in_again() {
    let desk = Desk::connections(0, 1);
    let mut session = desk.session();
    session.on_connected(CONNECTED);
    let answer = |session: &mut Session, user: &str, live: bool| {
        let reply = reply_as(true, live).replace(r#":"u""#, &format!(r#":"{user}""#));
        let verdict = desk.reply(session, &reply).verdict;
        assert!(matches!(verdict, ReplyVerdict::Pass), "{verdict:?}");
    };
    for user in ["u", "v"] {
        assert!(matches!(desk.auth(&mut session, &live_viewer(user)), Verdict::Pass(_)));
        answer(&mut session, user, true);
        assert_eq!(desk.used(SeatKind::ViewerConnections), 1);
    }
    assert!(matches!(desk.auth(&mut session, &viewer("v")), Verdict::Pass(_)));
    answer(&mut session, "v", false);
    assert_eq!(desk.used(SeatKind::ViewerConnections), 0);
    let mut other = desk.session();
    assert!(desk.open(&mut other, &live_viewer("w")).is_ok());
    let verdict = desk.auth(&mut session, &live_viewer("u"));
    assert!(matches!(verdict, Verdict::Refuse(..)), "{verdict:?}");
}
