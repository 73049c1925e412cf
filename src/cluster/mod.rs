//! The seats of several gateways: decided by the engine that they share.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Cluster`]: the [`Authority`] of every licence, and who this gateway is |
//! | `call` | the script `seats.lua`: what it is asked, and what it answers |
//! | `upkeep` | renewing leases, what others hold, messages |
//! | `recovery` | coming back after an outage, and asking again for what was lost |
//!
//! A gateway is an *owner* at each licence: a number by chance, with a lease that is renewed in
//! one step for all its seats. When the lease ends, by the engine's clock, the seats are free. A
//! gateway that was away longer learns so from its next word to the engine; it becomes a new owner
//! then and asks for its seats again. Those that were given away are ended here.
//!
//! What is kept in the ledger is a mirror of this gateway's own seats, and of the users and counts
//! of the others as of the last second: with `on_failure = "allow"` it decides while the engine is
//! away.

mod call;
mod recovery;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::admission::{self, Reason};
use crate::clock::Clock;
use crate::config::OnFailure;
use crate::engine::{Engine, EngineError};
use crate::ledger::{
    Accepted, Ask, Authority, Denied, Granted, Ledger, Refusal, SeatId, SeatInfo, Unconfirmed,
};
use crate::licence::{Licence, Metering};
use crate::seat::SeatKind;
use call::{Admission, Confirmed};

/// Where gateways tell each other of seats.
const CHANNEL: &str = "seatgate:seats";

/// How many gateways have joined.
const JOINED: &str = "seatgate:{seatgate}:owners";

/// How often an open is asked anew because the gateway had become a new owner.
const ATTEMPTS: u32 = 3;

/// Bits of the numbers that a gateway can give its seats.
const SEATS_OF_GATEWAY: u32 = 32;

/// The terms of a licence as they are in force.
pub type TermsOf = Arc<dyn Fn(&str) -> Option<Arc<Licence>> + Send + Sync>;

/// How seats are shared.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    pub lease: Duration,
    pub on_failure: OnFailure,
}

/// How it went with the engine so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it answered last.
    pub connected: bool,
    /// Licences whose opens this gateway counts by itself, as long as the engine is away.
    pub alone: u64,
    /// Seats that were ended here because they had been given away.
    pub ended: u64,
    /// Seats over their licence's limit that were found after an outage.
    pub overshoot: u64,
}

/// This gateway among those that share the engine. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    sharing: Sharing,
    terms: TermsOf,
    clock: Clock,
    ledger: Ledger,
    members: Mutex<BTreeMap<Arc<str>, Member>>,
    /// One at a time becomes a new owner.
    joining: tokio::sync::Mutex<()>,
    queue: mpsc::UnboundedSender<Told>,
    queued: AtomicUsize,
    /// It ends, and is a member of nothing any more.
    left: AtomicBool,
    connected: AtomicBool,
    standing: Mutex<Standing>,
    /// What this gateway is called in lists.
    name: OnceLock<Arc<str>>,
    /// Hears of each look at the engine.
    watcher: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

/// What this gateway is at a licence.
#[derive(Clone, Debug, Default)]
struct Member {
    /// By chance, so that no two are the same even if the engine forgot who there was.
    owner: u64,
    /// The engine knows the owner at this licence.
    known: bool,
    /// The mirror decides, because the engine was away.
    withdrawn: bool,
    /// Its seats are being asked for again: opens wait, so that they take none of those.
    settling: bool,
    users_version: Option<u64>,
    /// Seats that the engine and the mirror did not agree about at the last look.
    suspects: BTreeSet<u64>,
}

/// What the engine is told in its turn.
#[derive(Debug)]
enum Told {
    Release(Arc<str>, SeatId),
    Keep(Arc<str>, SeatId, Duration),
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("engine", &self.inner.engine).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes this gateway one of those that share the engine, and their decision that of every
    /// licence. The ledger is a new one, as its seats have numbers that no other gateway gives.
    ///
    /// # Errors
    /// The engine's.
    pub async fn join(
        engine: Engine,
        sharing: Sharing,
        terms: TermsOf,
        clock: Clock,
    ) -> Result<(Self, Ledger), EngineError> {
        let number: u64 = engine.run(redis::cmd("INCR").arg(JOINED)).await?;
        let ledger = Ledger::starting_at(number << SEATS_OF_GATEWAY);
        let (queue, told) = mpsc::unbounded_channel();
        let inner = Inner {
            engine,
            sharing,
            terms,
            clock,
            ledger: ledger.clone(),
            members: Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            queue,
            queued: AtomicUsize::new(0),
            left: AtomicBool::new(false),
            connected: AtomicBool::new(true),
            standing: Mutex::new(Standing { connected: true, ..Standing::default() }),
            name: OnceLock::new(),
            watcher: OnceLock::new(),
        };
        let cluster = Self { inner: Arc::new(inner) };
        ledger.set_authority(Arc::new(cluster.clone()));
        cluster.keep_up(told);
        Ok((cluster, ledger))
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let connected = self.inner.connected.load(Ordering::Relaxed);
        let alone = if self.inner.sharing.on_failure == OnFailure::Allow && !connected {
            // Each comes to it with its first open.
            self.inner.ledger.licences().len()
        } else {
            let members = self.inner.members.lock();
            members.values().filter(|member| member.withdrawn).count()
        };
        let alone = alone as u64;
        Standing { connected, alone, ..*self.inner.standing.lock() }
    }

