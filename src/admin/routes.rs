//! Every path of the API, in one list: the router is built from it, and a test holds
//! docs/admin-openapi.json against it.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use http::{Method, header};

use super::extract::Peer;
use super::office::Office;
use super::problem::ApiError;
use super::{applying, apps, licences, seats, status, usage};

/// The API's description, as it is served.
pub(super) const OPENAPI: &str = include_str!("../../docs/admin-openapi.json");

pub(super) type Route = (Method, &'static str, MethodRouter<Arc<Office>>);

pub(super) fn routes() -> Vec<Route> {
    vec![
        (Method::GET, "/v1/openapi.json", get(openapi)),
        (Method::GET, "/v1/status", get(status::status)),
        (Method::GET, "/v1/audit", get(status::audit)),
        (Method::GET, "/v1/usage", get(usage::usage)),
        (Method::GET, "/v1/usage/users", get(usage::users)),
        (Method::POST, "/v1/reload", post(status::reload)),
        (Method::POST, "/v1/upgrade", post(status::upgrade)),
        (Method::POST, "/v1/store/backup", post(status::backup)),
        (Method::GET, "/v1/licences", get(licences::list)),
        (Method::POST, "/v1/licences", post(licences::issue)),
        (Method::PUT, "/v1/licences", put(applying::apply)),
        (Method::POST, "/v1/licence-by-key", post(licences::find)),
        (Method::GET, "/v1/licences/{id}", get(licences::get)),
        (Method::PATCH, "/v1/licences/{id}", patch(licences::patch)),
        (Method::POST, "/v1/licences/{id}/renew", post(licences::renew)),
        (Method::POST, "/v1/licences/{id}/revoke", post(licences::revoke)),
        (Method::POST, "/v1/licences/{id}/reinstate", post(licences::reinstate)),
        (Method::GET, "/v1/licences/{id}/devices", get(licences::devices)),
        (Method::DELETE, "/v1/licences/{id}/devices/{device}", delete(licences::unbind)),
        (Method::GET, "/v1/licences/{id}/users", get(licences::users)),
        (Method::DELETE, "/v1/licences/{id}/users/{user}", delete(licences::release)),
        (Method::GET, "/v1/apps", get(apps::list)),
        (Method::POST, "/v1/apps", post(apps::add)),
        (Method::GET, "/v1/apps/{id}", get(apps::get)),
        (Method::DELETE, "/v1/apps/{id}", delete(apps::remove)),
        (Method::POST, "/v1/apps/{id}/rotate", post(apps::rotate)),
        (Method::GET, "/v1/seats", get(seats::list)),
        (Method::DELETE, "/v1/seats/{id}", delete(seats::close)),
    ]
}

/// The whole API.
pub(super) fn router(office: Arc<Office>) -> Router {
    let empty = Router::new();
    let router =
        routes().into_iter().fold(empty, |router, (_, path, does)| router.route(path, does));
    router
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::NoMethod)
        .layer(middleware::from_fn(log))
        .with_state(office)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// Logs what asks for a change; the audit log has what was changed.
async fn log(peer: Peer, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if method == Method::GET || method == Method::HEAD {
        tracing::debug!(%method, path, status, by = peer.name(), "administration");
    } else {
        tracing::info!(%method, path, status, by = peer.name(), "administration");
    }
    response
}
