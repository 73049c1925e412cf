//! The JSON of an event, byte by byte: whether it is a message, and of which type.

use memchr::memchr2;

use super::MAX_DEPTH;
use super::masked::{StringEnd, find_end};
use crate::wire::packet::EventType;
use crate::wire::websocket::Mask;

/// How many bytes of a string are kept to compare: the longest name of interest is `disconnectReason`.
const CANDIDATE_BYTES: usize = 16;

/// What the bytes led to.
pub(super) enum Taken<'a> {
    /// The bytes that are left.
    Bytes(&'a [u8]),
    /// Whatever follows, this event is of no interest.
    NoAuth,
    Malformed,
}

/// Where the scanner is with regard to strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    /// In a string of no interest.
    Skip,
    /// After a backslash in such a string.
    SkipEscape,
    /// In a string that is compared.
    Candidate,
    CandidateEscape,
    /// Within `\uXXXX`: the digits that are missing and the value of those read.
    CandidateUnicode {
        missing: u8,
        unit: u16,
    },
}

/// What a compared string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    EventName,
    Key,
    TypeValue,
}

/// The JSON part of an event, from after its first `[`.
#[derive(Clone, Debug)]
pub(super) struct Body {
    text: Text,
    role: Role,
    candidate: [u8; CANDIDATE_BYTES],
    candidate_len: usize,
    depth: usize,
    /// One bit a level: an object, not an array.
    objects: [u64; MAX_DEPTH / 64],
    /// Index of the outermost array's current element, 2 for all later ones.
    element: u8,
    named: bool,
    /// Directly or deeper inside the object that is the event's first argument.
    in_message: bool,
    /// A string at the message's top level would be a key.
    key_next: bool,
    /// The current key is `type`.
    key_is_type: bool,
    /// Its value has not begun.
    value_next: bool,
    type_seen: bool,
    pub(super) event: Option<EventType>,
}

