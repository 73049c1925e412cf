//! Packets of Engine.IO 4 and Socket.IO 5: their kinds, and the part before the JSON.
//!
//! The header of a packet is read byte by byte, as `socket.io-parser` 4.2 reads it, except that forms which no
//! client writes (an empty or zero attachment count, exotic blanks where an acknowledgement id stands) are
//! [`MessageKind::Malformed`]. Knows nothing of JSON beyond its first byte.

/// What parts the packets of one polling body (WIRE.md section 2).
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// The Socket.IO packet that disconnects from the only namespace. After `disconnectReason` it keeps the editor
/// from reconnecting (WIRE.md section 5).
pub const DISCONNECT: &str = "41";

/// The most attachments a binary event may announce.
const MAX_ATTACHMENTS: u32 = 9_999;

/// The `type` of a co-authoring message, as far as a gateway cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Client: asks to open the document. Server: the answer to it.
    Auth,
    /// Client: stops editing and stays as a viewer.
    Close,
    /// Client: changes the document, or takes changes back. Server: another did.
    Save,
    /// Server: the terms it tells the editor.
    License,
    /// Server: the answer to `auth` is delayed by another user's lock.
    WaitAuth,
    /// Server: why the session ends.
    DisconnectReason,
    /// Server: the session was dropped by the command service.
    Drop,
    /// Server: an `auth` came to nothing; its session is a viewer's from here on.
    Error,
    /// Everything else, a message without a type among it.
    Other,
}

impl EventType {
    /// The type that a co-authoring message names.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"auth" => Self::Auth,
            b"close" => Self::Close,
            b"saveChanges" | b"unLockDocument" => Self::Save,
            b"license" => Self::License,
            b"waitAuth" => Self::WaitAuth,
            b"disconnectReason" => Self::DisconnectReason,
            b"drop" => Self::Drop,
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }
}

/// What one Engine.IO message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// `0`: the server's handshake.
    EngineOpen,
    /// `1`: ends a polling session; a WebSocket ignores it.
    EngineClose,
    /// `2`: the server's ping, or the client's probe before an upgrade.
    Ping,
    /// `3`
    Pong,
    /// `5`: the WebSocket takes the session over.
    Upgrade,
    /// `6`
    Noop,
    /// `b…`: an attachment in base64.
    Attachment,
    /// `40`
    Connect,
    /// `41`
    Disconnect,
    /// `42`: an event that takes effect at once.
    Event(EventType),
    /// `45`: an event that takes effect when its attachments have arrived.
    BinaryEvent {
        /// The `type` in the event's text.
        event: EventType,
        /// How many binary messages follow; at least one.
        attachments: u32,
    },
    /// `43` and `46`
    Ack,
    /// `44`
    ConnectError,
    /// A packet for another namespace than `/`. The document server has no other and ends such a session.
    Foreign,
    /// No packet of Engine.IO: the document server ends such a session by itself.
    Unknown,
    /// Nothing a client writes: unparsable, ambiguous or deeper than the limit. Refuse it.
    Malformed,
}

/// What a byte of the header led to.
pub(super) enum HeaderStep {
    /// The header goes on.
    More,
    /// The byte was the `[` that opens an event's arguments.
    Payload,
    /// The kind is settled; no further byte changes it.
    Settled(MessageKind),
}

#[derive(Clone, Copy, Debug)]
enum HeaderState {
    EngineType,
    SocketType,
    Attachments {
        digits: bool,
    },
    /// After the type (and the attachments): a namespace may begin.
    Body,
    /// After the `/` that begins a namespace.
    Namespace,
    /// Where an acknowledgement id may stand.
    Id,
}

#[derive(Clone, Copy, Debug)]
enum Packet {
    Connect,
    Disconnect,
    Event,
}

/// Reads the header of one message byte by byte.
#[derive(Clone, Debug)]
pub(super) struct HeaderMachine {
    state: HeaderState,
    packet: Packet,
    attachments: u32,
}

impl HeaderMachine {
    pub(super) fn new() -> Self {
        Self { state: HeaderState::EngineType, packet: Packet::Event, attachments: 0 }
    }

    /// Takes the next byte of the message.
    pub(super) fn step(&mut self, byte: u8) -> HeaderStep {
        match self.state {
            HeaderState::EngineType => self.engine_type(byte),
            HeaderState::SocketType => self.socket_type(byte),
            HeaderState::Attachments { digits } => self.attachment_count(byte, digits),
            HeaderState::Body if byte == b'/' => self.goto(HeaderState::Namespace),
            HeaderState::Body | HeaderState::Id => self.id(byte),
            HeaderState::Namespace if byte == b',' => self.goto(HeaderState::Id),
            HeaderState::Namespace => HeaderStep::Settled(MessageKind::Foreign),
        }
    }

