//! Requests of the co-authoring service: which transport, which session, and who has it.

use std::sync::Arc;

use pingora::proxy::Session;

use super::onward::{pick, prepare};
use super::websockets::HANDSHAKE_TIMEOUT;
use super::{Gateway, RequestContext};
use crate::gateway::polling::{self, EngineQuery, EngineRefusal, Polling};
use crate::gateway::route::target_query;
use crate::gateway::site::Tenant;
use crate::gateway::{front, handshake};

impl Gateway {
    /// Carries a request of the co-authoring service, over either transport.
    pub(super) async fn coauthoring(
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
            Err(EngineRefusal::UnknownSession)
                if *self.shared.left.borrow() && !front::is_relayed() =>
            {
                // The new process may have it. Without an answer the client asks again, and there.
                session.set_keepalive(None);
                return Ok(true);
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
}
