//! `/v1/status`, `/v1/audit`, `/v1/reload`, `/v1/store/backup`: how the gateway is, and what was done to it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::api;
use super::extract::{Asked, Body, Peer, cut, limit};
use super::office::Office;
use super::problem::ApiError;
use super::terms;
use crate::app::{REVISION, VERSION};
use crate::clock;
use crate::reload::Refused;

pub(super) async fn status(State(office): State<Arc<Office>>) -> Json<api::Status> {
    let now = clock::now();
    let site = office.shared.site.load_full();
    let tenants = site.tenants().iter().map(|tenant| {
        let sample = tenant.sample(&office.shared.ledger, now);
        let licence = tenant.licence();
        let seats = sample.seats.iter().map(|(kind, used, grace, limit)| api::KindStatus {
            kind: kind.label().to_owned(),
            used: *used,
            grace: *grace,
            limit: *limit,
        });
        api::TenantStatus {
            name: sample.tenant.clone(),
            licence: sample.licence.clone(),
            standing: terms::standing(licence.as_deref(), now),
            result: sample.result,
            end: licence.as_ref().and_then(|licence| licence.end),
            seats: seats.collect(),
            viewers: sample.viewers,
        }
    });
    let tenants = tenants.collect();
    let servers = site.upstreams.iter().flat_map(|upstreams| upstreams.health());
    let servers = servers
        .map(|server| api::ServerStatus { address: server.address, healthy: server.healthy });
    let probe = office.store().audit(None, 1).await;
    let store =
        api::StoreStatus { healthy: probe.is_ok(), detail: probe.err().map(|e| e.to_string()) };
    let set_back = office.high_water.set_back(now);
    let sharing = office.shared.metrics.sharing().and_then(|sharing| match sharing.alone {
        0 => None,
        count => Some(format!(
            "Redis is away: opens of {count} licence(s) are counted by this gateway alone"
        )),
    });
    Json(api::Status {
        version: VERSION.to_owned(),
        revision: REVISION.to_owned(),
        started: office.started,
        now,
        draining: office.shared.is_draining(),
        tenants,
        document_servers: servers.collect(),
        store,
        warnings: set_back.iter().map(ToString::to_string).chain(sharing).collect(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    limit: Option<u32>,
    /// The number of the last entry of the page before.
    after: Option<u64>,
}

/// The audit log, the latest entry first.
pub(super) async fn audit(
    State(office): State<Arc<Office>>,
    Asked(asked): Asked<AuditQuery>,
) -> Result<Json<api::AuditPage>, ApiError> {
    let limit = limit(asked.limit)?;
    let found = office.store().audit(asked.after, limit + 1).await?;
    let mut entries: Vec<api::AuditEntry> = found
        .into_iter()
        .map(|entry| api::AuditEntry {
            number: entry.number,
            at: entry.at,
            by: entry.by,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
        })
        .collect();
    let next = cut(&mut entries, limit, |entry| entry.number.to_string());
    Ok(Json(api::AuditPage { entries, next }))
}

/// Loads the configuration anew, as SIGHUP does, and waits for what comes of it.
pub(super) async fn reload(
    State(office): State<Arc<Office>>,
) -> Result<Json<api::Reloaded>, ApiError> {
    match office.desks.reloads.ask().await {
        Ok(warnings) => Ok(Json(api::Reloaded { warnings })),
        Err(refused @ (Refused::Config(_) | Refused::Tls(_))) => {
            Err(ApiError::File(refused.to_string()))
        }
        Err(Refused::Store(error)) => Err(error.into()),
        Err(refused @ Refused::Ending) => Err(ApiError::Conflict(refused.to_string())),
    }
}

/// Has a new process take over, as SIGUSR2 does, and waits for it.
pub(super) async fn upgrade(
    State(office): State<Arc<Office>>,
) -> Result<Json<api::Upgraded>, ApiError> {
    let pid = office.desks.upgrades.ask().await.map_err(ApiError::Conflict)?;
    Ok(Json(api::Upgraded { pid }))
}

/// Writes a copy of the store, as the gateway's user.
pub(super) async fn backup(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Body(body): Body<api::Backup>,
) -> Result<Json<api::Backup>, ApiError> {
    let file = PathBuf::from(&body.file);
    if !file.is_absolute() {
        return Err(ApiError::Invalid("file: write an absolute path".to_owned()));
    }
    office.store().backup(file).await?;
    office.store().note("store.backup", &body.file, String::new(), peer.change()).await?;
    Ok(Json(body))
}
