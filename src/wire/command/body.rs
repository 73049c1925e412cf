//! The parameters out of a JSON body, read as `JSON.parse` reads it.
//!
//! serde_json's typed reading is narrower than `JSON.parse` (it refuses lone surrogates, numbers
//! beyond a double, nesting beyond 128), and its reading of strings as bytes is wider (control
//! characters). A body that one end reads and the other does not would let the license command slip
//! by in the query. Hence two passes: the first checks the grammar alone and has no limits, iterating
//! rather than recursing; the second picks the members.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{KeyParam, LICENSE, Named, Params, TokenParam};

/// The parameters of a body; `None` where the server falls back to the query: the body does not
/// parse, or its value is falsy.
pub(super) fn params(text: &str) -> Option<Params<'_>> {
    let whole: &RawValue = serde_json::from_str(text).ok()?;
    let text = whole.get();
    match text.as_bytes().first()? {
        b'{' => {
            let members = serde_json::Deserializer::from_str(text).deserialize_map(Members).ok()?;
            Some(members.params())
        }
        // A value without members asks nothing, unless a header's token does.
        _ if is_truthy(text) => {
            Some(Params { named: Named::Other, key: KeyParam::Absent, token: TokenParam::Absent })
        }
        _ => None,
    }
}

/// JavaScript's truth of a JSON value.
fn is_truthy(json: &str) -> bool {
    match json.as_bytes().first() {
        Some(b'n' | b'f') | None => false,
        Some(b'"') => json != r#""""#,
        Some(b'-' | b'0'..=b'9') => json.parse().is_ok_and(|number: f64| number != 0.0),
        Some(_) => true,
    }
}

/// The characters of a JSON string in WTF-8 (UTF-8 in which surrogates may stand alone); `None` for
/// another kind of value.
pub(super) fn string(json: &str) -> Option<Cow<'_, [u8]>> {
    serde_json::Deserializer::from_str(json).deserialize_bytes(Characters).ok()
}

/// The members that count, the last of each name.
#[derive(Default)]
struct Found<'a> {
    c: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
}

impl<'a> Found<'a> {
    fn params(&self) -> Params<'a> {
        let is_license = |c: &RawValue| string(c.get()).as_deref() == Some(LICENSE.as_bytes());
        Params {
            named: if self.c.is_some_and(is_license) { Named::License } else { Named::Other },
            key: self.key.map_or(KeyParam::Absent, |key| KeyParam::Json(key.get())),
            token: self.token.map_or(TokenParam::Absent, |token| token_param(token.get())),
        }
    }
}

fn token_param(json: &str) -> TokenParam<'_> {
    if !is_truthy(json) {
        return TokenParam::Absent;
    }
    let text = string(json).map(|characters| match characters {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    });
    text.flatten().map_or(TokenParam::Odd, TokenParam::Text)
}

/// Picks the [`Found`] members of an object.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::default();
        while let Some(name) = map.next_key_seed(Characters)? {
            match &*name {
                b"c" => found.c = Some(map.next_value()?),
                b"key" => found.key = Some(map.next_value()?),
                b"token" => found.token = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Reads a string as bytes, in which serde_json lets a surrogate stand alone.
struct Characters;

impl<'de> DeserializeSeed<'de> for Characters {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Characters {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}
