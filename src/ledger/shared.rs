//! The seats of a licence under an [`Authority`]: asking it, and passing seats from process to
//! process.

use std::sync::Arc;

use jiff::Timestamp;

use super::authority::{Ask, Authority, Denied, SeatState};
use super::counts::SeatInfo;
use super::lease::{CloseReason, Seat, SeatId, Sitting};
use super::seats::{Decision, LicenceSeats, NotTaken, Refusal, SeatRequest};
use super::state::Held;
use crate::admission::{Reason, Usage};
use crate::licence::Licence;

/// A seat that the authority is asked for. Dropped before the answer is taken in, it gives back
/// what the answer may have taken.
struct Asking<'a> {
    seats: &'a LicenceSeats,
    authority: &'a Arc<dyn Authority>,
    id: SeatId,
    answered: bool,
}

impl<'a> Asking<'a> {
    fn new(seats: &'a LicenceSeats, authority: &'a Arc<dyn Authority>) -> Self {
        let id = seats.new_id();
        seats.state.lock().asks(id);
        Self { seats, authority, id, answered: false }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.seats.state.lock().arrived(self.id);
            self.authority.release(&self.seats.licence, self.id);
        }
    }
}

impl LicenceSeats {
    /// Decides one open and takes its seat, by whoever decides: see [`LicenceSeats::admit`].
    ///
    /// # Errors
    /// The refusal; [`Reason::StoreUnavailable`] where nobody can tell at present.
    pub async fn open(
        self: &Arc<Self>,
        request: SeatRequest<'_>,
        terms: Option<&Licence>,
        now: Timestamp,
    ) -> Result<Seat, Refusal> {
        loop {
            let authority = match self.take(request.clone(), terms, now, Decision::Here) {
                Ok(seat) => return Ok(seat),
                Err(NotTaken::Refused(refusal)) => return Err(refusal),
                Err(NotTaken::Elsewhere(authority)) => authority,
            };
            let mut asking = Asking::new(self, &authority);
            let id = asking.id;
            let ask = Ask {
                licence: &self.licence,
                seat: id,
                class: request.class,
                occupant: &request.occupant,
                session_id: request.session_id,
                replaces: request.replaces,
                force: request.force,
                terms,
                now,
            };
            let denied = match authority.admit(ask).await {
                Ok(granted) => {
                    let taken = self.take(request, terms, now, Decision::Granted(id, granted));
                    asking.answered = taken.is_ok();
                    return taken.map_err(|_| unavailable());
                }
                Err(denied) => denied,
            };
            asking.answered = true;
            self.state.lock().arrived(id);
            match denied {
                Denied::Refused(refusal) => return Err(refusal),
                Denied::Unavailable => return Err(unavailable()),
                Denied::Withdrawn => {}
            }
        }
    }

    /// The seats held, oldest number first, those of other processes among them as far as they can
    /// be told.
    pub async fn all_seats(&self, now: Timestamp) -> Vec<SeatInfo> {
        let authority = self.state.lock().authority.clone();
        let all = match authority {
            Some(authority) => authority.seats(&self.licence).await,
            None => None,
        };
        all.unwrap_or_else(|| self.seats(now))
    }

    /// An operator closes a session, in whichever process it is: see [`LicenceSeats::close`].
    pub async fn close_anywhere(&self, id: SeatId) -> bool {
        if self.close(id) {
            return true;
        }
        let authority = self.state.lock().authority.clone();
        match authority {
            Some(authority) => authority.close(id).await,
            None => false,
        }
    }

    /// From here on `authority` decides; returns what is held at that moment, in one step.
    pub fn hand_to(&self, authority: Arc<dyn Authority>, now: Timestamp) -> Vec<SeatState> {
        let mut state = self.state.lock();
        state.advance(now);
        state.authority = Some(authority);
        state.alone = false;
        state.all().map(SeatState::of).collect()
    }

    /// What this process holds.
    pub fn held(&self, now: Timestamp) -> Vec<SeatState> {
        let mut state = self.state.lock();
        state.advance(now);
        state.all().map(SeatState::of).collect()
    }

