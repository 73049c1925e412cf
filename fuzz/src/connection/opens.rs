//! Opens in every form that a client may give them.

use std::sync::LazyLock;

use seatgate::config::Secret;
use seatgate::token;
use serde_json::{Map, Value, json};

use super::super::frames;
use super::super::messages::noon;
use super::MASK;

/// A token that the templates use.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) claims: Value,
    /// The server accepts it.
    pub(super) is_good: bool,
}

pub(super) fn secret() -> Secret {
    Secret::new("the corpus knows this secret")
}

pub(super) static TOKENS: LazyLock<Vec<Token>> = LazyLock::new(|| {
    let claims = |mode: &str, permissions: Value, co_editing: Value| {
        json!({
            "document": {"key": "d", "permissions": permissions},
            "editorConfig": {"user": {"id": "u0"}, "mode": mode, "coEditing": co_editing},
            "exp": 1_900_000_000,
        })
    };
    let edit = || json!({"edit": true});
    let session = json!({
        "document": {"key": "d", "permissions": edit()},
        "editorConfig": {"user": {"id": "u0"}, "ds_sessionTimeConnect": 1_795_307_611_673_i64},
        "exp": 1_900_000_000,
    });
    let good = [
        claims("edit", edit(), Value::Null),
        claims("view", edit(), Value::Null),
        claims("view", edit(), json!({"mode": "fast", "change": true})),
        claims("edit", json!({"edit": false}), Value::Null),
        claims("edit", json!({"edit": false, "comment": true}), Value::Null),
        session,
    ];
    let mut expired = claims("edit", edit(), Value::Null);
    expired["exp"] = json!(1_600_000_000);
    let sign = |claims: &Value, secret: &Secret| {
        let none = Map::new();
        token::sign(claims.as_object().unwrap_or(&none), secret, noon())
    };
    let mut tokens: Vec<Token> = good
        .into_iter()
        .map(|claims| Token { text: sign(&claims, &secret()), claims, is_good: true })
        .collect();
    let wrong = claims("edit", edit(), Value::Null);
    tokens.push(Token { text: sign(&expired, &secret()), claims: expired, is_good: false });
    let other = Secret::new("another secret");
    tokens.push(Token { text: sign(&wrong, &other), claims: wrong, is_good: false });
    tokens
});

/// A message in fragments of up to 64 bytes, perhaps with pings between them.
pub(super) fn fragments(text: &[u8], style: u8) -> Vec<u8> {
    let size = usize::from(style % 64) + 1;
    let mut pieces: Vec<&[u8]> = text.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let mut bytes = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        let opcode = u8::from(index == 0);
        bytes.extend(frames::write(index == last, opcode, Some(MASK), piece));
        if style & 0x80 != 0 && index < last {
            bytes.extend(frames::write(true, 9, Some(MASK), b"p"));
        }
    }
    bytes
}

/// The writes of one open. `sessions` are those that may be gone on with.
pub(super) fn bytes(class: u8, user: u8, form: u8, sessions: &[String]) -> Vec<Vec<u8>> {
    let (mode, permissions, co_editing) = match class % 5 {
        0 => ("edit", json!({"edit": true}), "fast"),
        1 => ("view", json!({"edit": false}), "fast"),
        2 => ("view", json!({"edit": true}), "strict"),
        3 => ("edit", json!({"edit": false, "comment": true}), "strict"),
        _ => ("edit", json!({"edit": false}), "strict"),
    };
    let user = match user % 4 {
        3 => json!({"id": 7}),
        number => json!({"id": format!("u{number}")}),
    };
    let mut message = json!({
        "type": "auth", "docid": "d", "token": "t", "user": user, "block": [], "mode": mode,
        "permissions": permissions, "coEditingMode": co_editing,
    });
    let extra = usize::from(form >> 4);
    if class & 0x40 != 0 {
        message["sessionId"] = sessions.get(extra % sessions.len().max(1)).cloned().into();
    }
    if class & 0x80 != 0 {
        let key = if class & 0x20 == 0 { "jwtOpen" } else { "jwtSession" };
        if let Some(token) = TOKENS.get(extra % TOKENS.len()) {
            message[key] = token.text.as_str().into();
            message["permissions"] = token.claims["document"]["permissions"].clone();
        }
    }
    let json = message.to_string();
    let event = format!(r#"42["message",{json}]"#);
    let whole = |text: &str| vec![frames::write(true, 1, Some(MASK), text.as_bytes())];
    match form & 0x0f {
        1 => whole(&format!(r#"4213["message",{json}]"#)),
        2 => whole(&format!(r#"42/,["message",{json}]"#)),
        3 => whole(&event.replace(r#""type":"auth""#, r#""t\u0079pe":"\u0061uth""#)),
        4 => {
            let text = event.replacen("42", "451-", 1);
            let text = text.replace(r#""block":[]"#, r#""block":{"_placeholder":true,"num":0}"#);
            let mut writes = whole(&text);
            writes.push(frames::write(true, 2, Some(MASK), b"binary"));
            writes
        }
        5 => vec![fragments(event.as_bytes(), 0x80 | 20)],
        6 => whole(&event.replace(r#""mode":"edit""#, r#""mode":"view","mode":"edit""#)),
        7 => whole(&format!("42 [ \"message\" , {json} ] ")),
        8 => whole(&event.replace(r#""docid":"d""#, r#""docid":"d","x":"\ud83d""#)),
        9 => whole(&event.replace(r#""docid""#, r#""isCloseCoAuthoring":true,"docid""#)),
        10 => whole(&event.replace(r#""token":"t","#, "")),
        11 => whole(&event.replace(r#""type":"auth","#, "").replace("}]", r#","type":"auth"}]"#)),
        12 => {
            let bytes = fragments(event.as_bytes(), 0x80 | 7);
            bytes.iter().map(|byte| vec![*byte]).collect()
        }
        13 => [whole(&event), whole(&event)].concat(),
        14 => whole(&event.replace(r#""mode":"edit""#, r#""mode":"\u0065dit""#)),
        _ => whole(&event),
    }
}
