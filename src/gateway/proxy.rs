//! The request pipeline: Pingora's hooks, in the order in which a request meets them.
//!
//! | module | what it is |
//! |---|---|
//! | `onward` | the request as it goes to a document server, and which server gets it |
//! | `coauthoring` | requests of the co-authoring service: transport and session |
//! | `websockets` | the handshake with a document server, then a task of their own |
//! | `failures` | what a failure is: for the metrics, the client and the log |

mod coauthoring;
mod failures;
mod onward;
mod websockets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::answer::Answer;
use super::caller::Caller;
use super::command;
use super::exchange::{self, Dispatcher};
use super::front;
use super::handshake;
use super::http2::{self, TooManyHeaders};
use super::loops;
use super::relay;
use super::route::{self, Route, check_target, target_path};
use super::site::{Shared, Tenant};
use super::validate;
use crate::listen::Busy;
use crate::ops::metrics::UpstreamFailure;
use onward::{may_try_another, pick, prepare};

/// How long a client may be silent while it owes a request's body, or take nothing of an answer.
pub const CLIENT_STALL: Duration = Duration::from_secs(60);

/// The proxy's logic.
pub struct Gateway {
    pub shared: Arc<Shared>,
    /// For commands, and for the requests of the polling transport.
    commands: Dispatcher,
    polling: Dispatcher,
}

/// What is known of one request.
pub struct RequestContext {
    started: Instant,
    caller: Caller,
    route: Route,
    tenant: Option<Arc<Tenant>>,
    /// The process that this one took over from, if the request is for it.
    relay: Option<Arc<PathBuf>>,
    /// The servers that this request was offered to; the last one is the present one.
    tried: Vec<SocketAddr>,
    /// The status of an answer that Pingora does not know of; 0 if it does.
    status: u16,
    /// The request's line, kept where the session is taken away from Pingora.
    line: Option<(http::Method, String)>,
    _busy: Busy,
}

impl Gateway {
    /// A gateway over `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, commands: Dispatcher::once(), polling: Dispatcher::keeping() }
    }

    /// Whether an address may reach what is for operators only.
    fn is_operator(&self, client: IpAddr) -> bool {
        self.shared.site.load().operators.iter().any(|net| net.contains(&client))
    }

    /// Answers 403 to what is for operators only.
    async fn guard(session: &mut Session) -> pingora::Result<bool> {
        let headers = &session.req_header().headers;
        Answer::refusal(
            StatusCode::FORBIDDEN,
            "forbidden",
            "This part of the document server is for its operators only.",
            headers,
        )
        .send(session)
        .await?;
        Ok(true)
    }

    /// Answers or forwards a command.
    async fn command(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
        tenant: &Arc<Tenant>,
    ) -> pingora::Result<bool> {
        let body = match command::handle(session, tenant).await? {
            command::Outcome::Answer(answer) => {
                answer.send(session).await?;
                return Ok(true);
            }
            command::Outcome::Forward(body) => body,
        };
        let mut request = session.req_header().clone();
        prepare(&mut request, context, tenant)?;
        let address = pick(session, context, tenant)?;
        let upstreams = &tenant.upstreams;
        let mut exchange = self
            .commands
            .send(address, upstreams, request, body.bytes.clone())
            .await
            .map_err(Error::into_up)?;
        let bodiless = session.req_header().method == http::Method::HEAD;
        front::end_if_last(session);
        session.write_response_header(Box::new(exchange.head.clone()), bodiless).await?;
        while let Some(piece) = exchange.next().await.map_err(Error::into_up)? {
            session.write_response_body(Some(piece), false).await?;
        }
        if !bodiless {
            session.write_response_body(None, true).await?;
        }
        Ok(true)
    }
}

