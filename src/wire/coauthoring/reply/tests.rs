//! Captured packets of the server, and the packets given in its place.

use super::*;
use crate::wire::{
    packet::{EventType, MessageKind},
    scan::classify,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/server/", $name))
    };
}

#[test]
fn the_handshake_is_read() {
    let handshake = EngineHandshake::parse(fixture!("handshake.txt").as_bytes()).unwrap();
    assert_eq!(
        handshake,
        EngineHandshake {
            sid: "gSGQhqNtkNws7VbbAAFK".to_owned(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            max_payload_bytes: 100_000_000,
        }
    );
    for other in ["", "0", "0{}", "40{\"sid\":\"x\"}", "1"] {
        assert_eq!(EngineHandshake::parse(other.as_bytes()), Err(ReplyError::Other), "{other}");
    }
}

#[test]
fn an_auth_reply_is_read() {
    let reply = AuthReply::parse(fixture!("auth-reply-two-tabs.txt").as_bytes()).unwrap();
    assert!(reply.is_accepted);
    assert_eq!(reply.session_id.as_deref(), Some("QkodR2P3lGUjvpR3AAGs"));
    assert_eq!(reply.license_type, Some(3));
    assert!(reply.session_token.as_deref().unwrap().starts_with("eyJ"));
    let connections: Vec<&str> =
        reply.participants.iter().map(|one| one.connection_id.as_str()).collect();
    assert_eq!(connections, ["0nh9SqnPRQjropyzAAGq", "QkodR2P3lGUjvpR3AAGs"]);
    assert!(
        reply
            .participants
            .iter()
            .all(|one| one.id_original == "tabby" && !one.view && !one.is_live_viewer)
    );
    assert!(!format!("{reply:?}").contains("eyJ"));

    let viewer = AuthReply::parse(fixture!("auth-reply-view.txt").as_bytes()).unwrap();
    assert!(viewer.participants[0].view);
}

#[test]
fn whatever_could_be_an_acceptance_is_one() {
    for (result, expected) in [
        ("1", true),
        ("1.0", true),
        ("1e0", true),
        ("10E-1", true),
        ("\"1\"", true),
        ("true", true),
        ("[1]", true),
        ("0", false),
        ("2", false),
        ("-1", false),
        ("null", false),
        ("false", false),
    ] {
        let packet = format!(r#"42["message",{{"type":"auth","result":{result}}}]"#);
        assert_eq!(AuthReply::parse(packet.as_bytes()).unwrap().is_accepted, expected, "{result}");
    }
    assert!(!AuthReply::parse(br#"42["message",{"type":"auth"}]"#).unwrap().is_accepted);
}

#[test]
fn odd_fields_of_a_reply_count_as_absent() {
    let packet = r#"42["message",{"type":"auth","result":"1","sessionId":5,"licenseType":3.5,"participants":[
        {"idOriginal":"\ud800","connectionId":"a"},{"idOriginal":"u","connectionId":"b","isLiveViewer":true},7]}]"#;
    let reply = AuthReply::parse(packet.as_bytes()).unwrap();
    assert_eq!((reply.session_id.clone(), reply.license_type), (None, None));
    assert_eq!(
        reply.participants,
        [Participant {
            id_original: "u".to_owned(),
            connection_id: "b".to_owned(),
            view: false,
            is_live_viewer: true,
        }]
    );
    for other in [
        fixture!("license.txt"),
        fixture!("wait-auth.txt"),
        fixture!("connect-ack.txt"),
        "",
        "42[",
        "3",
    ] {
        assert!(AuthReply::parse(other.as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn the_licence_type_is_replaced_byte_by_byte() {
    let packet = fixture!("auth-reply.txt");
    let reply = AuthReply::parse(packet.as_bytes()).unwrap();
    assert_eq!(
        reply.with_license_type(13),
        packet.replace("\"licenseType\":3", "\"licenseType\":13")
    );
    assert_eq!(reply.with_license_type(3), packet);

    let bare = r#"42["message", {"type":"auth", "licens\u0065Type" : 3 }]"#;
    let reply = AuthReply::parse(bare.as_bytes()).unwrap();
    assert_eq!(reply.with_license_type(5), bare.replace(": 3", ": 5"));
    let absent = r#"42["message",{"type":"auth"}]"#;
    let reply = AuthReply::parse(absent.as_bytes()).unwrap();
    assert_eq!(reply.with_license_type(5), r#"42["message",{"licenseType":5,"type":"auth"}]"#);
}

#[test]
fn refusals_are_the_servers_own() {
    let code = DisconnectCode::AccessDenied;
    let packet = disconnect_reason(code, code.description());
    assert_eq!(packet, fixture!("disconnect-reason.txt"));
    assert_eq!(classify(packet.as_bytes()), MessageKind::Event(EventType::DisconnectReason));
    let packet = connect_error(DisconnectCode::TokenExpired, "token:jwt expired");
    assert_eq!(packet, fixture!("connect-error.txt"));
    let packet = disconnect_reason(DisconnectCode::Drop, "a \"quoted\"\nword");
    assert_eq!(classify(packet.as_bytes()), MessageKind::Event(EventType::DisconnectReason));
    let codes = [
        DisconnectCode::Shutdown,
        DisconnectCode::Idle,
        DisconnectCode::Absolute,
        DisconnectCode::AccessDenied,
        DisconnectCode::TokenExpired,
        DisconnectCode::TokenError,
        DisconnectCode::Drop,
    ];
    assert_eq!(codes.map(DisconnectCode::number), [4001, 4002, 4003, 4004, 4005, 4006, 4007]);
}
