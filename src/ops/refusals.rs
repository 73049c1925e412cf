//! The last refusals, in memory: what the status page tells of them.
//!
//! Alike ones of a minute are one entry with a count, so that a client that tries again and again
//! does not push the others out.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::admission::Reason;
use crate::ops::metrics::Outcome;
use crate::seat::SessionClass;

/// The most entries that are kept.
const KEPT: usize = 100;

/// How long alike refusals become one entry.
const TOGETHER: SignedDuration = SignedDuration::from_secs(60);

/// An open that was refused, turned into view-only, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub tenant: Arc<str>,
    pub class: SessionClass,
    pub outcome: Outcome,
    pub reason: Reason,
    /// User and document, where the operator wants to see people.
    pub who: Option<(String, String)>,
}

/// A refusal, how often, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub refusal: Refusal,
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u64,
}

/// The last refusals, the latest at the back.
#[derive(Debug, Default)]
pub struct Refusals {
    entries: Mutex<VecDeque<Entry>>,
}

impl Refusals {
    /// Notes one.
    pub fn note(&self, refusal: Refusal, now: Timestamp) {
        let mut entries = self.entries.lock();
        let alike = entries.iter().rposition(|entry| {
            entry.refusal == refusal && now.duration_since(entry.first).abs() < TOGETHER
        });
        let entry = match alike.and_then(|place| entries.remove(place)) {
            Some(before) => Entry { last: now, count: before.count.saturating_add(1), ..before },
            None => Entry { refusal, first: now, last: now, count: 1 },
        };
        if entries.len() >= KEPT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// All that are kept, the latest first.
    pub fn latest(&self) -> Vec<Entry> {
        self.entries.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(tenant: &str, reason: Reason) -> Refusal {
        Refusal {
            tenant: tenant.into(),
            class: SessionClass::Editor,
            outcome: Outcome::Rejected,
            reason,
            who: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn alike_ones_of_a_minute_are_one_entry() {
        let refusals = Refusals::default();
        refusals.note(refusal("a", Reason::Users), at(0));
        refusals.note(refusal("b", Reason::Users), at(1));
        refusals.note(refusal("a", Reason::Users), at(59));
        refusals.note(refusal("a", Reason::Connections), at(60));
        refusals.note(refusal("a", Reason::Users), at(60));
        let found: Vec<_> = refusals
            .latest()
            .into_iter()
            .map(|entry| (entry.refusal.tenant, entry.refusal.reason, entry.count, entry.first))
            .collect();
        assert_eq!(
            found,
            [
                ("a".into(), Reason::Users, 1, at(60)),
                ("a".into(), Reason::Connections, 1, at(60)),
                ("a".into(), Reason::Users, 2, at(0)),
                ("b".into(), Reason::Users, 1, at(1)),
            ]
        );
    }

    #[test]
    fn only_so_many_are_kept_and_nobody_pushes_the_others_out() {
        let refusals = Refusals::default();
        refusals.note(refusal("quiet", Reason::Users), at(0));
        for _ in 0..10_000 {
            refusals.note(refusal("loud", Reason::Users), at(1));
        }
        let entries = refusals.latest();
        assert_eq!(entries.iter().map(|entry| entry.count).collect::<Vec<_>>(), [10_000, 1]);
        for tenant in 0..2 * KEPT {
            refusals.note(refusal(&tenant.to_string(), Reason::Users), at(2));
        }
        let entries = refusals.latest();
        assert_eq!(entries.len(), KEPT);
        assert_eq!(*entries[0].refusal.tenant, *(2 * KEPT - 1).to_string());
    }
}