impl Body {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            text: Text::Outside,
            role: Role::EventName,
            candidate: [0; CANDIDATE_BYTES],
            candidate_len: 0,
            depth: 1,
            objects: [0; MAX_DEPTH / 64],
            element: 0,
            named: false,
            in_message: false,
            key_next: false,
            key_is_type: false,
            value_next: false,
            type_seen: false,
            event: None,
        }
    }

    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.depth == 0 && self.named
    }

    /// Takes at least one byte of `bytes`, which is not empty.
    #[inline]
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> Taken<'a> {
        match self.text {
            Text::Outside if self.depth > 2 => self.take_nested(bytes),
            Text::Outside if self.in_other_value() => self.take_other_value(bytes),
            Text::Skip => self.skip(bytes),
            Text::Candidate => self.take_candidate(bytes),
            Text::Outside
            | Text::SkipEscape
            | Text::CandidateEscape
            | Text::CandidateUnicode { .. } => {
                let Some((&byte, tail)) = bytes.split_first() else { return Taken::Bytes(bytes) };
                self.step(byte).then(tail)
            }
        }
    }

    /// Goes through a string that is compared: what is no escape all at once.
    fn take_candidate<'a>(&mut self, bytes: &'a [u8]) -> Taken<'a> {
        let free = self.candidate.get_mut(self.candidate_len..).unwrap_or_default();
        let mut tail = bytes;
        for slot in free {
            match tail.split_first() {
                Some((byte, after)) if !matches!(byte, b'"' | b'\\') => {
                    *slot = *byte;
                    self.candidate_len += 1;
                    tail = after;
                }
                _ => break,
            }
        }
        match tail.split_first() {
            Some((&byte, after)) => self.step(byte).then(after),
            None => Taken::Bytes(tail),
        }
    }

    /// Goes through a string of no interest.
    fn skip<'a>(&mut self, mut bytes: &'a [u8]) -> Taken<'a> {
        while let Some(at) = memchr2(b'"', b'\\', bytes) {
            let Some((head, tail)) = bytes.split_at_checked(at + 1) else { break };
            if head.last() == Some(&b'"') {
                self.text = Text::Outside;
                return Taken::Bytes(tail);
            }
            match tail.split_first() {
                Some((_, after)) => bytes = after,
                None => {
                    self.text = Text::SkipEscape;
                    break;
                }
            }
        }
        Taken::Bytes(&[])
    }

    /// Skips the rest of a string of no interest, if it is in one; see
    /// [`MessageScanner::skip_masked`](super::MessageScanner::skip_masked).
    #[inline]
    pub(super) fn skip_masked(&mut self, bytes: &[u8], mask: Mask) -> usize {
        let escaped = match self.text {
            Text::Skip => false,
            Text::SkipEscape => true,
            _ => return 0,
        };
        let (text, skipped) = match find_end(bytes, mask, escaped) {
            StringEnd::At(quote) => (Text::Outside, quote + 1),
            StringEnd::Beyond { escaped: false } => (Text::Skip, bytes.len()),
            StringEnd::Beyond { escaped: true } => (Text::SkipEscape, bytes.len()),
        };
        self.text = text;
        skipped
    }

    /// Goes through values below the message's top level, where only strings and brackets count.
    fn take_nested<'a>(&mut self, bytes: &'a [u8]) -> Taken<'a> {
        self.skip_to(bytes, |byte| matches!(byte, b'"' | b'[' | b']' | b'{' | b'}'))
    }

    /// Whether a value has begun at the message's top level that is none of its type's: the digits
    /// and letters of it say nothing.
    fn in_other_value(&self) -> bool {
        self.at_message_top() && !self.key_next && !self.value_next
    }

    fn take_other_value<'a>(&mut self, bytes: &'a [u8]) -> Taken<'a> {
        self.skip_to(bytes, |byte| matches!(byte, b'"' | b'[' | b']' | b'{' | b'}' | b',' | b':'))
    }

    /// Takes the bytes before the first that is interesting, and that.
    fn skip_to<'a>(&mut self, bytes: &'a [u8], is_interesting: impl Fn(u8) -> bool) -> Taken<'a> {
        let at = bytes.iter().position(|byte| is_interesting(*byte)).unwrap_or(bytes.len());
        match bytes.get(at..).and_then(<[u8]>::split_first) {
            Some((&byte, tail)) => self.step(byte).then(tail),
            None => Taken::Bytes(&[]),
        }
    }

    fn step(&mut self, byte: u8) -> Step {
        match self.text {
            Text::Outside => self.outside(byte),
            Text::Skip | Text::SkipEscape => {
                self.text = Text::Skip;
                Step::On
            }
            Text::Candidate => match byte {
                b'"' => {
                    self.text = Text::Outside;
                    self.compared()
                }
                b'\\' => {
                    self.text = Text::CandidateEscape;
                    Step::On
                }
                _ => self.push_candidate(byte),
            },
            Text::CandidateEscape => match byte {
                b'u' => {
                    self.text = Text::CandidateUnicode { missing: 4, unit: 0 };
                    Step::On
                }
                // No name of interest holds a character that has a short escape.
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.unlike(),
                _ => Step::Malformed,
            },
            Text::CandidateUnicode { missing, unit } => {
                let Some(digit) = char::from(byte).to_digit(16).and_then(|d| u16::try_from(d).ok())
                else {
                    return Step::Malformed;
                };
                let unit = (unit << 4) | digit;
                if missing > 1 {
                    self.text = Text::CandidateUnicode { missing: missing - 1, unit };
                    return Step::On;
                }
                self.text = Text::Candidate;
                match u8::try_from(unit) {
                    Ok(ascii) if ascii.is_ascii() => self.push_candidate(ascii),
                    Ok(_) | Err(_) => self.unlike(),
                }
            }
        }
    }

    /// A byte outside of strings.
    fn outside(&mut self, byte: u8) -> Step {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Step::On;
        }
        if self.depth == 0 {
            return Step::Malformed;
        }
        match byte {
            b'"' => self.open_string(),
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'}' => self.close(true),
            b']' => self.close(false),
            b',' => {
                self.comma();
                Step::On
            }
            b':' => {
                if self.at_message_top() {
                    self.key_next = false;
                    self.value_next = self.key_is_type;
                }
                Step::On
            }
            // A part of a number or of a literal.
            _ => self.begin_other_value(),
        }
    }

    fn at_message_top(&self) -> bool {
        self.in_message && self.depth == 2
    }

    fn comma(&mut self) {
        if self.depth == 1 {
            self.element = (self.element + 1).min(2);
        } else if self.at_message_top() {
            self.key_next = true;
            self.key_is_type = false;
        }
    }

    fn open_string(&mut self) -> Step {
        let role = match (self.depth, self.element) {
            (1, 0) => Role::EventName,
            (1, 1) => return self.no_message(),
            (2, 1) if self.key_next => Role::Key,
            (2, 1) if self.value_next => Role::TypeValue,
            _ => {
                self.text = Text::Skip;
                return Step::On;
            }
        };
        self.role = role;
        self.candidate_len = 0;
        self.text = Text::Candidate;
        Step::On
    }

    /// Something else than a string begins (or goes on) where a value stands.
    fn begin_other_value(&mut self) -> Step {
        if self.depth == 1 && self.element < 2 {
            return self.no_message();
        }
        if self.at_message_top() && self.value_next {
            self.value_next = false;
            self.event = Some(EventType::Other);
        }
        Step::On
    }

    /// The event's name is no string or its first argument no object. After the argument it is an odd text.
    fn no_message(&self) -> Step {
        if self.type_seen { Step::Malformed } else { Step::NoAuth }
    }

    fn open(&mut self, object: bool) -> Step {
        let message = object && self.depth == 1 && self.element == 1;
        if message && self.type_seen {
            return Step::Malformed;
        }
        if !message {
            match self.begin_other_value() {
                Step::On => {}
                other => return other,
            }
        }
        let Some(word) = self.objects.get_mut(self.depth / 64) else { return Step::Malformed };
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        if message {
            self.in_message = true;
            self.key_next = true;
        }
        Step::On
    }

    fn close(&mut self, object: bool) -> Step {
        self.depth -= 1;
        let opened_as_object = self
            .objects
            .get(self.depth / 64)
            .is_some_and(|word| word & (1 << (self.depth % 64)) != 0);
        if opened_as_object != object {
            return Step::Malformed;
        }
        if self.depth == 1 && self.in_message {
            self.in_message = false;
            return match self.event {
                // What follows can only make these malformed.
                Some(EventType::Auth | EventType::Close) => Step::On,
                Some(
                    EventType::License
                    | EventType::WaitAuth
                    | EventType::DisconnectReason
                    | EventType::Drop
                    | EventType::Error,
                ) => Step::On,
                Some(EventType::Save | EventType::Other) | None => Step::NoAuth,
            };
        }
        Step::On
    }

    fn push_candidate(&mut self, byte: u8) -> Step {
        match self.candidate.get_mut(self.candidate_len) {
            Some(slot) => {
                *slot = byte;
                self.candidate_len += 1;
                Step::On
            }
            None => self.unlike(),
        }
    }

    /// The string in hand is none of the names of interest; its rest is skipped.
    fn unlike(&mut self) -> Step {
        self.text = Text::Skip;
        self.settle(b"")
    }

    /// The string in hand has ended.
    fn compared(&mut self) -> Step {
        let candidate = self.candidate;
        self.settle(candidate.get(..self.candidate_len).unwrap_or_default())
    }

    fn settle(&mut self, text: &[u8]) -> Step {
        match self.role {
            Role::EventName if text == b"message" => self.named = true,
            Role::EventName => return Step::NoAuth,
            Role::Key => {
                self.key_is_type = text == b"type";
                if self.key_is_type && self.type_seen {
                    return Step::Malformed;
                }
                self.type_seen |= self.key_is_type;
            }
            Role::TypeValue => {
                self.value_next = false;
                self.event = Some(EventType::of(text));
            }
        }
        Step::On
    }
}

/// What a byte led to.
enum Step {
    On,
    NoAuth,
    Malformed,
}

impl Step {
    /// The same of the bytes that are left behind it.
    fn then(self, tail: &[u8]) -> Taken<'_> {
        match self {
            Self::On => Taken::Bytes(tail),
            Self::NoAuth => Taken::NoAuth,
            Self::Malformed => Taken::Malformed,
        }
    }
}
