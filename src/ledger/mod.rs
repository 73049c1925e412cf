//! The ledger: who holds which seat now. The one place with seat state.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Ledger`]: the licences' seats by licence id, the gauge of plain viewers |
//! | `seats` | [`LicenceSeats`]: one licence's seats behind one lock, and the atomic admission |
//! | `counts` | what is to be told of them: usage, lists of seats and users |
//! | `lease` | [`Seat`]: a seat in the hands of a connection, given back when dropped |
//! | `state` | what the lock guards: seats, sessions, users; every count |
//! | `authority` | who decides when this process does not count alone |
//! | `shared` | asking an authority; seats that pass from process to process |
//! | `grace` | the seats that are kept for a reconnect, and until when |
//! | `users` | the unique users of a class: counted, in reserve, expired |
//! | [`shared_text`] | text of seats that pass between processes |
//! | `table` | the hash table under it, which has no slow moment |
//!
//! The way of a seat: [`LicenceSeats::admit`] when a session's `auth` arrives, [`Seat::confirm`]
//! when the document server accepted it, then one of [`Seat::release_goodbye`], [`Seat::lost`]
//! (kept for a reconnect) or a plain drop.
//!
//! May not know HTTP, Pingora, files or the clock.

mod authority;
mod counts;
mod grace;
mod lease;
mod seats;
mod shared;
pub mod shared_text;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod users;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::RwLock;

pub use authority::{
    Accepted, Ask, Authority, Confirmation, Denied, Granted, SeatState, Unconfirmed,
};
pub use counts::{Elsewhere, KindUsage, Phase, SeatInfo, UserList};
pub use lease::{Call, CloseReason, Occupant, Seat, SeatId, SeatWatch};
pub use seats::{LicenceSeats, Refusal, SeatRequest};
pub use users::{CountedUser, UserRecord};

/// All licences' seats. Clones are the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    licences: RwLock<HashMap<Arc<str>, Arc<LicenceSeats>>>,
    viewers: RwLock<HashMap<Arc<str>, Arc<AtomicU64>>>,
    next_id: Arc<AtomicU64>,
    /// Who decides about licences that are not asked for yet.
    authority: RwLock<Option<Arc<dyn Authority>>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    pub fn new() -> Self {
        Self::starting_at(1)
    }

    /// A ledger whose first seat has this number.
    pub fn starting_at(first: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                licences: RwLock::default(),
                viewers: RwLock::default(),
                next_id: Arc::new(AtomicU64::new(first)),
                authority: RwLock::default(),
            }),
        }
    }

    /// The seats of a licence. They are there from the first question on, and stay: ids come
    /// from the configuration, never from a client.
    pub fn licence(&self, id: &str) -> Arc<LicenceSeats> {
        if let Some(found) = self.shared.licences.read().get(id) {
            return Arc::clone(found);
        }
        let id: Arc<str> = id.into();
        let mut licences = self.shared.licences.write();
        let seats = licences.entry(Arc::clone(&id)).or_insert_with(|| {
            let authority = self.shared.authority.read().clone();
            Arc::new(LicenceSeats::new(id, Arc::clone(&self.shared.next_id), authority))
        });
        Arc::clone(seats)
    }

    /// Lets `authority` decide about all licences that are asked for from now on.
    pub fn set_authority(&self, authority: Arc<dyn Authority>) {
        *self.shared.authority.write() = Some(authority);
    }

    /// Whether somebody else decides.
    pub fn has_authority(&self) -> bool {
        self.shared.authority.read().is_some()
    }

    /// All licences whose seats were asked for, in no order.
    pub fn licences(&self) -> Vec<Arc<LicenceSeats>> {
        self.shared.licences.read().values().cloned().collect()
    }

    /// From here on `authority` decides about every licence; returns what is held, each licence's
    /// in one step with the change.
    pub fn hand_to(
        &self,
        authority: Arc<dyn Authority>,
        now: Timestamp,
    ) -> Vec<(Arc<str>, Vec<SeatState>)> {
        *self.shared.authority.write() = Some(Arc::clone(&authority));
        let hand = |seats: Arc<LicenceSeats>| {
            let states = seats.hand_to(Arc::clone(&authority), now);
            (Arc::clone(seats.licence_id()), states)
        };
        self.licences().into_iter().map(hand).collect()
    }

    /// The counts here decide again.
    pub fn withdraw(&self) {
        *self.shared.authority.write() = None;
        for licence in self.licences() {
            licence.withdraw();
        }
    }

    /// Closes a session whichever licence its seat belongs to: see [`LicenceSeats::close`].
    pub fn close(&self, id: SeatId) -> bool {
        self.licences().iter().any(|licence| licence.close(id))
    }

    /// [`LicenceSeats::sweep`] for every licence.
    pub fn sweep(&self, now: Timestamp) {
        for licence in self.licences() {
            licence.sweep(now);
        }
    }

    /// Counts a plain viewer of a tenant for as long as the guard lives. Plain viewers take no
    /// seat; this is only shown.
    pub fn viewer(&self, tenant: &str) -> ViewerGuard {
        let found = self.shared.viewers.read().get(tenant).cloned();
        let viewers = found.unwrap_or_else(|| {
            Arc::clone(self.shared.viewers.write().entry(tenant.into()).or_default())
        });
        viewers.fetch_add(1, Ordering::Relaxed);
        ViewerGuard { viewers }
    }

    /// Plain viewers of a tenant that are connected now.
    pub fn viewers(&self, tenant: &str) -> u64 {
        let viewers = self.shared.viewers.read();
        viewers.get(tenant).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// A plain viewer who is connected.
#[derive(Debug)]
#[must_use = "the viewer is counted until this is dropped"]
pub struct ViewerGuard {
    viewers: Arc<AtomicU64>,
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}
