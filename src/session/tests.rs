//! The session's verdicts, case by case.

mod replies;

use super::*;
use crate::config::Secret;
use crate::licence::Quota;
use crate::seat::SeatKind;

const NOW: &str = "2026-11-22T10:00:00Z";

struct Desk {
    ledger: Ledger,
    tenant: Arc<str>,
    seats: Arc<LicenceSeats>,
    licence: Option<Licence>,
    policy: Policy,
    secrets: TokenSecrets,
    now: Timestamp,
}

impl Desk {
    fn new(quota: Quota) -> Self {
        let ledger = Ledger::new();
        let licence = Licence {
            id: "l".into(),
            app: None,
            issued_to: String::new(),
            start: None,
            end: Some("2027-01-01T00:00:00Z".parse().unwrap()),
            trial: false,
            customization: false,
            features: Vec::new(),
            max_devices: None,
            quota,
            revoked: false,
        };
        Self {
            seats: ledger.licence("l"),
            ledger,
            tenant: "acme".into(),
            licence: Some(licence),
            policy: Policy {
                mode: Mode::Enforce,
                over_limit: RefusalPolicy::Reject,
                licence_invalid: RefusalPolicy::Reject,
            },
            secrets: TokenSecrets::default(),
            now: NOW.parse().unwrap(),
        }
    }

    fn connections(editors: u32, viewers: u32) -> Self {
        Self::new(Quota { connections: editors, connections_view: viewers, ..Quota::default() })
    }

    fn users(editors: u32, viewers: u32) -> Self {
        Self::new(Quota {
            users_count: editors,
            users_view_count: viewers,
            users_expire_days: 1,
            ..Quota::default()
        })
    }

    fn terms(&self) -> Terms<'_> {
        Terms {
            tenant: &self.tenant,
            policy: self.policy,
            secrets: &self.secrets,
            licence: self.licence.clone().map(Arc::new),
            seats: &self.seats,
            now: self.now,
        }
    }

    fn session(&self) -> Session {
        Session::new("192.0.2.1".parse().unwrap())
    }

    /// Judges an `auth`; seats are decided here.
    fn auth(&self, session: &mut Session, text: &str) -> Verdict {
        match session.on_auth(text.as_bytes(), &self.terms()) {
            Judged::Done(verdict) => verdict,
            Judged::Ask(opening) => {
                let decision = self.seats.admit(opening.request(), self.licence.as_ref(), self.now);
                session.on_decided(*opening, decision, text.as_bytes(), &self.terms())
            }
        }
    }

    /// Judges a reply; seats are decided here.
    fn reply(&self, session: &mut Session, text: &str) -> Replied {
        match session.on_reply(text.as_bytes(), &self.terms(), &self.ledger) {
            Answered::Done(replied) => replied,
            Answered::Ask(correction) => {
                let decision =
                    self.seats.admit(correction.request(), self.licence.as_ref(), self.now);
                let terms = self.terms();
                session.on_corrected(*correction, decision, text.as_bytes(), &terms, &self.ledger)
            }
        }
    }

    fn used(&self, kind: SeatKind) -> u64 {
        let usage = self.seats.usage(self.now);
        usage.iter().find(|usage| usage.kind == kind).unwrap().used
    }

    /// An open that the server accepts; `Err` is the reason of a refusal.
    fn open(&self, session: &mut Session, auth: &str) -> Result<Report, Option<Reason>> {
        match self.auth(session, auth) {
            Verdict::Pass(report) | Verdict::Replace(report, _) => {
                match self.reply(session, REPLY).verdict {
                    ReplyVerdict::Pass | ReplyVerdict::Replace(_) => {}
                    ReplyVerdict::Settle(Settlement { seats, confirmation, .. }) => {
                        seats.stored(&confirmation.record.unwrap());
                    }
                    ReplyVerdict::Forbid => panic!("a judged open is forbidden"),
                }
                Ok(report)
            }
            Verdict::Refuse(report, _) => Err(report.reason),
            Verdict::Ignore => panic!("ignored"),
        }
    }
}

const REPLY: &str = r#"42["message",{"type":"auth","result":1,"sessionId":"s1","participants":[],"licenseType":3}]"#;

fn auth(user: &str, rest: &str) -> String {
    format!(
        r#"42["message",{{"type":"auth","docid":"k","token":"t","user":{{"id":"{user}"}}{rest}}}]"#
    )
}

fn editor(user: &str) -> String {
    auth(user, r#","mode":"edit""#)
}

fn live_viewer(user: &str) -> String {
    auth(user, r#","mode":"view","coEditingMode":"fast""#)
}

fn viewer(user: &str) -> String {
    auth(user, r#","mode":"view","coEditingMode":"strict""#)
}

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

/// A reply in which the server lists the open itself.
fn reply_as(view: bool, live: bool) -> String {
    format!(
        r#"42["message",{{"type":"auth","result":1,"sessionId":"s1","participants":[{{"id":"u1","idOriginal":"u","view":{view},"connectionId":"s1","isLiveViewer":{live}}}],"licenseType":3}}]"#
    )
}

const CONNECTED: &[u8] = br#"40{"sid":"s1"}"#;

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
fn view_only_is_view_only_however_often_it_is_asked() {
    let mut desk = Desk::connections(0, 1);
    desk.policy.over_limit = RefusalPolicy::View;
    let mut session = desk.session();
    for _ in 0..3 {
        let verdict = desk.auth(&mut session, &editor("u"));
        assert!(matches!(verdict, Verdict::Replace(..)), "{verdict:?}");
    }
}

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
