//! The way on to a document server: the request as it goes there, and which server gets it.

use std::net::{IpAddr, SocketAddr};

use http::Version;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::RequestContext;
use crate::gateway::route::{forward_target, target_path, target_query};
use crate::gateway::site::Tenant;
use crate::gateway::upstream::balance_key;

/// The most servers that a request is offered to when connecting fails.
const MAX_TRIES: usize = 3;

/// Makes a client's request one to the document server.
pub(super) fn prepare(
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

pub(super) fn pick(
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

/// Whether a server that could not be reached leaves another one to try.
pub(super) fn may_try_another(
    session: &Session,
    context: &RequestContext,
    tenant: &Tenant,
) -> bool {
    context.tried.len() < MAX_TRIES && pick_untried(session, context, tenant).is_some()
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
