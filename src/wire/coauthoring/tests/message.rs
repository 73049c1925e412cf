//! How an `auth` is read and rewritten.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    seat::SessionClass::{Editor, Viewer},
    wire::{
        packet::{EventType, MessageKind},
        scan::classify,
    },
};

#[test]
fn captured_messages_are_read() {
    for (packet, document, expected) in [
        (fixture!("auth-edit.txt"), "rawws", Editor),
        (fixture!("auth-view.txt"), "pdisc", Viewer),
        (fixture!("auth-token.txt"), "jn4", Editor),
        (fixture!("auth-chromium.txt"), "chr1", Editor),
        (fixture!("auth-upgraded.txt"), "rawupg", Editor),
    ] {
        let facts = auth(packet).facts(None).unwrap();
        assert_eq!(
            facts,
            SessionFacts {
                document: document.to_owned(),
                user: "u1".to_owned(),
                class: expected,
                forced_live: false,
                forced_mode: false,
                session_id: None,
                restoring: false,
                close_coauthoring: false,
                anonymous: false,
                unproven: false,
            }
        );
    }
    let with_token = auth(fixture!("auth-token.txt"));
    let token = with_token.token().unwrap();
    assert_eq!(token.kind, TokenKind::Open);
    assert!(token.text.starts_with("eyJ"));
    assert!(!format!("{with_token:?} {token:?}").contains("eyJ"));
    assert!(auth(fixture!("auth-edit.txt")).token().is_none());
}

#[test]
fn every_alias_is_the_same_auth() {
    let plain = packet(json!({"mode": "edit"}));
    let payload = plain.strip_prefix("42").unwrap();
    let expected = auth(&plain).facts(None).unwrap();
    for alias in [
        format!("4213{payload}"),
        format!("42/,{payload}"),
        format!("42 1{payload}"),
        format!("451-{payload}"),
        plain.replace("\"docid\"", "\"doc\\u0069d\"").replace("\"auth\"", "\"\\u0061uth\""),
        plain.replace("\"u1\"", "\"\\u00751\""),
        plain.replace(',', " ,\n").replace(':', "\t: "),
        plain.replace("}]", "},5,{\"type\":\"close\"}]"),
    ] {
        assert_eq!(auth(&alias).facts(None).unwrap(), expected, "{alias}");
        assert!(matches!(
            classify(alias.as_bytes()),
            MessageKind::Event(EventType::Auth)
                | MessageKind::BinaryEvent { event: EventType::Auth, .. }
        ));
    }
}

#[test]
fn an_auth_without_token_or_user_is_ignored() {
    for falsy in ["null", "0", "-0.0", "false", "\"\""] {
        for field in ["token", "user"] {
            let mut whole = json!({"type": "auth", "token": 1, "user": {}, "docid": "k"});
            whole[field] = serde_json::from_str(falsy).unwrap();
            let packet = format!("42[\"message\",{whole}]");
            assert!(
                matches!(AuthMessage::parse(packet.as_bytes()), Ok(AuthPacket::Ignored)),
                "{packet}"
            );
        }
    }
    let packet = packet(json!({"token": null}));
    assert!(matches!(AuthMessage::parse(packet.as_bytes()), Ok(AuthPacket::Ignored)));
}

