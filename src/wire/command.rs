//! The command service: what a request asks, read by the document server's own rules.
//!
//! The gateway answers `license` itself and forwards the rest, so **whatever the server would read
//! as `c == "license"` must be read so here**, in whatever clothes it comes: escapes, duplicate
//! keys, a broken body beside a query, a token that replaces the parameters, lone surrogates, numbers
//! beyond a double, any depth of nesting. Where a reading is not certain the request is answered
//! here with the error that the server has for a command it does not know, and never forwarded.
//!
//! Sources: WIRE.md section 1; INTERFACE.md section 4; the server's `getRequestParams`,
//! `validateInputParams` and `commandFromServer` (9.3), express 4.21 with qs 6.13, body-parser
//! 1.20. Knows no licence, no policy, no I/O, no clock. GET and POST are read alike: express reads
//! the body of a GET, too.

mod body;
mod echo;
mod facts;
mod inflate;
mod query;

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::config::Secret;
use crate::token::{self, TokenError};

pub use echo::EchoedKey;
pub(crate) use echo::write_string;
pub use facts::{ServerFacts, facts_from_license_reply, facts_from_version_reply};
pub use inflate::{InflateError, inflate};

/// The parts of a command request that decide what it asks. The request's Content-Type does not.
#[derive(Clone, Copy, Debug)]
pub struct CommandInput<'a> {
    /// What follows the first `?` of the request target, as received; empty where there is none.
    pub query: &'a [u8],
    /// The whole body after [`inflate`], of a GET as well; empty where there is none.
    pub body: &'a [u8],
    /// The value of the first `Authorization` header (node drops the others).
    pub authorization: Option<&'a [u8]>,
}

/// What to do with a command request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandRequest {
    /// The license command, its token (if tokens are on) in order. `key` is echoed.
    License { key: Option<EchoedKey> },
    /// Any other command: the server's to answer, byte for byte as it came.
    Other,
    /// Answered here.
    Answer(CommandReply),
}

/// A reply without data: the echoed key and an error number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReply {
    pub key: Option<EchoedKey>,
    pub error: CommandError,
}

/// The errors that are answered here. 1 and 5 come from the server wherever it may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// 1: the key is missing or names no document.
    Document,
    /// 5: no such command.
    UnknownCommand,
    /// 6: the token is missing or not valid.
    Token,
    /// 7: the token is expired.
    TokenExpired,
}

impl CommandError {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Document => 1,
            Self::UnknownCommand => 5,
            Self::Token => 6,
            Self::TokenExpired => 7,
        }
    }
}

