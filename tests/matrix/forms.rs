//! The messages of a row: what the client writes, and what the server must see of it.

use serde_json::{Value, json};

use crate::support::frames::{self, Frame, Style};
use crate::support::tokens::{self, SECRET};
use crate::support::{Editor, Open, Poller};

use super::axes::{Class, Form, Row, Token};

/// The document of a row.
pub fn document(number: usize) -> String {
    format!("d{number}")
}

/// The `auth` of a row, as an open of `class`, with the row's token.
pub fn open(row: &Row, number: usize, class: Class) -> Open {
    let (document, user) = (document(number), format!("u{number}"));
    let mut open = match class {
        Class::Editor | Class::Commenter => Open::editor(&document, &user),
        Class::LiveViewer => Open::live_viewer(&document, &user),
        Class::Viewer => Open::viewer(&document, &user),
    };
    // One set of permissions for all that a row opens: they must be the token's.
    let permissions = match row.class {
        Class::Editor | Class::Viewer => json!({"edit": true}),
        Class::Commenter => json!({"edit": false, "comment": true}),
        Class::LiveViewer => json!({"edit": false}),
    };
    open = open.permissions(permissions.clone());
    let user = if row.form == Form::NumericUser { json!(number + 4711) } else { json!(user) };
    open.message["user"]["id"] = user.clone();
    with_token(open, row.token, &user, &permissions)
}

/// The open of somebody who holds a seat.
pub fn holder(row: &Row, number: usize, class: Class) -> Open {
    let document = format!("h{number}");
    let user = format!("holder-{class:?}");
    let (open, permissions) = match class {
        Class::Editor | Class::Commenter => (Open::editor(&document, &user), json!({"edit": true})),
        Class::LiveViewer | Class::Viewer => {
            (Open::live_viewer(&document, &user), json!({"edit": false}))
        }
    };
    let token = if row.token == Token::Off { Token::Off } else { Token::Good };
    with_token(open, token, &json!(user), &permissions)
}

fn with_token(open: Open, token: Token, user: &Value, permissions: &Value) -> Open {
    let now = tokens::now();
    let mut claims = json!({
        "document": {"key": open.document(), "permissions": permissions},
        "editorConfig": {"user": {"id": user}}, "iat": now, "exp": now + 3_600,
    });
    let token = match token {
        Token::Off | Token::Missing => return open,
        Token::Good => tokens::sign(SECRET, &claims),
        Token::Session => {
            claims["editorConfig"]["ds_sessionTimeConnect"] = json!(now * 1_000);
            let token = tokens::sign(SECRET, &claims);
            return open.with("jwtSession", token.as_str());
        }
        Token::WrongSecret => tokens::sign("another secret", &claims),
        Token::AlgorithmNone => tokens::unsigned(&claims),
        Token::Expired => {
            claims["exp"] = json!(now - 61);
            tokens::sign(SECRET, &claims)
        }
    };
    open.token(&token)
}

/// The packets of one `auth`: the text, and attachments if it has some. What the server must read of the
/// text, if it passes unchanged, comes with them.
pub struct Written {
    pub text: String,
    pub attachment: Option<Vec<u8>>,
    /// The event's JSON array.
    pub array: String,
}

pub fn write(form: Form, open: &Open) -> Written {
    let mut message = open.message.clone();
    if form == Form::BinaryEvent {
        message["block"] = json!({"_placeholder": true, "num": 0});
    }
    let json = message.to_string();
    let mut array = format!(r#"["message",{json}]"#);
    match form {
        Form::Escapes => {
            array = array
                .replace(r#""type":"auth""#, r#""t\u0079pe":"\u0061uth""#)
                .replace(r#""mode":"#, r#""m\u006fde":"#);
        }
        Form::WhiteSpace => array = format!("[ \"message\" ,\t{json} ]"),
        Form::DuplicateKey => {
            array = array.replacen(r#""mode":"#, r#""mode":"view","mode":"#, 1);
        }
        Form::Plain
        | Form::AckId
        | Form::Namespace
        | Form::BinaryEvent
        | Form::Fragmented
        | Form::Twice
        | Form::ChangedClass
        | Form::NumericUser => {}
    }
    let header = match form {
        Form::AckId => "4213",
        Form::Namespace => "42/,",
        Form::BinaryEvent => "451-",
        _ => "42",
    };
    Written {
        text: format!("{header}{array}"),
        attachment: (form == Form::BinaryEvent).then(|| b"binary".to_vec()),
        array,
    }
}

pub async fn send_to_socket(editor: &mut Editor, form: Form, written: &Written) {
    // A gateway may be closing already: what comes back tells.
    if form == Form::Fragmented {
        let style =
            Style { fragment: Some(150), chunk: Some(97), mask: [1, 2, 3, 4], pings_between: true };
        let _ = editor.send_styled(&written.text, &style).await;
    } else {
        let _ = editor.send(&written.text).await;
    }
    if let Some(bytes) = &written.attachment {
        let _ = editor.send_raw(&Frame::new(frames::BINARY, bytes).encode()).await;
    }
}

pub async fn post(poller: &Poller, form: Form, written: &Written) {
    use base64::Engine as _;
    let attachment = written
        .attachment
        .as_ref()
        .map(|bytes| format!("b{}", base64::engine::general_purpose::STANDARD.encode(bytes)));
    let cursor = r#"42["message",{"type":"cursor","cursor":"0"}]"#;
    let mut packets = vec![written.text.as_str()];
    packets.extend(attachment.as_deref());
    if form == Form::Fragmented {
        packets = vec!["3", &written.text, cursor];
    }
    poller.post(&packets).await;
}