#[test]
fn ambiguous_messages_are_refused() {
    let usual =
        packet(json!({"permissions": {"edit": true}, "mode": "edit", "coEditingMode": "fast",
        "jwtOpen": "o", "jwtSession": "s", "sessionId": "i", "IsAnonymousUser": true}));
    for key in [
        "type",
        "docid",
        "token",
        "user",
        "mode",
        "permissions",
        "coEditingMode",
        "jwtOpen",
        "jwtSession",
        "sessionId",
        "isCloseCoAuthoring",
        "openCmd",
        "IsAnonymousUser",
    ] {
        let twice = usual.replace("}]", &format!(",\"{key}\":\"x\"}}]"));
        assert_eq!(AuthMessage::parse(twice.as_bytes()).unwrap_err(), AuthError::Duplicate(key));
    }
    let twice = usual.replace("\"id\":\"u1\"", "\"id\":\"u1\",\"\\u0069d\":\"u2\"");
    assert_eq!(AuthMessage::parse(twice.as_bytes()).unwrap_err(), AuthError::Duplicate("id"));
    let twice = usual.replace("{\"edit\":true", "{\"edit\":true,\"edit\":false");
    assert_eq!(AuthMessage::parse(twice.as_bytes()).unwrap_err(), AuthError::Duplicate("edit"));

    let placeholder = "{\"_placeholder\":true,\"num\":0,\"edit\":false}";
    for odd in [
        usual.replace("{\"edit\":true}", placeholder),
        usual.replace("{\"id\":\"u1\"}", placeholder),
        usual.replace("\"token\"", "\"_placeholder\":true,\"token\""),
        usual.replace("\"u1\"", "\"\\ud800\""),
        usual.replace("\"fast\"", "\"\\udc00\""),
        usual.replace("\"edit\"}]", "1e999}]").replace("\"mode\":\"edit\"", "\"mode\":\"\\ud800\""),
        usual.replace("\"s\"", "5"),
        usual.replace("\"s\"", "{}"),
        usual.replace("\"sessionId\":\"i\"", "\"sessionId\":5"),
        usual.replace("\"sessionId\":\"i\"", &format!("\"sessionId\":\"{}\"", "i".repeat(300))),
        usual.replace("{\"edit\":true}", &format!("{}{}", "[".repeat(200), "]".repeat(200))),
    ] {
        assert!(
            matches!(AuthMessage::parse(odd.as_bytes()), Err(AuthError::Malformed(_))),
            "{odd}"
        );
    }
    for other in [
        "",
        "2",
        "42",
        "42[\"message\",{\"type\":\"close\"}]",
        "42[\"other\",{\"type\":\"auth\"}]",
        "42[\"message\",{\"type\":\"auth\"}]]",
        "42[\"message\",[]]",
        "40{\"type\":\"auth\"}",
        "42/x,[\"message\",{\"type\":\"auth\"}]",
        "42\u{feff}[\"message\",{\"type\":\"auth\"}]",
    ] {
        assert_eq!(
            AuthMessage::parse(other.as_bytes()).unwrap_err(),
            AuthError::NotAuth,
            "{other}"
        );
    }
    assert_eq!(
        AuthMessage::parse(b"42[\"message\",{\"type\":\"auth\",\"a\":\"\xff\"}]").unwrap_err(),
        AuthError::NotAuth
    );
}

#[test]
fn tokens_are_chosen_as_the_server_chooses() {
    for (changes, expected) in [
        (json!({}), None),
        (json!({"jwtOpen": "o"}), Some((TokenKind::Open, "o"))),
        (json!({"jwtOpen": "o", "jwtSession": ""}), Some((TokenKind::Open, "o"))),
        (json!({"jwtOpen": "o", "jwtSession": false}), Some((TokenKind::Open, "o"))),
        (json!({"jwtOpen": "o", "jwtSession": "s"}), Some((TokenKind::Session, "s"))),
        (json!({"jwtOpen": 5, "jwtSession": "s"}), Some((TokenKind::Session, "s"))),
        (json!({"jwtOpen": 0}), None),
    ] {
        let packet = packet(changes);
        let message = auth(&packet);
        assert_eq!(message.token().map(|token| (token.kind, token.text)), expected, "{packet}");
    }
}

#[test]
fn rewriting_leaves_every_other_byte() {
    let packet = fixture!("auth-edit.txt");
    let message = auth(packet);
    assert_eq!(
        message.to_view(),
        packet
            .replace("\"mode\":\"edit\"", "\"mode\":\"view\"")
            .replace("\"coEditingMode\":\"fast\"", "\"coEditingMode\":\"strict\"")
    );
    assert_eq!(
        message.to_strict(),
        packet.replace("\"coEditingMode\":\"fast\"", "\"coEditingMode\":\"strict\"")
    );
    let escaped = "4217 [\"message\", {\"m\\u006fde\" : [1, 2] ,\"token\":1,\"user\":{\"mode\":\"edit\"},\"type\":\"auth\"},5]";
    assert_eq!(
        auth(escaped).to_view(),
        "4217 [\"message\", {\"coEditingMode\":\"strict\",\"m\\u006fde\" : \"view\" ,\"token\":1,\"user\":{\"mode\":\"edit\"},\"type\":\"auth\"},5]"
    );
}

proptest! {
    #[test]
    fn what_is_read_as_auth_is_recognised_as_auth(
        mut bytes in Just(fixture!("auth-token.txt").as_bytes().to_vec()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(AuthPacket::Auth(message)) = AuthMessage::parse(&bytes) {
            prop_assert_eq!(classify(&bytes), MessageKind::Event(EventType::Auth));
            let _ = message.facts(None);
            message.to_view();
        }
        let _ = AuthReply::parse(&bytes);
        let _ = EngineHandshake::parse(&bytes);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = AuthMessage::parse(&bytes);
        let _ = AuthReply::parse(&bytes);
        let message = [b"42[\"message\",".as_slice(), &bytes].concat();
        let _ = AuthMessage::parse(&message);
    }
}
