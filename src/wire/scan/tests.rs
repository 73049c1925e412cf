//! The scanner against a table, against a model of the JavaScript parser, and against arbitrary bytes and chunks.

mod model;

use proptest::prelude::*;

use self::model::{event, model};
use super::*;

use EventType::{Auth, Close, Other};
use MessageKind::{BinaryEvent, Event, Malformed};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/", $name))
    };
}

#[test]
fn packets_are_told_apart() {
    for (message, kind) in [
        ("", MessageKind::Unknown),
        ("0{\"sid\":\"x\"}", MessageKind::EngineOpen),
        ("1", MessageKind::EngineClose),
        ("2", MessageKind::Ping),
        ("2probe", MessageKind::Ping),
        ("3", MessageKind::Pong),
        ("3probe", MessageKind::Pong),
        ("5", MessageKind::Upgrade),
        ("6", MessageKind::Noop),
        ("7", MessageKind::Unknown),
        ("bAAEC", MessageKind::Attachment),
        ("\u{feff}42[\"message\",{\"type\":\"auth\"}]", MessageKind::Unknown),
        (" 2", MessageKind::Unknown),
        ("4", Malformed),
        ("4 ", Malformed),
        ("47", Malformed),
        ("40", MessageKind::Connect),
        ("40{\"token\":\"x\"}", MessageKind::Connect),
        ("40/", MessageKind::Connect),
        ("40/,", MessageKind::Connect),
        ("40/,{}", MessageKind::Connect),
        ("40/x,{}", MessageKind::Foreign),
        ("40/?a=b,{}", MessageKind::Foreign),
        ("41", MessageKind::Disconnect),
        ("41/", MessageKind::Disconnect),
        ("41/,", MessageKind::Disconnect),
        ("417", MessageKind::Disconnect),
        ("41/x,", MessageKind::Foreign),
        ("41/x", MessageKind::Foreign),
        ("41{}", Malformed),
        ("43[]", MessageKind::Ack),
        ("4312[1]", MessageKind::Ack),
        ("461-[]", MessageKind::Ack),
        ("44{\"message\":\"x\"}", MessageKind::ConnectError),
        ("42", Malformed),
        ("42/", Malformed),
        ("42[]", Malformed),
        ("42{}", Malformed),
        ("42\"message\"", Malformed),
        ("45[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("45-[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("450-[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("45 1-[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("450x1-[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("4510000-[\"message\",{\"type\":\"auth\"}]", Malformed),
    ] {
        assert_eq!(classify(message.as_bytes()), kind, "{message:?}");
    }
}

#[test]
fn events_are_told_apart() {
    for (message, kind) in [
        (r#"42["message",{"type":"auth"}]"#, Event(Auth)),
        (r#"42["message",{"type":"close"}]"#, Event(Close)),
        (r#"42["message",{"type":"cursor","cursor":"auth"}]"#, Event(Other)),
        // Aliases (WIRE.md section 2).
        (r#"4213["message",{"type":"auth"}]"#, Event(Auth)),
        (r#"42/,["message",{"type":"auth"}]"#, Event(Auth)),
        (r#"42/,7["message",{"type":"auth"}]"#, Event(Auth)),
        (r#"451-["message",{"type":"auth"}]"#, BinaryEvent { event: Auth, attachments: 1 }),
        (r#"4512-/,3["message",{"type":"close"}]"#, BinaryEvent { event: Close, attachments: 12 }),
        (r#"42["\u006dessage",{"\u0074\u0079\u0070\u0065":"\u0061uth"}]"#, Event(Auth)),
        (r#"42["message",{"\u0074ype":"\u0061UTH"}]"#, Event(Other)),
        (" 42[\"message\",{\"type\":\"auth\"}]", MessageKind::Unknown),
        ("42 \t\r\n1 2[\"message\",{\"type\":\"auth\"}]", Event(Auth)),
        ("42[ \t\r\n\"message\" , { \"type\" :\n\"auth\"\r} ]\n ", Event(Auth)),
        (r#"42["message",{"type":"auth"},{"type":"close"},5,[{}]]"#, Event(Auth)),
        (r#"42["message",{"a":{"type":"close"},"b":["type","auth"],"type":"auth"}]"#, Event(Auth)),
        // Not an auth.
        (r#"42["message",{"a":{"type":"auth"}}]"#, Event(Other)),
        (r#"42["message",{"a":"type","b":"auth"}]"#, Event(Other)),
        (r#"42["message",{"type":["auth"]}]"#, Event(Other)),
        (r#"42["message",{"type":{"type":"auth"}}]"#, Event(Other)),
        (r#"42["message",{"type":null}]"#, Event(Other)),
        (r#"42["message",{"type":5,"a":"auth"}]"#, Event(Other)),
        (r#"42["message",{"type ":"auth"}]"#, Event(Other)),
        (r#"42["message",{"type":"auth "}]"#, Event(Other)),
        (r#"42["message",{"type":"auth\u0000"}]"#, Event(Other)),
        (r#"42["message",{"type":"auth\n"}]"#, Event(Other)),
        (r#"42["message",{"type":"\u0161uth"}]"#, Event(Other)),
        (r#"42["message",{"type":"authauthauthauthauth"}]"#, Event(Other)),
        (r#"42["message",{}]"#, Event(Other)),
        (r#"42["message",{},{"type":"auth"}]"#, Event(Other)),
        (r#"42["message",[{"type":"auth"}]]"#, Event(Other)),
        (r#"42["message","auth"]"#, Event(Other)),
        (r#"42["message",5,{"type":"auth"}]"#, Event(Other)),
        (r#"42["message"]"#, Event(Other)),
        (r#"42["other",{"type":"auth"}]"#, Event(Other)),
        (r#"42[0,{"type":"auth"}]"#, Event(Other)),
        (r#"42[["message"],{"type":"auth"}]"#, Event(Other)),
        (r#"42[{"type":"auth"}]"#, Event(Other)),
        (r#"42/x,["message",{"type":"auth"}]"#, MessageKind::Foreign),
        // Ambiguous or odd.
        (r#"42["message",{"type":"auth","type":"cursor"}]"#, Malformed),
        (r#"42["message",{"type":"cursor","type":"auth"}]"#, Malformed),
        (r#"42["message",{"type":"auth","typ\u0065":"auth"}]"#, Malformed),
        (r#"42["message",{"type":"auth"}"#, Malformed),
        (r#"42["message",{"type":"auth"]"#, Malformed),
        (r#"42["message",{"type":"auth"}]]"#, Malformed),
        (r#"42["message",{"type":"auth"]}"#, Malformed),
        (r#"42["message",{"type":"auth","a":[{]}}]"#, Malformed),
        (r#"42["message",{"type":"auth"}]x"#, Malformed),
        (r#"42["message",{"type":"auth"} x]"#, Malformed),
        (r#"42["message",{"type":"auth"}{}]"#, Malformed),
        (r#"42["message",{"type":"auth"#, Malformed),
        (r#"42["message",{"typ\x65":"auth"}]"#, Malformed),
        (r#"42["message",{"typ\u00g5":"auth"}]"#, Malformed),
        ("42\u{feff}[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("42\u{a0}[\"message\",{\"type\":\"auth\"}]", Malformed),
        ("42\u{b}[\"message\",{\"type\":\"auth\"}]", Malformed),
    ] {
        assert_eq!(classify(message.as_bytes()), kind, "{message:?}");
    }
}

#[test]
fn captured_messages_are_recognised() {
    for (message, kind) in [
        (fixture!("client/connect.txt"), MessageKind::Connect),
        (fixture!("client/connect-token.txt"), MessageKind::Connect),
        (fixture!("client/auth-edit.txt"), Event(Auth)),
        (fixture!("client/auth-view.txt"), Event(Auth)),
        (fixture!("client/auth-token.txt"), Event(Auth)),
        (fixture!("client/auth-chromium.txt"), Event(Auth)),
        (fixture!("client/auth-upgraded.txt"), Event(Auth)),
        (fixture!("client/is-save-lock.txt"), Event(Other)),
        (fixture!("server/handshake.txt"), MessageKind::EngineOpen),
        (fixture!("server/connect-ack.txt"), MessageKind::Connect),
        (fixture!("server/connect-error.txt"), MessageKind::ConnectError),
        (fixture!("server/license.txt"), Event(EventType::License)),
        (fixture!("server/auth-reply.txt"), Event(Auth)),
        (fixture!("server/auth-reply-view.txt"), Event(Auth)),
        (fixture!("server/auth-reply-two-tabs.txt"), Event(Auth)),
        (fixture!("server/wait-auth.txt"), Event(EventType::WaitAuth)),
        (fixture!("server/connect-state.txt"), Event(Other)),
        (fixture!("server/disconnect-reason.txt"), Event(EventType::DisconnectReason)),
        (fixture!("server/drop.txt"), Event(EventType::Drop)),
    ] {
        assert_eq!(classify(message.as_bytes()), kind, "{message}");
    }
}

#[test]
fn progress_tells_when_bytes_may_pass() {
    let mut scanner = MessageScanner::new();
    for (chunk, progress) in [
        (&b""[..], Progress::Undecided),
        (b"42[\"message\",{\"typ", Progress::Undecided),
        (b"e\":\"save", Progress::Undecided),
        (b"Changes\"", Progress::Harmless { watch: true }),
        (b",\"changes\":\"[\\\"", Progress::Harmless { watch: true }),
        (b"a\\\"]\"", Progress::Harmless { watch: true }),
        (b",\"type", Progress::Harmless { watch: true }),
        (b"\"", Progress::Malformed),
        (b":1}]", Progress::Malformed),
    ] {
        assert_eq!(scanner.feed(chunk), progress, "{}", String::from_utf8_lossy(chunk));
    }
    assert_eq!(scanner.finish(), Malformed);

    scanner.reset();
    assert_eq!(scanner.feed(b"42[\"message\",{\"type\":\"auth\""), Progress::Auth);
    assert_eq!(scanner.feed(b",\"docid\":\"k\"}]"), Progress::Auth);
    assert_eq!(scanner.finish(), Event(Auth));

    scanner.reset();
    assert_eq!(
        scanner.feed(b"42[\"message\",{\"type\":\"cursor\"}"),
        Progress::Harmless { watch: false }
    );
    scanner.reset();
    assert_eq!(scanner.feed(b"42[\"other\""), Progress::Harmless { watch: false });
    scanner.reset();
    assert_eq!(scanner.feed(b"2"), Progress::Harmless { watch: false });
    scanner.reset();
    assert_eq!(scanner.feed(b"41"), Progress::Undecided);
    assert_eq!(scanner.finish(), MessageKind::Disconnect);
}

#[test]
fn depth_is_limited_without_recursion() {
    // The event's array and object are two levels.
    for (levels, kind) in [(510, Event(Auth)), (511, Malformed), (1_000_000, Malformed)] {
        let message = format!(
            r#"42["message",{{"type":"auth","a":{}{}}}]"#,
            "[".repeat(levels),
            "]".repeat(levels)
        );
        assert_eq!(classify(message.as_bytes()), kind, "{levels}");
    }
    let mixed = format!(
        r#"42["message",{{"type":"auth","a":{}1{}}}]"#,
        r#"[{"type":"#.repeat(250),
        "}]".repeat(250)
    );
    assert_eq!(classify(mixed.as_bytes()), Event(Auth));
}

fn agrees_with_model(message: &str) {
    let kind = classify(message.as_bytes());
    let (event, binary) = match kind {
        Event(event) => (event, false),
        BinaryEvent { event, .. } => (event, true),
        _ => {
            if let Some(model) = model(message) {
                assert_eq!(kind, Malformed, "{message:?} {model:?}");
                assert!(model.types > 1 || model.odd_header, "{message:?} {model:?}");
            }
            return;
        }
    };
    if let Some(model) = model(message) {
        assert!(!model.odd_header, "{message:?}");
        assert_eq!((event, binary), (model.event, model.binary), "{message:?} {model:?}");
        assert!(model.types < 2, "{message:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn valid_events_are_read_as_javascript_reads_them(message in event()) {
        agrees_with_model(&message);
    }

    #[test]
    fn damaged_events_are_never_read_otherwise(
        message in event(),
        at in any::<prop::sample::Index>(),
        with in "[\"\\\\{}\\[\\],:u0 a]{0,2}",
        cut in 0..3usize,
    ) {
        let chars: Vec<char> = message.chars().collect();
        let at = at.index(chars.len());
        let damaged: String =
            chars[..at].iter().copied().chain(with.chars()).chain(chars[at..].iter().skip(cut).copied()).collect();
        agrees_with_model(&damaged);
    }

    #[test]
    fn any_chunking_gives_the_same_result(
        message in prop_oneof![
            event().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..64),
        ],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut whole = MessageScanner::new();
        let progress = whole.feed(&message);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        cuts.push(message.len());
        cuts.sort_unstable();
        let mut parts = MessageScanner::new();
        let (mut from, mut last) = (0, Progress::Undecided);
        for to in cuts {
            last = parts.feed(&message[from..to]);
            from = to;
        }
        prop_assert_eq!(last, progress);
        prop_assert_eq!(parts.finish(), whole.finish());
        let mut bytes = MessageScanner::new();
        for byte in &message {
            bytes.feed(std::slice::from_ref(byte));
        }
        prop_assert_eq!(bytes.finish(), whole.finish());
    }

    #[test]
    fn bytes_that_passed_as_harmless_never_end_as_an_auth(message in event()) {
        let mut scanner = MessageScanner::new();
        let mut passed = false;
        for byte in message.as_bytes() {
            passed |= matches!(scanner.feed(&[*byte]), Progress::Harmless { .. });
        }
        let kind = scanner.finish();
        let auth = matches!(kind, Event(Auth) | BinaryEvent { event: Auth, .. });
        prop_assert!(!(passed && auth));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        prefix in prop::sample::select(vec!["", "42", "42[\"message\",", "42[\"message\",{", "451-["]),
        bytes in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        let message = [prefix.as_bytes(), &bytes].concat();
        classify(&message);
    }
}
