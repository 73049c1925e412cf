//! The request pipeline: Pingora's hooks, in the order in which a request meets them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, Version};
use pingora::http::RequestHeader;
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};

use super::answer::Answer;
use super::caller::Caller;
use super::command;
use super::exchange::{self, Dispatcher};
use super::front;
use super::handshake::{self, HandshakeError};
use super::http2::{self, TooManyHeaders};
use super::polling::{self, EngineQuery, EngineRefusal, Polling, Upgrade};
use super::relay;
use super::route::{Route, check_target, forward_target, target_path, target_query};
use super::site::{Shared, Tenant};
use super::tunnel::{Tunnel, take_stream};
use super::upstream::balance_key;
use super::validate;
use crate::listen::Busy;
use crate::ops::metrics::UpstreamFailure;

/// How long a client may be silent while it owes a request's body, or take nothing of an answer.
pub const CLIENT_STALL: Duration = Duration::from_secs(60);

/// How long the document server may take to answer a WebSocket handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// The most servers that a request is offered to when connecting fails.
const MAX_TRIES: usize = 3;

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
        session.write_response_header(Box::new(exchange.head.clone()), bodiless).await?;
        while let Some(piece) = exchange.next().await.map_err(Error::into_up)? {
            session.write_response_body(Some(piece), false).await?;
        }
        if !bodiless {
            session.write_response_body(None, true).await?;
        }
        Ok(true)
    }

    /// Carries a request of the co-authoring service, over either transport.
    async fn coauthoring(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
        tenant: &Arc<Tenant>,
    ) -> pingora::Result<bool> {
        let request = session.req_header();
        let websocket = handshake::is_websocket(request);
        let method = request.method.clone();
        let query = EngineQuery::parse(target_query(request)).and_then(|query| {
            if !websocket {
                query.require_polling()?;
            } else if query.session.is_some() {
                query.require_upgrade()?;
            }
            let id = query.session.map(|id| id.into_owned());
            let polled = match &id {
                Some(id) => {
                    let found = self.shared.polled.find(id, tenant);
                    Some(found.ok_or(EngineRefusal::UnknownSession)?)
                }
                None => None,
            };
            Ok(id.zip(polled).map(|(id, (polled, under_way))| (id, polled, under_way)))
        });
        let known = match query {
            Ok(known) => known,
            Err(EngineRefusal::UnknownSession) if self.shared.predecessor.load().is_some() => {
                return self.relay(session, context, tenant, websocket).await;
            }
            Err(refusal) => {
                polling::refuse(refusal, session).await?;
                return Ok(true);
            }
        };
        if websocket {
            let upgrades = match known {
                None => None,
                Some((id, polled, _)) => match polled.claim(id) {
                    Some(upgrade) => Some(upgrade),
                    None => {
                        polling::refuse(EngineRefusal::BadRequest, session).await?;
                        return Ok(true);
                    }
                },
            };
            return self.tunnel(session, context, tenant, upgrades).await;
        }
        let mut request = request.clone();
        prepare(&mut request, context, tenant)?;
        let polling = Polling {
            shared: &self.shared,
            dispatcher: &self.polling,
            tenant,
            request,
            client: context.caller.client,
        };
        match (method, known) {
            (_, None) => {
                let server = pick(session, context, tenant)?;
                polling.handshake(session, server).await?;
            }
            (_, Some((_, polled, _))) if polled.is_upgraded() => {
                polling::refuse(EngineRefusal::BadRequest, session).await?;
            }
            (http::Method::POST, Some((id, polled, _under_way))) => {
                context.tried.push(polled.server);
                polling.post(session, &id, &polled).await?;
            }
            (http::Method::GET, Some((id, polled, _under_way))) => {
                context.tried.push(polled.server);
                polling.get(session, &id, &polled).await?;
            }
            (_, Some(_)) => polling::refuse(EngineRefusal::BadRequest, session).await?,
        }
        Ok(true)
    }

    /// Passes a request on to the process that this one took over from: it may know the session.
    async fn relay(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
        tenant: &Arc<Tenant>,
        websocket: bool,
    ) -> pingora::Result<bool> {
        context.relay = self.shared.predecessor.load_full();
        let Some(socket) = context.relay.clone().filter(|_| websocket) else { return Ok(false) };
        let mut request = session.req_header().clone();
        context.caller.write_forwarding_headers(&mut request, "")?;
        let request = handshake::write_request(&request, request.raw_path(), false);
        match handshake::perform_at(&socket, &request, HANDSHAKE_TIMEOUT).await {
            Ok(answer) => self.open_tunnel(session, context, tenant, (false, None), answer).await,
            Err(error) => {
                tracing::debug!(%error, "the old process is gone, and the session with it");
                polling::refuse(EngineRefusal::UnknownSession, session).await?;
                Ok(true)
            }
        }
    }

    /// Opens a WebSocket: the handshake with the document server, then a task of its own.
    async fn tunnel(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
        tenant: &Arc<Tenant>,
        upgrades: Option<Upgrade>,
    ) -> pingora::Result<bool> {
        let inspected = context.route == Route::Coauthoring;
        let mut request = session.req_header().clone();
        prepare(&mut request, context, tenant)?;
        let request = handshake::write_request(&request, request.raw_path(), !inspected);
        let answer = loop {
            let address = match &upgrades {
                // The server that has the session.
                Some(upgrade) => {
                    context.tried.push(upgrade.polled.server);
                    upgrade.polled.server
                }
                None => pick(session, context, tenant)?,
            };
            let performed =
                handshake::perform(address, &request, &tenant.upstreams, HANDSHAKE_TIMEOUT).await;
            match performed {
                Ok(answer) => break answer,
                Err(error) => {
                    let failure = handshake_failure(&error);
                    self.shared.metrics.count_upstream_failure(failure);
                    let again = failure == UpstreamFailure::Connect
                        && upgrades.is_none()
                        && context.tried.len() < MAX_TRIES
                        && pick_untried(session, context, tenant).is_some();
                    if !again {
                        let status = match error {
                            HandshakeError::ConnectTimeout { .. }
                            | HandshakeError::AnswerTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
                            HandshakeError::Connect { .. }
                            | HandshakeError::Tls { .. }
                            | HandshakeError::Broken { .. }
                            | HandshakeError::NotHttp { .. } => StatusCode::BAD_GATEWAY,
                        };
                        let after = context.started.elapsed().as_secs_f64();
                        let message =
                            format!("The document server failed: {error} (after {after:.1} s).");
                        upstream_refusal(status, &message, session).send(session).await?;
                        return Ok(true);
                    }
                }
            }
        };
        self.open_tunnel(session, context, tenant, (inspected, upgrades), answer).await
    }

    /// Gives both streams of a WebSocket to a task of its own, or passes the server's refusal on.
    async fn open_tunnel(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
        tenant: &Arc<Tenant>,
        (inspected, upgrades): (bool, Option<Upgrade>),
        answer: handshake::Answer,
    ) -> pingora::Result<bool> {
        let (stream, head, early) = match answer {
            handshake::Answer::Upgraded { stream, head, early } => (stream, head, early),
            handshake::Answer::Refused { head, body } => {
                session.set_keepalive(None);
                session.write_response_header(head, body.is_empty()).await?;
                if !body.is_empty() {
                    session.write_response_body(Some(body), true).await?;
                }
                return Ok(true);
            }
        };
        context.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        context.line = Some((session.req_header().method.clone(), path_for_log(session)));
        let client = take_stream(session)?;
        let tunnel = Tunnel {
            shared: Arc::clone(&self.shared),
            tenant: Arc::clone(tenant),
            address: context.caller.client,
            inspected,
            upgrades,
            head,
            early,
            busy: self.shared.busy(),
        };
        // A task of its own is a third of the size of Pingora's for a request.
        tokio::spawn(tunnel.run(client, stream));
        Ok(true)
    }
}

