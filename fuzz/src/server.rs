//! The document server's reading of what a client says, written down a second time: Engine.IO and
//! Socket.IO packets as `engine.io-parser` 5 and `socket.io-parser` 4.2 take them apart, JSON as
//! `JSON.parse` does, an `auth` by the rules of the co-authoring service.

use serde_json::Value;

/// What the server makes of one text packet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// The server ends the session.
    Ends,
    /// An Engine.IO packet that carries no message: `1`, `2`, `3`, `5`, `6`…
    Engine(char),
    Connect,
    Disconnect,
    /// An event's arguments. With attachments it takes effect when so many binary messages came; 0 in
    /// a binary event: at once, but no further text may follow.
    Event {
        arguments: Value,
        attachments: Option<f64>,
    },
    Ack,
    /// For a namespace that the server does not have: it ends the session.
    Foreign,
}

impl Reading {
    /// The co-authoring message of an event that is delivered, sooner or later.
    pub(crate) fn message(&self) -> Option<&Value> {
        match self {
            Self::Event { arguments, .. } => {
                let name = arguments.get(0).and_then(Value::as_str);
                arguments.get(1).filter(|message| name == Some("message") && message.is_object())
            }
            Self::Ends
            | Self::Engine(_)
            | Self::Connect
            | Self::Disconnect
            | Self::Ack
            | Self::Foreign => None,
        }
    }

    pub(crate) fn is_message(&self, kind: &str) -> bool {
        self.message().is_some_and(|message| message["type"] == kind)
    }
}

/// `JSON.parse`, but for numbers beyond a double and more than 128 levels.
pub(crate) fn parse_json(text: &str) -> Option<Value> {
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_surrogates(text))).ok()
}

/// Every `\uD8xx`…`\uDFxx` becomes a question mark: JavaScript's strings may hold half a pair.
fn without_surrogates(json: &str) -> String {
    let mut bytes = json.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            let is_surrogate = matches!(
                bytes.get(at + 1..at + 4),
                Some([b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F'])
            );
            let digits = bytes.get(at + 4..at + 6);
            if is_surrogate && digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            {
                bytes[at + 2..at + 6].copy_from_slice(b"003f");
            }
            at += 1;
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// JavaScript's white space, as `Number(text)` trims it.
fn is_blank(letter: char) -> bool {
    letter == '\u{feff}' || (letter.is_whitespace() && letter != '\u{85}')
}

/// `Number(c) == c` for one character.
fn counts_as_digit(letter: char) -> bool {
    letter.is_ascii_digit() || is_blank(letter)
}

/// `Number(text)`, if it equals the text that it was made from.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_blank);
    if text.is_empty() {
        return Some(0.0);
    }
    let radix = match text.get(..2) {
        Some("0x" | "0X") => 16,
        Some("0o" | "0O") => 8,
        Some("0b" | "0B") => 2,
        _ => {
            let plain = text.bytes().all(|byte| b"0123456789.eE+-".contains(&byte));
            return if plain { text.parse().ok() } else { None };
        }
    };
    u64::from_str_radix(&text[2..], radix).ok().map(|number| number as f64)
}

/// Reads one packet.
pub(crate) fn read(packet: &str) -> Reading {
    let mut letters = packet.chars();
    match letters.next() {
        Some('4') => read_socket_packet(letters.as_str()),
        Some(kind @ '0'..='6') => Reading::Engine(kind),
        _ => Reading::Ends,
    }
}

fn read_socket_packet(text: &str) -> Reading {
    let mut letters = text.chars();
    // `Number("")` and `Number(" ")` are 0.
    let kind = match letters.next() {
        None => '0',
        Some(blank) if is_blank(blank) => '0',
        Some(kind @ '0'..='6') => kind,
        Some(_) => return Reading::Ends,
    };
    let mut rest = letters.as_str();
    let mut attachments = None;
    if matches!(kind, '5' | '6') {
        let Some((count, after)) = rest.split_once('-') else { return Reading::Ends };
        let Some(count) = number(count) else { return Reading::Ends };
        attachments = Some(count);
        rest = after;
    }
    let mut foreign = false;
    if rest.starts_with('/') {
        let (namespace, after) = rest.split_once(',').unwrap_or((rest, ""));
        foreign = namespace != "/";
        rest = after;
    }
    rest = rest.trim_start_matches(counts_as_digit);
    let data = if rest.is_empty() {
        None
    } else {
        match parse_json(rest) {
            Some(data) => Some(data),
            None => return Reading::Ends,
        }
    };
    let is_object = data.as_ref().is_none_or(|data| data.is_object() || data.is_array());
    let arguments = data.unwrap_or_else(|| Value::Array(Vec::new()));
    let reading = match kind {
        '0' if is_object => Reading::Connect,
        '1' if rest.is_empty() => Reading::Disconnect,
        '2' | '5' if is_event(&arguments, rest) => Reading::Event { arguments, attachments },
        '3' | '6' => Reading::Ack,
        _ => return Reading::Ends,
    };
    if foreign { Reading::Foreign } else { reading }
}

/// The names that no client may give to an event.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

fn is_event(arguments: &Value, text: &str) -> bool {
    if text.is_empty() {
        return true; // an event without arguments is nobody's
    }
    let name = arguments.as_array().and_then(|arguments| arguments.first());
    name.is_some_and(|name| match name {
        Value::String(name) => !RESERVED.contains(&name.as_str()),
        other => other.is_number(),
    })
}

/// What a session is for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Editor,
    LiveViewer,
    Viewer,
}

/// JavaScript's truth.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// `String(value)` of what no list or object is.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if number == 0.0 { "0".to_owned() } else { number.to_string() }
        }
        other => other.to_string(),
    }
}

