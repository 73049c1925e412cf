//! Recognises one Engine.IO message from its bytes as they come, without keeping them.
//!
//! A co-authoring message is an `auth` if JavaScript reads `["message",{…}]` and the object's own `type`, its *last*
//! one, is the string `auth` (WIRE.md section 2). The scanner is exact for every text that `JSON.parse` accepts, with
//! one exception on the safe side: a second `type` is [`MessageKind::Malformed`], since no client writes one. A text
//! that `JSON.parse` refuses makes the server end the session, so for those any answer is safe; what is plainly odd
//! (brackets that do not match, bytes after the end) is malformed as well.
//!
//! No allocation, no recursion; strings of no interest are skipped with `memchr`.

mod body;
mod masked;

use std::sync::LazyLock;

use super::packet::{EventType, HeaderMachine, HeaderStep, MessageKind};
use super::websocket::Mask;
use body::{Body, Taken};

/// Deeper messages are malformed.
pub const MAX_DEPTH: usize = 512;

/// How the messages of clients and servers really begin, up to the value of their type.
const USUAL_BEGINNING: &[u8] = br#"42["message",{"type":""#;

/// A scanner that has read that: it need not be read byte by byte each time.
static AFTER_USUAL_BEGINNING: LazyLock<MessageScanner> = LazyLock::new(|| {
    let mut scanner = MessageScanner::new();
    scanner.is_fresh = false;
    scanner.feed(USUAL_BEGINNING);
    scanner
});

/// What is known of a message after the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// May still become an `auth`: hold the bytes back.
    Undecided,
    /// An `auth` so far: hold the bytes back until [`MessageScanner::finish`] says so too.
    Auth,
    /// No `auth`: the bytes may go on. With `watch`, feed the rest too and break off if it becomes
    /// [`Progress::Malformed`]; without, the rest need not be fed.
    Harmless {
        /// A second `type` may still follow, or the kind is not yet settled.
        watch: bool,
    },
    /// Refuse the message: let not its last byte pass.
    Malformed,
}

/// Recognises one message, of the client or of the server.
///
/// Feed the unmasked payload in any chunks, then call [`finish`](Self::finish) at its end and
/// [`reset`](Self::reset) before the next one.
#[derive(Clone, Debug)]
pub struct MessageScanner {
    /// No byte of the message was read yet.
    is_fresh: bool,
    header: HeaderMachine,
    phase: Phase,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Header,
    Body,
    Settled(MessageKind),
}

impl Default for MessageScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl MessageScanner {
    /// A scanner at the beginning of a message.
    pub fn new() -> Self {
        Self {
            is_fresh: true,
            header: HeaderMachine::new(),
            phase: Phase::Header,
            body: Body::new(),
        }
    }

    /// Back to the beginning of a message.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Takes the next bytes of the message.
    pub fn feed(&mut self, chunk: &[u8]) -> Progress {
        let mut rest = self.skip_beginning(chunk);
        while self.advance(&mut rest) {}
        self.progress()
    }

    /// Takes the next bytes up to where an event's type is known, and returns the others.
    pub fn feed_to_type<'a>(&mut self, chunk: &'a [u8]) -> (&'a [u8], Progress) {
        let mut rest = self.skip_beginning(chunk);
        while self.body.event.is_none() && self.advance(&mut rest) {}
        (rest, self.progress())
    }

    /// Skips the rest of a string of no interest that the scanner is in, without taking the mask
    /// off; returns how many bytes that were. `mask` is turned to the first of them.
    pub fn skip_masked(&mut self, bytes: &[u8], mask: Mask) -> usize {
        match self.phase {
            Phase::Body => self.body.skip_masked(bytes, mask),
            Phase::Header | Phase::Settled(_) => 0,
        }
    }

    /// Takes the usual beginning off a message's first bytes, all at once.
    fn skip_beginning<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        if !self.is_fresh || chunk.is_empty() {
            return chunk;
        }
        self.is_fresh = false;
        match chunk.strip_prefix(USUAL_BEGINNING) {
            Some(rest) => {
                self.clone_from(&AFTER_USUAL_BEGINNING);
                rest
            }
            None => chunk,
        }
    }

    /// Takes some bytes off; `false` once there are none left, or none that matter.
    fn advance(&mut self, rest: &mut &[u8]) -> bool {
        let Some((&byte, tail)) = rest.split_first() else { return false };
        match self.phase {
            Phase::Header => {
                *rest = tail;
                match self.header.step(byte) {
                    HeaderStep::More => {}
                    HeaderStep::Payload => self.phase = Phase::Body,
                    HeaderStep::Settled(kind) => self.phase = Phase::Settled(kind),
                }
            }
            Phase::Body => match self.body.take(rest) {
                Taken::Bytes(tail) => *rest = tail,
                Taken::NoAuth => {
                    let event = self.body.event.unwrap_or(EventType::Other);
                    self.phase = Phase::Settled(self.header.event(event));
                }
                Taken::Malformed => self.phase = Phase::Settled(MessageKind::Malformed),
            },
            Phase::Settled(_) => return false,
        }
        true
    }

    /// The type that the message names, as far as it is known.
    pub fn event(&self) -> Option<EventType> {
        self.body.event
    }

    /// Whether the message is a Socket.IO CONNECT, as far as it is known.
    pub fn is_connect(&self) -> bool {
        matches!(self.phase, Phase::Settled(MessageKind::Connect))
    }

    /// The kind of the message, which ends here.
    pub fn finish(&mut self) -> MessageKind {
        match self.phase {
            Phase::Header => self.header.finish(),
            Phase::Body if self.body.is_complete() => {
                self.header.event(self.body.event.unwrap_or(EventType::Other))
            }
            Phase::Body => MessageKind::Malformed,
            Phase::Settled(kind) => kind,
        }
    }

    fn progress(&self) -> Progress {
        match self.phase {
            Phase::Header => Progress::Undecided,
            Phase::Body => match self.body.event {
                None => Progress::Undecided,
                Some(EventType::Auth) => Progress::Auth,
                Some(_) => Progress::Harmless { watch: true },
            },
            Phase::Settled(MessageKind::Malformed) => Progress::Malformed,
            Phase::Settled(_) => Progress::Harmless { watch: false },
        }
    }
}

/// The kind of a whole message.
pub fn classify(message: &[u8]) -> MessageKind {
    let mut scanner = MessageScanner::new();
    scanner.feed(message);
    scanner.finish()
}

#[cfg(test)]
mod tests;
