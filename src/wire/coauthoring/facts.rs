//! Who opens which document in which class: the server's rules over an `auth` and its token (WIRE.md section 3).

use std::borrow::Cow;

use serde_json::Value;

use super::{
    auth::{AuthError, AuthMessage},
    js::{Js, deep_equal, get, truthy},
    json::members,
};
use crate::seat::SessionClass;

/// The server's own limit, in UTF-16 units as JavaScript counts.
const MAX_USER_ID_UNITS: usize = 240;

const MAX_DOCUMENT_BYTES: usize = 1_024;

/// File types that are only ever viewed alone.
const VIEWER_ONLY: [&str; 4] = ["pdf", "djvu", "xps", "oxps"];

/// What the server will take a session for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// The document's key: the token's or the message's, never the one in the URL.
    pub document: String,
    /// The integrator's user id, as a string.
    pub user: String,
    pub class: SessionClass,
    /// The token makes every viewer of this session a live one: editing the message cannot make it a plain one.
    pub forced_live: bool,
    /// The token sets the mode whatever the message says (WOPI): editing the message cannot make it a viewer.
    pub forced_mode: bool,
    /// The session that is restored, if any.
    pub session_id: Option<String>,
    /// A session is restored after a lost connection.
    pub restoring: bool,
    /// The session has given up editing before.
    pub close_coauthoring: bool,
    /// The integrator knows no name for the user: the `anonym` of the license command.
    pub anonymous: bool,
    /// A token said some of this that nobody has verified: a document server without tokens goes by the
    /// message. To be set by whoever reads tokens.
    pub unproven: bool,
}

impl AuthMessage<'_> {
    /// Applies the server's rules. `claims` are the payload of [`AuthMessage::token`], if one was presented.
    ///
    /// Whether a token lacks claims that the server requires is not looked at: the server refuses such a session.
    ///
    /// # Errors
    /// [`AuthError`] where the server refuses the session by itself, or where its reading is not certain.
    pub fn facts(&self, claims: Option<&Value>) -> Result<SessionFacts, AuthError> {
        let mut reading = Reading::of(self);
        if let Some(claims) = claims {
            reading.apply(self, claims)?;
        }
        let class = if reading.edits() {
            SessionClass::Editor
        } else if reading.co_editing.is("fast") {
            SessionClass::LiveViewer
        } else {
            SessionClass::Viewer
        };
        Ok(SessionFacts {
            document: document_key(&reading.document)?,
            user: user_id(&reading.user_id)?,
            class,
            forced_live: reading.co_editing_claimed && reading.co_editing.is("fast"),
            forced_mode: reading.mode_claimed,
            session_id: self.session_id.as_deref().map(str::to_owned),
            restoring: self.session_id.is_some(),
            close_coauthoring: reading.close_coauthoring.is_truthy(),
            anonymous: self.anonymous.is_truthy(),
            unproven: false,
        })
    }
}

/// The message's fields while the claims are laid over them.
struct Reading<'a> {
    document: Js<'a>,
    user_id: Js<'a>,
    mode: Js<'a>,
    co_editing: Js<'a>,
    close_coauthoring: Js<'a>,
    /// The permissions leave something to edit, whatever the mode.
    may_edit: bool,
    co_editing_claimed: bool,
    mode_claimed: bool,
}

impl<'a> Reading<'a> {
    fn of(message: &'a AuthMessage<'_>) -> Self {
        Self {
            document: message.document.clone(),
            user_id: message.user_id.clone(),
            mode: message.mode.clone(),
            co_editing: message.co_editing.clone(),
            close_coauthoring: message.close_coauthoring.clone(),
            may_edit: may_edit(message.permissions.as_ref()),
            co_editing_claimed: false,
            mode_claimed: false,
        }
    }

    /// Rule 5: commenting, reviewing and form filling are editing.
    fn edits(&self) -> bool {
        !self.mode.is("view") && self.may_edit
    }

    /// The four kinds of token, told apart in the server's order.
    fn apply(&mut self, message: &'a AuthMessage<'_>, claims: &'a Value) -> Result<(), AuthError> {
        let claim = |key| get(Some(claims), key);
        let file_info = truthy(claim("fileInfo"));
        let editor = truthy(claim("editorConfig"));
        if let Some(file_info) = file_info {
            self.apply_wopi(message, claims, file_info)
        } else if get(editor, "ds_sessionTimeConnect").is_some() {
            self.apply_opening(message, claims, editor)
        } else if truthy(claim("version")).is_some() {
            self.apply_version(message, claims)
        } else {
            self.apply_opening(message, claims, editor)
        }
    }

    /// Opening and session tokens.
    fn apply_opening(
        &mut self,
        message: &'a AuthMessage<'_>,
        claims: &'a Value,
        editor: Option<&'a Value>,
    ) -> Result<(), AuthError> {
        let document = truthy(get(Some(claims), "document"));
        override_with(&mut self.document, get(document, "key"));
        if let Some(permissions) = truthy(get(document, "permissions"))
            && !deep_equal(message.permissions.as_ref(), Some(permissions))
        {
            return Err(AuthError::PermissionsDiffer);
        }
        // A message may restrict itself to viewing.
        if !self.mode.is("view") {
            override_with(&mut self.mode, get(editor, "mode"));
        }
        let co_editing = get(editor, "coEditing");
        if let Some(mode) = truthy(get(co_editing, "mode")) {
            self.co_editing = Js::from_value(Some(mode));
            if truthy(get(co_editing, "change")).is_some() {
                self.co_editing = text("fast");
            }
            if is_viewer_only(get(document, "fileType"))?
                || Js::from_value(get(Some(claims), "type")).is("embedded")
            {
                self.co_editing = text("strict");
            }
            self.co_editing_claimed = true;
        }
        override_with(&mut self.close_coauthoring, get(editor, "ds_isCloseCoAuthoring"));
        if let Some(user) = truthy(get(editor, "user")) {
            require_object(message)?;
            if let Some(id) = truthy(get(Some(user), "id")) {
                self.user_id = Js::from_value(Some(id));
            }
        }
        let foreign = ["url", "payload", "key"];
        if foreign.iter().any(|key| truthy(get(Some(claims), key)).is_some()) {
            return Err(AuthError::TokenForm);
        }
        Ok(())
    }

