//! The parameters out of a query string, read as express reads it (qs 6.13, `allowPrototypes`).
//!
//! qs makes objects and arrays of brackets and repetitions, takes `[c]=x` for `c=x`, and reads the
//! first thousand parameters. Only three plain names matter here; whatever touches `c` in another
//! way and says `license` is [`Named::Unclear`].

use std::borrow::Cow;

use super::{KeyParam, LICENSE, Named, Params, TokenParam};

/// Parameters that qs reads; the rest it drops.
const PARAMETER_LIMIT: usize = 1000;

/// The parameters of a raw query string.
pub(super) fn params(query: &[u8]) -> Params<'static> {
    let mut c = Values::default();
    let mut token = Values::default();
    let mut key = Vec::new();
    // Node reads header bytes as Latin-1 characters.
    let text: String = query.iter().copied().map(char::from).collect();
    // With these in the target node's URL parser cuts and trims the query before qs sees it.
    let is_mangled = query.iter().any(|byte| !matches!(byte, 0x21..=0x7E) || *byte == b'#');
    for (at, part) in unbracket(&text).split('&').enumerate() {
        let (name, value) = split(part);
        let (name, value) = (decode(name), decode(value));
        let (root, is_plain) = root(&name);
        let is_plain = is_plain && at < PARAMETER_LIMIT && !is_mangled;
        match root {
            "c" => c.add(value, is_plain),
            "token" => token.add(value, is_plain),
            "key" if is_plain => key.push(value.into_owned()),
            _ => {}
        }
    }
    Params {
        named: c.named(),
        key: if key.is_empty() { KeyParam::Absent } else { KeyParam::Texts(key) },
        token: token.token(),
    }
}

/// The values that a name was given.
#[derive(Default)]
struct Values {
    values: Vec<String>,
    is_odd: bool,
}

impl Values {
    fn add(&mut self, value: Cow<'_, str>, is_plain: bool) {
        self.values.push(value.into_owned());
        self.is_odd |= !is_plain;
    }

    fn named(&self) -> Named {
        match self.values.as_slice() {
            [value] if !self.is_odd && value == LICENSE => Named::License,
            [_] if !self.is_odd => Named::Other,
            values if values.iter().any(|value| value.contains(LICENSE)) => Named::Unclear,
            _ => Named::Other,
        }
    }

    fn token(mut self) -> TokenParam<'static> {
        match (self.values.len(), self.values.pop()) {
            (1, Some(value)) if !self.is_odd && value.is_empty() => TokenParam::Absent,
            (1, Some(value)) if !self.is_odd => TokenParam::Text(Cow::Owned(value)),
            (_, Some(_)) => TokenParam::Odd,
            (_, None) => TokenParam::Absent,
        }
    }
}

/// Encoded brackets count as brackets.
fn unbracket(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("%5B", "[").replace("%5b", "[").replace("%5D", "]").replace("%5d", "]"))
}

/// A part at its `=`: the one of the first `]=`, else the first.
fn split(part: &str) -> (&str, &str) {
    match part.split_once("]=") {
        Some((name, value)) => (part.get(..=name.len()).unwrap_or(name), value),
        None => part.split_once('=').unwrap_or((part, "")),
    }
}

/// The name under which qs keeps a parameter at the top, and whether it is the whole name.
fn root(name: &str) -> (&str, bool) {
    // The first `[…]` without brackets inside.
    let mut from = 0;
    while let Some(open) = name.get(from..).and_then(|rest| rest.find('[')).map(|at| from + at) {
        let inside = name.get(open + 1..).unwrap_or("");
        match inside.find(['[', ']']) {
            Some(close) if inside.get(close..).is_some_and(|end| end.starts_with(']')) => {
                let before = name.get(..open).unwrap_or("");
                let root = if open == 0 { inside.get(..close).unwrap_or("") } else { before };
                return (root, false);
            }
            Some(next) => from = open + 1 + next,
            None => break,
        }
    }
    (name, true)
}

/// `+` is a space, then `decodeURIComponent`; what that refuses stays encoded.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    match decode_uri_component(&spaced) {
        Some(decoded) => Cow::Owned(decoded),
        None => Cow::Owned(spaced),
    }
}

/// `None` for a `%` without two hex digits, and for octets that are not UTF-8.
fn decode_uri_component(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((before, encoded)) = rest.split_once('%') {
        decoded.push_str(before);
        octets.clear();
        let mut run = Some(encoded);
        while let Some(encoded) = run {
            let digits = encoded.get(..2)?;
            // `from_str_radix` takes a sign, too.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            octets.push(u8::from_str_radix(digits, 16).ok()?);
            rest = encoded.get(2..)?;
            run = rest.strip_prefix('%');
        }
        decoded.push_str(std::str::from_utf8(&octets).ok()?);
    }
    decoded.push_str(rest);
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(query: &str) -> Named {
        params(query.as_bytes()).named
    }

    #[test]
    fn c_is_read_as_qs_reads_it() {
        use Named::{License, Other, Unclear};
        for (query, expected) in [
            ("c=license", License),
            ("x=1&c=license&y", License),
            ("%63=%6cicense", License),
            ("%63=%6Cicense&", License),
            ("&&c=license", License),
            ("?c=license", Other),
            ("c=License", Other),
            ("C=license", Other),
            ("c=license+", Other),
            ("c=+license", Other),
            ("c=version", Other),
            ("c", Other),
            ("", Other),
            ("cc=license", Other),
            ("a[c]=license", Other),
            ("c=license&c=license", Unclear),
            ("c=license&c=version", Unclear),
            ("c=version&c=license", Unclear),
            ("c=version&c=version", Other),
            ("c[]=license", Unclear),
            ("c[0]=license", Unclear),
            ("c%5B%5D=license", Unclear),
            ("[c]=license", Unclear),
            ("[c]=version", Other),
            ("%5bc%5d=license", Unclear),
            ("%5Bc%5D=%6cicense", Unclear),
            ("c=license&[c]=", Unclear),
            ("[[c]=license", Other),
            ("c[=license", Other),
            ("c]=license", Other),
            ("c=license]=x", Other),
            ("c=%license", Other),
            ("c=license#x", Unclear),
            ("#&c=license", Unclear),
            ("c=%6c%69%63%65%6e%73%65", License),
            ("%2563=license", Other),
        ] {
            assert_eq!(named(query), expected, "{query}");
        }
        assert_eq!(params(b"c=license\xa0").named, Unclear);
        assert_eq!(params(b"c=version&x=\xff").named, Other);
        assert_eq!(named(&format!("{}c=license", "a&".repeat(999))), License);
        assert_eq!(named(&format!("{}c=license", "a&".repeat(1000))), Unclear);
    }

    #[test]
    fn components_are_decoded_as_javascript_does() {
        for (encoded, decoded) in [
            ("a+b%20c", "a b c"),
            ("%E4%BD%A0%e5%a5%bd", "你好"),
            ("%F0%9F%98%80", "😀"),
            ("%", "%"),
            ("%4", "%4"),
            ("%+1", "% 1"),
            ("%zz", "%zz"),
            ("%c3", "%c3"),
            ("%41%c3+", "%41%c3 "),
            ("%ED%A0%80", "%ED%A0%80"),
            ("%C0%80", "%C0%80"),
            ("%00", "\0"),
        ] {
            assert_eq!(decode(encoded), decoded, "{encoded}");
        }
    }
}
