//! The co-authoring sessions of the stand-in.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use serde_json::{Value, json};
use socketioxide::adapter::Adapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::{FromMessageParts, Value as Packet};
use socketioxide::socket::{Sid, Socket};

use super::class::Identity;
use super::connections::ConnectionId;
use super::{AuthReply, SeenAuth, Shared, messages};

/// One who has a document open.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub(super) document: String,
    pub(super) user: String,
    pub(super) name: String,
    pub(super) index: usize,
    /// The Socket.IO id.
    pub(super) connection: String,
    view: bool,
    live: bool,
    closed: bool,
}

impl Participant {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": format!("{}{}", self.user, self.index), "idOriginal": self.user,
            "username": self.name, "indexUser": self.index, "view": self.view,
            "connectionId": self.connection, "isCloseCoAuthoring": self.closed,
            "isLiveViewer": self.live,
        })
    }
}

struct Session {
    socket: SocketRef,
    participant: Option<Participant>,
}

#[derive(Default)]
pub(super) struct Sessions {
    sessions: HashMap<Sid, Session>,
    indexes: HashMap<String, usize>,
    pub(super) events: Vec<String>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn of_user(&self, user: &str) -> Vec<SocketRef> {
        let own = self.sessions.values().filter(|session| {
            session.participant.as_ref().is_some_and(|participant| participant.user == user)
        });
        own.map(|session| session.socket.clone()).collect()
    }

    fn participants(&self, document: &str) -> Vec<Participant> {
        let all = self.sessions.values().filter_map(|session| session.participant.clone());
        let mut here: Vec<_> = all.filter(|other| other.document == document).collect();
        here.sort_by_key(|participant| participant.index);
        here
    }

    /// The other sockets of the document that `id` has open.
    fn others(&self, id: Sid, document: &str) -> Vec<SocketRef> {
        let others = self.sessions.iter().filter(|(other, session)| {
            **other != id
                && session.participant.as_ref().is_some_and(|other| other.document == document)
        });
        others.map(|(_, session)| session.socket.clone()).collect()
    }

    fn tell_others(&self, id: Sid, document: &str, message: &Value) {
        for socket in self.others(id, document) {
            let _ = socket.emit("message", message);
        }
    }
}

/// The event's JSON array as it came, and whether binary attachments came along.
struct RawEvent(String);

impl<A: Adapter> FromMessageParts<A> for RawEvent {
    type Error = Infallible;

    fn from_message_parts(
        _: &Arc<Socket<A>>,
        packet: &mut Packet,
        _: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self(match packet {
            Packet::Str(text, _) => text.as_str().to_owned(),
            Packet::Bytes(bytes) => format!("{} bytes", bytes.len()),
        }))
    }
}

pub(super) fn connected(shared: &Arc<Shared>, socket: &SocketRef) {
    let session = Session { socket: socket.clone(), participant: None };
    shared.sessions.lock().sessions.insert(socket.id, session);
    let state = Arc::clone(shared);
    socket.on("message", async move |socket: SocketRef, event: RawEvent| {
        handle(&state, &socket, event.0).await;
    });
    let state = Arc::clone(shared);
    socket.on_disconnect(async move |socket: SocketRef| {
        let mut sessions = state.sessions.lock();
        let gone = sessions.sessions.remove(&socket.id);
        if let Some(participant) = gone.and_then(|session| session.participant) {
            let document = participant.document;
            let left = sessions.participants(&document);
            sessions.tell_others(socket.id, &document, &messages::connect_state(&left));
        }
    });
    let _ = socket.emit("message", &messages::license());
}