    /// The kind of a message that ends within its header.
    pub(super) fn finish(&self) -> MessageKind {
        match (self.state, self.packet) {
            (HeaderState::Body | HeaderState::Namespace | HeaderState::Id, Packet::Connect) => {
                MessageKind::Connect
            }
            (HeaderState::Body | HeaderState::Namespace | HeaderState::Id, Packet::Disconnect) => {
                MessageKind::Disconnect
            }
            (HeaderState::EngineType, _) => MessageKind::Unknown,
            (_, Packet::Connect | Packet::Disconnect | Packet::Event) => MessageKind::Malformed,
        }
    }

    /// The kind of an event with this header.
    pub(super) fn event(&self, event: EventType) -> MessageKind {
        match self.attachments {
            0 => MessageKind::Event(event),
            attachments => MessageKind::BinaryEvent { event, attachments },
        }
    }

    fn goto(&mut self, state: HeaderState) -> HeaderStep {
        self.state = state;
        HeaderStep::More
    }

    fn engine_type(&mut self, byte: u8) -> HeaderStep {
        HeaderStep::Settled(match byte {
            b'0' => MessageKind::EngineOpen,
            b'1' => MessageKind::EngineClose,
            b'2' => MessageKind::Ping,
            b'3' => MessageKind::Pong,
            b'4' => return self.goto(HeaderState::SocketType),
            b'5' => MessageKind::Upgrade,
            b'6' => MessageKind::Noop,
            b'b' => MessageKind::Attachment,
            _ => MessageKind::Unknown,
        })
    }

    /// A blank would be a CONNECT to the JavaScript parser, because `Number(" ")` is 0: malformed here.
    fn socket_type(&mut self, byte: u8) -> HeaderStep {
        let (packet, next) = match byte {
            b'0' => (Packet::Connect, HeaderState::Body),
            b'1' => (Packet::Disconnect, HeaderState::Body),
            b'2' => (Packet::Event, HeaderState::Body),
            b'3' | b'6' => return HeaderStep::Settled(MessageKind::Ack),
            b'4' => return HeaderStep::Settled(MessageKind::ConnectError),
            b'5' => (Packet::Event, HeaderState::Attachments { digits: false }),
            _ => return HeaderStep::Settled(MessageKind::Malformed),
        };
        self.packet = packet;
        self.goto(next)
    }

    /// The JavaScript parser takes anything that is a number (`0x1`, blanks, nothing at all), and delivers an event
    /// that announces no attachment at once: here only plain digits above zero pass.
    fn attachment_count(&mut self, byte: u8, digits: bool) -> HeaderStep {
        match byte {
            b'0'..=b'9' => {
                self.attachments = self.attachments * 10 + u32::from(byte - b'0');
                if self.attachments > MAX_ATTACHMENTS {
                    return HeaderStep::Settled(MessageKind::Malformed);
                }
                self.goto(HeaderState::Attachments { digits: true })
            }
            b'-' if digits && self.attachments > 0 => self.goto(HeaderState::Body),
            _ => HeaderStep::Settled(MessageKind::Malformed),
        }
    }

    /// The JavaScript parser takes a blank for a digit of the id (`Number(" ") == " "`), so blanks before the payload
    /// are skipped. It does so for every blank of Unicode and even for a byte order mark; those are malformed here.
    fn id(&mut self, byte: u8) -> HeaderStep {
        match (byte, self.packet) {
            (_, Packet::Connect) => HeaderStep::Settled(MessageKind::Connect),
            (b'0'..=b'9' | b' ' | b'\t' | b'\n' | b'\r', _) => self.goto(HeaderState::Id),
            (b'[', Packet::Event) => HeaderStep::Payload,
            (_, Packet::Disconnect | Packet::Event) => HeaderStep::Settled(MessageKind::Malformed),
        }
    }
}

/// Where the arguments of an event begin in `packet`, and whether the event announces attachments.
/// `None` for anything that is not an event in the namespace `/`.
pub(super) fn event_payload(packet: &[u8]) -> Option<(usize, bool)> {
    let mut header = HeaderMachine::new();
    for (at, &byte) in packet.iter().enumerate() {
        match header.step(byte) {
            HeaderStep::More => {}
            HeaderStep::Payload => return Some((at, header.attachments > 0)),
            HeaderStep::Settled(_) => return None,
        }
    }
    None
}
