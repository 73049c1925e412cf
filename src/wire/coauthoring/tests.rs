//! The server's rules about an `auth` (WIRE.md sections 2, 3 and 5), as tables and properties.

use serde_json::{Value, json};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/client/", $name))
    };
}

fn auth(packet: &str) -> AuthMessage<'_> {
    match AuthMessage::parse(packet.as_bytes()) {
        Ok(AuthPacket::Auth(auth)) => auth,
        other => panic!("{packet}: {other:?}"),
    }
}

/// A message with the usual fields, some of them replaced or (by null) removed.
fn packet(changes: Value) -> String {
    let mut message = json!({
        "type": "auth", "docid": "k", "token": "t", "user": {"id": "u1"}, "sessionId": null,
        "openCmd": {"c": "open", "id": "k"}, "isCloseCoAuthoring": false,
    });
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            message.as_object_mut().unwrap().remove(key);
        } else {
            message[key] = value.clone();
        }
    }
    format!("42[\"message\",{message}]")
}

mod facts;
mod message;
