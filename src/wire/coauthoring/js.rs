//! JavaScript values, as far as the document server's rules look at them: truth, identity and `String()`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

/// The largest magnitude up to which every integer has its own double: 2^53.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The most digits of a fraction that any parser reads alike.
const MAX_DECIMAL_DIGITS: usize = 15;

/// A string of a JSON text, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(super) struct JsonText<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A value; of lists and objects only that they are some.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Js<'a> {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    List,
    Object,
}

impl<'a> Js<'a> {
    /// The value of a JSON text that was found well-formed; an absent one is undefined. `None` for a string that no
    /// Rust string can hold (a lone surrogate).
    pub(super) fn from_json(json: Option<&'a str>) -> Option<Self> {
        let Some(json) = json else { return Some(Self::Undefined) };
        Some(match json.bytes().next()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'[' => Self::List,
            b'{' => Self::Object,
            b'"' => Self::Text(serde_json::from_str::<JsonText<'a>>(json).ok()?.0),
            _ => Self::Number(json.parse().ok()?),
        })
    }

    pub(super) fn from_value(value: Option<&'a Value>) -> Self {
        match value {
            None => Self::Undefined,
            Some(Value::Null) => Self::Null,
            Some(Value::Bool(flag)) => Self::Bool(*flag),
            Some(Value::Number(number)) => number.as_f64().map_or(Self::Undefined, Self::Number),
            Some(Value::String(text)) => Self::Text(Cow::Borrowed(text)),
            Some(Value::Array(_)) => Self::List,
            Some(Value::Object(_)) => Self::Object,
        }
    }

    /// JavaScript's truth of the value.
    pub(super) fn is_truthy(&self) -> bool {
        match self {
            Self::Undefined | Self::Null => false,
            Self::Bool(flag) => *flag,
            Self::Number(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List | Self::Object => true,
        }
    }

    /// `null == value`
    pub(super) fn is_nullish(&self) -> bool {
        matches!(self, Self::Undefined | Self::Null)
    }

    /// `value === text`
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if own == text)
    }

    /// `String(value)`. `None` for lists and objects, and for numbers outside of the range in which it is certain
    /// that every parser reads them and every printer writes them alike.
    pub(super) fn to_js_string(&self) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Undefined => Cow::Borrowed("undefined"),
            Self::Null => Cow::Borrowed("null"),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(number) => Cow::Owned(number_to_string(*number)?),
            Self::Text(text) => text.clone(),
            Self::List | Self::Object => return None,
        })
    }
}

fn number_to_string(number: f64) -> Option<String> {
    if number == 0.0 {
        return Some("0".to_owned()); // of both signs
    }
    if !number.is_finite() {
        return None;
    }
    if number.fract() == 0.0 {
        return (number.abs() <= MAX_EXACT_INTEGER).then(|| number.to_string());
    }
    // JavaScript turns to exponents below 1e-6.
    let text = (number.abs() >= 1e-6).then(|| number.to_string())?;
    (text.bytes().filter(u8::is_ascii_digit).count() <= MAX_DECIMAL_DIGITS).then_some(text)
}

/// A claim's property: undefined where `value` has none.
pub(super) fn get<'v>(value: Option<&'v Value>, key: &str) -> Option<&'v Value> {
    value.and_then(|value| value.get(key))
}

/// The value if JavaScript takes it for true.
pub(super) fn truthy(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| Js::from_value(Some(value)).is_truthy())
}

/// Node's `isDeepStrictEqual` over values that come from JSON.
pub(super) fn deep_equal(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            // Object.is: zero and minus zero differ.
            left.as_f64().map(f64::to_bits) == right.as_f64().map(f64::to_bits)
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| deep_equal(Some(left), Some(right)))
        }
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| {
                    right.get(key).is_some_and(|other| deep_equal(Some(value), Some(other)))
                })
        }
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_are_javascripts() {
        for (json, expected) in [
            (r#""u1""#, Some("u1")),
            (r#""\u0075\u0031""#, Some("u1")),
            (r#""""#, Some("")),
            ("null", Some("null")),
            ("true", Some("true")),
            ("false", Some("false")),
            ("0", Some("0")),
            ("-0", Some("0")),
            ("-0.0e3", Some("0")),
            ("123", Some("123")),
            ("-7", Some("-7")),
            ("1.0", Some("1")),
            ("1.50", Some("1.5")),
            ("1e2", Some("100")),
            ("12E-1", Some("1.2")),
            ("0.000001", Some("0.000001")),
            ("0.0000001", None),
            ("9007199254740992", Some("9007199254740992")),
            ("9007199254740993", Some("9007199254740992")),
            ("9007199254740994", None),
            ("1e21", None),
            ("1e999", None),
            ("0.12345678901234", Some("0.12345678901234")),
            ("0.1234567890123456", None),
            ("[]", None),
            ("{}", None),
        ] {
            let value = Js::from_json(Some(json)).unwrap();
            assert_eq!(value.to_js_string().as_deref(), expected, "{json}");
        }
        assert_eq!(Js::from_json(None).unwrap().to_js_string().unwrap(), "undefined");
        assert_eq!(Js::from_json(Some(r#""\ud800""#)), None);
    }

    #[test]
    fn truth_is_javascripts() {
        for falsy in ["null", "false", "0", "-0", "0.0", "0e9", r#""""#] {
            assert!(!Js::from_json(Some(falsy)).unwrap().is_truthy(), "{falsy}");
        }
        for truthy in ["true", "1", "-1", "1e999", "\"0\"", "\" \"", "[]", "{}"] {
            assert!(Js::from_json(Some(truthy)).unwrap().is_truthy(), "{truthy}");
        }
        assert!(!Js::Undefined.is_truthy());
    }

    #[test]
    fn deep_equality_is_strict_and_ignores_order() {
        let pairs = [
            (
                json!({"a": 1, "b": [1, {"c": null}]}),
                json!({"b": [1, {"c": null}], "a": 1.0}),
                true,
            ),
            (json!({"a": 1}), json!({"a": "1"}), false),
            (json!({"a": 1}), json!({"a": 1, "b": null}), false),
            (json!([1, 2]), json!([2, 1]), false),
            (json!([]), json!({}), false),
            (json!(0), json!(-0.0), false),
            (json!(null), json!(false), false),
            (json!("x"), json!("x"), true),
        ];
        for (left, right, expected) in pairs {
            assert_eq!(deep_equal(Some(&left), Some(&right)), expected, "{left} {right}");
            assert_eq!(deep_equal(Some(&right), Some(&left)), expected, "{right} {left}");
        }
        assert!(!deep_equal(None, Some(&json!(null))));
    }
}
