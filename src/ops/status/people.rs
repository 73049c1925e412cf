//! Who sits where: personal data, told only where the operator asked for it.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::body;
use crate::gateway::site::Shared;
use crate::ledger::Phase;

/// The most seats that are told; `seatgate seats list` has them all.
const MOST: usize = 500;

/// The seats that are held, the latest first.
pub(super) fn list(shared: &Shared, now: Timestamp) -> body::People {
    let licences = shared.ledger.licences();
    let mut found: Vec<_> = licences.iter().flat_map(|licence| licence.seats(now)).collect();
    let total = found.len();
    found.sort_unstable_by_key(|seat| Reverse(seat.id));
    found.truncate(MOST);
    let polled = shared.polled.seats();
    let seats = found.into_iter().map(|seat| {
        let transport = if polled.contains(&seat.id) { "polling" } else { "websocket" };
        let (phase, transport) = match seat.phase {
            Phase::Opening => ("opening", Some(transport)),
            Phase::Connected => ("connected", Some(transport)),
            Phase::Grace { .. } => ("grace", None),
        };
        body::Person {
            tenant: seat.occupant.tenant.to_string(),
            user: seat.occupant.user.to_string(),
            anonymous: seat.occupant.anonymous,
            document: seat.occupant.document.to_string(),
            class: seat.class.session_class().label(),
            since: seat.since,
            phase,
            transport,
            address: seat.occupant.address.to_string(),
        }
    });
    body::People { total, seats: seats.collect() }
}
