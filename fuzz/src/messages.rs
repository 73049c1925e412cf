//! Targets: co-authoring messages and tokens.

use std::sync::LazyLock;

use jiff::Timestamp;
use seatgate::config::Secret;
use seatgate::seat::SessionClass;
use seatgate::token::{self, TokenError};
use seatgate::wire::coauthoring::{AuthMessage, AuthPacket, AuthReply, EngineHandshake};
use serde_json::Value;

use super::input::Input;
use super::server::{self, Class};

/// The server's class in the gateway's words.
pub(crate) fn session_class(class: Class) -> SessionClass {
    match class {
        Class::Editor => SessionClass::Editor,
        Class::LiveViewer => SessionClass::LiveViewer,
        Class::Viewer => SessionClass::Viewer,
    }
}

/// An `auth` packet, and behind a record separator the claims of its token: who opens it as what is the
/// same for both readings, and the packet that is made a viewer's is one.
pub fn auth(data: &[u8]) {
    let (packet, claims) = match data.iter().position(|byte| *byte == 0x1e) {
        Some(at) => (&data[..at], data.get(at + 1..)),
        None => (data, None),
    };
    let claims = claims
        .and_then(|json| serde_json::from_slice::<Value>(json).ok())
        .filter(|claims| claims.is_object() && server::is_plain_token(claims));
    let message = match AuthMessage::parse(packet) {
        Ok(AuthPacket::Auth(message)) => message,
        Ok(AuthPacket::Ignored) => {
            if let Some(said) = said(packet) {
                assert!(!server::is_heard(&said), "the server hears {said}");
            }
            return;
        }
        Err(_) => return, // refused
    };
    let Ok(facts) = message.facts(claims.as_ref()) else { return };
    let none = Value::Null;
    let claims = claims.as_ref().unwrap_or(&none);
    if let Some(said) = said(packet) {
        assert!(server::is_heard(&said), "the server does not hear {said}");
        let opening = server::open(&said, claims);
        assert!(!opening.differs, "the permissions differ: {said} {claims}");
        assert_eq!(facts.class, session_class(opening.class), "{said} {claims}");
        if let Some(user) = opening.user.as_str() {
            // Half a surrogate pair cannot be held here: such a user is refused.
            assert_eq!(facts.user, user, "{said} {claims}");
        }
    }
    let viewer = message.to_view();
    let strict = message.to_strict();
    for (packet, can_be_viewer) in
        [(&viewer, !facts.forced_mode && !facts.forced_live), (&strict, false)]
    {
        let again = match AuthMessage::parse(packet.as_bytes()) {
            Ok(AuthPacket::Auth(again)) => again,
            other => panic!("what was rewritten cannot be read: {other:?}: {packet}"),
        };
        let class = again.facts(Some(claims).filter(|claims| claims.is_object()));
        let class = class.map(|facts| facts.class);
        if can_be_viewer {
            assert_eq!(class, Ok(SessionClass::Viewer), "{packet} {claims}");
            if let Some(said) = said(packet.as_bytes()) {
                assert_eq!(server::open(&said, claims).class, Class::Viewer, "{packet} {claims}");
            }
        }
        if !facts.forced_live {
            assert_ne!(class, Ok(SessionClass::LiveViewer), "{packet} {claims}");
        }
    }
}

/// The co-authoring message that the server finds in a packet.
fn said(packet: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(packet).ok()?;
    server::read(text).message().cloned()
}

/// A reply: what an editor takes for its admission is read as one or not at all, and another
/// `licenseType` changes nothing else.
pub fn reply(data: &[u8]) {
    let _ = EngineHandshake::parse(data);
    let Ok(reply) = AuthReply::parse(data) else { return };
    let message = said(data);
    if let Some(message) = &message {
        let admits = message["type"] == "auth" && message["result"].as_f64() == Some(1.0);
        assert!(reply.is_accepted || !admits, "{message}");
    }
    let changed = reply.with_license_type(8);
    let again = AuthReply::parse(changed.as_bytes());
    let again = again.unwrap_or_else(|error| panic!("{error}: {changed}"));
    assert_eq!(again.license_type, Some(8), "{changed}");
    assert_eq!(
        (again.is_accepted, &again.session_id, &again.session_token, &again.participants),
        (reply.is_accepted, &reply.session_id, &reply.session_token, &reply.participants),
    );
    if let Some(mut message) = message {
        let changed = said(changed.as_bytes());
        message["licenseType"] = 8.into();
        assert_eq!(changed, Some(message));
    }
}

static SECRETS: LazyLock<[Secret; 2]> =
    LazyLock::new(|| [Secret::new("the corpus knows this secret"), Secret::new("another")]);

/// The clock of the harness.
pub(crate) fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap_or(Timestamp::MAX)
}

/// A token as it comes; and claims that are signed here, with one character changed.
pub fn token(data: &[u8]) {
    let mut input = Input::new(data);
    let (place, change) = (input.word(), input.byte());
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    let [secret, other] = &*SECRETS;
    let own = std::slice::from_ref(secret);
    if let Ok(claims) = token::verify(&text, own, noon()) {
        assert_eq!(Some(&claims), token::decode_unverified(&text).as_ref());
        assert_eq!(
            token::verify(&text, std::slice::from_ref(other), noon()),
            Err(TokenError::Invalid)
        );
        let header = text.split('.').next().unwrap_or_default();
        assert!(!header.is_empty() && text.split('.').count() == 3);
    }
    let Ok(Value::Object(claims)) = serde_json::from_str(&text) else { return };
    let signed = token::sign(&claims, secret, noon());
    let both = [other.clone(), secret.clone()];
    match token::verify(&signed, &both, noon()) {
        Ok(Value::Object(read)) => {
            assert!(claims.keys().all(|key| read.contains_key(key)), "{text}");
        }
        Ok(other) => panic!("claims are an object: {other}"),
        Err(TokenError::Expired) => {
            assert!(claims["exp"].as_f64().is_some_and(|end| end < noon().as_second() as f64));
        }
        Err(TokenError::Invalid) => {
            let time = |key| claims.get(key).is_some_and(|time| time.as_f64().is_none());
            let later = claims.get("nbf").and_then(Value::as_f64);
            let later = later.is_some_and(|start| start > noon().as_second() as f64);
            assert!(time("exp") || time("nbf") || later, "{text}");
        }
    }
    let mut forged = signed.clone().into_bytes();
    let length = forged.len();
    if let Some(byte) = forged.get_mut(place % length) {
        *byte ^= change & 0x7f;
    }
    let forged = String::from_utf8_lossy(&forged);
    if forged != signed {
        assert!(token::verify(&forged, own, noon()).is_err(), "{forged} is not {signed}");
    }
}
