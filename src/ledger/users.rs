//! The unique users of one class under one licence: counted until they expire, or in reserve.
//!
//! A user is *counted* from the first open that the document server accepted until the instant
//! that [`crate::licence::user_expiry`] gives (PRODUCT.md, "What a seat is"), connected or not.
//! A user whose open is still under way is *in reserve*: takes a seat too, and gives it back
//! unless the open is accepted.
//!
//! Expiries are ends of days, so a day's users are one number: when it passes, a million users
//! leave the count by one subtraction, and their rows are cleared away a few at a time.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::table::{Row, Table};
use crate::seat::SeatClass;

/// What is remembered about a unique user, in the ledger's store too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    pub class: SeatClass,
    #[serde(with = "crate::ledger::shared_text")]
    pub user: Arc<str>,
    /// The user is counted before this instant; whole seconds.
    pub expires: Timestamp,
    /// The `anonym` of the license command.
    pub anonymous: bool,
}

/// One unique user as the license command lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedUser {
    pub user: Arc<str>,
    /// The user is counted before this instant.
    pub expires: Timestamp,
    pub anonymous: bool,
}

/// No expiry: a user who was never counted.
const NEVER: i64 = i64::MIN;
/// An expired user's row is kept this long, so that a clock that steps back by less counts right.
const PURGE_AFTER_SECONDS: i64 = 3_600;

#[derive(Debug)]
struct User {
    /// Counted before this second; [`NEVER`] for one who is only in reserve.
    expires: i64,
    /// Place in the order of first counting.
    first: u64,
    /// Opens under way.
    holders: u32,
    anonymous: bool,
    /// The store knows about this `expires` and `anonymous`.
    stored: bool,
    /// The store knows the user with this expiry at least; [`NEVER`] if it does not.
    durable: i64,
}

impl Default for User {
    fn default() -> Self {
        Self {
            expires: NEVER,
            first: 0,
            holders: 0,
            anonymous: false,
            stored: false,
            durable: NEVER,
        }
    }
}

/// The users whose expiry is the same.
#[derive(Debug, Default)]
struct Day {
    users: u64,
    /// Those of them with an open under way, who fall back into reserve when the day passes.
    held: u64,
}

#[derive(Debug)]
pub(super) struct UserSet {
    table: Table<User>,
    days: BTreeMap<i64, Day>,
    /// The second for which `counted` and `reserve` hold.
    clock: i64,
    counted: u64,
    reserve: u64,
    /// The row at which clearing away goes on.
    hand: Row,
    next_first: u64,
}

impl UserSet {
    pub(super) const fn new() -> Self {
        Self {
            table: Table::new(),
            days: BTreeMap::new(),
            clock: NEVER,
            counted: 0,
            reserve: 0,
            hand: 0,
            next_first: 0,
        }
    }

    /// Brings the counts to `second`; `true` if anybody's counting changed.
    pub(super) fn advance(&mut self, second: i64) -> bool {
        let before = std::mem::replace(&mut self.clock, second);
        let mut changed = false;
        if before < second {
            for day in self.days.range((Excluded(before), Included(second))).map(|(_, day)| day) {
                self.counted = self.counted.saturating_sub(day.users);
                self.reserve += day.held;
                changed |= day.users > 0;
            }
        } else if second < before {
            for day in self.days.range((Excluded(second), Included(before))).map(|(_, day)| day) {
                self.counted += day.users;
                self.reserve = self.reserve.saturating_sub(day.held);
                changed |= day.users > 0;
            }
        }
        changed
    }

