//! One direction of a co-authoring WebSocket: which bytes may pass, which wait for a decision.
//!
//! Bytes in, ranges and events out; no I/O, no policy. Whatever is known not to matter passes at
//! once and unchanged. A message that may be an `auth` (or the server's reply to one) is withheld
//! until it is whole and somebody has decided about it. Nothing that follows overtakes it.

mod held;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::held::Held;
use crate::wire::packet::{EventType, MessageKind};
use crate::wire::scan::{MessageScanner, Progress};
use crate::wire::websocket::{
    Decoded, Decoder, FrameError, FrameHead, Mask, Opcode, Sender, unmask, write_frame,
};

/// The largest message of the co-authoring protocol, in bytes (WIRE.md section 2, `maxPayload`).
pub const MESSAGE_LIMIT: u64 = 100_000_000;

/// The most bytes of a client that wait for a decision. The document server takes an `auth` of 5 MB;
/// real ones have about 1 kB.
pub const HOLD_LIMIT: usize = 8 * 1024 * 1024;

/// The most bytes of a document server that wait for one. Its reply to an `auth` has the document's
/// participants (some 200 bytes each), locks and chat; the changes come in messages of their own,
/// which do not wait.
pub const REPLY_HOLD_LIMIT: usize = 64 * 1024 * 1024;

/// The most bytes that wait on all connections of the process together, the texts made of them included.
pub const HOLD_BUDGET: usize = 256 * 1024 * 1024;

/// The most bytes of the server's acknowledgement of a CONNECT that are read; it has some forty.
const CONNECT_LIMIT: usize = 1024;

/// The close code of a page that is being left (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

/// Payload bytes that are unmasked and looked at in one step: more than it takes to know the type
/// of a message, and few enough that clearing them costs nothing.
const PIECE: usize = 256;

/// What came of showing an [`Inspector`] some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of the input that were dealt with; the rest is to be shown again after the event.
    pub taken: usize,
    /// The part of the input that passes on, after what [`Inspector::released`] holds.
    pub pass: Range<usize>,
    /// What happened after those bytes; no further bytes may be shown before it is answered.
    pub event: Option<Event>,
}

/// Something that the session must answer or note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole `auth` (from the client: a request; from the server: its reply) is withheld; its
    /// text is [`Inspector::text`]. Answer with [`Inspector::pass_held`] or
    /// [`Inspector::replace_held`], or end the session.
    Auth,
    /// The sender said goodbye: a Socket.IO disconnect, or (a client) a close frame that says
    /// that its page is being left. Any other close frame is the end of a connection that broke.
    Goodbye,
    /// The server acknowledged the CONNECT; the packet is [`Inspector::text`].
    Connected,
    /// The WebSocket has taken over a session that began by polling.
    Upgraded,
    /// A message by which the client changes the document begins, and is withheld
    /// ([`Inspector::hold_saves`]). Answer with [`Inspector::pass_save`], sooner or later.
    Save,
    /// The server's close frame passed: what is left is its client's, and the end of the stream.
    Closed,
    /// The client gives up editing and stays as a viewer (`{"type":"close"}`).
    GaveUpEditing,
    /// The server answered an `auth` with an `error`.
    OpenFailed,
}

/// Bytes that no honest peer sends; the session must end, and nothing more may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("not WebSocket as agreed: {0}")]
    Frame(#[from] FrameError),
    #[error("a message that could be read in two ways")]
    Ambiguous,
    #[error("more than {limit} bytes would wait for a decision")]
    HeldTooLong { limit: usize },
    #[error("too many bytes wait for decisions on all connections together")]
    NoBudget,
}

/// How the open message is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Not a text message, or nothing in it can matter any more.
    Pass,
    /// Known not to matter, but still read to its end: a duplicate key could change that.
    Watch,
    /// Withheld until its type is known.
    Undecided,
    /// Withheld until it is whole and decided.
    Hold,
    /// A change that is withheld until it is decided.
    Wait,
}

