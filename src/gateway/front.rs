//! What a connection meets first: a PROXY header where one is due, TLS where the listener has it,
//! and Pingora's HTTP/1.1 loop, with a time limit on request heads.
//!
//! Pingora limits each read of a head, not the head as a whole, so that a client that sends a
//! byte a minute could hold a connection for ever.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerApp as _;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{HttpProxy, Session};
use pingora::server::ShutdownWatch;

use super::corked::Corked;
use super::http2;
use super::proxy::Gateway;
use super::proxy_protocol;
use super::site::Shared;
use super::tls::server::TlsServer;
use crate::listen::{Access, Application, Busy};

/// How long the first request's head may take, from the connection on.
pub const FIRST_HEAD: Duration = Duration::from_secs(30);

/// How long a connection may be idle between requests, the next head included.
pub const NEXT_HEAD: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// The head of the connection's present request.
    static HEAD: Head;
    /// The present connection.
    static CONNECTION: Connection;
}

/// What is known of a connection.
struct Connection {
    shared: Arc<Shared>,
    /// Whether it comes from the process that took over from this one.
    is_relay: bool,
}

/// How far a request's head is.
#[derive(Default)]
struct Head {
    is_complete: Cell<bool>,
    /// Counts the connection for as long as this is its first request.
    arrival: Cell<Option<Busy>>,
    /// Whether it belongs to an editing session.
    is_coauthoring: Cell<bool>,
}

/// Whether the present request was passed on by the process that took over from this one.
pub fn is_relayed() -> bool {
    CONNECTION.try_with(|connection| connection.is_relay).unwrap_or(false)
}

/// Tells that the present request belongs to an editing session.
pub fn is_coauthoring() {
    let _ = HEAD.try_with(|head| head.is_coauthoring.set(true));
}

/// Has the connection end with the present answer, if the next request is for whoever comes next:
/// another process, or another gateway. Polling sessions go on here until another process has the
/// listeners.
///
/// To be called when an answer's head is written: a client that is told that its connection goes on
/// uses it, and a request may have been parked for long. HTTP/2 has a word of its own for it.
pub fn end_if_last(session: &mut Session) {
    let is_coauthoring = HEAD.try_with(|head| head.is_coauthoring.get()).unwrap_or(false);
    let is_last = CONNECTION.try_with(|Connection { shared, is_relay }| {
        let goes_on = *is_relay || (is_coauthoring && !*shared.left.borrow());
        !goes_on && *shared.access.borrow() != Access::Open
    });
    if is_last.unwrap_or(false) {
        session.set_keepalive(None);
    }
}

/// Tells that the present request's head is complete, and counts for itself.
pub fn header_is_complete() {
    let _ = HEAD.try_with(|head| {
        head.is_complete.set(true);
        head.arrival.take()
    });
}

/// The application of the public listeners, of those without TLS or of those with.
pub struct Front {
    proxy: Arc<HttpProxy<Gateway>>,
    shared: Arc<Shared>,
    tls: Option<Arc<TlsServer>>,
    /// Whether the connections come from the process that took over from this one.
    is_relay: bool,
}

impl Front {
    /// A front before `proxy`.
    pub fn new(
        proxy: Arc<HttpProxy<Gateway>>,
        shared: Arc<Shared>,
        tls: Option<Arc<TlsServer>>,
    ) -> Self {
        Self { proxy, shared, tls, is_relay: false }
    }

    /// A front for what the process that took over from this one passes on.
    pub fn for_successor(proxy: Arc<HttpProxy<Gateway>>, shared: Arc<Shared>) -> Self {
        Self { proxy, shared, tls: None, is_relay: true }
    }

    /// Whether a connection begins with a PROXY header.
    fn expects_header(&self, stream: &Stream) -> bool {
        let site = self.shared.site.load();
        let networks = &site.proxy_protocol;
        !networks.is_empty() && proxy_protocol::is_expected(proxy_protocol::peer(stream), networks)
    }

    fn connection(&self) -> Connection {
        Connection { shared: Arc::clone(&self.shared), is_relay: self.is_relay }
    }

    /// A connection of a TLS listener.
    async fn over_tls(
        &self,
        tls: &TlsServer,
        stream: Stream,
        arrival: Busy,
        shutdown: &ShutdownWatch,
    ) {
        let Some(stream) = tls.accept(stream).await else { return };
        if stream.is_http2() {
            let access = self.shared.access.subscribe();
            http2::serve(&self.proxy, stream, arrival, access, shutdown).await;
        } else {
            let requests = self.http1(Box::new(stream), arrival, shutdown);
            CONNECTION.scope(self.connection(), requests).await;
        }
    }

    /// HTTP/1.1, request after request.
    async fn http1(&self, stream: Stream, arrival: Busy, shutdown: &ShutdownWatch) -> Option<()> {
        let mut session = ServerSession::new_http1(Box::new(Corked::new(stream)));
        session.set_keepalive(Some(NEXT_HEAD.as_secs()));
        let mut limit = FIRST_HEAD;
        let mut head = Head { arrival: Cell::new(Some(arrival)), ..Head::default() };
        loop {
            let request = async {
                tokio::select! {
                    biased;
                    reused = self.proxy.process_new_http(session, shutdown) => reused,
                    () = head_is_late(limit) => None,
                }
            };
            let (stream, settings) = HEAD.scope(head, request).await?.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            (limit, head) = (NEXT_HEAD, Head::default());
        }
    }
}

impl Application for Front {
    async fn serve(self: Arc<Self>, mut stream: Stream, arrival: Busy, shutdown: ShutdownWatch) {
        // What few connections need is boxed: the others' tasks need not have room for it.
        if self.expects_header(&stream) {
            let peer = proxy_protocol::peer(&stream);
            stream = match Box::pin(proxy_protocol::read_header(stream)).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, ?peer, "no PROXY header from a peer that owes one");
                    return;
                }
            };
        }
        match &self.tls {
            Some(tls) => Box::pin(self.over_tls(tls, stream, arrival, &shutdown)).await,
            None => {
                CONNECTION.scope(self.connection(), self.http1(stream, arrival, &shutdown)).await;
            }
        }
    }
}

/// Completes if the head is not complete after `limit`.
async fn head_is_late(limit: Duration) {
    tokio::time::sleep(limit).await;
    if HEAD.with(|head| head.is_complete.get()) {
        std::future::pending::<()>().await;
    }
}
