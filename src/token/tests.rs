use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A token over `payload` with any header, signed as `algorithm`.
pub(crate) fn signed(header: &str, payload: &str, algorithm: &str, secret: &str) -> String {
    fn mac<M: Mac + hmac::digest::KeyInit>(secret: &str, text: &str) -> String {
        let mac = <M as Mac>::new_from_slice(secret.as_bytes()).unwrap();
        URL_SAFE_NO_PAD.encode(mac.chain_update(text).finalize().into_bytes())
    }
    let text = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = match algorithm {
        "HS256" => mac::<Hmac<Sha256>>(secret, &text),
        "HS384" => mac::<Hmac<Sha384>>(secret, &text),
        "HS512" => mac::<Hmac<Sha512>>(secret, &text),
        "none" => String::new(),
        other => panic!("no algorithm {other}"),
    };
    format!("{text}.{signature}")
}

/// An HS256 token over exactly these claims.
pub(crate) fn over(payload: &str, secret: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, payload, "HS256", secret)
}

pub(crate) const NOW: i64 = 1_795_300_000;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn secrets(names: &[&str]) -> Vec<Secret> {
    names.iter().map(|&name| Secret::new(name)).collect()
}

fn check(token: &str) -> Result<Value, TokenError> {
    verify(token, &secrets(&["secret"]), at(NOW))
}

/// Made by node `jsonwebtoken` 9.0.2 over `{c:'version',iat:1795300000,name:'你好 😀'}`.
const NODE: [&str; 3] = [
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjIjoidmVyc2lvbiIsImlhdCI6MTc5NTMwMDAwMCwibmFtZSI6IuS9oOWlvSDwn5iAIn0.iB4LitO5-J1HvM3QTMyFmCYf4U_kaEFAE5oV6_aEvIE",
    "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJjIjoidmVyc2lvbiIsImlhdCI6MTc5NTMwMDAwMCwibmFtZSI6IuS9oOWlvSDwn5iAIn0.lMXNOw2_zuyzcuKiePT4X_aaYoWdefzRjQ1BSWq45iaEQWGXgCrmdQkDfnT8EVUV",
    "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJjIjoidmVyc2lvbiIsImlhdCI6MTc5NTMwMDAwMCwibmFtZSI6IuS9oOWlvSDwn5iAIn0.uv_HoyqCkMr1-yC6_5zC_MpTx0MQ4obBBj0tutxmuOYMM3lySZk8ujeizUSA0I1M-cbCW4piPGlkQa2ci3spmw",
];

#[test]
fn tokens_made_by_node_are_verified() {
    let claims = json!({"c": "version", "iat": NOW, "name": "你好 😀"});
    for token in NODE {
        assert_eq!(check(token), Ok(claims.clone()));
        assert_eq!(verify(token, &secrets(&["new", "secret"]), at(NOW)), Ok(claims.clone()));
        assert_eq!(verify(token, &secrets(&["Secret", ""]), at(NOW)), Err(TokenError::Invalid));
        assert_eq!(verify(token, &[], at(NOW)), Err(TokenError::Invalid));
        assert_eq!(decode_unverified(token), Some(claims.clone()));
    }
}

#[test]
fn the_gateway_signs_as_node_does() {
    // node: jwt.sign({payload:{c:'license'},iat:1795300000,exp:1795300300}, 'secret')
    let node = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJwYXlsb2FkIjp7ImMiOiJsaWNlbnNlIn0sImlhdCI6MTc5NTMwMDAwMCwiZXhwIjoxNzk1MzAwMzAwfQ.hDgwG8VtebNGwP-DeNKoRaqsyW6C0EwPD-OMz5F3Z8k";
    let mut claims = Map::new();
    claims.insert("payload".to_owned(), json!({"c": "license"}));
    assert_eq!(sign(&claims, &Secret::new("secret"), at(NOW)), node);
    assert!(check(node).is_ok());
}

