//! A body's bytes to a licence key and a device id.
//!
//! Strict where another reading could bind another device: a key that comes twice, a wrong type, an
//! empty or overlong value are errors that name the field. Fields that the API does not know are
//! passed over. A device id is compared byte for byte: no Unicode normalisation, no trimming, no
//! letter case; any character may be in it, NUL and control characters included.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The longest body, in bytes (INTERFACE.md section 4).
pub const BODY_LIMIT: usize = 64 * 1024;

/// The longest licence key and device id, in characters (Unicode scalar values).
pub const FIELD_LIMIT: usize = 256;

/// What a client asks.
#[derive(Clone, PartialEq, Eq)]
pub struct ValidationRequest {
    pub licence_key: String,
    pub device_id: String,
}

impl fmt::Debug for ValidationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidationRequest")
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// A field of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    LicenceKey,
    DeviceId,
}

impl Field {
    /// Its name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::LicenceKey => "licenceKey",
            Self::DeviceId => "deviceId",
        }
    }
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    Method,
    TooLarge,
    TooSlow,
    MediaType,
    NotJson,
    NotAnObject,
    Missing(Field),
    Twice(Field),
    NotAString(Field),
    Empty(Field),
    TooLong(Field),
}

impl ValidationRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        if !matches!(body.trim_ascii_start().first(), Some(b'{')) {
            let other = serde_json::from_slice::<IgnoredAny>(body).is_ok();
            return Err(if other { Problem::NotAnObject } else { Problem::NotJson });
        }
        let fields: Fields<'_> = serde_json::from_slice(body).map_err(|_| Problem::NotJson)?;
        Ok(Self {
            licence_key: text(Field::LicenceKey, &fields.licence_key)?,
            device_id: text(Field::DeviceId, &fields.device_id)?,
        })
    }
}

/// The values of a field, as they stand.
#[derive(Default)]
struct Fields<'a> {
    licence_key: Found<'a>,
    device_id: Found<'a>,
}

#[derive(Default)]
enum Found<'a> {
    #[default]
    Nothing,
    Once(&'a RawValue),
    Twice,
}

impl<'a> Found<'a> {
    fn add(&mut self, value: &'a RawValue) {
        *self = match self {
            Self::Nothing => Self::Once(value),
            Self::Once(_) | Self::Twice => Self::Twice,
        };
    }
}

