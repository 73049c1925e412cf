//! Seats whose connection was lost, by the instant at which they stop being kept.
//!
//! When a document server or a network goes down, all its connections are lost in one moment,
//! and all their graces end in one moment. So the seats of a millisecond are one number: they
//! leave the count by one subtraction, and are cleared away a few at a time. Between the two a
//! seat is *over*: still in memory, but nobody's.

use std::collections::BTreeMap;

use super::lease::SeatId;
use super::state::PerClass;
use crate::seat::SeatClass;

/// The seats that are kept until the same millisecond.
#[derive(Debug, Default)]
struct Due {
    count: PerClass<u64>,
    /// May also name seats that were restored since.
    seats: Vec<SeatId>,
}

#[derive(Debug)]
pub(super) struct Grace {
    due: BTreeMap<i64, Due>,
    kept: PerClass<u64>,
    /// Seats to clear away, as `due` had them.
    over: Vec<SeatId>,
    /// Whatever was kept until here or earlier is over; only of use while `over` has seats.
    over_until: i64,
}

impl Grace {
    pub(super) const fn new() -> Self {
        Self {
            due: BTreeMap::new(),
            kept: PerClass { editor: 0, live_viewer: 0 },
            over: Vec::new(),
            over_until: i64::MIN,
        }
    }

    /// Seats kept now.
    pub(super) fn kept(&self, class: SeatClass) -> u64 {
        *self.kept.of(class)
    }

    /// Keeps a seat until this millisecond. `false` if that is over already, as it may be
    /// when the clock stepped back.
    pub(super) fn keep(&mut self, class: SeatClass, id: SeatId, until: i64) -> bool {
        if self.is_over(until) {
            return false;
        }
        let due = self.due.entry(until).or_default();
        due.seats.push(id);
        *due.count.of_mut(class) += 1;
        *self.kept.of_mut(class) += 1;
        true
    }

    /// Stops keeping a seat that was kept until then and is not over.
    pub(super) fn stop(&mut self, class: SeatClass, until: i64) {
        let Some(due) = self.due.get_mut(&until) else { return };
        let count = due.count.of_mut(class);
        *count = count.saturating_sub(1);
        if due.count.editor + due.count.live_viewer == 0 {
            self.due.remove(&until);
        }
        let kept = self.kept.of_mut(class);
        *kept = kept.saturating_sub(1);
    }

    /// Ends what is kept until `now` or earlier; how many seats of each class that were.
    pub(super) fn end(&mut self, now: i64) -> PerClass<u64> {
        let mut ended = PerClass::default();
        while let Some(due) = self.due.first_entry()
            && *due.key() <= now
        {
            self.over_until = self.over_until.max(*due.key());
            let Due { count, mut seats } = due.remove();
            ended.editor += count.editor;
            ended.live_viewer += count.live_viewer;
            self.over.append(&mut seats);
        }
        self.kept.editor = self.kept.editor.saturating_sub(ended.editor);
        self.kept.live_viewer = self.kept.live_viewer.saturating_sub(ended.live_viewer);
        ended
    }

    /// Whether a seat that was kept until then is over.
    pub(super) fn is_over(&self, until: i64) -> bool {
        !self.over.is_empty() && until <= self.over_until
    }

    /// The next seat to clear away if it is over; the caller does so before anything else.
    pub(super) fn next_over(&self) -> Option<SeatId> {
        self.over.last().copied()
    }

    /// The seat of [`Self::next_over`] was looked at.
    pub(super) fn looked_at(&mut self) {
        self.over.pop();
        if self.over.is_empty() {
            self.over = Vec::new();
            self.over_until = i64::MIN;
        }
    }
}
