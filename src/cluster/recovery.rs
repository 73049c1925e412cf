//! Putting everything right: after a lease that ended, after an outage, and where the engine does
//! not know what is held here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::call::{self, Admission, Admit};
use super::upkeep::TELL_AGAIN;
use super::{Cluster, Member};
use crate::config::OnFailure;
use crate::engine::EngineError;
use crate::ledger::{CountedUser, LicenceSeats, SeatState, UserRecord};
use crate::licence::{Licence, Metering};
use crate::seat::SeatClass;
use crate::store::redis::{count_user, users_of};

/// How long the queue may take to empty before seats are asked for again.
const SETTLE_LOOKS: u32 = 50;

impl Cluster {
    /// The lease of `lost` is over: becomes a new owner, and asks for its seats again.
    pub(super) async fn come_back(&self, licence: &Arc<str>, lost: u64) -> Result<(), EngineError> {
        let _one = self.inner.joining.lock().await;
        let present = self.inner.members.lock().get(licence).map(|member| member.owner);
        if present.is_some_and(|owner| owner != lost) {
            return Ok(());
        }
        let owner = {
            let mut members = self.inner.members.lock();
            let member = members.entry(Arc::clone(licence)).or_default();
            let withdrawn = member.withdrawn;
            *member = Member { withdrawn, settling: true, ..self.new_member() };
            member.owner
        };
        tracing::warn!(licence = &**licence, "the lease was over: seats are asked for again");
        let seats = self.inner.ledger.licence(licence);
        let settled = self.settle(&seats, owner).await;
        // What was not asked for shows at the next look.
        if let Some(member) = self.inner.members.lock().get_mut(licence) {
            member.settling = false;
        }
        settled
    }

    /// Lets the engine decide again, and asks it for every seat that is held here.
    pub(super) async fn settle(
        &self,
        seats: &Arc<LicenceSeats>,
        owner: u64,
    ) -> Result<(), EngineError> {
        let licence = seats.licence_id();
        for _ in 0..SETTLE_LOOKS {
            if self.inner.queued.load(Ordering::Acquire) == 0 {
                break;
            }
            sleep(TELL_AGAIN / 2).await;
        }
        let withdrawn = {
            let mut members = self.inner.members.lock();
            members.get_mut(licence).is_some_and(|member| std::mem::take(&mut member.withdrawn))
        };
        let states = seats.hand_to(Arc::new(self.clone()), self.inner.clock.now());
        if withdrawn && let Err(error) = self.tell_users(seats).await {
            // Whoever was counted here alone still has to be told.
            self.decides_alone(licence);
            return Err(error);
        }
        self.ask_again(seats, owner, &states).await
    }

    /// Tells the engine of the users who were counted here alone.
    async fn tell_users(&self, seats: &LicenceSeats) -> Result<(), EngineError> {
        let (engine, licence, now) =
            (&self.inner.engine, seats.licence_id(), self.inner.clock.now());
        let terms = (self.inner.terms)(licence);
        let by_users = is_by_users(terms.as_deref());
        let mut over = 0;
        for class in [SeatClass::Editor, SeatClass::LiveViewer] {
            let known = users_of(engine, licence, class, now).await?;
            let known: HashMap<Arc<str>, Timestamp> =
                known.into_iter().map(|record| (record.user, record.expires)).collect();
            let limit = u64::from(call::limit(terms.as_deref(), class));
            for CountedUser { user, expires, anonymous } in seats.users(class, now).users {
                if known.get(&user).is_some_and(|until| *until >= expires) {
                    continue;
                }
                let record = UserRecord { class, user, expires, anonymous };
                let counted = count_user(engine, licence, &record, now).await?;
                over += u64::from(by_users && counted.is_some_and(|counted| counted > limit));
            }
        }
        self.report_overshoot(licence, over);
        Ok(())
    }

    fn report_overshoot(&self, licence: &str, over: u64) {
        if over > 0 {
            self.inner.standing.lock().overshoot += over;
            tracing::error!(
                licence,
                seats = over,
                "more seats are held than the licence has, since Redis was away"
            );
        }
    }

    /// Asks for seats that are held here; a session whose seat was given away ends.
    pub(super) async fn ask_again(
        &self,
        seats: &LicenceSeats,
        owner: u64,
        states: &[SeatState],
    ) -> Result<(), EngineError> {
        let licence = seats.licence_id();
        let force = self.inner.sharing.on_failure == OnFailure::Allow;
        let terms = (self.inner.terms)(licence);
        let by_users = is_by_users(terms.as_deref());
        let mut over = 0;
        for state in states {
            let lease = self.inner.sharing.lease;
            let who = (owner, self.is_fresh(licence));
            let asked =
                Admit::again(state, licence, terms.as_deref(), who, lease, force, self.told());
            match call::admit(&self.inner.engine, licence, &asked).await? {
                Admission::Granted { within, .. } => {
                    // Under a user licence connections are not what is limited.
                    over += u64::from(!within && !by_users);
                    // Whoever asked for nothing is not known to the engine yet.
                    self.note_known(licence, owner);
                    self.keep_on(licence, owner, state).await?;
                }
                Admission::Refused { .. } => {
                    seats.supersede(state.id);
                    // Who was only to come back finds out when they do, if they did not already.
                    if state.kept_until.is_none() {
                        self.inner.standing.lock().ended += 1;
                        tracing::warn!(
                            seat = state.id.0,
                            "the seat was given away: its session ends"
                        );
                    }
                }
                Admission::Lost => return Ok(()),
            }
        }
        if force {
            self.report_overshoot(licence, over);
        }
        Ok(())
    }

    /// A seat that is only kept for a reconnect is kept for the rest of that time.
    async fn keep_on(
        &self,
        licence: &str,
        owner: u64,
        state: &SeatState,
    ) -> Result<(), EngineError> {
        let Some(until) = state.kept_until else { return Ok(()) };
        let rest = until.duration_since(self.inner.clock.now());
        let rest = Duration::try_from(rest).unwrap_or(Duration::ZERO);
        call::keep(&self.inner.engine, licence, owner, state.id, rest).await
    }
}

fn is_by_users(terms: Option<&Licence>) -> bool {
    terms.is_some_and(|terms| terms.quota.metering() == Metering::Users)
}
