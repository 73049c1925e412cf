//! Bodies that are read whole: bounded in size and time, one by one and together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use pingora::proxy::Session;
use tokio::time::timeout;

use super::answer::Answer;

/// The most bytes of whole bodies that the process holds at a time.
pub const BODIES_BUDGET: usize = 512 * 1024 * 1024;

/// What each body may have outside of the budget.
const FREE_BYTES: usize = 64 * 1024;

/// Bytes of whole bodies held now.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A whole body; its share of the budget is given back when it is dropped.
#[derive(Debug)]
pub struct WholeBody {
    pub bytes: Bytes,
    _share: Share,
}

/// What one body has of the budget.
#[derive(Debug, Default)]
pub struct Share(usize);

impl Share {
    /// Takes `bytes` more; `false` if there is no budget left.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let counted = self.counted();
        self.0 += bytes;
        let more = self.counted() - counted;
        more == 0 || HELD_BYTES.fetch_add(more, Ordering::Relaxed) + more <= BODIES_BUDGET
    }

    /// The bytes that count against the budget: small bodies are free, so that large ones cannot
    /// drive them out.
    fn counted(&self) -> usize {
        self.0.saturating_sub(FREE_BYTES)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD_BYTES.fetch_sub(self.counted(), Ordering::Relaxed);
    }
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    NoBudget,
}

/// Reads a request's body of at most `limit` bytes within `within`, or says why not.
///
/// # Errors
/// The client broke off.
pub async fn read_whole(
    session: &mut Session,
    limit: usize,
    within: Duration,
) -> pingora::Result<Result<WholeBody, Answer>> {
    let stated = session
        .get_header(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if stated.is_some_and(|length| length > limit as u64) {
        return Ok(Err(refusal(&Unread::TooLarge, limit, session)));
    }
    let expects = session
        .get_header(header::EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects {
        session.write_continue_response().await?;
    }
    match timeout(within, read(session, limit)).await {
        Ok(Ok(Ok(body))) => Ok(Ok(body)),
        Ok(Ok(Err(unread))) => Ok(Err(refusal(&unread, limit, session))),
        Ok(Err(error)) => Err(error.into_down()),
        Err(_) => Ok(Err(Answer::refusal(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "The request's body did not arrive in time.",
            &session.req_header().headers,
        ))),
    }
}

async fn read(session: &mut Session, limit: usize) -> pingora::Result<Result<WholeBody, Unread>> {
    let mut share = Share::default();
    let mut first = Bytes::new();
    // Most bodies come in one piece, which is not copied.
    let mut joined = BytesMut::new();
    while let Some(piece) = session.read_request_body().await? {
        if first.len() + joined.len() + piece.len() > limit {
            return Ok(Err(Unread::TooLarge));
        }
        if !share.grow(piece.len()) {
            return Ok(Err(Unread::NoBudget));
        }
        if first.is_empty() && joined.is_empty() {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&piece);
        }
    }
    let bytes = if joined.is_empty() { first } else { joined.freeze() };
    Ok(Ok(WholeBody { bytes, _share: share }))
}

fn refusal(unread: &Unread, limit: usize, session: &Session) -> Answer {
    let headers = &session.req_header().headers;
    match unread {
        Unread::TooLarge => Answer::refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            &format!("A body may have at most {limit} bytes here."),
            headers,
        ),
        Unread::NoBudget => busy(headers),
    }
}

/// The answer where there is no budget left.
pub fn busy(headers: &HeaderMap) -> Answer {
    Answer::refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        "Too many large requests are under way. Try again in a moment.",
        headers,
    )
}