/// Reads the whole object, so that what follows is looked at too.
impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let field = match &*name {
                        "licenceKey" => &mut fields.licence_key,
                        "deviceId" => &mut fields.device_id,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    field.add(map.next_value().map_err(M::Error::custom)?);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

fn text(field: Field, found: &Found<'_>) -> Result<String, Problem> {
    let raw = match found {
        Found::Nothing => return Err(Problem::Missing(field)),
        Found::Twice => return Err(Problem::Twice(field)),
        Found::Once(raw) => raw.get(),
    };
    if !raw.starts_with('"') {
        return Err(Problem::NotAString(field));
    }
    // A string that is none: half of a surrogate pair.
    let text: String = serde_json::from_str(raw).map_err(|_| Problem::NotJson)?;
    match text.chars().take(FIELD_LIMIT + 1).count() {
        0 => Err(Problem::Empty(field)),
        1..=FIELD_LIMIT => Ok(text),
        _ => Err(Problem::TooLong(field)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str) -> Result<(String, String), Problem> {
        ValidationRequest::parse(body.as_bytes()).map(|read| (read.licence_key, read.device_id))
    }

    fn ok(key: &str, device: &str) -> Result<(String, String), Problem> {
        Ok((key.to_owned(), device.to_owned()))
    }

    #[test]
    fn bodies() {
        use Field::{DeviceId, LicenceKey};
        let long = "x".repeat(257);
        let wide = "🦀".repeat(256);
        let deep = "[".repeat(30_000);
        for (body, expected) in [
            (r#"{"licenceKey":"k","deviceId":"d"}"#, ok("k", "d")),
            (" {\"deviceId\" : \"d\" ,\n\"licenceKey\":\"k\"}\r\n", ok("k", "d")),
            (r#"{"licenceKey":"k","deviceId":"d","x":{"deviceId":1},"x":2}"#, ok("k", "d")),
            (r#"{"licence\u004bey":"\u006b","deviceId":"a\u0000\ud83e\udd80"}"#, ok("k", "a\0🦀")),
            (&format!(r#"{{"licenceKey":"k","deviceId":"{wide}"}}"#), ok("k", &wide)),
            ("", Err(Problem::NotJson)),
            ("{", Err(Problem::NotJson)),
            ("null", Err(Problem::NotAnObject)),
            (r#"["k","d"]"#, Err(Problem::NotAnObject)),
            (r#"{"licenceKey":"k","deviceId":"d"}{}"#, Err(Problem::NotJson)),
            (r#"{"licenceKey":"k","deviceId":"d",}"#, Err(Problem::NotJson)),
            ("\u{feff}{}", Err(Problem::NotJson)),
            (r#"{'licenceKey':'k'}"#, Err(Problem::NotJson)),
            (r#"{"licenceKey":"k","deviceId":"\ud800"}"#, Err(Problem::NotJson)),
            (&format!(r#"{{"x":{deep}"#), Err(Problem::NotJson)),
            (&format!(r#"{{"deviceId":{deep}"#), Err(Problem::NotJson)),
            ("{}", Err(Problem::Missing(LicenceKey))),
            (r#"{"licencekey":"k","deviceId":"d"}"#, Err(Problem::Missing(LicenceKey))),
            (r#"{"licenceKey":"k"}"#, Err(Problem::Missing(DeviceId))),
            (r#"{"licenceKey":1,"deviceId":"d"}"#, Err(Problem::NotAString(LicenceKey))),
            (r#"{"licenceKey":null,"deviceId":"d"}"#, Err(Problem::NotAString(LicenceKey))),
            (r#"{"licenceKey":"k","deviceId":["d"]}"#, Err(Problem::NotAString(DeviceId))),
            (r#"{"licenceKey":"","deviceId":"d"}"#, Err(Problem::Empty(LicenceKey))),
            (r#"{"licenceKey":"k","deviceId":""}"#, Err(Problem::Empty(DeviceId))),
            (r#"{"licenceKey":"k","deviceId":"d","deviceId":"d"}"#, Err(Problem::Twice(DeviceId))),
            (
                r#"{"licenceKey":"k","licence\u004bey":"k","deviceId":"d"}"#,
                Err(Problem::Twice(LicenceKey)),
            ),
            (
                &format!(r#"{{"licenceKey":"{long}","deviceId":"d"}}"#),
                Err(Problem::TooLong(LicenceKey)),
            ),
            (
                &format!(r#"{{"licenceKey":"k","deviceId":"{wide}🦀"}}"#),
                Err(Problem::TooLong(DeviceId)),
            ),
        ] {
            assert_eq!(parse(body), expected, "{}", body.chars().take(80).collect::<String>());
        }
        let invalid = b"{\"licenceKey\":\"k\",\"deviceId\":\"\xff\"}";
        assert_eq!(ValidationRequest::parse(invalid), Err(Problem::NotJson));
        let shown = ValidationRequest::parse(br#"{"licenceKey":"secret","deviceId":"d"}"#).unwrap();
        assert!(!format!("{shown:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn any_texts_come_through_unchanged(key in ".{1,256}", device in any::<String>()) {
            let body = serde_json::json!({"licenceKey": key, "deviceId": device}).to_string();
            let expected = match device.chars().count() {
                0 => Err(Problem::Empty(Field::DeviceId)),
                1..=256 => ok(&key, &device),
                _ => Err(Problem::TooLong(Field::DeviceId)),
            };
            prop_assert_eq!(parse(&body), expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ValidationRequest::parse(&body);
        }
    }
}
