use proptest::prelude::*;

use super::*;
use crate::token::tests::{NOW, at, over, signed};

const SECRET: &str = "secret";

fn ask(
    query: &str,
    body: &[u8],
    authorization: Option<&str>,
    secrets: Option<&[Secret]>,
) -> CommandRequest {
    let input = CommandInput {
        query: query.as_bytes(),
        body,
        authorization: authorization.map(str::as_bytes),
    };
    read(&input, secrets, at(NOW))
}

/// With tokens off.
fn open(query: &str, body: &str) -> CommandRequest {
    ask(query, body.as_bytes(), None, None)
}

/// With tokens on.
fn guarded(query: &str, body: &str, authorization: Option<&str>) -> CommandRequest {
    ask(query, body.as_bytes(), authorization, Some(&[Secret::new(SECRET)]))
}

/// A request as the tables write it: `license`, `license "k9"`, `forward`, or the reply's body.
fn told(request: &CommandRequest) -> String {
    match request {
        CommandRequest::License { key: None } => "license".to_owned(),
        CommandRequest::License { key: Some(key) } => format!("license {}", key.as_json()),
        CommandRequest::Other => "forward".to_owned(),
        CommandRequest::Answer(reply) => String::from_utf8(reply.body().to_vec()).unwrap(),
    }
}