    /// Lets `watcher` look at the standing now and after each look at the engine; only the first
    /// watcher is kept.
    pub fn watch(&self, watcher: Arc<dyn Fn() + Send + Sync>) {
        watcher();
        let _ = self.inner.watcher.set(watcher);
    }

    /// Tells the others what this gateway is called; once, before it has seats.
    pub fn name(&self, name: &str) {
        let _ = self.inner.name.set(name.into());
    }

    /// Gives all seats back at once: the gateway ends.
    pub async fn leave(&self) {
        self.inner.left.store(true, Ordering::Relaxed);
        let members: Vec<_> = std::mem::take(&mut *self.inner.members.lock()).into_iter().collect();
        for (licence, member) in members {
            if let Err(error) = call::leave(&self.inner.engine, &licence, member.owner).await {
                tracing::warn!(%error, "seats are given back only when their lease ends");
                return;
            }
        }
    }

    /// Who this gateway is at a licence, and whether the engine does not know it there yet.
    fn member(&self, licence: &Arc<str>) -> Result<(u64, bool), EngineError> {
        if self.inner.left.load(Ordering::Relaxed) {
            return Err(EngineError::Down("this gateway ends".to_owned()));
        }
        let mut members = self.inner.members.lock();
        let member = members.entry(Arc::clone(licence)).or_insert_with(|| self.new_member());
        Ok((member.owner, !member.known))
    }

    fn new_member(&self) -> Member {
        Member { owner: self.inner.engine.random(), ..Member::default() }
    }

    /// Whether the engine has not heard of this gateway at a licence.
    fn is_fresh(&self, licence: &str) -> bool {
        self.inner.members.lock().get(licence).is_none_or(|member| !member.known)
    }

    /// Waits until the sessions that run have their seats again.
    async fn settled(&self, licence: &str) {
        let settling = self.inner.members.lock().get(licence).is_some_and(|m| m.settling);
        if settling {
            drop(self.inner.joining.lock().await);
        }
    }

    fn note_known(&self, licence: &str, owner: u64) {
        if let Some(member) = self.inner.members.lock().get_mut(licence)
            && member.owner == owner
        {
            member.known = true;
        }
    }

    /// The users changed here. The engine may lose that, and tell the number again by which they
    /// were known before: they are looked at whatever it tells.
    fn forget_users_version(&self, licence: &str) {
        if let Some(member) = self.inner.members.lock().get_mut(licence) {
            member.users_version = None;
        }
    }

    fn is_withdrawn(&self, licence: &str) -> bool {
        self.inner.members.lock().get(licence).is_some_and(|member| member.withdrawn)
    }

    /// The engine does not answer: whether the mirror decides from here on.
    fn decides_alone(&self, licence: &Arc<str>) -> bool {
        if self.inner.sharing.on_failure == OnFailure::Deny {
            return false;
        }
        let mut members = self.inner.members.lock();
        let member = members.entry(Arc::clone(licence)).or_insert_with(|| self.new_member());
        if !std::mem::replace(&mut member.withdrawn, true) {
            tracing::error!(
                licence = &**licence,
                "Redis is away: opens are counted by this gateway alone"
            );
        }
        drop(members);
        self.inner.ledger.licence(licence).go_alone();
        true
    }

    /// The engine counted so much without the open, which it let in or not.
    fn note_counted(&self, ask: &Ask<'_>, usage: admission::Usage, is_in: bool) {
        let seats = self.inner.ledger.licence(ask.licence);
        let kind = |metering| SeatKind::of(ask.class, metering);
        seats.note_counted(kind(Metering::Connections), usage.connections + u64::from(is_in));
        if ask.terms.is_some_and(|terms| terms.quota.metering() == Metering::Users) {
            let users = usage.users + u64::from(is_in && !usage.user_is_counted);
            seats.note_counted(kind(Metering::Users), users);
        }
    }