    /// Users that take a seat: counted or in reserve.
    pub(super) fn taken(&self) -> u64 {
        self.counted + self.reserve
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    pub(super) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Whether the user takes a seat already.
    pub(super) fn takes(&self, hash: u32, user: &str) -> bool {
        self.table
            .find(hash, user)
            .and_then(|row| self.table.get(row))
            .is_some_and(|(_, found)| found.holders > 0 || found.expires > self.clock)
    }

    /// Whether the user takes a seat that a crash would forget.
    pub(super) fn is_unrecorded(&self, hash: u32, user: &str) -> bool {
        self.takes(hash, user)
            && self
                .table
                .find(hash, user)
                .and_then(|row| self.table.get(row))
                .is_some_and(|(_, found)| found.durable <= self.clock)
    }

    /// Whether the seat that `row` takes is there for one open under way only, of another user.
    pub(super) fn is_reserve_of_one_other_than(&self, row: Row, user: &str) -> bool {
        self.table.get(row).is_some_and(|(name, found)| {
            found.holders == 1 && found.expires <= self.clock && **name != *user
        })
    }

    /// Reserves a seat for an open of the user; the row stays theirs until the hold ends with
    /// [`Self::release`] or [`Self::record`]. Gives back the one copy of the name.
    pub(super) fn hold(&mut self, hash: u32, user: &Arc<str>) -> Option<(Row, Arc<str>)> {
        let row = match self.table.find(hash, user) {
            Some(row) => row,
            None => self.table.insert(hash, Arc::clone(user), User::default())?,
        };
        self.change(row, |found| found.holders = found.holders.saturating_add(1));
        let (name, _) = self.table.get(row)?;
        Some((row, Arc::clone(name)))
    }

    /// Ends a hold without having counted the user.
    pub(super) fn release(&mut self, row: Row) {
        self.change(row, |found| found.holders = found.holders.saturating_sub(1));
        self.clear_if_unused(row);
    }

    /// Ends a hold by counting the user until `expires`, or longer if they were already. The
    /// first value says whether the list changed, the second is what the store does not know.
    pub(super) fn record(
        &mut self,
        row: Row,
        expires: i64,
        anonymous: bool,
    ) -> (bool, Option<CountedUser>) {
        let Some((name, found)) = self.table.get(row) else { return (false, None) };
        let name = Arc::clone(name);
        let was_counted = found.expires > self.clock;
        let expires = if was_counted { expires.max(found.expires) } else { expires };
        if expires <= self.clock {
            self.release(row);
            return (false, None);
        }
        let changed = !was_counted || expires != found.expires || anonymous != found.anonymous;
        let stored = found.stored && !changed;
        let first = if was_counted { found.first } else { self.take_place() };
        self.change(row, |found| {
            let holders = found.holders.saturating_sub(1);
            let durable = found.durable;
            *found = User { expires, first, holders, anonymous, stored, durable };
        });
        (changed, (!stored).then(|| counted_user(name, expires, anonymous)))
    }

    /// Counts a user whom the store remembers; a later expiry stays.
    pub(super) fn load(&mut self, hash: u32, record: &UserRecord) -> bool {
        let expires = record.expires.as_second();
        let row = match self.table.find(hash, &record.user) {
            Some(row) => row,
            None if expires <= self.clock => return false,
            None => match self.table.insert(hash, Arc::clone(&record.user), User::default()) {
                Some(row) => row,
                None => return false,
            },
        };
        let Some((_, found)) = self.table.get(row) else { return false };
        if expires <= self.clock || expires <= found.expires {
            return false;
        }
        let first = if found.expires > self.clock { found.first } else { self.take_place() };
        let anonymous = record.anonymous;
        self.change(row, |found| {
            let holders = found.holders;
            *found = User { expires, first, anonymous, holders, stored: true, durable: expires };
        });
        true
    }

    /// Notes that the store holds what [`Self::record`] gave out, and counts the user again if
    /// they were forgotten since; `true` if that changed the list.
    pub(super) fn stored(&mut self, hash: u32, record: &UserRecord) -> bool {
        let expires = record.expires.as_second();
        let row = self.table.find(hash, &record.user);
        match row.and_then(|row| self.table.get_mut(row)) {
            Some(found) if found.expires >= expires => {
                found.durable = found.durable.max(expires);
                found.stored |= found.expires == expires && found.anonymous == record.anonymous;
                false
            }
            Some(_) | None => self.load(hash, record),
        }
    }

    /// Notes that the store did not take what [`Self::record`] gave out. Unless it knows the user
    /// from before, for a time that is not over yet, they are no longer counted, and `false`
    /// comes back.
    pub(super) fn unstored(&mut self, hash: u32, record: &UserRecord) -> bool {
        let row = self.table.find(hash, &record.user);
        let known = row
            .and_then(|row| self.table.get(row))
            .is_some_and(|(_, found)| found.durable > self.clock);
        if !known {
            self.forget(hash, &record.user);
        }
        known
    }

    /// Stops counting a user; `true` if they were counted. An open under way stays in reserve.
    pub(super) fn forget(&mut self, hash: u32, user: &str) -> bool {
        let Some(row) = self.table.find(hash, user) else { return false };
        let was_counted = self.table.get(row).is_some_and(|(_, found)| found.expires > self.clock);
        self.change(row, |found| {
            found.expires = NEVER;
            found.durable = NEVER;
        });
        self.clear_if_unused(row);
        was_counted
    }

    /// Looks at `steps` rows for users long expired and clears those away; `false` when there is
    /// nothing to clear.
    pub(super) fn purge(&mut self, steps: u32) -> bool {
        let due = self.clock.saturating_sub(PURGE_AFTER_SECONDS);
        for _ in 0..steps {
            if self.days.first_key_value().is_none_or(|(day, _)| *day > due) {
                return false;
            }
            if self.hand >= self.table.rows() {
                self.hand = 0;
            }
            let row = self.hand;
            self.hand += 1;
            let expired = self
                .table
                .get(row)
                .is_some_and(|(_, found)| found.expires != NEVER && found.expires <= due);
            if expired {
                self.change(row, |found| found.expires = NEVER);
                self.clear_if_unused(row);
            }
        }
        true
    }

    /// The place that the next new user gets: everybody counted by now has a lower one.
    pub(super) fn next_place(&self) -> u64 {
        self.next_first
    }

    /// Copies the counted users of `rows` rows from `from` on whose place is before `before`,
    /// with their places. Returns the row to go on with, `None` at the end.
    pub(super) fn copy(
        &self,
        from: Row,
        rows: u32,
        before: u64,
        into: &mut Vec<(u64, CountedUser)>,
    ) -> Option<Row> {
        let end = from.saturating_add(rows).min(self.table.rows());
        for (name, found) in (from..end).filter_map(|row| self.table.get(row)) {
            if found.expires > self.clock && found.first < before {
                let user = counted_user(Arc::clone(name), found.expires, found.anonymous);
                into.push((found.first, user));
            }
        }
        (end < self.table.rows()).then_some(end)
    }

    fn take_place(&mut self) -> u64 {
        let place = self.next_first;
        self.next_first += 1;
        place
    }

    fn clear_if_unused(&mut self, row: Row) {
        let unused = self
            .table
            .get(row)
            .is_some_and(|(_, found)| found.holders == 0 && found.expires == NEVER);
        if unused {
            self.table.remove(row);
        }
    }

    /// The one place where a user changes: takes them out of the counts, and puts them back in.
    fn change(&mut self, row: Row, change: impl FnOnce(&mut User)) {
        let Some(user) = self.table.get_mut(row) else { return };
        let (expires, held) = (user.expires, user.holders > 0);
        change(user);
        let (new_expires, new_held) = (user.expires, user.holders > 0);
        if (expires, held) == (new_expires, new_held) {
            return;
        }
        if expires > self.clock {
            self.counted = self.counted.saturating_sub(1);
        } else if held {
            self.reserve = self.reserve.saturating_sub(1);
        }
        if new_expires > self.clock {
            self.counted += 1;
        } else if new_held {
            self.reserve += 1;
        }
        if new_expires != NEVER {
            let day = self.days.entry(new_expires).or_default();
            day.users += 1;
            day.held += u64::from(new_held);
        }
        if expires != NEVER
            && let Some(day) = self.days.get_mut(&expires)
        {
            day.users = day.users.saturating_sub(1);
            day.held = day.held.saturating_sub(u64::from(held));
            if day.users == 0 {
                self.days.remove(&expires);
            }
        }
    }
}

fn counted_user(user: Arc<str>, expires: i64, anonymous: bool) -> CountedUser {
    let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
    CountedUser { user, expires, anonymous }
}
