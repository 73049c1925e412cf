//! The polling transport of a co-authoring session (WIRE.md section 2).
//!
//! A handshake is a `GET` without a session id; from then on `POST` bodies carry the client's
//! packets and the answers of parked `GET`s the server's. Both are read whole, judged packet by
//! packet, and only then passed on. The same session may go on over a WebSocket
//! ([`super::coauthoring`] takes it over with the seat it has).

mod answers;
mod judging;
mod query;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session as HttpSession;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub use answers::refuse;
pub use query::{EngineQuery, EngineRefusal};
pub use table::{PolledSession, PolledSessions, Upgrade};

use super::answer::Answer;
use super::body::{Share, busy, read_whole};
use super::coauthoring;
use super::exchange::{Dispatcher, Exchange};
use super::judge;
use super::site::{Shared, Tenant};
use crate::clock;
use crate::wire::coauthoring::{DisconnectCode, EngineHandshake};
use crate::wire::payload;
use answers::{accepts_gzip, relay, relay_compressed, take, too_large};
use judging::{Effects, Judgement};

/// The largest body of a `POST`, as the document server has it (`maxPayload`).
const MAX_BODY: usize = 100_000_000;

/// How long a client may take for a `POST`'s body.
const BODY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long the server may take to answer a handshake or a `POST`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the document server may take to hear that a session was refused.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// The packet that ends a session; its client connects again.
const CLOSE: &[u8] = b"1";

/// One request of the polling transport.
pub struct Polling<'a> {
    pub shared: &'a Arc<Shared>,
    pub dispatcher: &'a Dispatcher,
    pub tenant: &'a Arc<Tenant>,
    /// The request as it goes to the document server.
    pub request: RequestHeader,
    pub client: std::net::IpAddr,
}