    /// A tenant has another licence now, with the seats `to`. What runs goes on and counts there: its
    /// connections are called to take a seat of it ([`SeatWatch::called`](super::SeatWatch::called)), and
    /// seats that are only kept for a reconnect go there at once. Where an authority decides, those stay
    /// until their time is over.
    pub fn move_tenant(&self, tenant: &str, to: &Arc<Self>, now: Timestamp) {
        for seat in self.seats(now) {
            if *seat.occupant.tenant != *tenant {
                continue;
            }
            let mut state = self.state.lock();
            let Some(held) = state.get(seat.id) else { continue };
            if held.kept_until.is_none() {
                held.sitting.close.call_to_move();
            } else if state.authority.is_none()
                && let Some(left) = state.remove(seat.id)
            {
                drop(state);
                let _ = to.adopt(SeatState::of(&left), now);
            }
        }
    }

    pub(super) fn session_id(&self, id: SeatId) -> Option<String> {
        let state = self.state.lock();
        let session = state.get(id)?.session.as_ref();
        session.map(|session| session.id.to_string())
    }

    /// The counts here decide again.
    pub fn withdraw(&self) {
        let mut state = self.state.lock();
        state.authority = None;
        state.told = None;
    }

    /// The counts here decide until the authority, which cannot be reached, is back. It is told of
    /// users then, who are recorded nowhere else meanwhile.
    pub fn go_alone(&self) {
        let mut state = self.state.lock();
        state.authority = None;
        state.alone = true;
    }

    /// Whether the authority is told later.
    pub fn is_alone(&self) -> bool {
        self.state.lock().alone
    }

    /// Takes a seat in that another process holds, without a decision. `None` for one that is
    /// only kept for a reconnect: nobody has to hold that.
    pub fn adopt(self: &Arc<Self>, seat: SeatState, now: Timestamp) -> Option<Seat> {
        let SeatState { class, mut occupant, since, established, .. } = seat;
        let hash = self.hash_user(&occupant.user);
        let session = self.session(seat.session_id.as_deref(), &occupant.user);
        let mut state = self.state.lock();
        state.advance(now);
        let mut reserve = None;
        if seat.reserve
            && let Some((row, user)) = state.users.of_mut(class).hold(hash, &occupant.user)
        {
            occupant.user = user;
            reserve = Some(row);
        }
        let id = self.new_id();
        let close = Default::default();
        let sitting = Arc::new(Sitting { id, class, occupant, since, close });
        state.insert(Held {
            sitting: Arc::clone(&sitting),
            session,
            reserve,
            established,
            kept_until: None,
        });
        if let Some(until) = seat.kept_until {
            let left = state.keep(id, until.as_millisecond());
            drop(state);
            drop(left);
            return None;
        }
        drop(state);
        Some(Seat::new(Arc::clone(self), sitting, None))
    }

    pub(super) fn is_established(&self, id: SeatId) -> bool {
        self.state.lock().get(id).is_some_and(|held| held.established)
    }

    /// The authority gave a seat of this process to the same session elsewhere.
    pub fn supersede(&self, id: SeatId) {
        let mut state = self.state.lock();
        match state.remove(id) {
            Some(left) => {
                drop(state);
                left.sitting.close.ask(CloseReason::Superseded);
            }
            None => {
                state.is_taken_over(id);
            }
        }
    }
}

impl SeatState {
    fn of(held: &Held) -> Self {
        Self {
            id: held.sitting.id,
            class: held.sitting.class,
            occupant: held.sitting.occupant.clone(),
            session_id: held.session.as_ref().map(|session| session.id.to_string()),
            since: held.sitting.since,
            established: held.established,
            reserve: held.reserve.is_some(),
            kept_until: held.kept_until.and_then(|until| Timestamp::from_millisecond(until).ok()),
        }
    }
}

fn unavailable() -> Refusal {
    Refusal { reason: Reason::StoreUnavailable, usage: Usage::default() }
}
