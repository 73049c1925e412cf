//! What each tenant really used: for charts, and for the report by months.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Usage`]: where events come in, what is sampled, written and swept |
//! | `meter` | one tenant: counts that wait for the store |
//! | `history` | [`Usage::history`]: minutes, hours and months in memory, for charts |
//! | `marks` | who was seen on which days |
//! | `names` | what the counts in the store are called; [`Digest`] reads them |
//! | `histogram` | how long how much was in use: percentiles |
//! | `sizing` | how many unique users a licence would have had to have |
//!
//! The data plane only pushes an event into a bounded list; everything else happens on the
//! keeper's thread, every two seconds. Once a minute what was counted goes to the store, as one
//! batch: a crash loses that minute at most. If the store is away, batches wait, and no session
//! notices.
//!
//! Use is that of the tenant's licence: tenants that share one show the same. The time of day is
//! an argument here, too.

mod histogram;
mod history;
mod marks;
mod meter;
mod names;
pub mod sizing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

pub use histogram::Histogram;
pub use history::{Point, Range, Series};
pub use names::{Digest, KindDigest};

use crate::admission::Reason;
use crate::config::{self, UserIds};
use crate::seat::SessionClass;
use crate::store::{Result, Span, Store, UsageBatch, UsageRecord};
use marks::Marks;
use meter::Meter;

/// How often events are counted and seats sampled.
const SAMPLE: Duration = Duration::from_secs(2);

/// How many samples there are between two batches for the store: a minute's.
const BATCH: u32 = 30;

/// How many samples there are between two sweeps: an hour's.
const SWEEP: u32 = 1_800;

/// A sample stands for no more time than this: a host that slept used nothing.
const LONGEST_SAMPLE_MS: i64 = 10_000;

/// Events that wait to be counted; beyond, they are lost, and that is counted.
const EVENTS: usize = 65_536;

/// Batches that wait while the store is away are put together; so many records at most.
const WAITING_RECORDS: usize = 100_000;

/// Rows that are swept in one go.
const SWEEP_PIECE: u32 = 1_000;

/// What a tenant uses at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantUse {
    pub tenant: Arc<str>,
    pub licence: Arc<str>,
    /// Used, and the limit if there is one; in the order of [`crate::seat::SeatKind::ALL`].
    pub kinds: [(u64, Option<u64>); 4],
}

/// Where samples come from.
pub trait Source: Send + Sync {
    /// All tenants.
    fn uses(&self, now: Timestamp) -> Vec<TenantUse>;
}

/// A refusal, or what would have been one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Really(Reason),
    /// Let in all the same: the tenant is only observed.
    Observed(Reason),
}

/// What happened to an open.
#[derive(Clone, Debug)]
enum What {
    Admitted,
    Refused(Refused, Arc<str>),
    /// The document server accepted it.
    Opened(Arc<str>),
}

#[derive(Debug)]
enum Event {
    Open {
        tenant: Arc<str>,
        licence: Arc<str>,
        class: SessionClass,
        what: What,
        at: Timestamp,
    },
    /// So much was in use after an admission.
    Taken {
        tenant: Arc<str>,
        licence: Arc<str>,
        used: [u64; 4],
        at: Timestamp,
    },
}

#[derive(Debug, Default)]
struct Events {
    list: Vec<Event>,
    lost: u64,
}

#[derive(Debug)]
struct State {
    tenants: HashMap<Arc<str>, Meter>,
    marks: Marks,
    sampled: Option<Timestamp>,
    /// Written down, and not yet known to be in the store.
    batch: Option<Arc<UsageBatch>>,
    settings: config::Usage,
}

/// What each tenant uses. One for the process.
pub struct Usage {
    events: Mutex<Events>,
    state: Mutex<State>,
    store: Arc<dyn Store>,
    hasher: RandomState,
    /// One batch after the other.
    writing: tokio::sync::Mutex<()>,
}