impl CommandReply {
    /// The JSON body: `{"key":…,"error":6}`, the key first, as the server writes it.
    pub fn body(&self) -> Bytes {
        let code = self.error.code();
        match &self.key {
            Some(key) => format!(r#"{{"key":{},"error":{code}}}"#, key.as_json()).into(),
            None => format!(r#"{{"error":{code}}}"#).into(),
        }
    }
}

/// Reads a request. `secrets` are the inbox secrets; `None`: tokens are off.
///
/// With tokens on a valid token's claims replace all parameters (the server's default
/// `tokenRequiredParams`). Two mismatched set-ups are kept from leaking the server's own licence as
/// well: a token that lacks `c` beside parameters that say `license`, and, with tokens off here, a
/// token that says `license` beside parameters that do not. Both are answered with 1 or 5, which is
/// what a server that is set up as the gateway believes says.
pub fn read(
    input: &CommandInput<'_>,
    secrets: Option<&[Secret]>,
    now: Timestamp,
) -> CommandRequest {
    let text = String::from_utf8_lossy(input.body);
    let params = body::params(&text).unwrap_or_else(|| query::params(input.query));
    match secrets {
        Some(secrets) => read_with_tokens(input, &params, secrets, now),
        None => read_without_tokens(input, &params),
    }
}

fn read_without_tokens(input: &CommandInput<'_>, params: &Params<'_>) -> CommandRequest {
    match params.named {
        Named::License => CommandRequest::License { key: params.key.echo() },
        Named::Unclear => refuse(params.key.echo()),
        Named::Other => {
            let token = match &params.token {
                TokenParam::Text(token) => Some(Cow::Borrowed(token.as_ref())),
                TokenParam::Odd => None,
                TokenParam::Absent => bearer(input.authorization),
            };
            if token.is_some_and(|token| may_say_license(&token)) {
                refuse(params.key.echo())
            } else {
                CommandRequest::Other
            }
        }
    }
}

fn read_with_tokens(
    input: &CommandInput<'_>,
    params: &Params<'_>,
    secrets: &[Secret],
    now: Timestamp,
) -> CommandRequest {
    let token = match &params.token {
        TokenParam::Text(token) => Some(Cow::Borrowed(token.as_ref())),
        TokenParam::Odd => None,
        TokenParam::Absent => bearer(input.authorization),
    };
    let verified =
        token.ok_or(TokenError::Invalid).and_then(|token| token::verify(&token, secrets, now));
    let error = match verified {
        Ok(Value::Object(claims)) => match Claimed::read(&claims) {
            Some(claimed) => return claimed.request(params.named),
            None => CommandError::Token,
        },
        Ok(_) | Err(TokenError::Invalid) => CommandError::Token,
        Err(TokenError::Expired) => CommandError::TokenExpired,
    };
    CommandRequest::Answer(CommandReply { key: params.key.echo(), error })
}

/// The reply to a command that the server does not know: 5, or 1 where the key is no string either.
fn refuse(key: Option<EchoedKey>) -> CommandRequest {
    let error = match &key {
        Some(key) if key.is_string() => CommandError::UnknownCommand,
        Some(_) | None => CommandError::Document,
    };
    CommandRequest::Answer(CommandReply { key, error })
}

/// The token of an `Authorization` header. The prefix is case-sensitive, and exactly this.
fn bearer(authorization: Option<&[u8]>) -> Option<Cow<'_, str>> {
    let token = authorization?.strip_prefix(b"Bearer ")?;
    Some(String::from_utf8_lossy(token))
}

/// Whether a token that nobody verified asks for the license command, or might.
fn may_say_license(token: &str) -> bool {
    match token::decode_unverified(token) {
        Some(Value::Object(claims)) => Claimed::read(&claims)
            .is_none_or(|claimed| claimed.c.is_some_and(|c| c.as_str() == Some(LICENSE))),
        Some(_) | None => false,
    }
}

const LICENSE: &str = "license";

/// The parameters that decide, out of a body or a query.
struct Params<'a> {
    named: Named,
    key: KeyParam<'a>,
    token: TokenParam<'a>,
}

/// What `c` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    License,
    /// Certainly not `"license"`, or absent.
    Other,
    /// The server might read `"license"`.
    Unclear,
}

enum KeyParam<'a> {
    Absent,
    /// A JSON value as it stood in the body.
    Json(&'a str),
    /// One query parameter, or several of that name.
    Texts(Vec<String>),
}

impl KeyParam<'_> {
    fn echo(&self) -> Option<EchoedKey> {
        match self {
            Self::Absent => None,
            Self::Json(json) => EchoedKey::from_json(json),
            Self::Texts(texts) => EchoedKey::from_texts(texts),
        }
    }
}

enum TokenParam<'a> {
    /// Absent or falsy: the header counts.
    Absent,
    Text(Cow<'a, str>),
    /// Truthy and no string: never valid.
    Odd,
}

/// What a token's claims say: themselves, over them `payload`, over that `query`, where these are
/// objects.
struct Claimed<'a> {
    c: Option<&'a Value>,
    key: Option<&'a Value>,
}

impl<'a> Claimed<'a> {
    /// `None` if a level has a member `__proto__`: the server's `Object.assign` would make that the
    /// prototype of the parameters, and so read `c` out of it.
    fn read(claims: &'a Map<String, Value>) -> Option<Self> {
        let mut claimed = Self { c: None, key: None };
        let inner = |name| claims.get(name).and_then(Value::as_object);
        for level in [Some(claims), inner("payload"), inner("query")].into_iter().flatten() {
            if level.contains_key("__proto__") {
                return None;
            }
            claimed.c = level.get("c").or(claimed.c);
            claimed.key = level.get("key").or(claimed.key);
        }
        Some(claimed)
    }

    /// What the claims ask; `beside` is what the parameters beside the token name.
    fn request(&self, beside: Named) -> CommandRequest {
        let key = || self.key.map(EchoedKey::from_value);
        match (self.c, beside) {
            (Some(c), _) if c.as_str() == Some(LICENSE) => CommandRequest::License { key: key() },
            (Some(_), _) | (None, Named::Other) => CommandRequest::Other,
            (None, Named::License | Named::Unclear) => refuse(key()),
        }
    }
}

#[cfg(test)]
mod tests;