/// Makes a client's request one to the document server.
fn prepare(
    request: &mut RequestHeader,
    context: &RequestContext,
    tenant: &Tenant,
) -> pingora::Result<()> {
    let settings = &tenant.upstreams.settings;
    if request.version == Version::HTTP_2 {
        request.set_version(Version::HTTP_11);
    }
    if let Some(target) =
        forward_target(request, &settings.path_prefix, settings.strip_version_prefix)
    {
        request.set_raw_path(&target)?;
    }
    context.caller.write_forwarding_headers(request, &settings.path_prefix)
}

/// The server for a request, which has not been tried.
fn pick_untried(
    session: &Session,
    context: &RequestContext,
    tenant: &Tenant,
) -> Option<SocketAddr> {
    let request = session.req_header();
    let key = balance_key(target_path(request), target_query(request));
    match (key, context.caller.client) {
        (Some(key), _) => tenant.upstreams.pick(key, &context.tried),
        (None, IpAddr::V4(client)) => tenant.upstreams.pick(&client.octets(), &context.tried),
        (None, IpAddr::V6(client)) => tenant.upstreams.pick(&client.octets(), &context.tried),
    }
}

fn pick(
    session: &Session,
    context: &mut RequestContext,
    tenant: &Tenant,
) -> pingora::Result<SocketAddr> {
    let address = pick_untried(session, context, tenant).ok_or_else(|| {
        Error::explain(ErrorType::ConnectNoRoute, "no document server is known").into_up()
    })?;
    context.tried.push(address);
    Ok(address)
}

fn handshake_failure(error: &HandshakeError) -> UpstreamFailure {
    match error {
        HandshakeError::Connect { .. }
        | HandshakeError::ConnectTimeout { .. }
        | HandshakeError::Tls { .. } => UpstreamFailure::Connect,
        HandshakeError::AnswerTimeout { .. } => UpstreamFailure::Timeout,
        HandshakeError::Broken { .. } => UpstreamFailure::Reset,
        HandshakeError::NotHttp { .. } => UpstreamFailure::Other,
    }
}

fn upstream_refusal(status: StatusCode, message: &str, session: &Session) -> Answer {
    let error =
        if status == StatusCode::GATEWAY_TIMEOUT { "gateway_timeout" } else { "bad_gateway" };
    Answer::refusal(status, error, message, &session.req_header().headers)
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
        if *self.shared.draining.borrow() && !front::is_relayed() {
            // The next request goes to whoever comes next; one that is on its way is answered still.
            session.set_keepalive(None);
        }
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
        if context.route == Route::Guarded {
            if !self.is_operator(context.caller.client) {
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

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let another = context.tenant.as_ref().is_some_and(|tenant| {
            context.tried.len() < MAX_TRIES && pick_untried(session, context, tenant).is_some()
        });
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
        let server = match context.tried.last() {
            Some(address) => format!("The document server {address}"),
            None => "The document server".to_owned(),
        };
        let after = context.started.elapsed();
        let answer = match error.esource() {
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
                    | ErrorType::ConnectionClosed => return nothing,
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
        };
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
