//! What goes on beside the opens: leases are renewed, seats given back, others' seats looked at.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::call::{self, Held, OfClass};
use super::{CHANNEL, Cluster, Told};
use crate::config::OnFailure;
use crate::engine::EngineError;
use crate::ledger::{Elsewhere, LicenceSeats, SeatId, UserRecord};
use crate::seat::{SeatClass, SeatKind};
use crate::store::redis::users_of;

/// How often each licence is looked at; a lease is renewed with each look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A shorter lease is renewed so often while it lasts.
const LOOKS_IN_LEASE: u32 = 3;

/// How soon what the engine did not hear is told again.
pub(super) const TELL_AGAIN: Duration = Duration::from_millis(200);

/// What is told in one go.
const TOGETHER: usize = 512;

impl Cluster {
    /// Starts the tasks, in the engine's thread.
    pub(super) fn keep_up(&self, told: mpsc::UnboundedReceiver<Told>) {
        let (teller, looker, listener) = (self.clone(), self.clone(), self.clone());
        self.inner.engine.spawn(async move { teller.tell_all(told).await });
        self.inner.engine.spawn(async move { looker.look_again_and_again().await });
        self.inner.engine.spawn(async move { listener.listen().await });
    }

    /// Tells the engine what became of seats, in order, until it heard.
    async fn tell_all(&self, mut told: mpsc::UnboundedReceiver<Told>) {
        let mut gathered = Vec::with_capacity(TOGETHER);
        while told.recv_many(&mut gathered, TOGETHER).await > 0 {
            let count = gathered.len();
            for word in together(gathered.drain(..)) {
                self.until_heard(&word).await;
            }
            self.inner.queued.fetch_sub(count, Ordering::AcqRel);
        }
    }

    async fn until_heard(&self, word: &Word) {
        let engine = &self.inner.engine;
        loop {
            let licence = word.licence();
            let owner = self.inner.members.lock().get(licence).map(|member| member.owner);
            // Whoever is no owner holds nothing.
            let Some(owner) = owner else { return };
            let heard = match word {
                Word::Release(licence, seats) => call::release(engine, licence, owner, seats).await,
                Word::Keep(licence, seat, grace) => {
                    call::keep(engine, licence, owner, *seat, *grace).await
                }
            };
            match heard {
                Ok(()) => return,
                Err(error) if error.is_passing() => sleep(TELL_AGAIN).await,
                Err(error) => {
                    tracing::error!(%error, "a seat cannot be given back");
                    return;
                }
            }
        }
    }

