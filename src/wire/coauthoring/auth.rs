//! The client's `auth` message: its fields as the server reads them, and its rewriting to a viewer's.

use std::{borrow::Cow, fmt};

use serde_json::Value;

use super::{
    js::Js,
    json::{EventObject, Member, MembersError, members},
};

/// The longest `sessionId` taken; the server's own have 20 characters.
const MAX_SESSION_ID_BYTES: usize = 256;

/// Why an `auth` packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The packet carries no `auth` message, or is no JSON.
    #[error("not an auth message")]
    NotAuth,
    /// A field has a form that no client sends and that could be read in two ways.
    #[error("malformed auth message: {0}")]
    Malformed(&'static str),
    /// A key that decides something is given twice.
    #[error("auth message gives {0} twice")]
    Duplicate(&'static str),
    /// More than 240 UTF-16 units; the server refuses it too.
    #[error("user id too long")]
    UserIdTooLong,
    /// The message's permissions are not the token's; the server refuses it with 4004.
    #[error("permissions differ from the token's")]
    PermissionsDiffer,
    /// The token was made for another purpose; the server refuses it with 4004.
    #[error("token has the form of another purpose")]
    TokenForm,
}

impl From<MembersError> for AuthError {
    fn from(error: MembersError) -> Self {
        match error {
            MembersError::Unreadable => Self::Malformed("unreadable object"),
            MembersError::Duplicate(key) => Self::Duplicate(key),
        }
    }
}

/// An `auth` packet.
#[expect(clippy::large_enum_variant, reason = "lives on the stack for the length of one decision")]
#[derive(Clone, Debug)]
pub enum AuthPacket<'p> {
    /// The server will act on it.
    Auth(AuthMessage<'p>),
    /// It has no `token` or no `user`: the server ignores it in silence (WIRE.md section 2).
    Ignored,
}

/// Which secret a presented token is signed with (WIRE.md section 3, rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `jwtSession`: the session secret.
    Session,
    /// `jwtOpen`: the browser secret.
    Open,
}

/// The token an `auth` presents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedToken<'m> {
    /// The secret to verify it with.
    pub kind: TokenKind,
    /// The token itself: never log it.
    pub text: &'m str,
}

/// The fields of an `auth` that the server's rules look at.
#[derive(Clone)]
pub struct AuthMessage<'p> {
    packet: &'p str,
    object: &'p str,
    mode_text: Option<&'p str>,
    co_editing_text: Option<&'p str>,
    token: Option<(TokenKind, Cow<'p, str>)>,
    pub(super) document: Js<'p>,
    /// `user` can take properties: it is an object or a list.
    pub(super) user_is_object: bool,
    pub(super) user_id: Js<'p>,
    pub(super) mode: Js<'p>,
    pub(super) co_editing: Js<'p>,
    pub(super) permissions: Option<Value>,
    pub(super) close_coauthoring: Js<'p>,
    pub(super) session_id: Option<Cow<'p, str>>,
    /// The text of `openCmd`.
    pub(super) open_command: Option<&'p str>,
    pub(super) anonymous: Js<'p>,
}

impl fmt::Debug for AuthMessage<'_> {
    /// Leaves out what may hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthMessage")
            .field("document", &self.document)
            .field("user_id", &self.user_id)
            .field("mode", &self.mode)
            .field("co_editing", &self.co_editing)
            .field("permissions", &self.permissions)
            .field("token", &self.token.as_ref().map(|(kind, _)| kind))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedToken").field("kind", &self.kind).field("text", &"***").finish()
    }
}

