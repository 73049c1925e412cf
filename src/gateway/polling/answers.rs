//! What a polling client is answered: the document server's bodies, compressed as it would have,
//! and the words that are our own.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session as HttpSession;

use super::{EngineRefusal, MAX_BODY};
use crate::gateway::answer::Answer;
use crate::gateway::front;

/// From this size on the document server compresses an answer, in bytes.
const COMPRESS_FROM: usize = 1024;

/// What a `POST` is answered with when it was taken.
const TAKEN: &[u8] = b"ok";

pub(super) fn accepts_gzip(session: &HttpSession) -> bool {
    session.get_header(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).is_some_and(
        |value| {
            value.split(',').any(|entry| {
                let mut parts = entry.split(';').map(str::trim);
                parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
                    && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
            })
        },
    )
}

/// Passes an answer on, compressed as the document server would have.
pub(super) async fn relay_compressed(
    session: &mut HttpSession,
    mut head: ResponseHeader,
    body: Bytes,
    gzip: bool,
) -> pingora::Result<()> {
    if !gzip || body.len() < COMPRESS_FROM {
        return relay(session, head, body).await;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    let compressed = encoder.write_all(&body).and_then(|()| encoder.finish());
    let Ok(compressed) = compressed else { return relay(session, head, body).await };
    head.insert_header(header::CONTENT_ENCODING, "gzip")?;
    relay(session, head, compressed.into()).await
}

pub(super) async fn relay(
    session: &mut HttpSession,
    mut head: ResponseHeader,
    body: Bytes,
) -> pingora::Result<()> {
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    front::end_if_last(session);
    session.write_response_header(Box::new(head), body.is_empty()).await?;
    if !body.is_empty() {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Says that a `POST` was taken, as the document server does.
pub(super) async fn take(session: &mut HttpSession) -> pingora::Result<()> {
    let mut answer = Answer::json(TAKEN);
    answer.content_type = "text/html";
    answer.send(session).await
}

/// Answers as an Engine.IO server does that does not take the request.
///
/// # Errors
/// The client is gone.
pub async fn refuse(refusal: EngineRefusal, session: &mut HttpSession) -> pingora::Result<()> {
    let mut answer = Answer::json(refusal.body());
    answer.status = StatusCode::BAD_REQUEST;
    answer.send(session).await
}

pub(super) async fn too_large(session: &mut HttpSession) -> pingora::Result<()> {
    let message = format!("A polling request may have at most {MAX_BODY} bytes.");
    let headers = &session.req_header().headers;
    Answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &message, headers)
        .send(session)
        .await
}
