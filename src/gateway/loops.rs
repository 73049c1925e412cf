//! Requests that come back. Where a name among the addresses leads to the gateway itself, or what
//! stands between it and the document server sends back, one request would go round until no
//! file descriptor is left. So each carries the mark of the process (`CDN-Loop`, RFC 8586), which
//! proxies pass on, and one with our mark is refused. Another gateway has another mark.
//!
//! Not `Via` (RFC 9110, section 7.6.3): nginx, the front of document servers, compresses nothing for
//! requests that have it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use pingora::http::RequestHeader;

use super::answer::Answer;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// How often the log tells of it, at most.
const QUIET: Duration = Duration::from_secs(60);

/// The mark of this process.
static MARK: LazyLock<String> = LazyLock::new(|| {
    // A hasher's keys are the standard library's source of randomness.
    format!("seatgate-{:016x}", RandomState::new().hash_one(()))
});

/// When the log told of it last.
static TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// Marks a request that goes to a document server; what others wrote stays.
///
/// # Errors
/// None that is known.
pub fn mark(request: &mut RequestHeader) -> pingora::Result<()> {
    // Not a value that threads would share: they would all count its copies at one place.
    request.append_header(CDN_LOOP, HeaderValue::from_static(MARK.as_str()))?;
    Ok(())
}

/// Whether a request has passed this process already.
pub fn has_passed(headers: &HeaderMap) -> bool {
    headers.get_all(CDN_LOOP).iter().any(|value| names(value.as_bytes(), MARK.as_bytes()))
}

/// Whether `mark` is one of the entries, with parameters or without.
fn names(value: &[u8], mark: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|entry| {
        let entry = entry.split(|byte| *byte == b';').next().unwrap_or_default();
        entry.trim_ascii() == mark
    })
}

/// The answer to a request that came back, which the log tells of once a minute.
pub fn refusal(headers: &HeaderMap, path: &str, tenant: &str) -> Answer {
    let mut told = TOLD.lock();
    if told.is_none_or(|told| told.elapsed() >= QUIET) {
        *told = Some(Instant::now());
        tracing::error!(
            path,
            tenant,
            "a request came back to this gateway and is refused with 508: the addresses of \
             [document_server], or what stands between, lead here; name the document server's own \
             address"
        );
    }
    drop(told);
    let message = "The request came back to the gateway: the address of the document server leads \
                   to the gateway itself.";
    Answer::refusal(StatusCode::LOOP_DETECTED, "loop_detected", message, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_among_others() {
        for (value, known) in [
            ("seatgate-1", true),
            ("cdn.example, seatgate-1", true),
            ("seatgate-1; v=2,cdn.example", true),
            ("  seatgate-1\t;v", true),
            ("seatgate-2", false),
            ("seatgate-12, seatgate", false),
            ("cdn.example; seatgate-1", false),
            ("", false),
        ] {
            assert_eq!(names(value.as_bytes(), b"seatgate-1"), known, "{value}");
        }
    }

    #[test]
    fn a_request_is_known_once_it_was_marked() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header(CDN_LOOP, "seatgate-0").unwrap();
        assert!(!has_passed(&request.headers));
        mark(&mut request).unwrap();
        assert!(has_passed(&request.headers));
        let first = request.headers.get(CDN_LOOP).unwrap();
        assert_eq!(first, "seatgate-0", "what others wrote stays");
    }
}