impl<'p> AuthMessage<'p> {
    /// Reads a whole packet, its leading digits included.
    ///
    /// # Errors
    /// [`AuthError`] for everything that no client sends: the message must be refused, not passed on.
    pub fn parse(packet: &'p [u8]) -> Result<AuthPacket<'p>, AuthError> {
        let EventObject { packet, object } = EventObject::find(packet).ok_or(AuthError::NotAuth)?;
        let [
            kind,
            document,
            token,
            user,
            mode_text,
            permissions,
            co_editing_text,
            jwt_open,
            jwt_session,
            session_id,
            close,
            open_command,
            anonymous,
        ] = members(
            object,
            [
                "type",
                "docid",
                "token",
                "user",
                "mode",
                "permissions",
                "coEditingMode",
                "jwtOpen",
                "jwtSession",
                "sessionId",
                "isCloseCoAuthoring",
                "openCmd",
                "IsAnonymousUser",
            ],
        )?;
        if !value(kind, "type")?.is("auth") {
            return Err(AuthError::NotAuth);
        }
        let user_value = value(user, "user")?;
        if !value(token, "token")?.is_truthy() || !user_value.is_truthy() {
            return Ok(AuthPacket::Ignored);
        }
        let user_id = match (&user_value, user) {
            (Js::Object, Some(user)) => {
                let [id] = members(user, ["id"])?;
                value(id, "user.id")?
            }
            _ => Js::Undefined,
        };
        Ok(AuthPacket::Auth(Self {
            packet,
            object,
            mode_text,
            co_editing_text,
            token: presented(value(jwt_session, "jwtSession")?, value(jwt_open, "jwtOpen")?)?,
            document: value(document, "docid")?,
            user_is_object: matches!(user_value, Js::Object | Js::List),
            user_id,
            mode: value(mode_text, "mode")?,
            co_editing: value(co_editing_text, "coEditingMode")?,
            permissions: permissions.map(permissions_value).transpose()?,
            close_coauthoring: value(close, "isCloseCoAuthoring")?,
            session_id: session(value(session_id, "sessionId")?)?,
            open_command,
            anonymous: value(anonymous, "IsAnonymousUser")?,
        }))
    }

    /// The token the server will verify: the session token if there is one, else the opening token.
    pub fn token(&self) -> Option<PresentedToken<'_>> {
        self.token.as_ref().map(|(kind, text)| PresentedToken { kind: *kind, text })
    }

    /// The same packet as a plain viewer's: `mode` is `"view"` and `coEditingMode` is `"strict"`, every other byte
    /// is as it was (WIRE.md section 5). Claims can undo it: see [`SessionFacts::forced_live`] and
    /// [`SessionFacts::forced_mode`].
    ///
    /// [`SessionFacts::forced_live`]: super::SessionFacts::forced_live
    /// [`SessionFacts::forced_mode`]: super::SessionFacts::forced_mode
    pub fn to_view(&self) -> String {
        self.event().with_members(&[
            Member { key: "mode", current: self.mode_text, value: "\"view\"" },
            self.strict_member(),
        ])
    }

    /// The same packet with `coEditingMode` `"strict"`: a live viewer's becomes a plain viewer's.
    pub fn to_strict(&self) -> String {
        self.event().with_members(&[self.strict_member()])
    }

    fn strict_member(&self) -> Member<'static, 'p> {
        Member { key: "coEditingMode", current: self.co_editing_text, value: "\"strict\"" }
    }

    fn event(&self) -> EventObject<'p> {
        EventObject { packet: self.packet, object: self.object }
    }
}

fn value<'p>(json: Option<&'p str>, name: &'static str) -> Result<Js<'p>, AuthError> {
    Js::from_json(json).ok_or(AuthError::Malformed(name))
}

fn presented<'p>(
    session: Js<'p>,
    open: Js<'p>,
) -> Result<Option<(TokenKind, Cow<'p, str>)>, AuthError> {
    let (kind, token) =
        if session.is_truthy() { (TokenKind::Session, session) } else { (TokenKind::Open, open) };
    match token {
        Js::Text(text) if !text.is_empty() => Ok(Some((kind, text))),
        token if token.is_truthy() => Err(AuthError::Malformed("token is no string")),
        _ => Ok(None),
    }
}

fn session(value: Js<'_>) -> Result<Option<Cow<'_, str>>, AuthError> {
    match value {
        Js::Undefined | Js::Null => Ok(None),
        Js::Text(id) if id.len() <= MAX_SESSION_ID_BYTES => Ok(Some(id)),
        Js::Text(_) | Js::Bool(_) | Js::Number(_) | Js::List | Js::Object => {
            Err(AuthError::Malformed("sessionId"))
        }
    }
}

fn permissions_value(json: &str) -> Result<Value, AuthError> {
    if json.starts_with('{') {
        let [_, _, _, _] = members(json, ["edit", "review", "comment", "fillForms"])?;
    }
    serde_json::from_str(json).map_err(|_| AuthError::Malformed("permissions"))
}
