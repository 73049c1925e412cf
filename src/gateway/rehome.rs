//! Sessions that run while a reload gives their tenant another licence: they go on, and count against
//! the new one from then on, or more of its seats would be in use than it tells.

use std::sync::Arc;

use parking_lot::Mutex;

use super::judge::settle;
use super::site::{Shared, Tenant};
use crate::clock;
use crate::session::Session;

/// Gives an accepted session a seat of the licence that its tenant has now, if it has another's.
pub async fn rehome(shared: &Shared, tenant: &Tenant, session: &Mutex<Session>) {
    let terms = tenant.terms(clock::now());
    let Some(moving) = session.lock().moving(&terms) else { return };
    let licence = terms.licence.as_deref();
    match tenant.seats.open(moving.request(), licence, terms.now).await {
        Ok(seat) => {
            let settlement = session.lock().on_moved(&moving, seat, &terms);
            if let Some(settlement) = settlement {
                // Whoever is in stays in; what the store could not take is told by it.
                settle(shared, tenant, settlement).await;
            }
        }
        Err(refusal) => {
            session.lock().stay();
            let reason = refusal.reason.label();
            tracing::warn!(
                reason,
                "a session still counts against the licence that its tenant had"
            );
        }
    }
}

impl Shared {
    /// Makes whatever runs count against the licence that its tenant has now.
    pub async fn follow_licences(&self) {
        let now = clock::now();
        for tenant in self.site.load_full().tenants() {
            for licence in self.ledger.licences() {
                if !Arc::ptr_eq(&licence, &tenant.seats) {
                    licence.move_tenant(&tenant.name, &tenant.seats, now);
                }
            }
        }
        // A WebSocket hears the call by itself; nobody waits for that of a session between two polls.
        for polled in self.polled.sessions() {
            rehome(self, &self.present(&polled.tenant), &polled.session).await;
        }
    }
}
