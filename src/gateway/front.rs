//! What a connection meets first: Pingora's HTTP/1.1 loop, with a time limit on request heads.
//!
//! Pingora limits each read of a head, not the head as a whole, so that a client that sends a
//! byte a minute could hold a connection for ever.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use super::proxy::Gateway;

/// How long the first request's head may take, from the connection on.
const FIRST_HEAD: Duration = Duration::from_secs(30);

/// How long a connection may be idle between requests, the next head included.
const NEXT_HEAD: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// Whether the head of the connection's present request is complete.
    static HEAD_IS_COMPLETE: Cell<bool>;
}

/// Tells the time limit that the present request's head is complete.
pub fn header_is_complete() {
    let _ = HEAD_IS_COMPLETE.try_with(|complete| complete.set(true));
}

/// The public listeners' application.
pub struct Front {
    proxy: Arc<HttpProxy<Gateway>>,
    gateway_is_draining: tokio::sync::watch::Receiver<bool>,
}

impl Front {
    /// A front before `proxy`; connections that come while `draining` are closed at once.
    pub fn new(proxy: HttpProxy<Gateway>, draining: tokio::sync::watch::Receiver<bool>) -> Self {
        Self { proxy: Arc::new(proxy), gateway_is_draining: draining }
    }

    fn is_draining(&self) -> bool {
        *self.gateway_is_draining.borrow()
    }
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(NEXT_HEAD.as_secs()));
        let mut limit = FIRST_HEAD;
        loop {
            if self.is_draining() {
                return None;
            }
            let request = async {
                tokio::select! {
                    biased;
                    reused = self.proxy.process_new_http(session, shutdown) => reused,
                    () = head_is_late(limit) => None,
                }
            };
            let (stream, settings) =
                HEAD_IS_COMPLETE.scope(Cell::new(false), request).await?.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            limit = NEXT_HEAD;
        }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Completes if the head is not complete after `limit`.
async fn head_is_late(limit: Duration) {
    tokio::time::sleep(limit).await;
    if HEAD_IS_COMPLETE.with(Cell::get) {
        std::future::pending::<()>().await;
    }
}