/// The path without the query, which may hold tokens.
fn path_for_log(session: &Session) -> String {
    String::from_utf8_lossy(target_path(session.req_header())).into_owned()
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestContext;

    fn new_ctx(&self) -> Self::CTX {
        RequestContext {
            started: Instant::now(),
            caller: Caller {
                trusted: false,
                client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                tls: false,
            },
            route: Route::Forward,
            tenant: None,
            relay: None,
            tried: Vec::new(),
            status: 0,
            line: None,
            _busy: self.shared.busy(),
        }
    }

    /// No module: what they could do is not wanted, and costs.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        _session: &mut Session,
        _context: &mut Self::CTX,
    ) -> pingora::Result<()> {
        front::header_is_complete();
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Self::CTX,
    ) -> pingora::Result<bool> {
        session.set_read_timeout(Some(CLIENT_STALL));
        session.set_write_timeout(Some(CLIENT_STALL));
        let settled = http2::settle(session.req_header_mut());
        let request = session.req_header();
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let (tenant, route) = {
            let site = self.shared.site.load();
            context.caller = if front::is_relayed() {
                Caller::relayed(&request.headers)
            } else {
                Caller::identify(&request.headers, peer, &site.trusted_proxies, tls)
            };
            let tenant = Arc::clone(site.tenant_of(context.caller.host(request)));
            let route =
                check_target(request).and_then(|()| tenant.router.route(target_path(request)));
            (tenant, route)
        };
        context.tenant = Some(Arc::clone(&tenant));
        if route.as_ref().is_ok_and(|route| *route == Route::Coauthoring) {
            front::is_coauthoring();
        }
        let request = session.req_header();
        if settled == Err(TooManyHeaders) {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let message = "The request has too many headers.";
            Answer::refusal(status, "too_many_headers", message, &request.headers)
                .send(session)
                .await?;
            return Ok(true);
        }
        context.route = match route {
            Ok(route) => route,
            Err(error) => {
                let message = format!("The request cannot be routed: {error}.");
                let headers = &request.headers;
                Answer::refusal(StatusCode::BAD_REQUEST, "bad_path", &message, headers)
                    .send(session)
                    .await?;
                return Ok(true);
            }
        };
        if loops::has_passed(&request.headers) && !front::is_relayed() {
            let path = path_for_log(session);
            loops::refusal(&request.headers, &path, &tenant.name).send(session).await?;
            return Ok(true);
        }
        if context.route == Route::Guarded {
            let is_plain = route::is_plain(target_path(request));
            if !is_plain || !self.is_operator(context.caller.client) {
                return Self::guard(session).await;
            }
            context.route = Route::Forward;
        }
        match context.route {
            Route::Command if command::takes(request) => {
                self.command(session, context, &tenant).await
            }
            Route::Validate => {
                validate::handle(session, &self.shared, &context.caller).await?;
                Ok(true)
            }
            Route::Coauthoring => self.coauthoring(session, context, &tenant).await,
            Route::Forward | Route::Guarded if handshake::is_websocket(request) => {
                self.tunnel(session, context, &tenant, None).await
            }
            Route::Command | Route::Forward | Route::Guarded => {
                http2::note_body(!session.is_body_done());
                Ok(false)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        _context: &mut Self::CTX,
    ) -> pingora::Result<()> {
        http2::note_body(!end_of_stream);
        Ok(())
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Self::CTX,
    ) -> pingora::Result<Box<HttpPeer>> {
        let tenant = context.tenant.clone();
        let tenant = tenant.ok_or_else(|| Error::new(ErrorType::InternalError))?;
        if let Some(socket) = &context.relay {
            return Ok(Box::new(relay::peer(socket, &tenant)?));
        }
        let address = match pick(session, context, &tenant) {
            Ok(address) => address,
            // A retry on the one server there is: its pooled connection had just closed.
            Err(error) => *context.tried.last().ok_or(error)?,
        };
        Ok(Box::new(exchange::peer(address, &tenant.upstreams)))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Self::CTX,
    ) -> pingora::Result<()> {
        match &context.tenant {
            Some(_) if context.relay.is_some() => {
                context.caller.write_forwarding_headers(request, "")
            }
            Some(tenant) => prepare(request, context, tenant),
            None => Error::e_explain(ErrorType::InternalError, "a request without a tenant"),
        }
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        _response: &mut ResponseHeader,
        _context: &mut Self::CTX,
    ) -> pingora::Result<()> {
        front::end_if_last(session);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let another =
            context.tenant.as_ref().is_some_and(|tenant| may_try_another(session, context, tenant));
        // Nothing was sent yet, so another server may have it.
        error.set_retry(another);
        if another {
            self.shared.metrics.count_upstream_failure(UpstreamFailure::Connect);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Self::CTX,
    ) -> FailToProxy {
        let nothing = FailToProxy { error_code: 0, can_reuse_downstream: false };
        let Some(answer) = self.answer_to(error, session, context) else { return nothing };
        if session.response_written().is_some() {
            // Too late to say it; the client sees the answer break off.
            return nothing;
        }
        let error_code = answer.status.as_u16();
        if let Err(error) = answer.send(session).await {
            tracing::debug!(%error, "the client left before its answer");
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Failures are logged above, once.
    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    async fn logging(
        &self,
        session: &mut Session,
        _error: Option<&Error>,
        context: &mut Self::CTX,
    ) {
        let status = match context.status {
            0 => session.response_written().map_or(0, |answer| answer.status.as_u16()),
            status => status,
        };
        let duration = context.started.elapsed();
        self.shared.metrics.count_request(context.route.label(), status, duration);
        if !self.shared.site.load().access_log {
            return;
        }
        let (method, path) = context
            .line
            .take()
            .unwrap_or_else(|| (session.req_header().method.clone(), path_for_log(session)));
        tracing::info!(
            target: "seatgate::access",
            client = %context.caller.client,
            tenant = context.tenant.as_ref().map_or("", |tenant| &*tenant.name),
            route = context.route.label(),
            %method,
            path,
            status,
            bytes = session.body_bytes_sent(),
            milliseconds = duration.as_secs_f64() * 1000.0,
            server = context.tried.last().map(tracing::field::display),
            "request"
        );
    }
}