impl Usage {
    /// Nothing is known yet; [`Self::restore`] asks the store.
    pub fn new(store: Arc<dyn Store>, settings: config::Usage) -> Self {
        let state = State {
            tenants: HashMap::new(),
            marks: Marks::default(),
            sampled: None,
            batch: None,
            settings,
        };
        Self {
            events: Mutex::default(),
            state: Mutex::new(state),
            store,
            hasher: RandomState::new(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Other settings from now on.
    pub fn configure(&self, settings: config::Usage) {
        self.state.lock().settings = settings;
    }

    /// Whether unique users are counted at all.
    pub fn counts_users(&self) -> bool {
        self.state.lock().settings.user_ids != UserIds::None
    }

    // --- what the data plane tells ---

    /// An open was admitted.
    pub fn admitted(
        &self,
        (tenant, licence): (&Arc<str>, &Arc<str>),
        class: SessionClass,
        at: Timestamp,
    ) {
        self.push((tenant, licence), class, What::Admitted, at);
    }

    /// An open was refused, or made view-only, or would have been.
    pub fn refused(
        &self,
        (tenant, licence): (&Arc<str>, &Arc<str>),
        class: SessionClass,
        refused: Refused,
        user: &str,
        at: Timestamp,
    ) {
        self.push((tenant, licence), class, What::Refused(refused, user.into()), at);
    }

    /// The document server accepted an open of this user.
    pub fn opened(
        &self,
        (tenant, licence): (&Arc<str>, &Arc<str>),
        class: SessionClass,
        user: &str,
        at: Timestamp,
    ) {
        self.push((tenant, licence), class, What::Opened(user.into()), at);
    }

    /// An admission left so much in use, in the order of [`crate::seat::SeatKind::ALL`].
    pub fn taken(&self, (tenant, licence): (&Arc<str>, &Arc<str>), used: [u64; 4], at: Timestamp) {
        let (tenant, licence) = (Arc::clone(tenant), Arc::clone(licence));
        self.hand_in(Event::Taken { tenant, licence, used, at });
    }

    fn push(
        &self,
        (tenant, licence): (&Arc<str>, &Arc<str>),
        class: SessionClass,
        what: What,
        at: Timestamp,
    ) {
        let (tenant, licence) = (Arc::clone(tenant), Arc::clone(licence));
        self.hand_in(Event::Open { tenant, licence, class, what, at });
    }

    fn hand_in(&self, event: Event) {
        let mut events = self.events.lock();
        if events.list.len() < EVENTS {
            events.list.push(event);
        } else {
            events.lost += 1;
        }
    }

    // --- what charts ask ---

    /// A tenant's use over time, for each kind of seat in the order of
    /// [`crate::seat::SeatKind::ALL`]; `None` for a tenant that nobody knows. All in memory: cheap
    /// enough to be asked every few seconds.
    pub fn history(&self, tenant: &str, range: Range, now: Timestamp) -> Option<Vec<Series>> {
        let state = self.state.lock();
        state.tenants.get(tenant).map(|meter| meter.history.series(range, now))
    }

    // --- what the keeper does ---

    /// Learns from the store what charts show of the time before the process ran.
    ///
    /// # Errors
    /// The store failed; charts begin now.
    pub async fn restore(self: &Arc<Self>, now: Timestamp) -> Result<()> {
        for (span, hours) in [(Span::Hour, 31 * 24), (Span::Month, 366 * 24)] {
            let from = now.saturating_sub(SignedDuration::from_hours(hours)).unwrap_or(now);
            let usage = Arc::clone(self);
            let each = move |record: UsageRecord| {
                let mut state = usage.state.lock();
                let meter = state.meter(&record.tenant, &record.licence);
                meter.history.restore(&record, now);
            };
            let to = now.saturating_add(SignedDuration::from_hours(1)).unwrap_or(now);
            self.store.for_each_usage(span, span.start(from), to, Box::new(each)).await?;
        }
        Ok(())
    }

    /// Samples, writes and sweeps, for ever. `now` tells the time of day.
    pub async fn run(self: Arc<Self>, source: Arc<dyn Source>, now: fn() -> Timestamp) {
        if let Err(error) = self.restore(now()).await {
            tracing::warn!(%error, "charts begin now: what was used before cannot be read");
        }
        let collect = async {
            let mut turn = tokio::time::interval(SAMPLE);
            turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                turn.tick().await;
                self.sample(&source.uses(now()), now());
            }
        };
        let write = async {
            let mut turn = tokio::time::interval(SAMPLE * BATCH);
            let mut turns = 0_u32;
            loop {
                turn.tick().await;
                // The store says by itself, and as a metric, when it fails.
                let _ = self.write(false, now()).await;
                if turns.is_multiple_of(SWEEP / BATCH) {
                    let _ = self.sweep(now()).await;
                }
                turns = turns.wrapping_add(1);
            }
        };
        tokio::join!(collect, write);
    }

    /// Counts what happened and what is in use.
    pub fn sample(&self, uses: &[TenantUse], now: Timestamp) {
        self.count_events(now);
        let mut state = self.state.lock();
        let since = state.sampled.map_or(0, |last| now.duration_since(last).as_millis());
        state.sampled = Some(now);
        let longest = i128::from(LONGEST_SAMPLE_MS);
        let ms = u64::try_from(since.clamp(0, longest)).unwrap_or(0);
        for sample in uses {
            state.meter(&sample.tenant, &sample.licence).sample(sample, ms, now);
        }
    }

    fn count_events(&self, now: Timestamp) {
        let Events { list, lost } = std::mem::take(&mut *self.events.lock());
        let mut state = self.state.lock();
        let mut unmarked = 0;
        for event in list {
            match event {
                Event::Taken { tenant, licence, used, at } => {
                    state.meter(&tenant, &licence).taken(&used, at);
                }
                Event::Open { tenant, licence, class, what, at } => {
                    let meter = state.meter(&tenant, &licence);
                    let (user, refused) = match what {
                        What::Admitted => {
                            meter.admitted(class, at);
                            continue;
                        }
                        What::Refused(refused, user) => {
                            meter.refused(refused, self.hasher.hash_one(&user), at);
                            match refused {
                                Refused::Really(reason) if meter::short_of(reason).is_some() => {}
                                Refused::Really(_) | Refused::Observed(_) => continue,
                            }
                            (user, true)
                        }
                        What::Opened(user) => (user, false),
                    };
                    let ids = state.settings.user_ids;
                    if ids == UserIds::None || user.is_empty() {
                        continue;
                    }
                    let known = (self.store.pseudonym(&user), &user);
                    let owner = (&tenant, &licence);
                    let marked = state.marks.see(owner, class, known, refused, ids, at);
                    unmarked += u64::from(!marked);
                    if !marked {
                        state.meter(&tenant, &licence).lost(1, at);
                    }
                }
            }
        }
        if lost + unmarked > 0 {
            tracing::warn!(
                lost,
                unmarked,
                "too much at once: the usage report will say too little"
            );
        }
        // Whose they were is not known any more.
        if lost > 0
            && let Some(meter) = state.tenants.values_mut().next()
        {
            meter.lost(lost, now);
        }
    }

    /// Brings what was counted into the store: with `all`, everything; otherwise what is worth a
    /// write.
    ///
    /// # Errors
    /// The store failed. Nothing is lost by that: it is tried again the next time.
    pub async fn write(&self, all: bool, now: Timestamp) -> Result<()> {
        self.count_events(now);
        let _turn = self.writing.lock().await;
        loop {
            let batch = {
                let mut state = self.state.lock();
                let again = state.batch.clone();
                match again.or_else(|| state.gather(all, now)) {
                    Some(batch) => batch,
                    None => return Ok(()),
                }
            };
            self.store.add_usage(Arc::clone(&batch)).await?;
            self.state.lock().batch = None;
        }
    }

    /// Forgets what is older than the configuration wants.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sweep(&self, now: Timestamp) -> Result<()> {
        let settings = self.state.lock().settings;
        let before = now.saturating_sub(settings.retention).unwrap_or(Timestamp::MIN);
        let names = settings.user_ids != UserIds::Plain;
        while self.store.purge_usage(before, names, SWEEP_PIECE).await? >= SWEEP_PIECE {}
        Ok(())
    }
}

impl State {
    fn meter(&mut self, tenant: &Arc<str>, licence: &Arc<str>) -> &mut Meter {
        self.tenants.entry(Arc::clone(tenant)).or_insert_with(|| Meter::new(Arc::clone(licence)))
    }

    /// Makes a batch of what waits; `None` if nothing does.
    fn gather(&mut self, all: bool, now: Timestamp) -> Option<Arc<UsageBatch>> {
        let mut records = Vec::new();
        for (tenant, meter) in &mut self.tenants {
            records.extend(meter.take(tenant, all, now));
            if records.len() >= WAITING_RECORDS {
                break;
            }
        }
        let marks = self.marks.take();
        if records.is_empty() && marks.is_empty() {
            return None;
        }
        let mut id = [0_u8; 16];
        if let Err(error) = getrandom::fill(&mut id) {
            tracing::error!(%error, "the system gives no random bytes");
        }
        let batch = Arc::new(UsageBatch { id, records, marks });
        self.batch = Some(Arc::clone(&batch));
        Some(batch)
    }
}
