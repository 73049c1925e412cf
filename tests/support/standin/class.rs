//! Who opens which document in which class: the server's own rules (WIRE.md, section 3), written
//! down a second time so that the gateway's are checked against something.

use serde_json::{Value, json};

use crate::support::tokens;

/// What the server makes of an `auth`.
pub(super) struct Identity {
    pub(super) document: String,
    pub(super) user: String,
    pub(super) name: String,
    pub(super) permissions: Value,
    pub(super) view: bool,
    pub(super) live: bool,
}

impl Identity {
    /// The error is the code of the `disconnectReason`.
    pub(super) fn of(message: &Value, secret: Option<&str>) -> Result<Self, u16> {
        let claims = match secret {
            None => Value::Null,
            Some(secret) => {
                let token = ["jwtSession", "jwtOpen"].iter().find_map(|key| message[key].as_str());
                tokens::verify(secret, token.ok_or(4006_u16)?)?
            }
        };
        let config = &claims["editorConfig"];
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let truthy = |value: &Value| !matches!(text(value).as_str(), "null" | "" | "0" | "false");
        let user = &config["user"]["id"];
        let user = text(if truthy(user) { user } else { &message["user"]["id"] });
        let document = claims["document"]["key"].as_str().or_else(|| message["docid"].as_str());
        let mode = match (message["mode"].as_str(), config["mode"].as_str()) {
            (Some("view"), _) => "view",
            (said, signed) => signed.or(said).unwrap_or("edit"),
        };
        let permissions = match &claims["document"]["permissions"] {
            Value::Null => message["permissions"].clone(),
            signed => signed.clone(),
        };
        let co_editing = config["coEditing"]["mode"].as_str();
        let co_editing = co_editing.or_else(|| message["coEditingMode"].as_str());
        let may_change = |key: &str| permissions[key] == json!(true);
        let view = mode == "view"
            || permissions["edit"] == json!(false)
                && !["review", "comment", "fillForms"].into_iter().any(may_change);
        Ok(Self {
            document: document.unwrap_or_default().to_owned(),
            user,
            name: message["user"]["username"].as_str().unwrap_or_default().to_owned(),
            live: view && co_editing == Some("fast"),
            permissions,
            view,
        })
    }
}
