//! The key of a command as the reply echoes it: whatever JSON value it was, written as
//! `JSON.stringify` writes it.

use std::fmt;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::body;

/// A `key` ready to stand in a reply.
#[derive(Clone, PartialEq, Eq)]
pub struct EchoedKey(Box<str>);

impl EchoedKey {
    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Whether the key is a string, as the server wants of every command that needs one.
    pub fn is_string(&self) -> bool {
        self.0.starts_with('"')
    }

    /// The echo of a text.
    pub fn from_text(text: &str) -> Self {
        let mut out = Vec::with_capacity(text.len() + 2);
        write_string(&mut out, text.as_bytes());
        Self::from_utf8(out)
    }

    /// The echo of a JSON text out of a body. `None` for an object or array that serde_json does not
    /// read (deeper than 128, a lone surrogate, a number beyond a double): nobody's document.
    pub(super) fn from_json(json: &str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'"' => {
                let mut out = Vec::with_capacity(json.len());
                write_string(&mut out, &body::string(json)?);
                Some(Self::from_utf8(out))
            }
            b'-' | b'0'..=b'9' => {
                let mut out = String::new();
                write_number(&mut out, json.parse().ok()?);
                Some(Self(out.into()))
            }
            b'{' | b'[' => serde_json::from_str(json).ok().as_ref().map(Self::from_value),
            _ => Some(Self(json.into())),
        }
    }

    /// The echo of a claim.
    pub(super) fn from_value(value: &Value) -> Self {
        let mut out = String::new();
        write_value(&mut out, value);
        Self(out.into())
    }

    /// The echo of query parameters: one is a string, several are an array.
    pub(super) fn from_texts(texts: &[String]) -> Option<Self> {
        match texts {
            [] => None,
            [text] => Some(Self::from_text(text)),
            several => Some(Self::from_value(&several.iter().map(String::as_str).collect())),
        }
    }

    fn from_utf8(out: Vec<u8>) -> Self {
        Self(String::from_utf8_lossy(&out).into())
    }
}

impl fmt::Debug for EchoedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a JSON string. `characters` are UTF-8 or WTF-8; a surrogate that stands alone becomes an
/// escape (`\ud83d`), as in well-formed `JSON.stringify`.
pub(crate) fn write_string(out: &mut Vec<u8>, characters: &[u8]) {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let hex = |out: &mut Vec<u8>, digits: &[u8]| {
        out.extend_from_slice(b"\\u");
        for digit in digits {
            out.push(HEX.get(usize::from(*digit & 15)).map_or(b'0', |&digit| digit as u8));
        }
    };
    let stands_out = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0xED;
    out.push(b'"');
    let mut rest = characters;
    while let Some((plain, after)) =
        rest.iter().position(stands_out).and_then(|at| rest.split_at_checked(at))
    {
        out.extend_from_slice(plain);
        rest = match after {
            // U+D800 to U+DFFF; U+D000 to U+D7FF begin with the same byte.
            [0xED, second @ 0xA0..=0xBF, third, left @ ..] => {
                hex(out, &[0xD, second >> 2, (second << 2) | (third >> 4 & 3), *third]);
                left
            }
            [byte, left @ ..] => {
                match byte {
                    b'"' => out.extend_from_slice(b"\\\""),
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    0x08 => out.extend_from_slice(b"\\b"),
                    0x09 => out.extend_from_slice(b"\\t"),
                    0x0A => out.extend_from_slice(b"\\n"),
                    0x0C => out.extend_from_slice(b"\\f"),
                    0x0D => out.extend_from_slice(b"\\r"),
                    control @ ..0x20 => hex(out, &[0, 0, control >> 4, *control]),
                    other => out.push(*other),
                }
                left
            }
            [] => after,
        };
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Depth is bounded by the reader that made `value`.
fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => out.push_str(EchoedKey::from_text(text).as_json()),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => write_object(out, members),
    }
}

