//! The two ends of a connection: a document server that goes by its own rules, and a client's ears.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::super::frames::{self, Message};
use super::super::server::{self, Class, Reading};
use super::{World, claims};

/// Bytes to whole messages.
#[derive(Default)]
struct Assembler {
    rest: Vec<u8>,
    from_client: bool,
    /// The other side says close.
    is_over: bool,
    /// The other side says what is no WebSocket.
    is_broken: bool,
}

impl Assembler {
    fn take(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.rest.extend_from_slice(bytes);
        let stream = frames::read(&self.rest, self.from_client, u64::MAX);
        // What is left begins with the first frame of a message.
        let mut whole = 0;
        let mut is_open = false;
        for (index, frame) in stream.frames.iter().enumerate() {
            if frame.opcode < 8 {
                is_open = !frame.fin;
            }
            self.is_over |= frame.opcode == 8;
            if !is_open {
                whole = index + 1;
            }
        }
        self.is_broken |= stream.broken;
        let taken = &stream.frames[..whole];
        let messages = frames::messages(taken);
        self.rest.drain(..taken.last().map_or(0, |frame| frame.end));
        messages
    }
}

/// An open that the server heard.
#[derive(Clone)]
struct Open {
    class: Class,
    user: String,
    session: String,
}

/// The document server's side of one session.
pub(super) struct Server {
    /// The socket's id, which it gives out as the session's.
    id: String,
    /// What a client must present to go on with this session.
    pub(super) session: String,
    from_client: Assembler,
    pub(super) is_connected: bool,
    /// The fuzzer never spoke in its name.
    pub(super) is_itself: bool,
    is_over: bool,
    /// What it takes the session for, since the last `auth` that it heard.
    pub(super) class: Option<Class>,
    /// And whom.
    pub(super) user: String,
    /// Opens that it has not answered, and what it said of the one answered last.
    unanswered: VecDeque<Open>,
    answered: Option<Open>,
    /// A binary event that waits for its attachments.
    attachments: Option<(Value, f64)>,
    /// Changes that it heard.
    pub(super) saves: usize,
}

impl Server {
    pub(super) fn new(id: String) -> Self {
        Self {
            session: id.clone(),
            id,
            from_client: Assembler { from_client: true, ..Assembler::default() },
            is_connected: false,
            is_itself: true,
            is_over: false,
            class: None,
            user: String::new(),
            unanswered: VecDeque::new(),
            answered: None,
            attachments: None,
            saves: 0,
        }
    }

    /// `40{…}`
    pub(super) fn acknowledgement(&self) -> String {
        format!("40{}", json!({"sid": self.id}))
    }

    /// The class that the acceptance said last was about.
    pub(super) fn told(&self) -> Option<Class> {
        self.answered.as_ref().map(|open| open.class)
    }

    /// Takes the client's bytes; what it says at once comes back.
    pub(super) fn hear(&mut self, world: &World, bytes: &[u8]) -> Vec<String> {
        let mut said = Vec::new();
        for Message { is_text, payload } in self.from_client.take(bytes) {
            if self.is_over {
                break;
            }
            match (is_text, std::str::from_utf8(&payload)) {
                (true, Ok(text)) => said.extend(self.hear_text(world, text)),
                (true, Err(_)) => self.leave(),
                (false, _) => self.hear_attachment(world),
            }
        }
        assert!(!self.from_client.is_broken, "no WebSocket reaches the server any more");
        if self.from_client.is_over {
            self.leave();
        }
        said
    }

    fn leave(&mut self) {
        self.is_over = true;
        self.class = None;
        self.unanswered.clear();
    }

    fn hear_text(&mut self, world: &World, text: &str) -> Option<String> {
        let reading = server::read(text);
        let is_engine = matches!(reading, Reading::Engine(_));
        if self.attachments.is_some() && !is_engine {
            self.leave();
            return None;
        }
        match reading {
            Reading::Engine(_) => {}
            Reading::Connect if !self.is_connected => {
                self.is_connected = true;
                return Some(self.acknowledgement());
            }
            Reading::Event { arguments, attachments } if self.is_connected => match attachments {
                None => self.hear_event(world, &arguments),
                Some(0.0) => {
                    self.attachments = Some((Value::Null, f64::NAN));
                    self.hear_event(world, &arguments);
                }
                Some(count) => self.attachments = Some((arguments, count)),
            },
            Reading::Ack if self.is_connected => {}
            Reading::Connect
            | Reading::Event { .. }
            | Reading::Ack
            | Reading::Ends
            | Reading::Disconnect
            | Reading::Foreign => self.leave(),
        }
        None
    }

