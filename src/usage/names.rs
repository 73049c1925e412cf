//! What the counts in the store are called, and what they say.
//!
//! | name | sum or peak | what |
//! |---|---|---|
//! | `ms` | sum | milliseconds that were observed |
//! | `<kind>` | peak | the most in use |
//! | `<kind>.ms` | sum | seats in use times milliseconds |
//! | `<kind>.full` | sum | milliseconds at the limit |
//! | `<kind>.limit` | peak | the limit; absent where there was none |
//! | `<kind>.wanted` | peak | in use and refused for lack of a seat, within a minute |
//! | `<kind>@<bucket>` | sum | milliseconds in a bucket of the histogram; the rest of `ms` is in that of 0 |
//! | `no.<reason>`, `would.<reason>` | sum | refusals; what `mode = "observe"` did not refuse |
//! | `in.<class>` | sum | opens admitted |
//! | `lost` | sum | events that nobody had time to count |
//!
//! `<kind>` is `ec`, `vc`, `eu` or `vu`: editor and viewer connections, editor and viewer users.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use crate::seat::SeatKind;
use crate::store::Counts;

/// The name of a kind of seat.
pub(super) fn of(kind: SeatKind) -> &'static str {
    match kind {
        SeatKind::EditorConnections => "ec",
        SeatKind::ViewerConnections => "vc",
        SeatKind::EditorUsers => "eu",
        SeatKind::ViewerUsers => "vu",
    }
}

/// The use of one kind of seat in an hour or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindDigest {
    pub kind: SeatKind,
    pub peak: u64,
    /// The most that were in use or refused within a minute.
    pub wanted: u64,
    /// The greatest limit of the time; `None` where there was none.
    pub limit: Option<u64>,
    /// Seats in use times milliseconds.
    pub seat_ms: u64,
    pub at_limit_ms: u64,
    pub times: Histogram,
}

/// What counts say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Several gateways that share their seats observe the same time, each.
    pub observed_ms: u64,
    /// In the order of [`SeatKind::ALL`].
    pub kinds: [KindDigest; 4],
    /// By reason.
    pub refused: BTreeMap<String, u64>,
    /// What would have been refused, by reason.
    pub observed: BTreeMap<String, u64>,
    /// By class.
    pub admitted: BTreeMap<String, u64>,
    /// Events that were not counted: what is said is too little.
    pub lost: u64,
}

impl Digest {
    /// Reads counts. Names that are not known are another version's, and left out.
    pub fn of(counts: &Counts) -> Self {
        let sum = |name: &str| counts.sums.get(name).copied().unwrap_or(0);
        let peak = |name: &str| counts.peaks.get(name).copied();
        let with = |prefix: &str| -> BTreeMap<String, u64> {
            let named = counts.sums.iter().filter_map(|(name, value)| {
                name.strip_prefix(prefix).map(|rest| (rest.to_owned(), *value))
            });
            named.collect()
        };
        let kinds = SeatKind::ALL.map(|kind| {
            let name = of(kind);
            let mut times = Histogram::default();
            for (bucket, time) in with(&format!("{name}@")) {
                if let Ok(bucket) = bucket.parse() {
                    times.add(bucket, time);
                }
            }
            times.fill_up_to(sum("ms"));
            let highest = peak(name).unwrap_or(0);
            KindDigest {
                kind,
                peak: highest,
                wanted: peak(&format!("{name}.wanted")).unwrap_or(0).max(highest),
                limit: peak(&format!("{name}.limit")),
                seat_ms: sum(&format!("{name}.ms")),
                at_limit_ms: sum(&format!("{name}.full")),
                times,
            }
        });
        Self {
            observed_ms: sum("ms"),
            kinds,
            refused: with("no."),
            observed: with("would."),
            admitted: with("in."),
            lost: sum("lost"),
        }
    }

    /// All refusals.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}
