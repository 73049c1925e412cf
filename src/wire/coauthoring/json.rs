//! Raw parts of a co-authoring packet: the event's object and chosen members of objects, each as the text it has in
//! the packet, so that it can be replaced byte by byte.

use std::{fmt, ops::Range};

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::js::JsonText;
use crate::wire::packet::event_payload;

/// What an attachment leaves in a binary event's text. In a place that decides something it would make the server
/// read other values than a gateway sees.
const PLACEHOLDER: &str = "_placeholder";

/// The object that a packet's event `message` carries.
pub(super) struct EventObject<'p> {
    /// The whole packet.
    pub(super) packet: &'p str,
    /// The object's text.
    pub(super) object: &'p str,
}

impl<'p> EventObject<'p> {
    /// Finds the object; `None` for any other packet, and for one that is no JSON.
    pub(super) fn find(packet: &'p [u8]) -> Option<Self> {
        let (payload_at, _) = event_payload(packet)?;
        let packet = simdutf8::basic::from_utf8(packet).ok()?;
        let mut json = serde_json::Deserializer::from_str(packet.get(payload_at..)?);
        let object = json.deserialize_seq(EventArguments).ok()?;
        json.end().ok()?;
        Some(Self { packet, object })
    }

    /// Where `part`, a piece of this packet, lies in it.
    fn span(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr() - self.packet.as_ptr().addr();
        start..start + part.len()
    }

    /// The packet with top-level members of the object replaced, or added in front where there are none. Everything
    /// else stays as it is. `current` holds the members' present texts, which are pieces of this packet.
    pub(super) fn with_members(&self, members: &[Member<'_, 'p>]) -> String {
        let inside = self.span(self.object).start + 1;
        let mut edits: Vec<(Range<usize>, String)> = members
            .iter()
            .map(|member| match member.current {
                Some(current) => (self.span(current), member.value.to_owned()),
                // The object has a `type`, so another member follows.
                None => (inside..inside, format!("\"{}\":{},", member.key, member.value)),
            })
            .collect();
        edits.sort_by_key(|(span, _)| span.start);
        let mut result = String::with_capacity(self.packet.len() + 64);
        let mut from = 0;
        for (span, text) in edits {
            result.push_str(self.packet.get(from..span.start).unwrap_or_default());
            result.push_str(&text);
            from = span.end;
        }
        result.push_str(self.packet.get(from..).unwrap_or_default());
        result
    }
}

/// A member to replace or to add.
pub(super) struct Member<'a, 'p> {
    pub(super) key: &'static str,
    pub(super) current: Option<&'p str>,
    /// The new value, as JSON.
    pub(super) value: &'a str,
}

struct EventArguments;

impl<'de> Visitor<'de> for EventArguments {
    type Value = &'de str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event message and its object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<&'de str, A::Error> {
        let name = seq.next_element::<JsonText<'de>>()?;
        let argument = seq.next_element::<&RawValue>()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        match (name, argument) {
            (Some(name), Some(argument))
                if name.0 == "message" && argument.get().starts_with('{') =>
            {
                Ok(argument.get())
            }
            _ => Err(A::Error::custom("another event")),
        }
    }
}

/// Why members could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MembersError {
    /// No object, or not in a form that Rust can hold.
    Unreadable,
    /// The key stands twice; JavaScript takes the last, others the first.
    Duplicate(&'static str),
}

/// The texts of the members `keys` of the object `json`.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    keys: [&'static str; N],
) -> Result<[Option<&'a str>; N], MembersError> {
    let mut duplicate = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(Members { keys, duplicate: &mut duplicate });
    match (found, duplicate) {
        (Ok(found), _) => Ok(found),
        (Err(_), Some(key)) => Err(MembersError::Duplicate(key)),
        (Err(_), None) => Err(MembersError::Unreadable),
    }
}

struct Members<'d, const N: usize> {
    keys: [&'static str; N],
    duplicate: &'d mut Option<&'static str>,
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key::<JsonText<'de>>()? {
            if key.0 == PLACEHOLDER {
                return Err(A::Error::custom("a placeholder"));
            }
            let slot = self.keys.iter().zip(&mut found).find(|(name, _)| **name == key.0);
            match slot {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some((name, Some(_))) => {
                    *self.duplicate = Some(name);
                    return Err(A::Error::custom("a duplicate key"));
                }
                Some((_, slot)) => *slot = Some(map.next_value::<&RawValue>()?.get()),
            }
        }
        Ok(found)
    }
}
