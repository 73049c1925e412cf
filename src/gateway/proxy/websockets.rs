//! WebSockets: the handshake with a document server, then a task of their own.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pingora::proxy::Session;

use super::failures::{handshake_failure, upstream_refusal};
use super::onward::{may_try_another, pick, prepare};
use super::{Gateway, RequestContext, path_for_log};
use crate::gateway::handshake;
use crate::gateway::polling::Upgrade;
use crate::gateway::route::Route;
use crate::gateway::site::Tenant;
use crate::gateway::tunnel::{Tunnel, take_stream};
use crate::ops::metrics::UpstreamFailure;

/// How long the document server may take to answer a WebSocket handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

impl Gateway {
    /// Opens a WebSocket: the handshake with the document server, then a task of its own.
    pub(super) async fn tunnel(
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
                    let (failure, status) = handshake_failure(&error);
                    self.shared.metrics.count_upstream_failure(failure);
                    let again = failure == UpstreamFailure::Connect
                        && upgrades.is_none()
                        && may_try_another(session, context, tenant);
                    if !again {
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
    pub(super) async fn open_tunnel(
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
