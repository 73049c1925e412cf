//! A model of how JavaScript reads an event, and a generator of events.

use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::wire::packet::EventType::{self, Other};

/// What the JavaScript parser and the server's switch make of a text: the event that takes effect.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) event: EventType,
    pub(super) binary: bool,
    /// The `type`s at the message's top level.
    pub(super) types: usize,
    /// No client writes such a header.
    pub(super) odd_header: bool,
}

/// Follows `decodeString` of socket.io-parser 4.2, with serde_json in the place of `JSON.parse` (both take the last
/// of several equal keys). `None` where no event for the namespace `/` results.
pub(super) fn model(message: &str) -> Option<Model> {
    let text: Vec<char> = message.strip_prefix('4')?.chars().collect();
    let mut odd_header = false;
    let is_blank = |c: char| c.is_whitespace() && c != '\u{85}' || c == '\u{feff}';
    let mut at = 0;
    let binary = match text.first()? {
        '2' => false,
        '5' => true,
        _ => return None,
    };
    at += 1;
    if binary {
        let dash = text.iter().position(|&c| c == '-')?;
        let count: String = text[1..dash].iter().collect();
        let count = count.trim_matches(is_blank);
        let plain = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        if !plain && !count.is_empty() {
            return None; // other forms of numbers are left to the table above
        }
        odd_header |= dash == 1 || dash > 5 || text[1..dash].iter().any(|c| !c.is_ascii_digit());
        odd_header |= count.bytes().all(|b| b == b'0');
        at = dash + 1;
    }
    if text.get(at) == Some(&'/') {
        let comma = text[at..].iter().position(|&c| c == ',')? + at;
        if comma != at + 1 {
            return None;
        }
        at = comma + 1;
    }
    while let Some(&c) = text.get(at)
        && (c.is_ascii_digit() || is_blank(c))
    {
        odd_header |= !c.is_ascii_digit() && !matches!(c, ' ' | '\t' | '\n' | '\r');
        at += 1;
    }
    let payload: String = text[at..].iter().collect();
    let value: Value = serde_json::from_str(&payload).ok()?;
    let array = value.as_array()?;
    let name = array.first()?;
    if !name.is_string() && !name.is_number() {
        return None;
    }
    let (mut event, mut types) = (Other, 0);
    if name == "message"
        && let Some(argument) = array.get(1).filter(|argument| argument.is_object())
    {
        if let Some(kind) = argument.get("type").and_then(Value::as_str) {
            event = EventType::of(kind.as_bytes());
        }
        let (_, Keys(keys)) = serde_json::from_str::<Arguments>(&payload).unwrap().0;
        types = keys.iter().filter(|key| *key == "type").count();
    }
    Some(Model { event, binary, types, odd_header })
}

/// The first two elements of an event, with every key of the second.
struct Arguments((IgnoredAny, Keys));
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seq;
        impl<'de> Visitor<'de> for Seq {
            type Value = Arguments;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Arguments, A::Error> {
                let name = seq.next_element()?.unwrap();
                let keys = seq.next_element()?.unwrap();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Arguments((name, keys)))
            }
        }
        deserializer.deserialize_seq(Seq)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\r ")]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            r#""type""#,
            r#""\u0074ype""#,
            r#""typ\u0065""#,
            r#""Type""#,
            r#""typee""#,
            r#""""#,
            r#""t\/ype""#,
            r#""auth""#,
            r#""\u0061uth""#,
            r#""auth\"""#,
            r#""\\""#,
            r#""\\\"auth""#,
            r#""close""#,
            r#""cursor""#,
            r#""message""#,
            r#""messag\u0065""#,
            r#""Auth""#,
            r#""waitAuth""#,
            r#""disconnectReason""#,
            r#""disconnectReasons""#,
            r#""\u00e4""#,
            r#""ä{[,:]}""#,
            r#""\ud83d\ude00""#,
        ])
        .prop_map(str::to_owned),
        "[a-z{}\\[\\],: ]{0,24}".prop_map(|text| format!("\"{text}\"")),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => text(),
        1 => prop::sample::select(vec!["null", "true", "false", "0", "-1.5e3"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![list(inner.clone()), object(text().boxed(), inner.boxed())]
    })
}

fn list(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (prop::collection::vec(inner, 0..4), blank())
        .prop_map(|(items, gap)| format!("[{gap}{}{gap}]", items.join(&format!("{gap},"))))
}

fn object(
    keys: BoxedStrategy<String>,
    values: BoxedStrategy<String>,
) -> impl Strategy<Value = String> {
    let member = (keys, blank(), values)
        .prop_map(|(key, gap, value)| format!("{gap}{key}{gap}:{gap}{value}"));
    (prop::collection::vec(member, 0..5), blank())
        .prop_map(|(members, gap)| format!("{{{}{gap}}}", members.join(",")))
}

pub(super) fn event() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "42",
        "42",
        "42",
        "4217",
        "42/,",
        "42/,5",
        "42 ",
        "42 3\n",
        "451-",
        "452-/,1",
        "45-",
        "450-",
        "45 1-",
        "42/x,",
        "42\u{a0}",
        "42\u{feff}",
        "4200000000000000000000",
    ]);
    let name = prop_oneof![
        6 => Just("\"message\"".to_owned()),
        1 => Just("\"\\u006dessage\"".to_owned()),
        1 => value(),
    ];
    let typed = prop_oneof![
        4 => Just(r#""type":"auth""#.to_owned()),
        1 => Just(r#""\u0074ype" : "\u0061uth""#.to_owned()),
        1 => Just(r#""type":"close""#.to_owned()),
        1 => value().prop_map(|value| format!("\"type\":{value}")),
    ];
    let message = (object(text().boxed(), value().boxed()), typed, any::<bool>()).prop_map(
        |(object, typed, first)| {
            let inside = object[1..object.len() - 1].trim();
            match (inside.is_empty(), first) {
                (true, _) => format!("{{{typed}}}"),
                (false, true) => format!("{{{typed},{inside}}}"),
                (false, false) => format!("{{{inside},{typed}}}"),
            }
        },
    );
    let argument = prop_oneof![4 => message, 1 => value()];
    (header, name, blank(), argument, prop::collection::vec(value(), 0..3)).prop_map(
        |(header, name, gap, argument, more)| {
            let mut all = vec![name, argument];
            all.extend(more);
            format!("{header}[{gap}{}{gap}]", all.join(&format!("{gap},{gap}")))
        },
    )
}