#[test]
fn times_have_a_minute_of_tolerance() {
    use TokenError::{Expired, Invalid};
    for (claims, expected) in [
        ("{}".to_owned(), None),
        (format!(r#"{{"exp":{}}}"#, NOW + 1), None),
        (format!(r#"{{"exp":{}}}"#, NOW - 30), None),
        (format!(r#"{{"exp":{}}}"#, NOW - 59), None),
        (format!(r#"{{"exp":{}.5}}"#, NOW - 60), None),
        (format!(r#"{{"exp":{}}}"#, NOW - 60), Some(Expired)),
        (format!(r#"{{"exp":{}}}"#, NOW - 3600), Some(Expired)),
        (r#"{"exp":-1}"#.to_owned(), Some(Expired)),
        (r#"{"exp":1e300}"#.to_owned(), None),
        (r#"{"exp":null}"#.to_owned(), Some(Invalid)),
        (r#"{"exp":"1"}"#.to_owned(), Some(Invalid)),
        (format!(r#"{{"nbf":{}}}"#, NOW + 60), None),
        (format!(r#"{{"nbf":{}}}"#, NOW + 61), Some(Invalid)),
        (r#"{"nbf":true}"#.to_owned(), Some(Invalid)),
        (format!(r#"{{"nbf":{},"exp":1}}"#, NOW + 3600), Some(Invalid)),
        (format!(r#"{{"iat":{}}}"#, NOW + 3600), None),
    ] {
        assert_eq!(check(&over(&claims, "secret")).err(), expected, "{claims}");
        // Whatever the times: without a good signature it is never "expired".
        assert_eq!(check(&over(&claims, "other")).err(), Some(Invalid), "{claims}");
    }
}

#[test]
fn what_is_no_token_is_invalid() {
    let good = over("{}", "secret");
    assert!(check(&good).is_ok());
    let long = over(&format!(r#"{{"x":"{}"}}"#, "x".repeat(MAX_TOKEN_BYTES)), "secret");
    let deep = over(&format!(r#"{{"x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000)), "secret");
    let with_header = |header: &str| signed(header, "{}", "HS256", "secret");
    for token in [
        "".to_owned(),
        "abc".to_owned(),
        "..".to_owned(),
        "a.b.c.d".to_owned(),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}="),
        format!("{good}.{good}"),
        good.trim_end_matches(|c| c != '.').to_owned(),
        // The last character of 43 carries two unused bits: another spelling of the same bytes.
        {
            let mut spelled = good.clone();
            let last = spelled.pop().unwrap();
            let index = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let at = index.find(last).unwrap();
            spelled.push(index.as_bytes()[at + 1] as char);
            spelled
        },
        with_header(r#"{"alg":"none"}"#),
        with_header(r#"{"alg":"hs256"}"#),
        with_header(r#"{"alg":"RS256"}"#),
        with_header(r#"{"alg":"HS512"}"#),
        with_header(r#"{"alg":["HS256"]}"#),
        with_header(r#"{"typ":"JWT"}"#),
        with_header("[]"),
        with_header(r#"["HS256"]"#),
        with_header(""),
        signed(r#"{"alg":"none","typ":"JWT"}"#, "{}", "none", ""),
        over("[]", "secret"),
        over("null", "secret"),
        over(r#""text""#, "secret"),
        over("{", "secret"),
        over("", "secret"),
        long,
        deep,
    ] {
        assert_eq!(check(&token), Err(TokenError::Invalid), "{token:.80}");
    }
}

#[test]
fn half_an_emoji_does_not_spoil_the_claims() {
    for (json, mended) in [
        (r#"{"n":"Ann \ud83d"}"#, "Ann \u{fffd}"),
        (r#"{"n":"\ude00 Ann"}"#, "\u{fffd} Ann"),
        (r#"{"n":"\ud83d\ud83d\ude00\\ud83d\\\ud83d"}"#, "\u{fffd}😀\\ud83d\\\u{fffd}"),
        (r#"{"n":"\ud83dx\u00e9\n\ud83d"}"#, "\u{fffd}xé\n\u{fffd}"),
    ] {
        assert_eq!(check(&over(json, "secret")), Ok(json!({ "n": mended })), "{json}");
    }
}

proptest! {
    #[test]
    fn any_text_does(token in "(\\PC*|[A-Za-z0-9_-]{0,20}(\\.[A-Za-z0-9_-]{0,20}){2})") {
        prop_assert_eq!(check(&token), Err(TokenError::Invalid));
        let _ = decode_unverified(&token);
    }

    #[test]
    fn any_payload_does(payload: String) {
        let _ = check(&over(&payload, "secret"));
        let _ = mend_lone_surrogates(&payload);
    }

    #[test]
    fn one_changed_character_spoils_a_token(at in 0..NODE[0].len(), to in "[A-Za-z0-9_.-]") {
        let mut token = NODE[0].to_owned();
        token.replace_range(at..=at, &to);
        prop_assume!(token != NODE[0]);
        prop_assert_eq!(check(&token), Err(TokenError::Invalid));
    }
}
