//! What is stored about usage: counts of hours and months, and which users were seen.
//!
//! The store adds and does not understand: every count is either a sum or a peak, so that batches
//! of several gateways come out right in any order. The names are those of [`crate::usage`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::seat::SessionClass;

/// How long a time a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    Hour,
    /// Of the calendar, UTC.
    Month,
}

impl Span {
    /// The number that stands for it in a store.
    pub fn number(self) -> u8 {
        match self {
            Self::Hour => 0,
            Self::Month => 1,
        }
    }

    /// The first instant of the span that `at` lies in.
    pub fn start(self, at: Timestamp) -> Timestamp {
        match self {
            Self::Hour => {
                let second = at.as_second();
                Timestamp::from_second(second - second.rem_euclid(3_600)).unwrap_or(at)
            }
            Self::Month => Month::of(at).start(),
        }
    }
}

/// A month of the calendar, UTC: year times 100 and the month, such as 202611.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(pub u32);

impl Month {
    /// The month of an instant.
    pub fn of(at: Timestamp) -> Self {
        let date = jiff::tz::Offset::UTC.to_datetime(at).date();
        let year = u32::try_from(date.year()).unwrap_or(0);
        Self(year * 100 + u32::from(date.month().unsigned_abs()))
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        let year = i16::try_from(self.0 / 100).unwrap_or(i16::MAX);
        let month = i8::try_from(self.0 % 100).unwrap_or(1);
        jiff::civil::Date::new(year, month, 1)
            .and_then(|date| jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)))
            .unwrap_or(Timestamp::MIN)
    }

    /// The month after it.
    pub fn next(self) -> Self {
        if self.0 % 100 >= 12 { Self(self.0 - self.0 % 100 + 101) } else { Self(self.0 + 1) }
    }

    /// The month before it.
    pub fn previous(self) -> Self {
        if self.0 % 100 <= 1 {
            Self((self.0 / 100).saturating_sub(1) * 100 + 12)
        } else {
            Self(self.0 - 1)
        }
    }

    /// How many days it has.
    pub fn days(self) -> u32 {
        let length = self.next().start().duration_since(self.start());
        u32::try_from(length.as_hours() / 24).unwrap_or(31)
    }

    /// How long it is.
    pub fn length(self) -> SignedDuration {
        self.next().start().duration_since(self.start())
    }

    /// `2026-11`.
    pub fn text(self) -> String {
        format!("{:04}-{:02}", self.0 / 100, self.0 % 100)
    }

    /// Reads `2026-11`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits = |part: &str, length| {
            let good = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
            if good { part.parse::<u32>().ok() } else { None }
        };
        let (year, month) = (digits(year, 4)?, digits(month, 2)?);
        (year > 0 && (1..=12).contains(&month)).then_some(Self(year * 100 + month))
    }
}

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Two of them make their sum.
    pub sums: BTreeMap<String, u64>,
    /// Two of them make the greater one.
    pub peaks: BTreeMap<String, u64>,
}

impl Counts {
    /// Takes others in.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.sums {
            self.sum(name, *value);
        }
        for (name, value) in &other.peaks {
            self.peak(name, *value);
        }
    }

    /// Adds to a sum; 0 leaves no trace.
    pub fn sum(&mut self, name: &str, more: u64) {
        match self.sums.get_mut(name) {
            Some(sum) => *sum = sum.saturating_add(more),
            None if more > 0 => {
                self.sums.insert(name.to_owned(), more);
            }
            None => {}
        }
    }

    /// Raises a peak. A peak of 0 is one, too: a limit of 0 is not no limit.
    pub fn peak(&mut self, name: &str, height: u64) {
        match self.peaks.get_mut(name) {
            Some(peak) => *peak = (*peak).max(height),
            None => {
                self.peaks.insert(name.to_owned(), height);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sums.is_empty() && self.peaks.is_empty()
    }
}

/// A tenant's use of a licence in an hour or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    pub span: Span,
    /// The first instant of the hour or month.
    pub start: Timestamp,
    pub tenant: Arc<str>,
    pub licence: Arc<str>,
    pub counts: Counts,
}

/// What a user is known by: a keyed hash of the id, the same for as long as the installation's key
/// is ([`super::Store::pseudonym`]).
pub type Pseudonym = [u8; 16];

/// A user was seen in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMark {
    pub tenant: Arc<str>,
    pub licence: Arc<str>,
    pub class: SessionClass,
    pub user: Pseudonym,
    pub month: Month,
    /// The user's id, where ids are kept.
    pub name: Option<Arc<str>>,
    /// The days on which the document server accepted an open: bit 0 is the first of the month.
    pub opened: u32,
    /// The days on which an open was refused because all seats were taken.
    pub refused: u32,
}

/// What is added in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBatch {
    /// Drawn at random: a batch that was added, but whose caller did not learn of it, comes again
    /// with the same, and is not added twice.
    pub id: [u8; 16],
    /// Added to what is known of the same span, start, tenant and licence.
    pub records: Vec<UsageRecord>,
    /// The days are added to those of the same user.
    pub marks: Vec<UserMark>,
}

/// Which marks are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkQuery {
    pub from: Month,
    /// This month included.
    pub to: Month,
    /// `None`: of all tenants.
    pub tenant: Option<Arc<str>>,
    /// Only those behind this user, in the order of marks.
    pub after: Option<MarkPlace>,
}

/// A user's place in the order of marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkPlace {
    pub tenant: Arc<str>,
    pub licence: Arc<str>,
    pub class: SessionClass,
    pub user: Pseudonym,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_one_another() {
        for (text, next, days) in
            [("2026-11", "2026-12", 30), ("2026-12", "2027-01", 31), ("2028-02", "2028-03", 29)]
        {
            let month = Month::parse(text).unwrap();
            assert_eq!((month.next().text().as_str(), month.days()), (next, days));
            assert_eq!((month.next().previous(), month.text().as_str()), (month, text));
            assert_eq!(Month::of(month.start()), month);
            let last = month.next().start().checked_sub(SignedDuration::from_nanos(1)).unwrap();
            assert_eq!(Month::of(last), month);
        }
        for bad in
            ["", "2026", "2026-13", "2026-00", "26-11", "2026-1", "0000-01", "+026-01", "2026-11-"]
        {
            assert_eq!(Month::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn counts_add_up_in_any_order() {
        let mut one = Counts::default();
        one.sum("a", 2);
        one.sum("none", 0);
        one.peak("p", 0);
        let mut other = Counts::default();
        other.sum("a", 3);
        other.peak("p", 7);
        other.peak("q", 1);
        let (mut left, mut right) = (one.clone(), other.clone());
        left.add(&other);
        right.add(&one);
        assert_eq!(left, right);
        assert_eq!((left.sums.get("a"), left.sums.get("none")), (Some(&5), None));
        assert_eq!((left.peaks.get("p"), left.peaks.get("q")), (Some(&7), Some(&1)));
    }
}