/// JavaScript's order: names that are array indices first, ascending, then the others as they came.
fn write_object(out: &mut String, members: &Map<String, Value>) {
    let index = |name: &str| {
        let index = name.parse::<u32>().ok().filter(|&index| index < u32::MAX)?;
        (index.to_string() == name).then_some(index)
    };
    let mut ordered: Vec<_> =
        members.iter().map(|(name, value)| (index(name), name, value)).collect();
    ordered.sort_by_key(|(index, ..)| index.map_or(u64::MAX, u64::from));
    out.push('{');
    for (at, (_, name, value)) in ordered.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(EchoedKey::from_text(name).as_json());
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

/// ECMAScript's `Number::toString`, and `null` for what is not finite.
fn write_number(out: &mut String, number: f64) {
    if !number.is_finite() {
        return out.push_str("null");
    }
    if number == 0.0 {
        return out.push('0');
    }
    if number < 0.0 {
        out.push('-');
    }
    // Rust's shortest digits are ECMAScript's: "1.5e-7" is the digits 15 and the exponent -7.
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    // The decimal point stands behind the digit of this number.
    let point = exponent + 1;
    if count <= point && point <= 21 {
        out.push_str(&digits);
        out.push_str(&zeros(point - count));
    } else if 0 < point && point <= 21 {
        let (whole, fraction) =
            digits.split_at_checked(usize::try_from(point).unwrap_or(0)).unwrap_or((&digits, ""));
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    } else if -6 < point && point <= 0 {
        out.push_str("0.");
        out.push_str(&zeros(-point));
        out.push_str(&digits);
    } else {
        out.push_str(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a string cannot fail.
        let _ = write!(out, "e{sign}{}", exponent.abs());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_written_as_json_stringify_writes_them() {
        // Left: a body's key; right: node's JSON.stringify(JSON.parse(left)).
        for (json, echoed) in [
            (r#""k9""#, r#""k9""#),
            (r#""\u006b9\/""#, r#""k9/""#),
            (
                r#""\ud83d\ude00 \ud83d \ude00 \uD83D\ud83d\ude00""#,
                r#""😀 \ud83d \ude00 \ud83d😀""#,
            ),
            (
                "\"\\u0000\\u001f\u{7f}\u{2028}\\b\\t\\n\\f\\r\\\"\\\\\"",
                "\"\\u0000\\u001f\u{7f}\u{2028}\\b\\t\\n\\f\\r\\\"\\\\\"",
            ),
            ("\"\u{d000}\u{d7ff}\u{e000}\"", "\"\u{d000}\u{d7ff}\u{e000}\""),
            ("null", "null"),
            ("true", "true"),
            ("1.0", "1"),
            ("-0", "0"),
            ("1e400", "null"),
            ("-1e400", "null"),
            ("1e21", "1e+21"),
            ("123456789012345680000", "123456789012345680000"),
            ("18446744073709551615", "18446744073709552000"),
            ("0.000001", "0.000001"),
            ("1.5e-7", "1.5e-7"),
            ("-12.25", "-12.25"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            (r#"[1.50,"a",{"b":null}]"#, r#"[1.5,"a",{"b":null}]"#),
            (r#"{"b":1,"10":2,"a":3,"9":4,"b":5,"01":6}"#, r#"{"9":4,"10":2,"b":5,"a":3,"01":6}"#),
        ] {
            let key = EchoedKey::from_json(json);
            assert_eq!(key.as_ref().map(EchoedKey::as_json), Some(echoed), "{json}");
        }
        assert_eq!(EchoedKey::from_json(&"[".repeat(200)), None);
    }

    proptest! {
        #[test]
        fn a_string_is_escaped_as_serde_does(text in any::<String>()) {
            let key = EchoedKey::from_text(&text);
            prop_assert_eq!(key.as_json(), serde_json::to_string(&text).unwrap());
            prop_assert!(key.is_string());
        }

        #[test]
        fn a_number_keeps_its_value(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let mut out = String::new();
            write_number(&mut out, number);
            prop_assert_eq!(out.parse::<f64>().unwrap(), number);
        }
    }
}
