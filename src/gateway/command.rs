//! The command service: `license` is answered here, everything else goes on byte for byte.
//!
//! INTERFACE.md section 4, WIRE.md section 1.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{Method, StatusCode, header};
use jiff::Timestamp;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::answer::Answer;
use super::body::{WholeBody, read_whole};
use super::site::Tenant;
use crate::clock;
use crate::ledger::UserList;
use crate::licence::Licence;
use crate::license_answer::{LicenseAnswer, QuotaUser};
use crate::seat::SeatClass;
use crate::wire::command::{self, CommandInput, CommandRequest, InflateError, ServerFacts};

/// How long a client may take to send a command's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The license answer of a tenant, built once per change rather than once per request.
#[derive(Debug, Default)]
pub struct LicenseDesk {
    kept: ArcSwapOption<Kept>,
}

#[derive(Debug)]
struct Kept {
    answer: LicenseAnswer,
    /// The ledger's version, the server's facts, the licence in force and the instant that it was
    /// built from.
    version: u64,
    facts: Arc<ServerFacts>,
    licence: Option<Arc<Licence>>,
    built: Timestamp,
}

impl LicenseDesk {
    /// The answer for `tenant` at `now`.
    fn answer(&self, tenant: &Tenant, now: Timestamp) -> LicenseAnswer {
        let version = tenant.seats.version(now);
        let facts = tenant.upstreams.facts();
        let licence = tenant.licence();
        if let Some(kept) = &*self.kept.load()
            && kept.version == version
            && Arc::ptr_eq(&kept.facts, &facts)
            && kept.licence.as_ref().map(Arc::as_ptr) == licence.as_ref().map(Arc::as_ptr)
            && kept.built <= now
            && kept.answer.valid_until().is_none_or(|until| now < until)
        {
            return kept.answer.clone();
        }
        let editors = tenant.seats.users(SeatClass::Editor, now);
        let viewers = tenant.seats.users(SeatClass::LiveViewer, now);
        let answer = LicenseAnswer::build(
            licence.as_deref(),
            &facts,
            quota_users(&editors),
            quota_users(&viewers),
            now,
        );
        if editors.version == version && viewers.version == version {
            let kept = Kept { answer: answer.clone(), version, facts, licence, built: now };
            self.kept.store(Some(Arc::new(kept)));
        }
        answer
    }
}

fn quota_users(list: &UserList) -> impl Iterator<Item = QuotaUser<'_>> {
    list.users.iter().map(|user| QuotaUser {
        id: &user.user,
        expire: user.expires,
        anonymous: user.anonymous,
    })
}

/// What is to become of a request on a route of the command service.
#[derive(Debug)]
pub enum Outcome {
    Answer(Answer),
    /// The document server's to answer; the body is whole and as it came.
    Forward(WholeBody),
}

/// Whether the command service takes a request: `GET /command` is not one of its routes.
pub fn takes(request: &RequestHeader) -> bool {
    match request.method {
        Method::POST => true,
        Method::GET | Method::HEAD => {
            let path = request.uri.path().trim_end_matches('/');
            !path.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case("command"))
        }
        _ => false,
    }
}

/// Reads a command, answers it or says that it is to be forwarded.
///
/// # Errors
/// The client broke off.
pub async fn handle(session: &mut Session, tenant: &Tenant) -> pingora::Result<Outcome> {
    let settings = &tenant.upstreams.settings;
    let limit = settings.command_body_limit;
    let whole = match read_whole(session, limit, BODY_TIMEOUT).await? {
        Ok(whole) => whole,
        Err(refusal) => return Ok(Outcome::Answer(refusal)),
    };
    let body = &whole.bytes;
    let request = session.req_header();
    let encodings: Vec<_> = request
        .headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let plain = match command::inflate(body, Some(&encodings.join(", ")), limit) {
        Ok(plain) => plain,
        Err(error) => return Ok(Outcome::Answer(unreadable(error, session))),
    };
    let target = request.raw_path();
    let query = target.iter().position(|byte| *byte == b'?').and_then(|at| target.get(at + 1..));
    let input = CommandInput {
        query: query.unwrap_or_default(),
        body: &plain,
        authorization: request.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()),
    };
    let now = clock::now();
    let answer = match command::read(&input, settings.secrets.inbox.as_deref(), now) {
        CommandRequest::License { key } => {
            tenant.license_desk.answer(tenant, now).body(key.as_ref())
        }
        CommandRequest::Answer(reply) => reply.body(),
        CommandRequest::Other => return Ok(Outcome::Forward(whole)),
    };
    Ok(Outcome::Answer(Answer::json(answer)))
}

fn unreadable(error: InflateError, session: &Session) -> Answer {
    let (status, name) = match error {
        InflateError::Unsupported => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding"),
        InflateError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        InflateError::Corrupt => (StatusCode::BAD_REQUEST, "bad_body"),
    };
    let message = format!("The command's body cannot be read: {error}.");
    Answer::refusal(status, name, &message, &session.req_header().headers)
}
