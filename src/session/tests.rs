//! The session's verdicts on opens, case by case.

mod desk;
mod replies;
mod returning;

use super::*;
use crate::config::Secret;
use crate::seat::SeatKind;
use desk::{CONNECTED, Desk, REPLY, auth, editor, live_viewer, viewer};

#[test]
fn connections_are_counted_by_class_and_viewers_are_free() {
    let desk = Desk::connections(1, 1);
    let [mut a, mut b, mut c, mut d] = std::array::from_fn(|_| desk.session());
    assert!(desk.open(&mut a, &editor("u")).is_ok());
    assert_eq!(desk.open(&mut b, &editor("u")), Err(Some(Reason::Connections)));
    assert!(desk.open(&mut c, &live_viewer("u")).is_ok());
    assert_eq!(desk.open(&mut b, &live_viewer("v")), Err(Some(Reason::ConnectionsView)));
    for _ in 0..3 {
        assert!(desk.open(&mut d, &viewer("w")).is_ok());
    }
    assert_eq!(desk.ledger.viewers("acme"), 1);
    drop((a, c, d));
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
    assert_eq!(desk.used(SeatKind::ViewerConnections), 0);
    assert_eq!(desk.ledger.viewers("acme"), 0);
}

#[test]
fn a_user_counts_once_accepted_and_not_before() {
    let desk = Desk::users(1, 1);
    let mut refused_by_server = desk.session();
    let verdict = desk.auth(&mut refused_by_server, &editor("a"));
    assert!(matches!(verdict, Verdict::Pass(_)));
    assert_eq!(desk.used(SeatKind::EditorUsers), 1, "held in reserve");
    let mut other = desk.session();
    assert_eq!(desk.open(&mut other, &editor("b")), Err(Some(Reason::Users)));
    drop(refused_by_server);
    assert_eq!(desk.used(SeatKind::EditorUsers), 0, "never counted");
    assert!(desk.open(&mut other, &editor("b")).is_ok());
    drop(other);
    assert_eq!(desk.used(SeatKind::EditorUsers), 1, "counted until the day ends");
    let mut again = desk.session();
    assert!(desk.open(&mut again, &editor("b")).is_ok());
    assert_eq!(desk.open(&mut desk.session(), &editor("a")), Err(Some(Reason::Users)));
}