/// Looks through one direction of one connection.
#[derive(Debug)]
pub struct Inspector {
    sender: Sender,
    decoder: Decoder,
    scanner: MessageScanner,
    treatment: Treatment,
    frame: Option<FrameHead>,
    /// Whether the open message is a text message.
    reading_text: bool,
    /// Whether it is the server's `error`.
    reading_error: bool,
    /// Whether it is the server's acknowledgement of a CONNECT: it passes, and is read to its end,
    /// however TCP cuts it.
    reading_connect: bool,
    /// The first bytes of a close frame's payload: its code.
    close_code: u16,
    /// A whole close frame passed: no honest sender sends anything after it.
    is_closed: bool,
    /// Whether what a client saves waits for a decision.
    holds_saves: bool,
    /// Such a message has begun.
    found_save: bool,
    /// Raw bytes that are withheld, in order, and the unmasked text of their message so far.
    held: Held,
    /// Raw bytes that were withheld and may now pass, before the present input's.
    released: Vec<u8>,
}

impl Inspector {
    /// An inspector of what `sender` sends.
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            decoder: Decoder::new(sender, MESSAGE_LIMIT),
            scanner: MessageScanner::new(),
            treatment: Treatment::Pass,
            frame: None,
            reading_text: false,
            reading_error: false,
            reading_connect: false,
            close_code: 0,
            is_closed: false,
            holds_saves: false,
            found_save: false,
            held: Held::new(match sender {
                Sender::Client => HOLD_LIMIT,
                Sender::Server => REPLY_HOLD_LIMIT,
            }),
            released: Vec::new(),
        }
    }

    /// Looks at `input` up to its end or the first event.
    ///
    /// # Errors
    /// A violation: nothing of `input` may pass, and the session must end.
    pub fn inspect(&mut self, input: &[u8]) -> Result<Flow, Violation> {
        // Where the withheld part of the input starts, if some of it is withheld.
        let mut hold = if self.held.is_empty() { None } else { Some(0) };
        let mut at = 0;
        let mut event = None;
        while event.is_none() {
            let rest = input.get(at..).unwrap_or_default();
            match self.decoder.decode(rest)? {
                Decoded::Partial => {
                    if !rest.is_empty() {
                        // The bytes of a frame's head wait until it is whole.
                        hold = hold.or(Some(at));
                    }
                    at = input.len();
                    break;
                }
                Decoded::Head { taken, head } => {
                    hold = hold.or(Some(at));
                    at += taken;
                    self.begin_frame(head);
                    if self.may_pass_frame() {
                        self.release(&mut hold);
                    }
                }
                Decoded::Payload { taken, offset } => {
                    let payload = rest.get(..taken).unwrap_or_default();
                    at += taken;
                    if self.read_payload(payload, offset)? {
                        self.release(&mut hold);
                    }
                    event = std::mem::take(&mut self.found_save).then_some(Event::Save);
                }
                Decoded::End { head } => {
                    self.frame = None;
                    event = self.end_frame(head)?;
                    if self.may_pass_frame() {
                        self.release(&mut hold);
                    }
                }
            }
        }
        let pass = 0..hold.unwrap_or(at);
        if let Some(withheld) = input.get(pass.end..at) {
            self.held.extend(withheld)?;
        }
        Ok(Flow { taken: at, pass, event })
    }

    /// The text of the message that [`Event::Auth`] told of, fragments joined, masks off.
    pub fn text(&self) -> &[u8] {
        self.held.text()
    }

    /// Bytes that may pass before the present input's; the caller takes them out.
    pub fn released(&mut self) -> &mut Vec<u8> {
        &mut self.released
    }

    /// Lets the withheld message pass, byte for byte.
    pub fn pass_held(&mut self) {
        self.end_hold();
        self.held.move_to(&mut self.released);
    }

    /// Lets a change pass, what comes of it as well.
    pub fn pass_save(&mut self) {
        self.treatment = Treatment::Watch;
        self.held.move_to(&mut self.released);
    }

    /// Lets `text` pass in place of the withheld message, in one frame.
    pub fn replace_held(&mut self, text: &[u8]) {
        // The mask hides nothing from the server that takes it off; its key may be any.
        let mask = match self.sender {
            Sender::Client => Some([0x5e, 0xa7, 0x9a, 0x7e]),
            Sender::Server => None,
        };
        self.end_hold();
        self.held.clear();
        write_frame(&mut self.released, Opcode::Text, mask, text);
    }

    /// Whether the bytes that passed so far end between two messages, so that a message of our
    /// own may follow them. The bytes of a frame's head and of an undecided message never pass.
    pub fn at_message_boundary(&self) -> bool {
        match self.treatment {
            Treatment::Undecided | Treatment::Hold | Treatment::Wait => true,
            Treatment::Pass | Treatment::Watch => self.decoder.is_between_messages(),
        }
    }

    /// Withholds what the client saves from here on, or does so no more.
    pub fn hold_saves(&mut self, hold: bool) {
        self.holds_saves = hold;
    }

    /// Whether the sender's close frame passed (RFC 6455, section 5.5.1).
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn begin_frame(&mut self, head: FrameHead) {
        self.frame = Some(head);
        match head.opcode {
            Opcode::Text => {
                self.scanner.reset();
                self.held.clear_text();
                self.treatment = Treatment::Undecided;
                self.reading_text = true;
                self.reading_error = false;
                self.reading_connect = false;
            }
            Opcode::Binary => self.treatment = Treatment::Pass,
            Opcode::Close => self.close_code = 0,
            Opcode::Continuation | Opcode::Ping | Opcode::Pong => {}
        }
    }

    /// Whether a frame passes as it comes. A control frame between the fragments of a withheld
    /// message waits with them, so that the order of bytes never changes.
    fn may_pass_frame(&self) -> bool {
        match self.treatment {
            Treatment::Pass | Treatment::Watch => true,
            Treatment::Undecided | Treatment::Hold | Treatment::Wait => false,
        }
    }

    /// Reads a part of the present frame's payload; returns whether what is withheld may pass.
    fn read_payload(&mut self, payload: &[u8], offset: u64) -> Result<bool, Violation> {
        let Some(head) = self.frame else { return Ok(false) };
        if head.opcode == Opcode::Close {
            self.read_close_code(payload, head.mask, offset);
        }
        if !head.opcode.is_data() || !self.is_read() {
            return Ok(false);
        }
        let mut buffer = [0; PIECE];
        let (mut rest, mut offset) = (payload, offset);
        let mut release = false;
        while !rest.is_empty() && self.is_read() {
            let mut taken = 0;
            if let (Treatment::Watch, Some(mask)) = (self.treatment, head.mask) {
                taken = self.scanner.skip_masked(rest, Mask::new(mask, offset));
            }
            if taken == 0 {
                taken = rest.len().min(PIECE);
                let plain = buffer.get_mut(..taken).unwrap_or_default();
                plain.copy_from_slice(rest.get(..taken).unwrap_or_default());
                if let Some(mask) = head.mask {
                    unmask(plain, mask, offset);
                }
                release |= self.read_text(plain)?;
            }
            offset += taken as u64;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(release)
    }

    /// Whether the rest of the open message is looked at.
    fn is_read(&self) -> bool {
        self.treatment != Treatment::Pass || self.reading_connect
    }

    fn read_close_code(&mut self, payload: &[u8], mask: Option<[u8; 4]>, offset: u64) {
        for (at, byte) in (offset..2).zip(payload) {
            let mut plain = [*byte];
            if let Some(mask) = mask {
                unmask(&mut plain, mask, at);
            }
            self.close_code = self.close_code << 8 | u16::from(plain[0]);
        }
    }

    fn read_text(&mut self, plain: &[u8]) -> Result<bool, Violation> {
        if self.reading_connect {
            self.reading_connect = self.held.text().len() + plain.len() <= CONNECT_LIMIT;
            if self.reading_connect {
                self.held.extend_text(plain)?;
            }
            return Ok(false);
        }
        if self.treatment == Treatment::Hold {
            self.held.extend_text(plain)?;
            // Read on: a second `type` would make it ambiguous.
            return self.read_on(plain);
        }
        // Of what the server says no more is read than it takes to know what it is: a fault behind that
        // must not count or not as TCP cut the bytes.
        let (rest, progress) = match self.sender {
            Sender::Client => (&[][..], self.scanner.feed(plain)),
            Sender::Server => self.scanner.feed_to_type(plain),
        };
        match progress {
            Progress::Undecided => {
                self.held.extend_text(plain)?;
                Ok(false)
            }
            Progress::Auth => {
                self.held.extend_text(plain)?;
                self.treatment = Treatment::Hold;
                self.read_on(rest)
            }
            Progress::Harmless { .. } if self.treatment == Treatment::Wait => Ok(false),
            Progress::Harmless { .. } if self.is_save_to_hold() => {
                self.found_save = true;
                self.treatment = Treatment::Wait;
                self.held.clear_text();
                Ok(false)
            }
            Progress::Harmless { watch } => {
                let released = self.treatment == Treatment::Undecided;
                // What the server itself sends is not written to deceive.
                self.treatment = if watch && self.sender == Sender::Client {
                    Treatment::Watch
                } else {
                    Treatment::Pass
                };
                self.reading_error =
                    self.sender == Sender::Server && self.scanner.event() == Some(EventType::Error);
                self.reading_connect = self.sender == Sender::Server && self.scanner.is_connect();
                if self.reading_connect {
                    self.held.extend_text(plain)?;
                } else {
                    self.held.clear_text();
                }
                Ok(released)
            }
            Progress::Malformed => Err(Violation::Ambiguous),
        }
    }

    /// Whether the open message, whose type is known, is one that [`Self::hold_saves`] means.
    fn is_save_to_hold(&self) -> bool {
        self.holds_saves
            && self.treatment == Treatment::Undecided
            && self.sender == Sender::Client
            && self.scanner.event() == Some(EventType::Save)
    }

    /// Reads more of a message that is withheld.
    fn read_on(&mut self, plain: &[u8]) -> Result<bool, Violation> {
        match self.scanner.feed(plain) {
            // The server's is judged all the same: what clients wrote stands in it, and deeper than they
            // wrote it.
            Progress::Malformed if self.sender == Sender::Client => Err(Violation::Ambiguous),
            _ => Ok(false),
        }
    }

    fn end_frame(&mut self, head: FrameHead) -> Result<Option<Event>, Violation> {
        match head.opcode {
            Opcode::Close => {
                // One that waits behind an unfinished message never reaches the other side.
                self.is_closed = self.may_pass_frame();
                return Ok(match self.sender {
                    _ if !self.is_closed => None,
                    Sender::Client => (self.close_code == GOING_AWAY).then_some(Event::Goodbye),
                    Sender::Server => Some(Event::Closed),
                });
            }
            Opcode::Ping | Opcode::Pong => return Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !head.fin => return Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        if !std::mem::take(&mut self.reading_text) {
            return Ok(None);
        }
        let was_held = std::mem::replace(&mut self.treatment, Treatment::Pass) == Treatment::Hold;
        if self.reading_error {
            return Ok(Some(Event::OpenFailed));
        }
        match self.scanner.finish() {
            MessageKind::Event(EventType::Auth)
            | MessageKind::BinaryEvent { event: EventType::Auth, .. } => {
                self.treatment = Treatment::Hold;
                Ok(Some(Event::Auth))
            }
            // A binary `close` takes effect with its last attachment, which may never come.
            MessageKind::Event(EventType::Close) if self.sender == Sender::Client => {
                Ok(Some(Event::GaveUpEditing))
            }
            MessageKind::Connect if self.sender == Sender::Server => Ok(Some(Event::Connected)),
            MessageKind::Disconnect => Ok(Some(Event::Goodbye)),
            MessageKind::Upgrade if self.sender == Sender::Client => Ok(Some(Event::Upgraded)),
            MessageKind::Malformed if self.sender == Sender::Client => Err(Violation::Ambiguous),
            MessageKind::Malformed if was_held => {
                self.treatment = Treatment::Hold;
                Ok(Some(Event::Auth))
            }
            _ => Ok(None),
        }
    }

    fn end_hold(&mut self) {
        self.treatment = Treatment::Pass;
        self.held.clear_text();
    }

    fn release(&mut self, hold: &mut Option<usize>) {
        *hold = None;
        self.held.move_to(&mut self.released);
    }
}
