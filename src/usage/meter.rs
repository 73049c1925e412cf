//! One tenant's use: counts that wait for the store, and the history for charts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::history::History;
use super::{Refused, TenantUse, histogram, names};
use crate::admission::Reason;
use crate::seat::{SeatKind, SessionClass};
use crate::store::{Counts, Span, UsageRecord};

/// Refused users who are told apart within a minute.
const MOST_REFUSED: usize = 10_000;

/// Hours that wait while the store is away; the oldest go.
const MOST_WAITING: usize = 31 * 24;

/// One tenant's use.
#[derive(Debug)]
pub(super) struct Meter {
    licence: Arc<str>,
    pub(super) history: History,
    /// By the hour that they belong to and the licence.
    waiting: BTreeMap<(Timestamp, Arc<str>), Counts>,
    /// Something happened that is worth writing before the hour is over.
    busy: bool,
    last: [(u64, Option<u64>); 4],
    /// Who was refused for lack of a seat within this minute.
    minute: i64,
    wanted: [HashSet<u64>; 4],
}

impl Meter {
    pub(super) fn new(licence: Arc<str>) -> Self {
        Self {
            licence,
            history: History::default(),
            waiting: BTreeMap::new(),
            busy: false,
            last: Default::default(),
            minute: 0,
            wanted: Default::default(),
        }
    }

    fn counts(&mut self, now: Timestamp) -> &mut Counts {
        let key = (Span::Hour.start(now), Arc::clone(&self.licence));
        self.waiting.entry(key).or_default()
    }

    /// What is in use now, and was for the last `ms`.
    pub(super) fn sample(&mut self, sample: &TenantUse, ms: u64, now: Timestamp) {
        if self.licence != sample.licence {
            self.licence = Arc::clone(&sample.licence);
            self.busy = true;
        }
        self.history.sample(now, ms, &sample.kinds);
        self.busy |= self.last != sample.kinds || sample.kinds.iter().any(|(used, _)| *used > 0);
        self.last = sample.kinds;
        while self.waiting.len() > MOST_WAITING {
            self.waiting.pop_first();
        }
        let counts = self.counts(now);
        counts.sum("ms", ms);
        for (kind, (used, limit)) in SeatKind::ALL.into_iter().zip(sample.kinds) {
            // A kind that is neither sold nor used says nothing.
            if used == 0 && limit.is_none() {
                continue;
            }
            let name = names::of(kind);
            counts.peak(name, used);
            counts.sum(&format!("{name}.ms"), used.saturating_mul(ms));
            // The rest of the time nothing was in use.
            if used > 0 {
                counts.sum(&format!("{name}@{}", histogram::bucket(used)), ms);
            }
            if let Some(limit) = limit {
                counts.peak(&format!("{name}.limit"), limit);
                if used >= limit {
                    counts.sum(&format!("{name}.full"), ms);
                }
            }
        }
    }

    /// An open left so much in use.
    pub(super) fn taken(&mut self, used: &[u64; 4], now: Timestamp) {
        self.busy = true;
        self.history.peak(now, used);
        for ((kind, used), last) in SeatKind::ALL.into_iter().zip(used).zip(&mut self.last) {
            // Until the next sample this is what is known to be in use.
            last.0 = last.0.max(*used);
            if *used > 0 {
                let name = names::of(kind);
                self.waiting
                    .entry((Span::Hour.start(now), Arc::clone(&self.licence)))
                    .or_default()
                    .peak(name, *used);
            }
        }
    }

    pub(super) fn admitted(&mut self, class: SessionClass, now: Timestamp) {
        self.busy = true;
        self.counts(now).sum(&format!("in.{}", class.label()), 1);
    }

    /// Somebody was refused, or would have been. `user` stands for who it was.
    pub(super) fn refused(&mut self, refused: Refused, user: u64, now: Timestamp) {
        self.busy = true;
        let (prefix, reason) = match refused {
            Refused::Really(reason) => ("no", reason),
            Refused::Observed(reason) => ("would", reason),
        };
        self.counts(now).sum(&format!("{prefix}.{}", reason.label()), 1);
        // Whoever was let in all the same is in use.
        let Refused::Really(reason) = refused else { return };
        self.history.refused(now);
        let Some(kind) = short_of(reason) else { return };
        let minute = now.as_second().div_euclid(60);
        if self.minute != minute {
            self.minute = minute;
            self.wanted.iter_mut().for_each(HashSet::clear);
        }
        let index = SeatKind::ALL.iter().position(|one| *one == kind).unwrap_or_default();
        let Some(wanted) = self.wanted.get_mut(index) else { return };
        if wanted.len() < MOST_REFUSED {
            wanted.insert(user);
        }
        let used = self.last.get(index).map_or(0, |(used, _)| *used);
        let height = used + wanted.len() as u64;
        self.counts(now).peak(&format!("{}.wanted", names::of(kind)), height);
    }

    pub(super) fn lost(&mut self, events: u64, now: Timestamp) {
        self.busy = true;
        self.counts(now).sum("lost", events);
    }

    /// Takes what waits for the store: all of it, or what is worth writing.
    pub(super) fn take(
        &mut self,
        tenant: &Arc<str>,
        all: bool,
        now: Timestamp,
    ) -> Vec<UsageRecord> {
        let hour = Span::Hour.start(now);
        let over = self.waiting.keys().any(|(start, _)| *start < hour);
        if !(all || over || self.busy) {
            return Vec::new();
        }
        self.busy = false;
        let mut records = Vec::new();
        for ((start, licence), counts) in std::mem::take(&mut self.waiting) {
            let record = |span: Span| UsageRecord {
                span,
                start: span.start(start),
                tenant: Arc::clone(tenant),
                licence: Arc::clone(&licence),
                counts: counts.clone(),
            };
            records.extend([record(Span::Hour), record(Span::Month)]);
        }
        records
    }
}

/// The kind of seat that was missing, if that was the reason.
pub(super) fn short_of(reason: Reason) -> Option<SeatKind> {
    match reason {
        Reason::Connections => Some(SeatKind::EditorConnections),
        Reason::ConnectionsView => Some(SeatKind::ViewerConnections),
        Reason::Users => Some(SeatKind::EditorUsers),
        Reason::UsersView => Some(SeatKind::ViewerUsers),
        Reason::LicenceExpired
        | Reason::LicenceNotStarted
        | Reason::LicenceRevoked
        | Reason::LicenceMissing
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::Malformed
        | Reason::StoreUnavailable => None,
    }
}