#[test]
fn a_licence_without_live_viewers_makes_plain_ones() {
    let desk = Desk::connections(1, 0);
    let mut session = desk.session();
    match desk.auth(&mut session, &live_viewer("u")) {
        Verdict::Replace(report, text) => {
            assert_eq!(report.class, SessionClass::Viewer);
            assert!(text.contains(r#""coEditingMode":"strict""#), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn licences_that_do_not_hold_refuse_but_spare_viewers_and_running_sessions() {
    let mut desk = Desk::connections(5, 5);
    let mut running = desk.session();
    assert!(desk.open(&mut running, &editor("u")).is_ok());
    desk.now = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(desk.open(&mut desk.session(), &editor("v")), Err(Some(Reason::LicenceExpired)));
    assert!(desk.open(&mut desk.session(), &viewer("v")).is_ok());
    assert!(desk.open(&mut running, &editor("u")).is_ok(), "what runs goes on");
    if let Some(licence) = &mut desk.licence {
        licence.start = Some("2028-01-01T00:00:00Z".parse().unwrap());
    }
    assert_eq!(desk.open(&mut desk.session(), &editor("v")), Err(Some(Reason::LicenceNotStarted)));
    if let Some(licence) = &mut desk.licence {
        licence.revoked = true;
    }
    assert_eq!(desk.open(&mut desk.session(), &editor("v")), Err(Some(Reason::LicenceRevoked)));
    desk.licence = None;
    assert_eq!(
        desk.open(&mut desk.session(), &live_viewer("v")),
        Err(Some(Reason::LicenceMissing))
    );
}

#[test]
fn every_auth_is_judged_anew() {
    let desk = Desk::connections(1, 1);
    let mut session = desk.session();
    assert!(desk.open(&mut session, &viewer("u")).is_ok());
    assert!(desk.open(&mut session, &editor("u")).is_ok());
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    assert!(desk.open(&mut session, &editor("u")).is_ok(), "the seat it has will do");
    assert!(desk.open(&mut session, &editor("v")).is_ok(), "still one connection");
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
    assert!(desk.open(&mut session, &live_viewer("v")).is_ok());
    assert_eq!(desk.used(SeatKind::EditorConnections), 0);
    assert_eq!(desk.used(SeatKind::ViewerConnections), 1);
    assert!(desk.open(&mut session, &viewer("v")).is_ok());
    assert_eq!(desk.used(SeatKind::ViewerConnections), 0);
    let _other = {
        let mut other = desk.session();
        assert!(desk.open(&mut other, &editor("x")).is_ok());
        other
    };
    assert_eq!(desk.open(&mut session, &editor("v")), Err(Some(Reason::Connections)));
}

#[test]
fn over_the_limit_view_only_tells_the_editor_so() {
    for (desk, notice) in [(Desk::connections(0, 1), 5), (Desk::users(1, 1), 8)] {
        let mut desk = desk;
        desk.policy.over_limit = RefusalPolicy::View;
        let mut first = desk.session();
        let _ = desk.open(&mut first, &editor("first"));
        let mut session = desk.session();
        match desk.auth(&mut session, &editor("second")) {
            Verdict::Replace(report, text) => {
                assert_eq!(report.decision, Decision::ViewOnly);
                assert!(text.contains(r#""mode":"view""#), "{text}");
            }
            other => panic!("{other:?}"),
        }
        match desk.reply(&mut session, REPLY).verdict {
            ReplyVerdict::Replace(text) => {
                assert!(text.contains(&format!(r#""licenseType":{notice}"#)), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert!(session.seat().is_none());
    }
}

#[test]
fn observing_refuses_nobody_and_says_why_it_would_have() {
    let mut desk = Desk::connections(0, 0);
    desk.policy.mode = Mode::Observe;
    let mut session = desk.session();
    let report = desk.open(&mut session, &editor("u")).unwrap();
    assert_eq!((report.decision, report.reason), (Decision::Observed, Some(Reason::Connections)));
    assert_eq!(desk.used(SeatKind::EditorConnections), 1);
}

#[test]
fn tokens_decide_where_there_is_a_secret() {
    let mut desk = Desk::connections(5, 5);
    let secret = Secret::new("s3cret");
    let secrets = Some(vec![secret.clone()]);
    desk.secrets = TokenSecrets { browser: secrets.clone(), inbox: None, session: secrets };
    let token = |claims: serde_json::Value| {
        let serde_json::Value::Object(claims) = claims else { panic!("claims are an object") };
        token::sign(&claims, &secret, desk.now)
    };
    let opening = token(serde_json::json!({
        "document": { "key": "from-token", "url": "u", "permissions": { "edit": true } },
        "editorConfig": { "user": { "id": "real" }, "mode": "edit" },
    }));
    let with = |token: &str| {
        auth("forged", &format!(r#","permissions":{{"edit":true}},"jwtOpen":"{token}""#))
    };
    let report = desk.open(&mut desk.session(), &with(&opening)).unwrap();
    assert_eq!((report.user.as_str(), report.document.as_str()), ("real", "from-token"));
    let refusals = [
        (editor("u"), Reason::TokenInvalid),
        (with("a.b.c"), Reason::TokenInvalid),
        (
            with(&token(serde_json::json!({ "exp": desk.now.as_second() - 61 }))),
            Reason::TokenExpired,
        ),
    ];
    for (text, reason) in refusals {
        assert_eq!(desk.open(&mut desk.session(), &text), Err(Some(reason)), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_and_what_the_server_ignores_is_let_be() {
    let desk = Desk::connections(5, 5);
    let twice = auth("u", r#","mode":"view","mode":"edit""#);
    assert_eq!(desk.open(&mut desk.session(), &twice), Err(Some(Reason::Malformed)));
    let without_user = r#"42["message",{"type":"auth","docid":"k","token":"t"}]"#;
    let verdict = desk.auth(&mut desk.session(), without_user);
    assert!(matches!(verdict, Verdict::Ignore));
}

#[test]
fn opens_under_way_are_bounded() {
    let desk = Desk::connections(100, 0);
    let mut session = desk.session();
    for user in 0..MAX_PENDING {
        let text = editor(&format!("u{user}"));
        let again = usize::from(user == 0);
        for _ in 0..=again {
            let verdict = desk.auth(&mut session, &text);
            assert!(matches!(verdict, Verdict::Pass(_)), "the same again is the same open");
        }
    }
    let verdict = desk.auth(&mut session, &editor("one more"));
    assert!(matches!(verdict, Verdict::Refuse(..)));
}

#[test]
fn view_only_is_view_only_however_often_it_is_asked() {
    let mut desk = Desk::connections(0, 1);
    desk.policy.over_limit = RefusalPolicy::View;
    let mut session = desk.session();
    for _ in 0..3 {
        let verdict = desk.auth(&mut session, &editor("u"));
        assert!(matches!(verdict, Verdict::Replace(..)), "{verdict:?}");
    }
}