    /// What this gateway is called.
    fn told(&self) -> &str {
        self.inner.name.get().map_or("", |name| name)
    }

    fn tell(&self, told: Told) {
        self.inner.queued.fetch_add(1, Ordering::AcqRel);
        let _ = self.inner.queue.send(told);
    }
}

#[async_trait]
impl Authority for Cluster {
    async fn admit(&self, ask: Ask<'_>) -> Result<Granted, Denied> {
        if self.is_withdrawn(ask.licence) {
            return Err(Denied::Withdrawn);
        }
        let failed = |error: EngineError| {
            tracing::error!(%error, "an open cannot be decided");
            if self.decides_alone(ask.licence) { Denied::Withdrawn } else { Denied::Unavailable }
        };
        for _ in 0..ATTEMPTS {
            self.settled(ask.licence).await;
            let (owner, fresh) = self.member(ask.licence).map_err(failed)?;
            let asked = call::Admit::new(&ask, owner, fresh, self.inner.sharing.lease, self.told());
            let answer = call::admit(&self.inner.engine, ask.licence, &asked).await;
            match answer.map_err(failed)? {
                Admission::Lost => self.come_back(ask.licence, owner).await.map_err(failed)?,
                Admission::Granted { usage, since, established, within } => {
                    self.note_known(ask.licence, owner);
                    self.note_counted(&ask, usage, true);
                    let against = if within { None } else { reason(&ask, usage) };
                    return Ok(Granted { observed: against, since, established });
                }
                Admission::Refused { usage } => {
                    self.note_known(ask.licence, owner);
                    self.note_counted(&ask, usage, false);
                    let reason = reason(&ask, usage).unwrap_or(Reason::StoreUnavailable);
                    return Err(Denied::Refused(Refusal { reason, usage }));
                }
            }
        }
        Err(Denied::Unavailable)
    }

    async fn confirm(&self, licence: &Arc<str>, accepted: &Accepted) -> Result<(), Unconfirmed> {
        if self.is_withdrawn(licence) {
            return Err(Unconfirmed::Withdrawn);
        }
        let failed = |error: EngineError| {
            tracing::error!(%error, "an accepted open cannot be recorded");
            if self.decides_alone(licence) {
                Unconfirmed::Withdrawn
            } else {
                Unconfirmed::Unavailable
            }
        };
        let limit = match (&accepted.user, self.inner.sharing.on_failure) {
            (Some(user), OnFailure::Deny) => {
                call::limit((self.inner.terms)(licence).as_deref(), user.class)
            }
            // Who was let in stays.
            (_, OnFailure::Allow) | (None, _) => u32::MAX,
        };
        for _ in 0..ATTEMPTS {
            let (owner, _) = self.member(licence).map_err(failed)?;
            let answer = call::confirm(&self.inner.engine, licence, owner, accepted, limit).await;
            match answer.map_err(failed)? {
                Confirmed::Done => {
                    if accepted.user.is_some() {
                        self.forget_users_version(licence);
                    }
                    return Ok(());
                }
                // Taken over elsewhere: its connection is being told.
                Confirmed::Gone => return Err(Unconfirmed::Unavailable),
                Confirmed::Lost => self.come_back(licence, owner).await.map_err(failed)?,
            }
        }
        Err(Unconfirmed::Unavailable)
    }

    fn release(&self, licence: &Arc<str>, seat: SeatId) {
        self.tell(Told::Release(Arc::clone(licence), seat));
    }

    fn keep(&self, licence: &Arc<str>, seat: SeatId, grace: Duration) {
        self.tell(Told::Keep(Arc::clone(licence), seat, grace));
    }

    async fn seats(&self, licence: &Arc<str>) -> Option<Vec<SeatInfo>> {
        if self.is_withdrawn(licence) {
            return None;
        }
        match call::list(&self.inner.engine, licence).await {
            Ok(seats) => Some(seats),
            Err(error) => {
                tracing::warn!(%error, "only the seats of this gateway can be listed");
                None
            }
        }
    }

    async fn close(&self, seat: SeatId) -> bool {
        let told = redis::cmd("PUBLISH").arg(CHANNEL).arg(format!("close {seat} -")).to_owned();
        match self.inner.engine.run::<u64>(&told).await {
            // All gateways hear it, this one too.
            Ok(heard) => heard > 0,
            Err(error) => {
                tracing::warn!(%error, "the other gateways cannot be asked to close a session");
                false
            }
        }
    }
}

/// What is against an open, by the one rule.
fn reason(ask: &Ask<'_>, usage: admission::Usage) -> Option<Reason> {
    admission::decide(ask.terms, ask.class, usage, ask.now).err()
}

/// An instant of the engine's clock.
fn instant(milliseconds: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds).ok()
}