    /// Version history: always a plain viewer. The server names the previous version's document only if the editor
    /// also has the server's build, which is not known here; nothing but the document's label hangs on it.
    fn apply_version(
        &mut self,
        message: &'a AuthMessage<'_>,
        claims: &'a Value,
    ) -> Result<(), AuthError> {
        let command = message.open_command.filter(|command| command.starts_with('{'));
        let command = command.ok_or(AuthError::Malformed("openCmd"))?;
        let [opened] = members(command, ["id"])?;
        let opened = Js::from_json(opened).ok_or(AuthError::Malformed("openCmd.id"))?;
        self.mode = text("view");
        self.mode_claimed = true;
        self.co_editing = text("strict");
        self.co_editing_claimed = true;
        self.document = Js::from_value(get(Some(claims), "key"));
        let previous = truthy(get(Some(claims), "previous"));
        if truthy(get(Some(claims), "changesUrl")).is_some() && previous.is_some() {
            let key = Js::from_value(get(previous, "key"));
            if key == opened {
                self.document = key;
            }
        }
        Ok(())
    }

    fn apply_wopi(
        &mut self,
        message: &'a AuthMessage<'_>,
        claims: &'a Value,
        file_info: &'a Value,
    ) -> Result<(), AuthError> {
        let info = |key| get(Some(file_info), key);
        let has = |key| truthy(info(key)).is_some();
        if let Some(key) = truthy(get(Some(claims), "key")) {
            self.document = Js::from_value(Some(key));
        }
        if let Some(user_auth) = truthy(get(Some(claims), "userAuth")) {
            self.mode = Js::from_value(get(Some(user_auth), "mode"));
            self.mode_claimed = true;
        }
        let user_id = Js::from_value(info("UserId"));
        let is_named = !has("IsAnonymousUser") && has("UserFriendlyName");
        if is_named || !user_id.is_nullish() {
            require_object(message)?;
        }
        if !user_id.is_nullish() {
            self.user_id = user_id;
        }
        // Truthy permissions that are no object keep none of the token's: the server then sees no restriction.
        if matches!(
            message.permissions,
            Some(Value::Bool(true) | Value::Number(_) | Value::String(_))
        ) && truthy(message.permissions.as_ref()).is_some()
        {
            // `may_edit` stays as the message has it.
            return Ok(());
        }
        let submits_form =
            Js::from_value(get(get(Some(claims), "queryParams"), "formsubmit")).is("1");
        let only_comments = has("UserCanOnlyComment");
        // A chain of `&&`: a missing or null right to write is not `false`, and only `false` takes the right away.
        let denies_edit = if has("ReadOnly") || only_comments {
            true
        } else if has("UserCanWrite") {
            submits_form
        } else {
            is_false(info("UserCanWrite"))
        };
        let reviews = !only_comments
            && !is_false(info("SupportsReviewing"))
            && info("UserCanReview") == Some(&Value::Bool(true));
        self.may_edit = !denies_edit || reviews || only_comments || submits_form;
        Ok(())
    }
}

fn text(text: &str) -> Js<'_> {
    Js::Text(Cow::Borrowed(text))
}

fn override_with<'a>(field: &mut Js<'a>, claim: Option<&'a Value>) {
    let claim = Js::from_value(claim);
    if !claim.is_nullish() {
        *field = claim;
    }
}

fn is_false(value: Option<&Value>) -> bool {
    value == Some(&Value::Bool(false))
}

/// Rule 5 without the mode.
fn may_edit(permissions: Option<&Value>) -> bool {
    let grants = |key| get(permissions, key) == Some(&Value::Bool(true));
    !is_false(get(permissions, "edit"))
        || grants("review")
        || grants("comment")
        || grants("fillForms")
}

/// The server writes the token's user into the message's, and fails where that is a string, number or boolean.
fn require_object(message: &AuthMessage<'_>) -> Result<(), AuthError> {
    if message.user_is_object { Ok(()) } else { Err(AuthError::Malformed("user is no object")) }
}

fn is_viewer_only(file_type: Option<&Value>) -> Result<bool, AuthError> {
    match file_type {
        Some(Value::String(file_type)) => Ok(VIEWER_ONLY.contains(&file_type.as_str())),
        Some(Value::Array(_)) => Err(AuthError::Malformed("document.fileType")),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Ok(false)
        }
    }
}

fn document_key(key: &Js<'_>) -> Result<String, AuthError> {
    match key {
        Js::Text(_) | Js::Number(_) => key
            .to_js_string()
            .filter(|key| !key.is_empty() && key.len() <= MAX_DOCUMENT_BYTES)
            .map(Cow::into_owned)
            .ok_or(AuthError::Malformed("document key")),
        Js::Undefined | Js::Null | Js::Bool(_) | Js::List | Js::Object => {
            Err(AuthError::Malformed("document key"))
        }
    }
}

fn user_id(id: &Js<'_>) -> Result<String, AuthError> {
    let id = id.to_js_string().ok_or(AuthError::Malformed("user id"))?;
    if id.encode_utf16().count() > MAX_USER_ID_UNITS {
        return Err(AuthError::UserIdTooLong);
    }
    Ok(id.into_owned())
}
