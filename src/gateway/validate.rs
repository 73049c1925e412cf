//! The validation API over HTTP: the checks in their order, CORS, and the answers.
//!
//! INTERFACE.md section 4: 405, 429, 413, 415, 401, 400, and then the decision of
//! [`crate::validate`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use tokio::time::timeout;

use super::answer::Answer;
use super::caller::Caller;
use super::site::Shared;
use crate::clock;
use crate::config::{Language, Validate};
use crate::validate::language::negotiate;
use crate::validate::request::BODY_LIMIT;
use crate::validate::{Outcome, Problem, Refusal, ValidationRequest, answer};

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// How much of an overlong body is read all the same: a client that is still sending would not
/// see an answer before the connection is closed under it.
const DISCARD_LIMIT: usize = 1 << 20;

/// How long a browser may keep the answer to a preflight, in seconds.
const PREFLIGHT_AGE: &str = "600";

/// Answers a request to the validation API.
///
/// # Errors
/// The client broke off.
pub async fn handle(
    session: &mut Session,
    shared: &Shared,
    caller: &Caller,
) -> pingora::Result<()> {
    let site = shared.site.load_full();
    let settings = &site.validate;
    let headers = &session.req_header().headers;
    let language = negotiate(text(headers, &header::ACCEPT_LANGUAGE), settings.language);
    let origin = allowed_origin(headers, settings);

    if session.req_header().method == Method::OPTIONS
        && let Some(origin) = origin
    {
        return preflight(origin).send(session).await;
    }
    let (outcome, reusable) = decide(session, shared, settings, caller).await?;
    shared.metrics.count_validation(answer::label(&outcome));
    if let Err(refusal) = outcome
        && refusal.counts_as_failure()
    {
        shared.validation.failures.note(caller.client, clock::now());
    }
    let mut told = tell(&outcome, language, settings);
    told.keep_alive = reusable;
    if let Some(origin) = origin {
        told.headers.push(("Access-Control-Allow-Origin", origin));
        told.headers.push(("Access-Control-Expose-Headers", "Retry-After".to_owned()));
    }
    told.send(session).await
}

/// The checks in their order, and the decision; the flag says whether the connection can carry
/// another request.
async fn decide(
    session: &mut Session,
    shared: &Shared,
    settings: &Validate,
    caller: &Caller,
) -> pingora::Result<(Outcome, bool)> {
    // The body is read in any case, as an answer before its end might not arrive.
    let body = read_body(session).await?;
    let reusable = matches!(body, Body::Whole(_));
    let request = session.req_header();
    let now = clock::now();
    let desk = &shared.validation;
    let refused = |refusal| Ok((Err(refusal), reusable));

    if request.method != Method::POST {
        return refused(Refusal::Invalid(Problem::Method));
    }
    let limit = settings.failures_per_minute;
    if let Some(retry_after_seconds) = desk.failures.blocked(caller.client, limit, now) {
        return refused(Refusal::RateLimited { retry_after_seconds });
    }
    let body = match body {
        Body::Whole(body) => body,
        Body::TooLarge => return refused(Refusal::Invalid(Problem::TooLarge)),
        Body::TooSlow => return refused(Refusal::Invalid(Problem::TooSlow)),
    };
    if !is_json(request) {
        return refused(Refusal::Invalid(Problem::MediaType));
    }
    let (app, key) = (once(&request.headers, "x-app-id"), once(&request.headers, "x-api-key"));
    let Some(app) = desk.authenticate(app, key, now) else {
        return refused(Refusal::Unauthorized);
    };
    let outcome = match ValidationRequest::parse(&body) {
        Ok(request) => desk.validate(&app, &request, now).await,
        Err(problem) => Err(Refusal::Invalid(problem)),
    };
    Ok((outcome, reusable))
}

