//! A session whose tenant has another licence than before: it goes on, and counts against that one.

use std::sync::Arc;

use super::verdict::Settlement;
use super::{Holding, Session, Terms};
use crate::ledger::{Occupant, Seat, SeatId, SeatRequest};
use crate::seat::SeatClass;

/// An accepted session that is to move.
#[derive(Debug)]
#[must_use = "whoever decides about seats is to be asked"]
pub struct Moving {
    seat: SeatId,
    class: SeatClass,
    occupant: Occupant,
    session_id: Option<String>,
}

impl Moving {
    /// What to ask for: what runs goes on, so that nothing is refused.
    pub fn request(&self) -> SeatRequest<'_> {
        SeatRequest {
            class: self.class,
            occupant: self.occupant.clone(),
            session_id: None,
            replaces: None,
            force: true,
        }
    }
}

impl Session {
    /// What it needs if its accepted seat belongs to another licence than its tenant has.
    pub fn moving(&self, terms: &Terms<'_>) -> Option<Moving> {
        let seat = self.seat().filter(|seat| !Arc::ptr_eq(seat.licence(), terms.seats))?;
        Some(Moving {
            seat: seat.id(),
            class: seat.class(),
            occupant: seat.occupant().clone(),
            session_id: seat.session_id(),
        })
    }

    /// Takes the new seat in; what is to be made durable comes back.
    pub fn on_moved(
        &mut self,
        moving: &Moving,
        seat: Seat,
        terms: &Terms<'_>,
    ) -> Option<Settlement> {
        match &mut self.holding {
            Holding::Seat(held) if held.id() == moving.seat => {
                let session_id = moving.session_id.as_deref();
                let confirmation = seat.confirm(session_id, terms.licence.as_deref(), terms.now);
                let settlement = Settlement {
                    seats: Arc::clone(seat.licence()),
                    class: seat.class(),
                    user: Arc::clone(&seat.occupant().user),
                    confirmation,
                };
                *held = seat;
                (!settlement.confirmation.is_done()).then_some(settlement)
            }
            // It ended or changed meanwhile; the seat is given back.
            Holding::Seat(_) | Holding::Viewer(_) | Holding::Nothing => None,
        }
    }

    /// It cannot move now, and stays where it is.
    pub fn stay(&self) {
        if let Some(seat) = self.seat() {
            seat.stay();
        }
    }
}
