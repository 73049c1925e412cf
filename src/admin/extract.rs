//! What handlers take from a request, with refusals in the API's own form.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, Request};
use axum::serve::IncomingStream;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use nix::unistd::{Uid, User};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use super::problem::ApiError;
use crate::clock;
use crate::store::Change;

/// The largest body that is read, in bytes.
pub(super) const BODY_LIMIT: usize = 1024 * 1024;

/// Entries of a list where nobody asks for a number, and the most that one may ask for.
const DEFAULT_LIMIT: u32 = 100;
const MOST: u32 = 1_000;

/// Who is at the other end of the socket.
#[derive(Clone, Debug)]
pub(super) struct Peer(Arc<str>);

impl axum::extract::connect_info::Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let name = match stream.io().peer_cred() {
            Ok(cred) => user_name(cred.uid()),
            Err(error) => {
                tracing::warn!(%error, "the system does not tell who is at the socket");
                "unknown".to_owned()
            }
        };
        Self(name.into())
    }
}

impl Peer {
    /// As the audit log has it.
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// A change by this user, now.
    pub(super) fn change(&self) -> Change {
        Change { at: clock::now(), by: Arc::clone(&self.0) }
    }
}

/// `alice (uid 1000)`, or `uid 1000` for a user without a name.
fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let info = ConnectInfo::<Self>::from_request_parts(parts, state).await;
        Ok(info.map_or_else(|_| Self("unknown".into()), |ConnectInfo(peer)| peer))
    }
}

/// A JSON body of at most [`BODY_LIMIT`] bytes; none at all is `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        if media_type(&request).is_some_and(|media| media != "application/json") {
            return Err(ApiError::MediaType("application/json"));
        }
        let bytes = read(request).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // A list of the values alone would be read, too.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(ApiError::Invalid("the body must be a JSON object".to_owned()));
        }
        serde_json::from_slice(text)
            .map(Body)
            .map_err(|error| ApiError::Invalid(format!("the body cannot be read: {error}")))
    }
}

/// A licence file: its text, and whether it is a signed one.
pub(super) struct File {
    pub(super) text: String,
    pub(super) signed: bool,
}

impl<S: Send + Sync> FromRequest<S> for File {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let signed = match media_type(&request).as_deref() {
            None | Some("application/toml" | "text/plain") => false,
            Some("application/jose") => true,
            Some(_) => return Err(ApiError::MediaType("application/toml or application/jose")),
        };
        let bytes = read(request).await?;
        let text = String::from_utf8(bytes.into())
            .map_err(|_| ApiError::File("the file is not UTF-8; save it as UTF-8".to_owned()))?;
        Ok(Self { text, signed })
    }
}

fn media_type(request: &Request) -> Option<String> {
    let value = request.headers().get(CONTENT_TYPE)?.to_str().unwrap_or("?");
    let media = value.split(';').next().unwrap_or_default();
    Some(media.trim().to_ascii_lowercase())
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    // The only other way for this to fail is a client that is gone.
    axum::body::to_bytes(request.into_body(), BODY_LIMIT).await.map_err(|_| ApiError::TooLarge)
}

/// What stands behind the question mark.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let invalid = |error| ApiError::Invalid(format!("{error}"));
        query.map(|Query(asked)| Self(asked)).map_err(invalid)
    }
}

/// What stands in the path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        let invalid = |error| ApiError::Invalid(format!("{error}"));
        path.map(|Path(named)| Self(named)).map_err(invalid)
    }
}

/// How many entries a list may have.
///
/// # Errors
/// More than [`MOST`], or none.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MOST => Ok(limit),
        other => Err(ApiError::Invalid(format!("limit is {other}; write 1 to {MOST}"))),
    }
}

/// Cuts a list to a page; the key of its last entry, if there are more.
pub(super) fn cut<T>(list: &mut Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Option<String> {
    let limit = limit as usize;
    let more = list.len() > limit;
    list.truncate(limit);
    if more { list.last().map(key) } else { None }
}