#[test]
fn what_the_server_was_seen_to_read_without_tokens() {
    // Seed: a body with spaces and line ends.
    let seed = "{\n  \"c\": \"license\"\n}\n";
    for (query, body, expected) in [
        ("", r#"{"c":"license"}"#, "license"),
        ("", seed, "license"),
        ("", r#"{"c":"version"}"#, "forward"),
        ("", r#"{"c":"nonsense"}"#, "forward"),
        ("", r#"{"c":"nonsense","key":"k1"}"#, "forward"),
        ("", r#"{"c":"info","key":"nokey"}"#, "forward"),
        ("", r#"{"c":"info"}"#, "forward"),
        ("", r#"{"c":"drop","key":"nokey"}"#, "forward"),
        ("", r#"{"c":"forcesave","key":"nokey"}"#, "forward"),
        ("", r#"{"c":"meta","key":"nokey"}"#, "forward"),
        ("", r#"{"c":"getForgottenList"}"#, "forward"),
        ("", r#"{"c":"License"}"#, "forward"),
        ("", r#"{"c":"license","key":"k9"}"#, r#"license "k9""#),
        ("", "{c:license", "forward"),
        ("c=version", "{c:license", "forward"),
        ("c=license", "{c:license", "license"),
        ("", "[1]", "forward"),
        ("", "null", "forward"),
        ("", r#""license""#, "forward"),
        ("", "", "forward"),
        ("c=version", "", "forward"),
        ("c=license", "", "license"),
        ("c=license", r#"{"c":"version"}"#, "forward"),
        ("c=version", r#"{"c":"license"}"#, "license"),
        ("c=license&key=k9", "", r#"license "k9""#),
    ] {
        assert_eq!(told(&open(query, body)), expected, "{query} {body}");
    }
}

#[test]
fn every_disguise_of_license_is_seen() {
    let deep = format!(r#"{{"c":"license","x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let deep_key = format!(r#"{{"c":"license","key":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    for (query, body, expected) in [
        ("", deep.as_str(), "license"),
        ("", deep_key.as_str(), "license"),
        ("", r#"{"c":"version","c":"license"}"#, "license"),
        ("", r#"{"c":"license","c":"version"}"#, "forward"),
        ("", r#"{"\u0063":"\u006cicense"}"#, "license"),
        ("", r#"{"c":"version","\u0063":"license"}"#, "license"),
        ("", r#"{"c":"license","\ud800":1}"#, "license"),
        ("", r#"{"c":"license","x":"\ud800"}"#, "license"),
        ("", r#"{"c":"license","x":1e400}"#, "license"),
        ("", r#"{"c":"license","x":-0.0e-999}"#, "license"),
        ("", r#"{"c":"license","key":"\ud800"}"#, r#"license "\ud800""#),
        ("", r#"{"c":"license","key":12.50}"#, "license 12.5"),
        ("", r#"{"c":"license","key":null}"#, "license null"),
        ("", r#"{"c":"license","key":"a","key":"b"}"#, r#"license "b""#),
        ("", r#"{"c":"license","key":{"a":[1,"x"]}}"#, r#"license {"a":[1,"x"]}"#),
        ("", r#"{"c":"license","__proto__":{"c":"version"}}"#, "license"),
        ("", r#"{"__proto__":{"c":"license"}}"#, "forward"),
        ("", r#"{"c":["license"]}"#, "forward"),
        ("", r#"{"c":"license\u0000"}"#, "forward"),
        ("", r#"[{"c":"license"}]"#, "forward"),
        // Not JSON to JSON.parse: the query counts.
        ("c=license", "{\"x\":\"a\nb\",\"c\":\"version\"}", "license"),
        ("c=license", "{\"x\ny\":1,\"c\":\"version\"}", "license"),
        ("c=license", "\u{feff}{\"c\":\"version\"}", "license"),
        ("c=license", r#"{"c":"version"} x"#, "license"),
        ("c=license", r#"{"c":"version",}"#, "license"),
        ("c=license", r#"{"c":"version","x":01}"#, "license"),
        ("c=license", "{\"c\":\"version\"}\u{a0}", "license"),
        ("c=license", r#"{"c":"version"}{"c":"version"}"#, "license"),
        // Falsy: the query counts.
        ("c=license", "0", "license"),
        ("c=license", "-0.0e5", "license"),
        ("c=license", "1e-400", "license"),
        ("c=license", r#""""#, "license"),
        ("c=license", "false", "license"),
        ("c=license", " null ", "license"),
        // Truthy without members: nothing is asked.
        ("c=license", "1", "forward"),
        ("c=license", "1e400", "forward"),
        ("c=license", "true", "forward"),
        ("c=license", r#""\u0000""#, "forward"),
        ("c=license", "[]", "forward"),
        ("c=license", "{}", "forward"),
        // No telling: never forwarded.
        ("[c]=license", "", r#"{"error":1}"#),
        ("c[]=license", "", r#"{"error":1}"#),
        ("c=license&c=x", "", r#"{"error":1}"#),
        ("c=license&c=x&key=k", "", r#"{"key":"k","error":5}"#),
        ("c=license&key=a&key=b", "", r#"license ["a","b"]"#),
        ("c=license&key[x]=a", "", "license"),
        ("c=license&key=%E4%BD%A0+%22", "", r#"license "你 \"""#),
    ] {
        assert_eq!(told(&open(query, body)), expected, "{query} {body:.80}");
    }
    // Octets that are no UTF-8 become U+FFFD, within strings without harm.
    let body = b"{\"c\":\"license\",\"key\":\"\xff\"}";
    assert_eq!(told(&ask("", body, None, None)), "license \"\u{fffd}\"");
    assert_eq!(told(&ask("c=license", b"{\"c\":\"version\"}\xff", None, None)), "license");
}

#[test]
fn what_the_server_was_seen_to_read_with_tokens() {
    let token = |claims: &str| over(claims, SECRET);
    let version = token(r#"{"c":"version"}"#);
    let license = token(r#"{"c":"license"}"#);
    let in_payload = token(r#"{"payload":{"c":"version"}}"#);
    let empty = token("{}");
    let wrong = over(r#"{"c":"license"}"#, "wrong");
    let ended = |ago: i64| token(&format!(r#"{{"c":"version","exp":{}}}"#, NOW - ago));
    let future = token(&format!(r#"{{"c":"version","nbf":{}}}"#, NOW + 3600));
    let none = signed(r#"{"alg":"none","typ":"JWT"}"#, r#"{"c":"license"}"#, "none", "");
    let hs = |alg: &str| {
        signed(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#), r#"{"c":"license"}"#, alg, SECRET)
    };
    let with = |fields: &str, token: &str| {
        let comma = if fields.is_empty() { "" } else { "," };
        format!(r#"{{{fields}{comma}"token":"{token}"}}"#)
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    let version_query = format!("token={version}");
    let license_query = format!("token={license}");
    let (says_version, says_license) = (r#""c":"version""#, r#""c":"license""#);
    let rows: Vec<(&str, String, Option<String>, &str)> = vec![
        // The capture's rows.
        ("", r#"{"c":"version"}"#.into(), None, r#"{"error":6}"#),
        ("", r#"{"c":"license"}"#.into(), None, r#"{"error":6}"#),
        ("", with(says_version, &version), None, "forward"),
        ("", with(says_license, &license), None, "license"),
        ("", with("", &version), None, "forward"),
        ("", with("", &license), None, "license"),
        ("", with("", &in_payload), None, "forward"),
        ("", with(says_license, &version), None, "forward"),
        ("", with(says_version, &license), None, "license"),
        ("", with(says_version, &empty), None, "forward"),
        ("", r#"{"c":"version"}"#.into(), bearer(&in_payload), "forward"),
        ("", "".into(), bearer(&in_payload), "forward"),
        ("", r#"{"c":"version"}"#.into(), bearer(&version), "forward"),
        ("", r#"{"c":"license"}"#.into(), bearer(&in_payload), "forward"),
        ("", r#"{"c":"version"}"#.into(), bearer(&token(r#"{"payload":{}}"#)), "forward"),
        ("", r#"{"c":"license"}"#.into(), bearer(&license), "license"),
        ("", "".into(), bearer(&token(r#"{"payload":{"c":"license"}}"#)), "license"),
        ("", "".into(), Some(format!("bearer {license}")), r#"{"error":6}"#),
        ("", "".into(), Some(license.clone()), r#"{"error":6}"#),
        ("", "".into(), Some(format!("Bearer  {license}")), r#"{"error":6}"#),
        ("", "".into(), bearer(&token(r#"{"query":{"c":"license"}}"#)), "license"),
        ("", with(says_license, &wrong), None, r#"{"error":6}"#),
        ("", r#"{"c":"license"}"#.into(), bearer(&wrong), r#"{"error":6}"#),
        ("", with(says_version, &ended(3600)), None, r#"{"error":7}"#),
        ("", r#"{"c":"version"}"#.into(), bearer(&ended(3600)), r#"{"error":7}"#),
        ("", r#"{"c":"version"}"#.into(), bearer(&ended(30)), "forward"),
        ("", r#"{"c":"version"}"#.into(), bearer(&ended(59)), "forward"),
        ("", r#"{"c":"version"}"#.into(), bearer(&ended(60)), r#"{"error":7}"#),
        ("", r#"{"c":"version"}"#.into(), bearer(&future), r#"{"error":6}"#),
        ("", with(says_version, "abc"), None, r#"{"error":6}"#),
        ("", with(says_version, ""), bearer(&version), "forward"),
        ("", with(says_license, ""), bearer(&license), "license"),
        ("", with(says_license, &wrong), bearer(&license), r#"{"error":6}"#),
        ("", with(says_license, &license), bearer(&wrong), "license"),
        ("", with(says_license, &none), None, r#"{"error":6}"#),
        ("", with(says_license, &hs("HS512")), None, "license"),
        ("", with(says_license, &hs("HS384")), None, "license"),
        ("", r#"{"c":"license","token":1}"#.into(), bearer(&license), r#"{"error":6}"#),
        ("", r#"{"c":"license","token":["x"]}"#.into(), None, r#"{"error":6}"#),
        ("", r#"{"c":"license","token":0}"#.into(), bearer(&license), "license"),
        ("", r#"{"c":"license","token":null}"#.into(), bearer(&license), "license"),
        ("", with("", &token(r#"{"c":"nonsense"}"#)), None, "forward"),
        ("", with("", &token(r#"{"c":"nonsense","key":"k"}"#)), None, "forward"),
        ("", r#"{"c":"nonsense"}"#.into(), None, r#"{"error":6}"#),
        ("", r#"{"c":"nonsense","key":"k7"}"#.into(), None, r#"{"key":"k7","error":6}"#),
        ("", with(r#""key":"k7""#, &ended(3600)), None, r#"{"key":"k7","error":7}"#),
        ("c=version", "".into(), None, r#"{"error":6}"#),
        (&version_query, "".into(), None, "forward"),
        (&license_query, "".into(), None, "license"),
        ("c=version&token=wrong", "".into(), None, r#"{"error":6}"#),
        ("c=version", "".into(), bearer(&version), "forward"),
        ("c=license&token=", "".into(), bearer(&license), "license"),
        ("key=k7", "".into(), None, r#"{"key":"k7","error":6}"#),
        ("", "{c:".into(), None, r#"{"error":6}"#),
        ("", "".into(), None, r#"{"error":6}"#),
        ("", "[1]".into(), None, r#"{"error":6}"#),
        ("", "[1]".into(), bearer(&license), "license"),
        ("", r#""text""#.into(), bearer(&license), "license"),
        // Layers of the claims: query over payload over the claims themselves.
        ("", with("", &token(r#"{"c":"license","payload":{"c":"version"}}"#)), None, "forward"),
        (
            "",
            with("", &token(r#"{"c":"a","payload":{"c":"b","key":"p"},"query":{"c":"license"}}"#)),
            None,
            r#"license "p""#,
        ),
        (
            "",
            with("", &token(r#"{"payload":{"c":"license"},"query":{"c":null}}"#)),
            None,
            "forward",
        ),
        ("", with("", &token(r#"{"c":"license","payload":"text"}"#)), None, "license"),
        // The key is the token's.
        (
            "",
            with(r#""key":"body""#, &token(r#"{"c":"license","key":"claim"}"#)),
            None,
            r#"license "claim""#,
        ),
        ("", with(r#""key":"body""#, &license), None, "license"),
        // A token without `c` beside a body that says license: the server's reply, not its licence.
        ("", with(says_license, &empty), None, r#"{"error":1}"#),
        ("", with(says_license, &token(r#"{"key":"k"}"#)), None, r#"{"key":"k","error":5}"#),
        // Object.assign takes `__proto__` for the prototype.
        ("", with("", &token(r#"{"__proto__":{"c":"license"}}"#)), None, r#"{"error":6}"#),
        (
            "",
            with("", &token(r#"{"payload":{"__proto__":{"c":"license"}}}"#)),
            None,
            r#"{"error":6}"#,
        ),
    ];
    for (query, body, authorization, expected) in rows {
        let request = guarded(query, &body, authorization.as_deref());
        assert_eq!(told(&request), expected, "{query} {body} {authorization:?}");
    }
    let query = format!("token={license}&token=");
    assert_eq!(told(&guarded(&query, "", None)), r#"{"error":6}"#);
    let query = format!("[token]={license}");
    assert_eq!(told(&guarded(&query, "", None)), r#"{"error":6}"#);
}

#[test]
fn a_secret_that_only_the_server_knows_does_not_open_a_gap() {
    // Tokens are off here; a server with tokens on would follow the token.
    let license = over(r#"{"payload":{"c":"license"}}"#, "unknown");
    let version = over(r#"{"c":"version"}"#, "unknown");
    let bearer = format!("Bearer {license}");
    let body = format!(r#"{{"token":"{license}"}}"#);
    assert_eq!(told(&open("", &body)), r#"{"error":1}"#);
    assert_eq!(told(&open(&format!("token={license}&key=k"), "")), r#"{"key":"k","error":5}"#);
    let by_header = |body: &str| told(&ask("", body.as_bytes(), Some(&bearer), None));
    assert_eq!(by_header(r#"{"c":"version"}"#), r#"{"error":1}"#);
    assert_eq!(by_header(r#"{"c":"license"}"#), "license");
    assert_eq!(told(&open("", &format!(r#"{{"c":"info","token":"{version}"}}"#))), "forward");
}

/// One `c` in one place: absent, or one of three words.
fn word() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![Just(None), Just(Some("license")), Just(Some("version")), Just(Some("License"))]
}

/// Where a token stands and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Worth {
    None,
    Empty,
    Good,
    Wrong,
    Expired,
}

fn worth() -> impl Strategy<Value = Worth> {
    use Worth::{Empty, Expired, Good, None, Wrong};
    prop_oneof![Just(None), Just(Empty), Just(Good), Just(Wrong), Just(Expired)]
}

fn token_of(worth: Worth, c: Option<&str>, layer: Option<&str>) -> Option<String> {
    let c = c.map_or(serde_json::json!({}), |c| serde_json::json!({ "c": c }));
    let mut claims = match layer {
        Some(layer) => serde_json::json!({ layer: c }),
        None => c,
    };
    match worth {
        Worth::None => None,
        Worth::Empty => Some(String::new()),
        Worth::Good => Some(over(&claims.to_string(), SECRET)),
        Worth::Wrong => Some(over(&claims.to_string(), "wrong")),
        Worth::Expired => {
            claims["exp"] = (NOW - 60).into();
            Some(over(&claims.to_string(), SECRET))
        }
    }
}

proptest! {
    /// The server's rule in one line each, against the reader.
    #[test]
    fn precedence_is_the_servers(
        (query, body, claim) in (word(), word(), word()),
        layer in prop_oneof![Just(None), Just(Some("payload")), Just(Some("query"))],
        broken: bool,
        on: bool,
        (in_body, in_header) in (worth(), worth()),
    ) {
        let query_text = query.map_or(String::new(), |c| format!("x=1&c={c}"));
        let mut object = body.map_or(serde_json::json!({}), |c| serde_json::json!({ "c": c }));
        // A broken body loses its token, too.
        let in_body = if broken { Worth::None } else { in_body };
        if let Some(token) = token_of(in_body, claim, layer) {
            object["token"] = token.into();
        }
        let body_text = if broken { "{".to_owned() } else { object.to_string() };
        let header = token_of(in_header, claim, layer).map(|token| format!("Bearer {token}"));
        let secrets = [Secret::new(SECRET)];
        let request =
            ask(&query_text, body_text.as_bytes(), header.as_deref(), on.then_some(&secrets));

        let direct = if broken { query } else { body };
        let effective = if matches!(in_body, Worth::None | Worth::Empty) { in_header } else { in_body };
        let has_claims = !matches!(effective, Worth::None | Worth::Empty);
        let expected = if on {
            match (effective, claim, direct) {
                (Worth::Expired, ..) => r#"{"error":7}"#,
                (Worth::None | Worth::Empty | Worth::Wrong, ..) => r#"{"error":6}"#,
                (Worth::Good, Some("license"), _) => "license",
                (Worth::Good, None, Some("license")) => r#"{"error":1}"#,
                (Worth::Good, ..) => "forward",
            }
        } else {
            match (direct, claim) {
                (Some("license"), _) => "license",
                (_, Some("license")) if has_claims => r#"{"error":1}"#,
                _ => "forward",
            }
        };
        prop_assert_eq!(told(&request), expected);
    }

    #[test]
    fn any_bytes_do(
        query: Vec<u8>,
        body: Vec<u8>,
        authorization in proptest::option::of(any::<Vec<u8>>()),
        on: bool,
    ) {
        let input =
            CommandInput { query: &query, body: &body, authorization: authorization.as_deref() };
        let secrets = [Secret::new(SECRET)];
        let request = read(&input, on.then_some(&secrets), at(NOW));
        prop_assert!(!on || matches!(request, CommandRequest::Answer(_)));
    }

    /// A reply is JSON, whatever the key was.
    #[test]
    fn replies_are_json(body in "\\{\"key\":(\"(\\\\u[d-e][8-f]0[0-9]|[a-z\"\\\\])*\"|[0-9.e-]{1,5}|\\[[0-9,]*\\])\\}") {
        if let CommandRequest::Answer(reply) = guarded("", &body, None) {
            let reply: IgnoredReply = serde_json::from_slice(&reply.body()).unwrap();
            prop_assert_eq!(reply.error, 6);
        }
    }
}

#[derive(serde::Deserialize)]
struct IgnoredReply {
    error: u8,
}
