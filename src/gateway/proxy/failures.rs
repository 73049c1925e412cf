//! What a failure is: for the metrics, for the client, and in the log.

use http::StatusCode;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::{Gateway, RequestContext};
use crate::gateway::answer::Answer;
use crate::gateway::handshake::HandshakeError;
use crate::ops::metrics::UpstreamFailure;

impl Gateway {
    /// Counts and logs a request that failed; `None` if its client left, so that nobody hears an
    /// answer.
    pub(super) fn answer_to(
        &self,
        error: &Error,
        session: &Session,
        context: &RequestContext,
    ) -> Option<Answer> {
        let server = match context.tried.last() {
            Some(address) => format!("The document server {address}"),
            None => "The document server".to_owned(),
        };
        let after = context.started.elapsed();
        Some(match error.esource() {
            ErrorSource::Upstream => {
                let (failure, status, what) = upstream_failure(error.etype());
                self.shared.metrics.count_upstream_failure(failure);
                tracing::warn!(%error, ?after, server, "a document server failed");
                let message = format!("{server} {what} (after {:.1} s).", after.as_secs_f64());
                upstream_refusal(status, &message, session)
            }
            ErrorSource::Downstream => {
                tracing::debug!(%error, "a client failed");
                let (status, name) = match error.etype() {
                    ErrorType::ReadTimedout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
                    ErrorType::ReadError
                    | ErrorType::WriteError
                    | ErrorType::WriteTimedout
                    | ErrorType::ConnectionClosed => return None,
                    _ => (StatusCode::BAD_REQUEST, "bad_request"),
                };
                let message = "The request is broken or did not arrive in time.";
                Answer::refusal(status, name, message, &session.req_header().headers)
            }
            ErrorSource::Internal | ErrorSource::Unset => {
                tracing::error!(%error, "a request failed here");
                let (status, message) = match error.etype() {
                    ErrorType::HTTPStatus(code) => (
                        StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                        "The request cannot be handled.",
                    ),
                    _ => (StatusCode::INTERNAL_SERVER_ERROR, "The gateway failed."),
                };
                Answer::refusal(status, "gateway", message, &session.req_header().headers)
            }
        })
    }
}

/// The answer to a request that its document server failed.
pub(super) fn upstream_refusal(status: StatusCode, message: &str, session: &Session) -> Answer {
    let error =
        if status == StatusCode::GATEWAY_TIMEOUT { "gateway_timeout" } else { "bad_gateway" };
    Answer::refusal(status, error, message, &session.req_header().headers)
}

/// What a failed handshake is for the metrics and the client.
pub(super) fn handshake_failure(error: &HandshakeError) -> (UpstreamFailure, StatusCode) {
    match error {
        HandshakeError::ConnectTimeout { .. } => {
            (UpstreamFailure::Connect, StatusCode::GATEWAY_TIMEOUT)
        }
        HandshakeError::Connect { .. } | HandshakeError::Tls { .. } => {
            (UpstreamFailure::Connect, StatusCode::BAD_GATEWAY)
        }
        HandshakeError::AnswerTimeout { .. } => {
            (UpstreamFailure::Timeout, StatusCode::GATEWAY_TIMEOUT)
        }
        HandshakeError::Broken { .. } => (UpstreamFailure::Reset, StatusCode::BAD_GATEWAY),
        HandshakeError::NotHttp { .. } => (UpstreamFailure::Other, StatusCode::BAD_GATEWAY),
    }
}

/// What an upstream error is for the metrics, the client and the log.
fn upstream_failure(error: &ErrorType) -> (UpstreamFailure, StatusCode, &'static str) {
    match error {
        ErrorType::ConnectTimedout => {
            (UpstreamFailure::Connect, StatusCode::GATEWAY_TIMEOUT, "could not be reached in time")
        }
        ErrorType::TLSHandshakeFailure => (
            UpstreamFailure::Connect,
            StatusCode::BAD_GATEWAY,
            "cannot be trusted, or does not speak TLS",
        ),
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError => {
            (UpstreamFailure::Connect, StatusCode::BAD_GATEWAY, "cannot be reached")
        }
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
            (UpstreamFailure::Timeout, StatusCode::GATEWAY_TIMEOUT, "did not answer in time")
        }
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            (UpstreamFailure::Reset, StatusCode::BAD_GATEWAY, "broke the connection off")
        }
        _ => (UpstreamFailure::Other, StatusCode::BAD_GATEWAY, "gave an answer that is not HTTP"),
    }
}
