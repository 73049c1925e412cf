//! Refusals of the administration API: the one place where they become HTTP.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::api::Problem;
use super::keys::NoRandomness;
use crate::store::StoreError;

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is not there")]
    NotFound(String),
    #[error("there is nothing at this path; /v1/openapi.json tells what there is")]
    NoRoute,
    #[error("this path does not take that method; /v1/openapi.json tells which")]
    NoMethod,
    #[error("the body is larger than {} KiB", super::extract::BODY_LIMIT / 1024)]
    TooLarge,
    #[error("the body must be {0}")]
    MediaType(&'static str),
    #[error("{0}")]
    Conflict(String),
    #[error("{id} belongs to {file}:{line}; {}", mend(.file))]
    Declared { id: String, file: String, line: u64 },
    /// The lines of a file's errors.
    #[error("{0}")]
    File(String),
    #[error("{0}")]
    Target(String),
    #[error("{0}; nothing was changed")]
    Store(StoreError),
    #[error("{0}")]
    Randomness(#[from] NoRandomness),
}

/// What to do about a licence that a file states.
fn mend(file: &str) -> &'static str {
    if file.ends_with(crate::signed::EXTENSION) {
        "the file is signed: only who signed it can change it"
    } else {
        "change it there, and reload"
    }
}

impl ApiError {
    /// Status and the word for programs.
    pub(super) fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::NotFound(_) | Self::NoRoute => (StatusCode::NOT_FOUND, "not_found"),
            Self::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::Declared { .. } => (StatusCode::CONFLICT, "belongs_to_file"),
            Self::File(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_file"),
            Self::Target(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_target"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_failed"),
            Self::Randomness(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            StoreError::Declared { id, file, line } => Self::Declared { id, file, line },
            error @ (StoreError::Target { .. }
            | StoreError::BackupElsewhere
            | StoreError::NotEmpty) => Self::Target(error.to_string()),
            error @ (StoreError::Exists(_)
            | StoreError::Signed { .. }
            | StoreError::KeyTaken { .. }
            | StoreError::KeyRevoked { .. }) => Self::Conflict(error.to_string()),
            error @ (StoreError::Full
            | StoreError::ReadOnly
            | StoreError::Io(_)
            | StoreError::Damaged(_)
            | StoreError::Timeout
            | StoreError::Closed
            | StoreError::Internal(_)) => Self::Store(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error) = self.code();
        let mut problem =
            Problem { error: error.to_owned(), message: self.to_string(), ..Problem::default() };
        if let Self::Declared { file, line, .. } = self {
            problem.file = Some(file);
            problem.line = Some(line);
        }
        (status, Json(problem)).into_response()
    }
}