/// An outcome as HTTP.
fn tell(outcome: &Outcome, language: Language, settings: &Validate) -> Answer {
    let mut told = Answer::json(answer::body(outcome, language));
    told.headers.push(("Cache-Control", "no-store".to_owned()));
    let tag = match language {
        Language::Zh => "zh",
        Language::En => "en",
    };
    told.headers.push(("Content-Language", tag.to_owned()));
    let cors = !settings.allowed_origins.is_empty();
    let vary = if cors { "Accept-Language, Origin" } else { "Accept-Language" };
    told.headers.push(("Vary", vary.to_owned()));
    if let Err(refusal) = outcome {
        told.status = status(*refusal);
        match refusal {
            Refusal::Invalid(Problem::Method) => {
                let allowed = if cors { "POST, OPTIONS" } else { "POST" };
                told.headers.push(("Allow", allowed.to_owned()));
            }
            Refusal::RateLimited { retry_after_seconds } => {
                told.headers.push(("Retry-After", retry_after_seconds.to_string()));
            }
            _ => {}
        }
    }
    told
}

fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        // Answers, not failures: the client asked properly.
        Refusal::NotFound | Refusal::Expired | Refusal::Revoked | Refusal::MaxDevices => {
            StatusCode::OK
        }
        Refusal::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        Refusal::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Invalid(problem) => match problem {
            Problem::Method => StatusCode::METHOD_NOT_ALLOWED,
            Problem::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Problem::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::NotJson
            | Problem::NotAnObject
            | Problem::Missing(_)
            | Problem::Twice(_)
            | Problem::NotAString(_)
            | Problem::Empty(_)
            | Problem::TooLong(_) => StatusCode::BAD_REQUEST,
        },
    }
}

/// The answer to a browser's question whether its page may call (Fetch, "CORS-preflight fetch").
fn preflight(origin: String) -> Answer {
    let mut told = Answer::json(Bytes::new());
    told.status = StatusCode::NO_CONTENT;
    told.headers = vec![
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Methods", "POST".to_owned()),
        ("Access-Control-Allow-Headers", "Content-Type, X-App-Id, X-Api-Key".to_owned()),
        ("Access-Control-Max-Age", PREFLIGHT_AGE.to_owned()),
        ("Vary", "Origin".to_owned()),
    ];
    told
}

/// What to tell a browser whose page may call; `None` for everybody else.
fn allowed_origin(headers: &HeaderMap, settings: &Validate) -> Option<String> {
    let origin = text(headers, &header::ORIGIN)?;
    let allowed = &settings.allowed_origins;
    if allowed.iter().any(|allowed| allowed == "*") {
        return Some("*".to_owned());
    }
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)).then(|| origin.to_owned())
}

/// `application/json` in UTF-8, and not compressed.
fn is_json(request: &RequestHeader) -> bool {
    let headers = &request.headers;
    let plain = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(stated) = once(headers, "content-type").and_then(|t| std::str::from_utf8(t).ok())
    else {
        return false;
    };
    let mut parts = stated.split(';').map(str::trim);
    let json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    plain && json && utf8
}

/// A header that is there exactly once.
fn once<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { Some(value.as_bytes()) }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What became of reading a body.
enum Body {
    Whole(Bytes),
    TooLarge,
    TooSlow,
}

async fn read_body(session: &mut Session) -> pingora::Result<Body> {
    let stated = text(&session.req_header().headers, &header::CONTENT_LENGTH)
        .and_then(|length| length.parse::<usize>().ok());
    let expects = session
        .get_header(header::EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if stated.is_some_and(|length| length > if expects { BODY_LIMIT } else { DISCARD_LIMIT }) {
        return Ok(Body::TooLarge);
    }
    if expects {
        session.write_continue_response().await?;
    }
    let reading = async {
        let mut body = BytesMut::new();
        let mut length = 0;
        while let Some(piece) = session.read_request_body().await? {
            length += piece.len();
            if length > DISCARD_LIMIT {
                break;
            }
            if length <= BODY_LIMIT {
                body.extend_from_slice(&piece);
            }
        }
        let whole = length <= BODY_LIMIT;
        pingora::Result::Ok(if whole { Body::Whole(body.freeze()) } else { Body::TooLarge })
    };
    match timeout(BODY_TIMEOUT, reading).await {
        Ok(read) => read,
        Err(_) => Ok(Body::TooSlow),
    }
}
