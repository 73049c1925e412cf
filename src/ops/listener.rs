//! The operations listener: `/metrics`, `/healthz`, `/readyz`. Read-only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde_json::json;
use tokio::time::timeout;

use crate::clock;
use crate::gateway::site::Shared;

/// Prometheus' text exposition format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a scrape waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// The operations listener's application.
pub struct Operations {
    shared: Arc<Shared>,
    /// Whether the public listeners are open.
    listening: Arc<AtomicBool>,
}

impl Operations {
    /// Shows `shared`; `listening` tells whether the public listeners are open.
    pub fn new(shared: Arc<Shared>, listening: Arc<AtomicBool>) -> Self {
        Self { shared, listening }
    }

    /// Readiness, with the document servers' health, which alone does not decide it.
    fn readiness(&self) -> Response<Vec<u8>> {
        let draining = *self.shared.draining.borrow();
        let listening = self.listening.load(Ordering::Acquire);
        let (status, code) = match (draining, listening) {
            (true, _) => ("draining", StatusCode::SERVICE_UNAVAILABLE),
            (false, false) => ("starting", StatusCode::SERVICE_UNAVAILABLE),
            (false, true) => ("ready", StatusCode::OK),
        };
        let site = self.shared.site.load();
        let servers: Vec<_> = site
            .upstreams
            .iter()
            .flat_map(|upstreams| upstreams.health())
            .map(|server| json!({ "address": server.address, "healthy": server.healthy }))
            .collect();
        let body = json!({ "status": status, "document_servers": servers });
        respond(code, "application/json", body.to_string())
    }

    async fn metrics(&self) -> Response<Vec<u8>> {
        let now = clock::now();
        let site = self.shared.site.load_full();
        let mut samples: Vec<_> =
            site.tenants().iter().map(|tenant| tenant.sample(&self.shared.ledger, now)).collect();
        let licences = site.tenants().iter().map(|tenant| Arc::clone(&tenant.licence_id)).collect();
        let counting = self.shared.registrar.store().devices_bound(licences);
        // A store that hangs must not keep the other metrics from anybody.
        if let Ok(Ok(counts)) = timeout(STORE_PATIENCE, counting).await {
            for ((sample, tenant), devices) in samples.iter_mut().zip(site.tenants()).zip(counts) {
                sample.devices = tenant.licence().map(|_| devices);
            }
        }
        match self.shared.metrics.render(&samples) {
            Ok(text) => respond(StatusCode::OK, METRICS_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be rendered");
                respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "metrics failed\n")
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
                respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is allowed here\n");
            let allowed = header::HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return refusal;
        }
        match request.uri.path() {
            "/healthz" => respond(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics().await,
            "/" => respond(StatusCode::OK, "text/plain; charset=utf-8", INDEX),
            _ => respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n"),
        }
    }
}

/// What there is to see.
const INDEX: &str = "Seatgate operations\n\n\
    /metrics  Prometheus metrics\n\
    /healthz  200 while the process lives\n\
    /readyz   200 while it serves, with the document servers' health\n";

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
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