/// Whether the server acts on an `auth` at all.
pub(crate) fn is_heard(message: &Value) -> bool {
    truthy(&message["token"]) && truthy(&message["user"])
}

/// Who opens what as what. `claims` are those of an opening or session token, not of WOPI or version
/// history ([`is_plain_token`]).
pub(crate) struct Opening {
    pub(crate) class: Class,
    pub(crate) user: Value,
    /// The message's permissions are not the token's: the server refuses.
    pub(crate) differs: bool,
}

/// Whether these are claims of the kind that [`open`] knows.
pub(crate) fn is_plain_token(claims: &Value) -> bool {
    !truthy(&claims["fileInfo"]) && !truthy(&claims["version"])
}

/// The rules of an `auth` with or without a token.
pub(crate) fn open(message: &Value, claims: &Value) -> Opening {
    let config = &claims["editorConfig"];
    let is_said = |value: &Value| value == "view";
    let claimed_mode = &config["mode"];
    let views = is_said(&message["mode"]) || (!claimed_mode.is_null() && is_said(claimed_mode));
    let permissions = &message["permissions"];
    let claimed = &claims["document"]["permissions"];
    let may = |key: &str| permissions[key] == Value::Bool(true);
    let restricted = permissions["edit"] == Value::Bool(false)
        && !(may("review") || may("comment") || may("fillForms"));
    let co_editing = &config["coEditing"];
    let fast = if truthy(&co_editing["mode"]) {
        let kind = claims["document"]["fileType"].as_str().unwrap_or_default();
        let strict = ["pdf", "djvu", "xps", "oxps"].contains(&kind) || claims["type"] == "embedded";
        !strict && (truthy(&co_editing["change"]) || co_editing["mode"] == "fast")
    } else {
        message["coEditingMode"] == "fast"
    };
    let class = match (views || restricted, fast) {
        (false, _) => Class::Editor,
        (true, true) => Class::LiveViewer,
        (true, false) => Class::Viewer,
    };
    let claimed_user = &config["user"]["id"];
    let user = if truthy(claimed_user) { claimed_user } else { &message["user"]["id"] };
    Opening { class, user: user.clone(), differs: truthy(claimed) && !same(claimed, permissions) }
}

/// Equality of JSON values; numbers are doubles.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let has = |(key, value): (&String, &Value)| {
                right.get(key).is_some_and(|other| same(value, other))
            };
            left.len() == right.len() && left.iter().all(has)
        }
        (left, right) => left == right,
    }
}