    fn hear_attachment(&mut self, world: &World) {
        match self.attachments.take() {
            None => self.leave(),
            Some((arguments, 1.0)) => self.hear_event(world, &arguments),
            Some((arguments, count)) => self.attachments = Some((arguments, count - 1.0)),
        }
    }

    fn hear_event(&mut self, world: &World, arguments: &Value) {
        if arguments[0] != "message" {
            return;
        }
        let message = &arguments[1];
        self.saves += usize::from(message["type"] == "saveChanges");
        if message["type"] == "close" && self.class == Some(Class::Editor) {
            self.class = Some(Class::Viewer);
        }
        if message["type"] != "auth" || !server::is_heard(message) {
            return;
        }
        let none = Value::Null;
        let claims = if world.takes_tokens() {
            let session = &message["jwtSession"];
            let token = if server::truthy(session) { session } else { &message["jwtOpen"] };
            match token.as_str().and_then(claims) {
                Some(claims) => claims,
                None => return self.leave(),
            }
        } else {
            &none
        };
        let opening = server::open(message, claims);
        if opening.differs {
            return self.leave();
        }
        self.class = Some(opening.class);
        self.user = server::text(&opening.user);
        let restored = message["sessionId"].as_str();
        self.unanswered.push_back(Open {
            class: opening.class,
            user: self.user.clone(),
            session: restored.unwrap_or(&self.id).to_owned(),
        });
    }

    /// Answers the first open that waits.
    pub(super) fn accept(&mut self, how: u8, may_be_silent: bool) -> Option<String> {
        if self.is_over {
            return None;
        }
        let open = match self.unanswered.pop_front() {
            Some(first) => first,
            // It repeats its replies when a lock is released.
            None => self.answered.clone()?,
        };
        let Open { class, user, session } = open.clone();
        self.session.clone_from(&session);
        self.answered = Some(open);
        let own = json!({
            "id": format!("{user}1"), "idOriginal": user, "view": class != Class::Editor,
            "connectionId": self.id, "isLiveViewer": class == Class::LiveViewer,
        });
        let other = json!({
            "id": "o9", "idOriginal": "o", "view": how & 4 != 0,
            "connectionId": "other", "isLiveViewer": false,
        });
        let participants = match how & 3 {
            0 => vec![own],
            1 => vec![other, own],
            2 if may_be_silent => vec![other],
            _ => vec![own, other],
        };
        let reply = json!({
            "type": "auth", "result": 1, "sessionId": session, "participants": participants,
            "licenseType": 3,
        });
        Some(format!("42{}", json!(["message", reply])))
    }

    /// Says something that admits nobody.
    pub(super) fn speak(&mut self, what: u8) -> Vec<String> {
        let message = |message: Value| vec![format!("42{}", json!(["message", message]))];
        if self.is_over {
            return Vec::new();
        }
        match what % 8 {
            0 => message(json!({"type": "waitAuth", "lockDocument": {}})),
            1 => message(json!({"type": "license", "license": {"type": 3}})),
            2 => message(json!({"type": "connectState", "participants": []})),
            3 => vec!["2".to_owned()],
            4 => message(json!({"type": "drop", "code": 4007})),
            // An open that came to nothing: a viewer is what is left, unless another is under way.
            5 if self.unanswered.pop_front().is_some() => {
                if what & 8 == 0 || self.unanswered.is_empty() {
                    self.class = self.class.map(|_| Class::Viewer);
                }
                message(json!({"type": "error", "description": "Restore error", "code": -83}))
            }
            // One that it lets fall without a word.
            6 => {
                self.unanswered.pop_front();
                Vec::new()
            }
            _ => {
                self.leave();
                let mut said = message(json!({"type": "disconnectReason", "code": 4004}));
                said.push("41".to_owned());
                said
            }
        }
    }
}

/// What a client takes from what it is sent.
#[derive(Default)]
pub(super) struct Ears(Assembler);

impl Ears {
    /// How often it was told that its open is accepted, in the server's own way of saying so.
    pub(super) fn acceptances(&mut self, bytes: &[u8]) -> usize {
        let messages = self.0.take(bytes);
        let texts = messages.iter().filter(|message| message.is_text);
        texts.filter(|message| is_acceptance(&message.payload)).count()
    }
}

fn is_acceptance(payload: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(payload) else { return false };
    // A server writes each key once, and without escapes.
    let plain = text.starts_with("42[\"message\",{") && text.matches("\"type\"").count() == 1;
    plain && !text.contains('\\') && {
        let reading = server::read(text);
        reading.is_message("auth")
            && reading.message().is_some_and(|message| message["result"].as_f64() == Some(1.0))
    }
}
