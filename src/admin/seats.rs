//! `/v1/seats`: who holds one now.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::api;
use super::extract::{Asked, Named, Peer, cut, limit};
use super::office::Office;
use super::problem::ApiError;
use crate::clock;
use crate::ledger::{LicenceSeats, Phase, SeatId, SeatInfo};

/// How often, and how far apart, it is looked whether another gateway closed a session: it waits
/// some seconds for the client's farewell.
const CLOSE_LOOKS: u32 = 32;
const CLOSE_PAUSE: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    /// The number of a seat.
    after: Option<u64>,
    licence: Option<String>,
    tenant: Option<String>,
    user: Option<String>,
    document: Option<String>,
}

impl ListQuery {
    fn wants(&self, seat: &SeatInfo) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        self.after.is_none_or(|after| seat.id.0 > after)
            && is(&self.tenant, &seat.occupant.tenant)
            && is(&self.user, &seat.occupant.user)
            && is(&self.document, &seat.occupant.document)
    }
}

/// Seats in the order of their numbers, which is that of being taken.
pub(super) async fn list(
    State(office): State<Arc<Office>>,
    Asked(asked): Asked<ListQuery>,
) -> Result<Json<api::SeatPage>, ApiError> {
    let limit = limit(asked.limit)?;
    let now = clock::now();
    let mut found: Vec<(Arc<str>, SeatInfo)> = Vec::new();
    let mut own = HashSet::new();
    for licence in office.shared.ledger.licences() {
        if asked.licence.as_deref().is_some_and(|wanted| **licence.licence_id() != *wanted) {
            continue;
        }
        let seats = licence.all_seats(now).await;
        if seats.iter().any(|seat| seat.gateway.is_some()) {
            own.extend(licence.seats(now).into_iter().map(|seat| seat.id));
        }
        let seats = seats.into_iter().filter(|seat| asked.wants(seat));
        found.extend(seats.map(|seat| (Arc::clone(licence.licence_id()), seat)));
    }
    found.sort_unstable_by_key(|(_, seat)| seat.id);
    let next = cut(&mut found, limit, |(_, seat)| seat.id.to_string());
    let polled = office.shared.polled.seats();
    let transport = |seat: &SeatInfo| match seat.phase {
        Phase::Grace { .. } => None,
        // How those of others are connected, only they know.
        Phase::Opening | Phase::Connected if seat.gateway.is_some() && !own.contains(&seat.id) => {
            None
        }
        Phase::Opening | Phase::Connected if polled.contains(&seat.id) => Some("polling"),
        Phase::Opening | Phase::Connected => Some("websocket"),
    };
    let seats = found.iter().map(|(licence, seat)| view(licence, seat, transport(seat)));
    Ok(Json(api::SeatPage { seats: seats.collect(), next }))
}

fn view(licence: &str, seat: &SeatInfo, transport: Option<&str>) -> api::Seat {
    let (phase, grace_until) = match seat.phase {
        Phase::Opening => ("opening", None),
        Phase::Connected => ("connected", None),
        Phase::Grace { until } => ("grace", Some(until)),
    };
    api::Seat {
        id: seat.id.0,
        licence: licence.to_owned(),
        tenant: seat.occupant.tenant.to_string(),
        user: seat.occupant.user.to_string(),
        anonymous: seat.occupant.anonymous,
        document: seat.occupant.document.to_string(),
        class: seat.class.session_class().label().to_owned(),
        address: seat.occupant.address.to_string(),
        since: seat.since,
        phase: phase.to_owned(),
        grace_until,
        transport: transport.map(str::to_owned),
        gateway: seat.gateway.as_deref().map(str::to_owned),
    }
}

/// Ends the session that holds a seat, which is told so; a seat in grace is free at once.
pub(super) async fn close(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<u64>,
) -> Result<Json<api::Removed>, ApiError> {
    let now = clock::now();
    let id = SeatId(id);
    let mut holder = None;
    for licence in office.shared.ledger.licences() {
        if let Some(seat) = licence.all_seats(now).await.into_iter().find(|seat| seat.id == id) {
            holder = Some((licence, seat));
            break;
        }
    }
    let Some((licence, seat)) = holder else {
        return Err(ApiError::NotFound(format!("the seat {id}")));
    };
    // Noted first: what cannot be noted is not done.
    let occupant = &seat.occupant;
    let detail = format!(
        "licence {}, tenant {}, user {}, document {}, {}",
        licence.licence_id(),
        occupant.tenant,
        occupant.user,
        occupant.document,
        occupant.address
    );
    office.store().note("seat.close", &id.to_string(), detail, peer.change()).await?;
    if !licence.close_anywhere(id).await {
        return Err(ApiError::NotFound(format!("the seat {id}")));
    }
    if let Some(gateway) = seat.gateway
        && !is_gone(&licence, id).await
    {
        let told = format!("the gateway {gateway}, which has the seat {id}, does not close it");
        return Err(ApiError::Conflict(told));
    }
    Ok(Json(api::Removed { id: id.to_string() }))
}

/// Waits until a seat that may be another gateway's is not held any more.
async fn is_gone(licence: &LicenceSeats, id: SeatId) -> bool {
    for _ in 0..CLOSE_LOOKS {
        if licence.all_seats(clock::now()).await.iter().all(|seat| seat.id != id) {
            return true;
        }
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
    false
}
