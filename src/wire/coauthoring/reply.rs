//! What the server says: the handshake, the answer to an `auth`; and what a gateway says in its place.
//!
//! The server is trusted: fields of an unexpected type count as absent, and of duplicate keys nothing is said.

use std::{fmt, time::Duration};

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    js::Js,
    json::{EventObject, Member, members},
};

/// Why a packet of the server could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Another packet, or no JSON.
    #[error("not the packet that was expected")]
    Other,
}

/// The server's first packet, `0{…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineHandshake {
    /// The engine's session id: it stands in the URL of every later request, and is not the socket's id.
    pub sid: String,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// The longest message the server takes.
    pub max_payload_bytes: u64,
}

impl EngineHandshake {
    /// Reads a whole packet.
    ///
    /// # Errors
    /// [`ReplyError::Other`] for any other packet.
    pub fn parse(packet: &[u8]) -> Result<Self, ReplyError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Open {
            sid: String,
            ping_interval: u64,
            ping_timeout: u64,
            max_payload: u64,
        }
        let json = packet.strip_prefix(b"0").ok_or(ReplyError::Other)?;
        let open: Open = serde_json::from_slice(json).map_err(|_| ReplyError::Other)?;
        Ok(Self {
            sid: open.sid,
            ping_interval: Duration::from_millis(open.ping_interval),
            ping_timeout: Duration::from_millis(open.ping_timeout),
            max_payload_bytes: open.max_payload,
        })
    }
}

/// One of a document's participants, as the server lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// The integrator's user id.
    pub id_original: String,
    /// The socket's id: the same as the session id of the connection that is not a restored one.
    pub connection_id: String,
    pub view: bool,
    pub is_live_viewer: bool,
}

/// The server's answer to an `auth`.
#[derive(Clone)]
pub struct AuthReply<'p> {
    packet: &'p str,
    object: &'p str,
    license_type_text: Option<&'p str>,
    /// `result` is 1: accepted. So is taken to be whatever is not plainly something else.
    pub is_accepted: bool,
    pub session_id: Option<String>,
    /// 3: within the limits (WIRE.md section 4).
    pub license_type: Option<i64>,
    /// The session token, `jwt`: never log it.
    pub session_token: Option<String>,
    /// Everybody in the document, without those whose ids Rust cannot hold.
    pub participants: Vec<Participant>,
}

impl fmt::Debug for AuthReply<'_> {
    /// Leaves out what holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthReply")
            .field("is_accepted", &self.is_accepted)
            .field("session_id", &self.session_id)
            .field("license_type", &self.license_type)
            .field("participants", &self.participants)
            .finish_non_exhaustive()
    }
}

impl<'p> AuthReply<'p> {
    /// Reads a whole packet, its leading digits included.
    ///
    /// # Errors
    /// [`ReplyError::Other`] for any other packet.
    pub fn parse(packet: &'p [u8]) -> Result<Self, ReplyError> {
        let EventObject { packet, object } = EventObject::find(packet).ok_or(ReplyError::Other)?;
        let [kind, result, session_id, license_type, jwt, participants] =
            members(object, ["type", "result", "sessionId", "licenseType", "jwt", "participants"])
                .map_err(|_| ReplyError::Other)?;
        if !Js::from_json(kind).is_some_and(|kind| kind.is("auth")) {
            return Err(ReplyError::Other);
        }
        Ok(Self {
            packet,
            object,
            license_type_text: license_type,
            is_accepted: is_acceptance(result),
            session_id: text(session_id),
            license_type: integer(license_type),
            session_token: text(jwt),
            participants: participants.map(list).unwrap_or_default(),
        })
    }

    /// The same packet with another `licenseType`, every other byte as it was (WIRE.md section 5).
    pub fn with_license_type(&self, license_type: u8) -> String {
        EventObject { packet: self.packet, object: self.object }.with_members(&[Member {
            key: "licenseType",
            current: self.license_type_text,
            value: &license_type.to_string(),
        }])
    }
}

/// No number but 1 is an acceptance, nor is none at all; other forms would be read by JavaScript's `==`.
fn is_acceptance(result: Option<&str>) -> bool {
    match Js::from_json(result) {
        Some(Js::Number(number)) => number == 1.0,
        Some(Js::Undefined | Js::Null | Js::Bool(false)) => false,
        Some(Js::Bool(true) | Js::Text(_) | Js::List | Js::Object) | None => true,
    }
}

fn integer(json: Option<&str>) -> Option<i64> {
    json.and_then(|json| json.parse().ok())
}

fn text(json: Option<&str>) -> Option<String> {
    match Js::from_json(json) {
        Some(Js::Text(text)) => Some(text.into_owned()),
        Some(Js::Undefined | Js::Null | Js::Bool(_) | Js::Number(_) | Js::List | Js::Object)
        | None => None,
    }
}

fn list(json: &str) -> Vec<Participant> {
    let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
    elements.into_iter().filter_map(|element| participant(element.get())).collect()
}

fn participant(json: &str) -> Option<Participant> {
    let [id, connection, view, live] =
        members(json, ["idOriginal", "connectionId", "view", "isLiveViewer"]).ok()?;
    Some(Participant {
        id_original: text(id)?,
        connection_id: text(connection)?,
        view: Js::from_json(view)?.is_truthy(),
        is_live_viewer: Js::from_json(live)?.is_truthy(),
    })
}

/// Why a session is ended, in the server's numbers (WIRE.md section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectCode {
    Shutdown,
    Idle,
    Absolute,
    AccessDenied,
    TokenExpired,
    TokenError,
    Drop,
}

impl DisconnectCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Shutdown => 4001,
            Self::Idle => 4002,
            Self::Absolute => 4003,
            Self::AccessDenied => 4004,
            Self::TokenExpired => 4005,
            Self::TokenError => 4006,
            Self::Drop => 4007,
        }
    }

    /// The server's own description; to those of tokens it appends the reason. The editor does not show it.
    pub fn description(self) -> &'static str {
        match self {
            Self::Shutdown => "server shutdown",
            Self::Idle => "idle session expires",
            Self::Absolute => "absolute session expires",
            Self::AccessDenied => "access deny",
            Self::TokenExpired | Self::TokenError => "token:",
            Self::Drop => "drop",
        }
    }
}

/// The packet that tells why a session ends. [`DISCONNECT`](crate::wire::packet::DISCONNECT) and the close of the
/// connection must follow, or the editor reconnects without end.
pub fn disconnect_reason(code: DisconnectCode, description: &str) -> String {
    let object = json!({
        "type": "disconnectReason",
        "code": code.number(),
        "description": description,
    });
    format!("42[\"message\",{object}]")
}

/// The packet that refuses a CONNECT. Its `data` is essential: without it the editor waits for ever.
pub fn connect_error(code: DisconnectCode, description: &str) -> String {
    let object = json!({
        "message": "not authorized",
        "data": {"code": code.number(), "description": description},
    });
    format!("44{object}")
}

#[cfg(test)]
mod tests;