async fn handle(shared: &Arc<Shared>, socket: &SocketRef, raw: String) {
    let parsed: Value = serde_json::from_str(&raw).unwrap_or_default();
    let message = &parsed[1];
    let kind = message["type"].as_str().unwrap_or_default();
    if kind == "auth" {
        shared.auths.lock().push(SeenAuth { raw: raw.clone(), message: message.clone() });
        // The server ignores an auth without these in silence.
        if !message["token"].is_null() && message["user"].is_object() {
            authenticate(shared, socket, message).await;
        }
        return;
    }
    let mut sessions = shared.sessions.lock();
    sessions.events.push(raw.clone());
    let participant = sessions.sessions.get_mut(&socket.id);
    let Some(participant) = participant.and_then(|session| session.participant.as_mut()) else {
        return; // before `auth` the server ignores everything in silence
    };
    let document = participant.document.clone();
    match kind {
        "close" => {
            participant.closed = true;
            participant.view = true;
            let token = json!({"type": "refreshToken", "messages": "a.new.token"});
            let _ = socket.emit("message", &token);
            let all = sessions.participants(&document);
            sessions.tell_others(socket.id, &document, &messages::connect_state(&all));
        }
        "isSaveLock" | "saveChanges" if participant.view => send_away(socket, 4004, "access deny"),
        "isSaveLock" => {
            let _ = socket.emit("message", &json!({"type": "saveLock", "saveLock": false}));
        }
        "saveChanges" => {
            sessions.tell_others(socket.id, &document, message);
            let done = json!({"type": "unSaveLock", "index": 1, "syncChangesIndex": 1, "time": 1});
            let _ = socket.emit("message", &done);
        }
        _ => sessions.tell_others(socket.id, &document, message),
    }
}

async fn authenticate(shared: &Arc<Shared>, socket: &SocketRef, message: &Value) {
    let rule = Arc::clone(&*shared.auth_rule.lock());
    let mut released = shared.released.subscribe();
    match rule(message) {
        AuthReply::Accept => accept(shared, socket, message),
        AuthReply::WaitThenAccept => {
            let document = message["docid"].as_str().unwrap_or_default();
            let holder = shared.sessions.lock().participants(document).into_iter().next();
            let holder = holder.unwrap_or_else(|| Participant {
                document: document.to_owned(),
                user: "someone".to_owned(),
                name: "Someone".to_owned(),
                index: 1,
                connection: "gone".to_owned(),
                view: false,
                live: false,
                closed: false,
            });
            let _ = socket.emit("message", &messages::wait_auth(&holder));
            accept(shared, socket, message);
        }
        AuthReply::Refuse(code) => send_away(socket, code, "access deny"),
        AuthReply::Fail => {
            let error =
                json!({"type": "error", "description": "Update Version error", "code": -127});
            let _ = socket.emit("message", &error);
        }
        AuthReply::Hold => {
            let _ = released.changed().await;
            accept(shared, socket, message);
        }
        AuthReply::Hang => {}
        AuthReply::Cut => cut(shared, socket),
    }
}

fn accept(shared: &Arc<Shared>, socket: &SocketRef, message: &Value) {
    let identity = match Identity::of(message, shared.secret.as_deref()) {
        Ok(identity) => identity,
        Err(4005) => return send_away(socket, 4005, "token:jwt expired"),
        Err(code) => return send_away(socket, code, "token:invalid signature"),
    };
    let mut sessions = shared.sessions.lock();
    let index = sessions.indexes.entry(identity.document.clone()).or_default();
    *index += 1;
    let participant = Participant {
        document: identity.document,
        user: identity.user,
        name: identity.name,
        index: *index,
        connection: socket.id.to_string(),
        view: identity.view,
        live: identity.live,
        closed: false,
    };
    let Some(session) = sessions.sessions.get_mut(&socket.id) else { return };
    session.participant = Some(participant.clone());
    let all = sessions.participants(&participant.document);
    let secret = shared.secret.as_deref().unwrap_or("the server's own");
    let mut reply = messages::auth_reply(&participant, &all, &identity.permissions, secret);
    for (key, value) in shared.reply_more.lock().as_object().into_iter().flatten() {
        reply[key] = value.clone();
    }
    let _ = socket.emit("message", &reply);
    sessions.tell_others(socket.id, &participant.document, &messages::connect_state(&all));
}

/// `disconnectReason`, `41`, close.
pub(super) fn send_away(socket: &SocketRef, code: u16, description: &str) {
    let _ = socket.emit("message", &messages::disconnect_reason(code, description));
    // Not from within a lock: leaving calls the disconnect handler.
    let socket = socket.clone();
    tokio::spawn(async move { socket.disconnect() });
}

/// Closes the TCP connection under the socket.
pub(super) fn cut(shared: &Shared, socket: &SocketRef) {
    let extensions = &socket.req_parts().extensions;
    if let Some(ConnectInfo(id)) = extensions.get::<ConnectInfo<ConnectionId>>() {
        shared.connections.cut(*id);
    }
}
