//! The operations listener: the status page and `/api/status`, `/metrics`, `/healthz`, `/readyz`.
//! Read-only.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, Method, Response, StatusCode, header};
use parking_lot::Mutex;
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::apps::{HttpServerApp as _, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use serde_json::json;
use tokio::time::timeout;

use super::page::PAGE;
use super::status::body::State;
use super::status::{Reporter, STORE_PATIENCE, Wanted, document_servers};
use crate::clock;
use crate::listen::{Application, Busy};

/// Prometheus' text exposition format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The operations listener's application.
pub struct Operations {
    reporter: Reporter,
}

impl Operations {
    /// Shows what `reporter` tells.
    pub fn new(reporter: Reporter) -> Self {
        Self { reporter }
    }

    /// Readiness, with the document servers' health, which alone does not decide it.
    fn readiness(&self) -> Response<Vec<u8>> {
        let (status, code) = match self.reporter.state() {
            State::Draining => ("draining", StatusCode::SERVICE_UNAVAILABLE),
            State::Starting => ("starting", StatusCode::SERVICE_UNAVAILABLE),
            State::Ready => ("ready", StatusCode::OK),
        };
        let site = self.reporter.shared.site.load();
        let servers: Vec<_> = site
            .upstreams
            .iter()
            .flat_map(|upstreams| upstreams.health())
            .map(|server| json!({ "address": server.address, "healthy": server.healthy }))
            .collect();
        let body = json!({ "status": status, "document_servers": servers });
        respond(code, JSON, body.to_string())
    }

    async fn metrics(&self) -> Response<Vec<u8>> {
        let now = clock::now();
        let shared = &self.reporter.shared;
        let site = shared.site.load_full();
        let mut samples: Vec<_> =
            site.tenants().iter().map(|tenant| tenant.sample(&shared.ledger, now)).collect();
        let licences = site.tenants().iter().map(|tenant| Arc::clone(&tenant.licence_id)).collect();
        let counting = shared.registrar.store().devices_bound(licences);
        // A store that hangs must not keep the other metrics from anybody.
        if let Ok(Ok(counts)) = timeout(STORE_PATIENCE, counting).await {
            for ((sample, tenant), devices) in samples.iter_mut().zip(site.tenants()).zip(counts) {
                sample.devices = tenant.licence().map(|_| devices);
            }
        }
        let servers: Vec<_> = document_servers(&site)
            .into_iter()
            .map(|server| (server.address, server.healthy))
            .collect();
        let draining = self.reporter.state() == State::Draining;
        match shared.metrics.render(&samples, &site.certificates, &servers, draining) {
            Ok(text) => respond(StatusCode::OK, METRICS_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be rendered");
                respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics failed\n")
            }
        }
    }

    async fn status(&self, query: Option<&str>) -> Response<Vec<u8>> {
        let wanted = match Wanted::read(query) {
            Ok(wanted) => wanted,
            Err(message) => {
                let body = json!({ "error": "invalid_request", "message": message });
                return respond(StatusCode::BAD_REQUEST, JSON, body.to_string());
            }
        };
        let status = self.reporter.status(&wanted, clock::now()).await;
        match serde_json::to_vec(&status) {
            Ok(body) => respond(StatusCode::OK, JSON, body),
            Err(error) => {
                tracing::error!(%error, "the status cannot be written");
                respond(StatusCode::INTERNAL_SERVER_ERROR, JSON, r#"{"error":"status_failed"}"#)
            }
        }
    }
}

#[async_trait]
impl ServeHttp for Operations {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut refusal =
                respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is allowed here\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return refusal;
        }
        match request.uri.path() {
            "/healthz" => respond(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics().await,
            "/api/status" => self.status(request.uri.query()).await,
            "/" => page(),
            _ => respond(StatusCode::NOT_FOUND, TEXT, "not found\n"),
        }
    }
}

/// What the operations listener says before there is anything to tell: the process lives, and what
/// it waits for.
pub struct Starting {
    waits_for: Arc<Mutex<String>>,
}

impl Starting {
    /// Shows `waits_for` as it is at the time.
    pub fn new(waits_for: Arc<Mutex<String>>) -> Self {
        Self { waits_for }
    }
}

#[async_trait]
impl ServeHttp for Starting {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if session.req_header().uri.path() == "/healthz" {
            return respond(StatusCode::OK, TEXT, "ok\n");
        }
        let waits_for = self.waits_for.lock().clone();
        let body = json!({ "status": "starting", "waits_for": waits_for, "document_servers": [] });
        respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string())
    }
}

impl<A: ServeHttp + Send + Sync + 'static> Application for HttpServer<A> {
    async fn serve(self: Arc<Self>, stream: Stream, arrival: Busy, shutdown: ShutdownWatch) {
        let session = ServerSession::new_http1(stream);
        let mut answered = self.process_new_http(session, &shutdown).await;
        drop(arrival);
        while let Some((stream, settings)) = answered.map(ReusedHttpStream::consume) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            answered = self.process_new_http(session, &shutdown).await;
        }
    }
}

/// The status page, under its policy.
fn page() -> Response<Vec<u8>> {
    let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", PAGE.html.as_str());
    if let Ok(policy) = HeaderValue::from_str(&PAGE.policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Vec<u8>>,
) -> Response<Vec<u8>> {
    let body = body.into();
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