impl Polling<'_> {
    /// Answers a handshake: the document server's, once its session is in the table.
    ///
    /// # Errors
    /// The client or the document server failed.
    pub async fn handshake(
        self,
        session: &mut HttpSession,
        server: SocketAddr,
    ) -> pingora::Result<()> {
        if session.req_header().method != Method::GET {
            return refuse(EngineRefusal::BadHandshakeMethod, session).await;
        }
        let exchange = self.send(server, Bytes::new()).await?;
        let (head, body) = self.read_answer(exchange).await?;
        let Whole { bytes: body, .. } = match body {
            Ok(whole) => whole,
            Err(unread) => return unread.send(session).await,
        };
        if head.status == StatusCode::OK {
            let Some(handshake) =
                payload::packets(&body).find_map(|(packet, _)| EngineHandshake::parse(packet).ok())
            else {
                return relay(session, head, body).await;
            };
            let open = self.shared.metrics.polling();
            let tenant = Arc::clone(self.tenant);
            let polled = PolledSession::new(tenant, server, self.client, &handshake, open);
            if !self.shared.polled.insert(&handshake.sid, Arc::new(polled)) {
                return refuse(EngineRefusal::BadRequest, session).await;
            }
        }
        relay(session, head, body).await
    }

    /// Judges the packets of a `POST` and passes them on.
    ///
    /// What frees a seat takes effect only once the server took the `POST`: until then nobody
    /// knows whether it did.
    ///
    /// # Errors
    /// The client or the document server failed.
    pub async fn post(
        self,
        session: &mut HttpSession,
        id: &str,
        polled: &Arc<PolledSession>,
    ) -> pingora::Result<()> {
        let whole = match read_whole(session, MAX_BODY, BODY_TIMEOUT).await? {
            Ok(whole) => whole,
            Err(refusal) => return refusal.send(session).await,
        };
        let mut rest = whole.bytes.clone();
        loop {
            if polled.is_refused() {
                return take(session).await;
            }
            if polled.is_upgraded() {
                return refuse(EngineRefusal::BadRequest, session).await;
            }
            if polled.session.lock().close_reason().is_some() {
                self.refuse_session(polled, DisconnectCode::Drop).await;
                return take(session).await;
            }
            let Judgement { body, waits, effects } = match self.judge(polled, rest).await {
                Ok(judgement) => judgement,
                Err(code) => {
                    self.refuse_session(polled, code).await;
                    return take(session).await;
                }
            };
            if !body.is_empty() || waits.is_empty() {
                let sent = async {
                    let exchange = self.send(polled.server, body).await?;
                    let (head, answer) = self.read_answer(exchange).await?;
                    Ok::<_, Box<pingora::Error>>((head, answer.unwrap_or_default()))
                };
                let (head, answer) = match sent.await {
                    Ok(sent) => sent,
                    Err(error) => {
                        self.server_refused(id, polled, &effects, StatusCode::BAD_GATEWAY).await;
                        return Err(error);
                    }
                };
                if head.status != StatusCode::OK {
                    self.server_refused(id, polled, &effects, head.status).await;
                    return relay(session, head, answer.bytes).await;
                }
                self.take_effect(id, polled, &effects);
                if waits.is_empty() {
                    return relay(session, head, answer.bytes).await;
                }
            }
            let is_answered = self.wait_for_reply(polled).await;
            if polled.is_refused() {
                return take(session).await;
            }
            if !is_answered || polled.session.lock().is_ended() {
                tracing::info!("the client saves, and its open is not answered");
                self.lose(id, polled);
                return refuse(EngineRefusal::UnknownSession, session).await;
            }
            rest = waits;
        }
    }

    /// Waits until what the client saves may pass; `false` if that takes too long.
    async fn wait_for_reply(&self, polled: &PolledSession) -> bool {
        let tenant = self.shared.present(&polled.tenant);
        let answered = async {
            while judge::saves_wait(&tenant, &polled.session) {
                sleep(judge::SAVES_LOOK).await;
            }
        };
        timeout(judge::SAVES_WAIT, answered).await.is_ok()
    }

    /// The server took the packets: what they said counts.
    fn take_effect(&self, id: &str, polled: &PolledSession, effects: &Effects) {
        let tenant = self.shared.present(&polled.tenant);
        let terms = tenant.terms(clock::now());
        let mut session = polled.session.lock();
        if effects.gave_up_editing {
            session.on_gave_up_editing(&terms, &self.shared.ledger);
        }
        if effects.ended {
            session.end();
            drop(session);
            self.shared.polled.remove(id);
        }
    }

    /// The server did not take the packets. An open that was judged is not under way then, and
    /// what the server makes of the rest is unknown: the session must not go on.
    async fn server_refused(
        &self,
        id: &str,
        polled: &PolledSession,
        effects: &Effects,
        status: StatusCode,
    ) {
        if effects.opened {
            self.refuse_session(polled, DisconnectCode::AccessDenied).await;
        } else if status == StatusCode::BAD_REQUEST && !polled.is_claimed() {
            self.lose(id, polled);
        }
    }

    /// The document server does not know the session any more; its client may come back.
    fn lose(&self, id: &str, polled: &PolledSession) {
        let grace = self.shared.site.load().reconnect_grace;
        polled.session.lock().lose(clock::now(), grace);
        self.shared.polled.remove(id);
    }

    /// Ends a session on both sides.
    async fn refuse_session(&self, polled: &PolledSession, code: DisconnectCode) {
        // What it held is free once the document server has let go of it, too.
        let _ending = polled.refuse(coauthoring::farewell_packets(code));
        let mut request = self.request.clone();
        request.set_method(Method::POST);
        // The document server has a session that nobody goes on with.
        let upstreams = &self.tenant.upstreams;
        let goodbye = Bytes::from_static(b"1");
        let sent = self.dispatcher.send(polled.server, upstreams, request, goodbye);
        match timeout(GOODBYE_TIMEOUT, sent).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a refused session was not closed at the document server");
            }
            Err(_) => tracing::debug!("a refused session was not closed in time"),
        }
    }

    /// Parks a `GET` until the document server has packets, judges and delivers them.
    ///
    /// # Errors
    /// The client or the document server failed.
    pub async fn get(
        self,
        session: &mut HttpSession,
        id: &str,
        polled: &Arc<PolledSession>,
    ) -> pingora::Result<()> {
        let gzip = accepts_gzip(session);
        // Registered before the look, so that no last words are missed.
        let woken = polled.wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        if polled.is_refused() {
            return self.deliver_farewell(session, id, polled).await;
        }
        let answer = async {
            let exchange = self.send(polled.server, Bytes::new()).await?;
            self.read_parked(exchange).await
        };
        let watches = polled.session.lock().watches();
        let mut closing = self.shared.closing.subscribe();
        let (head, body) = tokio::select! {
            answer = answer => answer?,
            () = woken => return self.deliver_farewell(session, id, polled).await,
            reason = coauthoring::closed(&watches) => {
                tracing::info!(?reason, "session is closed");
                self.refuse_session(polled, DisconnectCode::Drop).await;
                return self.deliver_farewell(session, id, polled).await;
            }
            // The client connects again, to whoever comes next.
            () = closes(&mut closing) => {
                self.lose(id, polled);
                let mut answer = Answer::json(CLOSE);
                answer.content_type = "text/plain; charset=UTF-8";
                answer.keep_alive = false;
                return answer.send(session).await;
            }
            // The client left: its parked request at the document server is aborted.
            _ = session.downstream_session.read_body_or_idle(true) => {
                session.set_keepalive(None);
                return Ok(());
            }
        };
        if head.status == StatusCode::BAD_REQUEST && !polled.is_claimed() {
            self.lose(id, polled);
        }
        let Whole { bytes: body, _share } = match body {
            Ok(whole) => whole,
            Err(unread) => {
                // What the server said is lost, and the session with it; its client may come back.
                self.lose(id, polled);
                return unread.send(session).await;
            }
        };
        let Some(body) = self.judge_answer(id, polled, &head, body).await else {
            self.refuse_session(polled, DisconnectCode::AccessDenied).await;
            return self.deliver_farewell(session, id, polled).await;
        };
        relay_compressed(session, head, body, gzip).await
    }

    async fn deliver_farewell(
        &self,
        session: &mut HttpSession,
        id: &str,
        polled: &PolledSession,
    ) -> pingora::Result<()> {
        self.shared.polled.remove(id);
        match polled.take_farewell() {
            Some(packets) => {
                let mut answer = Answer::json(packets);
                answer.content_type = "text/plain; charset=UTF-8";
                answer.send(session).await
            }
            None => refuse(EngineRefusal::UnknownSession, session).await,
        }
    }

    async fn send(&self, server: SocketAddr, body: Bytes) -> pingora::Result<Exchange> {
        let mut request = self.request.clone();
        // The answer is read here, whole, and compressed again where the client wants that.
        for name in [header::ACCEPT_ENCODING, header::RANGE, header::IF_RANGE] {
            request.remove_header(&name);
        }
        self.dispatcher
            .send(server, &self.tenant.upstreams, request, body)
            .await
            .map_err(pingora::Error::into_up)
    }

    /// An answer that the server gives at once.
    async fn read_answer(&self, exchange: Exchange) -> pingora::Result<Read> {
        match timeout(ANSWER_TIMEOUT, self.read_parked(exchange)).await {
            Ok(read) => read,
            Err(_) => pingora::Error::e_explain(
                pingora::ErrorType::ReadTimedout,
                "the answer to a polling request did not come in time",
            )
            .map_err(pingora::Error::into_up),
        }
    }

    /// An answer; its connection is kept.
    async fn read_parked(&self, mut exchange: Exchange) -> pingora::Result<Read> {
        let mut share = Share::default();
        let mut body = BytesMut::new();
        while let Some(piece) = exchange.next().await.map_err(pingora::Error::into_up)? {
            if body.len() + piece.len() > MAX_BODY {
                return Ok((exchange.head, Err(Unread::TooLarge)));
            }
            if !share.grow(piece.len()) {
                return Ok((exchange.head, Err(Unread::NoBudget)));
            }
            body.extend_from_slice(&piece);
        }
        Ok((
            self.dispatcher.keep(exchange).await,
            Ok(Whole { bytes: body.freeze(), _share: share }),
        ))
    }
}

/// An answer's head, and its body.
type Read = (ResponseHeader, Result<Whole, Unread>);

/// Waits until the process is about to end.
async fn closes(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await.is_ok();
}

/// An answer's whole body.
#[derive(Default)]
struct Whole {
    bytes: Bytes,
    _share: Share,
}

/// Why an answer's body was not read.
enum Unread {
    TooLarge,
    NoBudget,
}

impl Unread {
    /// Tells the client.
    async fn send(self, session: &mut HttpSession) -> pingora::Result<()> {
        match self {
            Self::TooLarge => too_large(session).await,
            Self::NoBudget => busy(&session.req_header().headers).send(session).await,
        }
    }
}