    async fn look_again_and_again(&self) {
        let lease = self.inner.sharing.lease;
        let mut turns = interval(LOOK_INTERVAL.min(lease / LOOKS_IN_LEASE));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let mut answered = true;
            let mut licences = self.inner.ledger.licences();
            // In an order that can be repeated.
            licences.sort_unstable_by(|one, other| one.licence_id().cmp(other.licence_id()));
            for seats in licences {
                if let Err(error) = self.look(&seats).await {
                    answered = false;
                    tracing::debug!(%error, "the seats of others cannot be looked at");
                    if error.is_passing() {
                        break;
                    }
                }
            }
            let before = self.inner.connected.swap(answered, Ordering::Relaxed);
            match (before, answered) {
                (true, false) => tracing::error!(
                    "Redis does not answer: running sessions go on, {}",
                    match self.inner.sharing.on_failure {
                        OnFailure::Deny => "new ones are refused",
                        OnFailure::Allow => "new ones are counted by this gateway alone",
                    }
                ),
                (false, true) => tracing::info!("Redis answers again"),
                (true, true) | (false, false) => {}
            }
            if let Some(watcher) = self.inner.watcher.get() {
                watcher();
            }
        }
    }

    /// Renews the lease at a licence, and takes in what others hold.
    pub(super) async fn look(&self, seats: &Arc<LicenceSeats>) -> Result<(), EngineError> {
        let licence = seats.licence_id();
        let (owner, fresh) = self.member(licence)?;
        let lease = self.inner.sharing.lease;
        let engine = &self.inner.engine;
        let Some(held) = call::renew(engine, licence, owner, fresh, lease).await? else {
            return self.come_back(licence, owner).await;
        };
        self.note_known(licence, owner);
        if self.is_withdrawn(licence) {
            self.settle(seats, owner).await?;
        }
        let (editors, viewers) = seats.own_reserve(self.inner.clock.now());
        seats.set_elsewhere(elsewhere(held.editor, editors), elsewhere(held.live_viewer, viewers));
        seats.note_counted(SeatKind::EditorConnections, held.editor.all);
        seats.note_counted(SeatKind::ViewerConnections, held.live_viewer.all);
        let known = self.inner.members.lock().get(licence).and_then(|m| m.users_version);
        if known != Some(held.users_version) {
            // Noted before: who is counted meanwhile is looked at next time.
            if let Some(member) = self.inner.members.lock().get_mut(licence) {
                member.users_version = Some(held.users_version);
            }
            if let Err(error) = self.take_users_in(seats).await {
                self.forget_users_version(licence);
                return Err(error);
            }
        }
        // Users are known here by name, those of others too.
        let usage = seats.usage(self.inner.clock.now());
        for usage in usage
            .iter()
            .filter(|usage| matches!(usage.kind, SeatKind::EditorUsers | SeatKind::ViewerUsers))
        {
            seats.note_counted(usage.kind, usage.used);
        }
        self.compare(seats, owner, &held).await
    }

    /// Takes the users in whom others count, and lets those go whom nobody counts any more.
    async fn take_users_in(&self, seats: &Arc<LicenceSeats>) -> Result<(), EngineError> {
        let now = self.inner.clock.now();
        for class in [SeatClass::Editor, SeatClass::LiveViewer] {
            let users = users_of(&self.inner.engine, seats.licence_id(), class, now).await?;
            let names: HashSet<Arc<str>> =
                users.iter().map(|record: &UserRecord| Arc::clone(&record.user)).collect();
            for known in seats.users(class, now).users {
                if !names.contains(&known.user) {
                    seats.release_user(class, &known.user, now);
                }
            }
            seats.load_users(users, now);
        }
        Ok(())
    }

    /// Compares the seats that the engine has with those that are held here. What they do not
    /// agree about at two looks in a row is put right: a seat that nobody holds is given back; one
    /// that the engine does not know, as it may be after a failover, is asked for again.
    async fn compare(
        &self,
        seats: &Arc<LicenceSeats>,
        owner: u64,
        held: &Held,
    ) -> Result<(), EngineError> {
        let licence = seats.licence_id();
        let suspected =
            self.inner.members.lock().get(licence).is_some_and(|m| !m.suspects.is_empty());
        let own = seats.own_connections(self.inner.clock.now());
        if own == (held.own, held.own_sum) && !suspected {
            return Ok(());
        }
        let there: BTreeSet<u64> =
            call::own(&self.inner.engine, licence, owner).await?.into_iter().collect();
        let here: BTreeSet<u64> =
            seats.seats(self.inner.clock.now()).into_iter().map(|seat| seat.id.0).collect();
        let differ: BTreeSet<u64> = there.symmetric_difference(&here).copied().collect();
        let still: Vec<u64> = {
            let mut members = self.inner.members.lock();
            let Some(member) = members.get_mut(licence) else { return Ok(()) };
            let still = differ.intersection(&member.suspects).copied().collect();
            member.suspects = differ;
            still
        };
        let (given, missing): (Vec<u64>, Vec<u64>) =
            still.into_iter().partition(|id| there.contains(id));
        for id in given {
            self.tell(Told::Release(Arc::clone(licence), SeatId(id)));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut states = seats.held(self.inner.clock.now());
        states.retain(|state| missing.contains(&state.id.0));
        tracing::warn!(
            licence = &**licence,
            seats = states.len(),
            "Redis does not know seats that are held here: they are asked for again"
        );
        self.ask_again(seats, owner, &states).await
    }

    /// Hears from other gateways.
    async fn listen(&self) {
        let mut messages = self.inner.engine.messages(CHANNEL.to_owned());
        while let Some(message) = messages.recv().await {
            // What was lost before a new connection shows at the next look.
            let Some(message) = message else { continue };
            let Ok(text) = std::str::from_utf8(&message) else { continue };
            let mut words = text.splitn(3, ' ');
            let (word, seat) = (words.next(), words.next().and_then(|seat| seat.parse().ok()));
            match (word, seat.map(SeatId), words.next()) {
                (Some("supersede"), Some(seat), Some(rest)) => self.superseded(seat, rest),
                (Some("close"), Some(seat), _) => {
                    self.inner.ledger.close(seat);
                }
                // Of a newer version.
                _ => {}
            }
        }
    }
}

impl Cluster {
    /// A seat of an owner at a licence was taken over; of this gateway's, if it is that owner.
    fn superseded(&self, seat: SeatId, told: &str) {
        let Some((owner, licence)) = told.split_once(' ') else { return };
        let mine = self.inner.members.lock().get(licence).map(|member| member.owner.to_string());
        let all = self.inner.ledger.licences();
        if mine.as_deref() == Some(owner)
            && let Some(seats) = all.iter().find(|seats| **seats.licence_id() == *licence)
        {
            seats.supersede(seat);
        }
    }
}

/// What others hold of a class.
fn elsewhere(class: OfClass, own_reserve: u64) -> Elsewhere {
    let own = class.own_connected + class.own_grace;
    Elsewhere {
        used: class.all.saturating_sub(own),
        grace: class.grace.saturating_sub(class.own_grace),
        reserve: class.reserve.saturating_sub(own_reserve),
    }
}

/// What the engine is told in one step.
#[derive(Debug)]
enum Word {
    Release(Arc<str>, Vec<SeatId>),
    Keep(Arc<str>, SeatId, Duration),
}

impl Word {
    fn licence(&self) -> &Arc<str> {
        match self {
            Self::Release(licence, _) | Self::Keep(licence, _, _) => licence,
        }
    }
}

/// Joins what is given back at one licence in a row.
fn together(told: impl Iterator<Item = Told>) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for one in told {
        match (one, words.last_mut()) {
            (Told::Release(licence, seat), Some(Word::Release(last, seats)))
                if *last == licence =>
            {
                seats.push(seat);
            }
            (Told::Release(licence, seat), _) => words.push(Word::Release(licence, vec![seat])),
            (Told::Keep(licence, seat, grace), _) => words.push(Word::Keep(licence, seat, grace)),
        }
    }
    words
}
