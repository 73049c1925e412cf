//! How many unique users there were, and how many a user licence would have had to allow.
//!
//! A user counts from the day of an open until `users_expire` days later, both included
//! (PRODUCT.md, "What a seat is"); whoever was refused for lack of a seat would have counted, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::seat::SessionClass;
use crate::store::{Month, Pseudonym, UserMark};

/// A tenant and a licence.
pub type Owner = (Arc<str>, Arc<str>);

/// Unique users of a month, who were let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uniques {
    pub editors: u64,
    pub live_viewers: u64,
    /// Those who only looked, and took no seat.
    pub viewers: u64,
}

/// How many users a licence would have had to allow: on 95 and 99 of 100 days, and on all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enough {
    pub p95: u64,
    pub p99: u64,
    pub peak: u64,
}

impl Enough {
    /// Out of each day's number.
    fn of(mut days: Vec<u64>) -> Self {
        days.sort_unstable();
        let rank = |percent: usize| {
            let rank = (days.len() * percent).div_ceil(100).max(1);
            days.get(rank - 1).copied().unwrap_or(0)
        };
        Self { p95: rank(95), p99: rank(99), peak: days.last().copied().unwrap_or(0) }
    }
}

/// On which days of a month somebody was looking, a bit for each. Days of which nothing is known
/// had no users to count, and say nothing about a licence. A month without an entry counts whole:
/// which of its hours were observed is forgotten.
pub type Observed = BTreeMap<(Owner, Month), u32>;

/// Notes that something is known of the day of `at`.
pub fn observe(observed: &mut Observed, owner: Owner, at: Timestamp) {
    let month = Month::of(at);
    *observed.entry((owner, month)).or_default() |= bit(month, day(at));
}

/// The bit of a day in its month.
fn bit(month: Month, number: i64) -> u32 {
    let within = u32::try_from(number - day(month.start())).unwrap_or(u32::MAX);
    1_u32.checked_shl(within).unwrap_or(0)
}

/// One class of an owner.
#[derive(Debug)]
struct Days {
    /// How many more users count on a day than on the day before.
    steps: Vec<i64>,
    /// The days on which somebody was seen, by month.
    seen: BTreeMap<Month, u32>,
    expire_days: u32,
}

/// Goes through marks in the store's order.
#[derive(Debug)]
pub struct Sizing<F> {
    from: Month,
    to: Month,
    /// How many days a licence's users stay counted.
    expire_days: F,
    uniques: BTreeMap<(Owner, Month), Uniques>,
    days: BTreeMap<(Owner, u8), Days>,
    user: Option<(Owner, SessionClass, Pseudonym)>,
    /// The days on which the present user was seen, in order.
    seen: Vec<i64>,
}

/// The number of a day since 1970.
fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

fn month_of(number: i64) -> Month {
    Month::of(Timestamp::from_second(number.saturating_mul(86_400)).unwrap_or(Timestamp::MIN))
}

fn place(class: SessionClass) -> Option<u8> {
    match class {
        SessionClass::Editor => Some(0),
        SessionClass::LiveViewer => Some(1),
        SessionClass::Viewer => None,
    }
}

impl<F: Fn(&str) -> u32> Sizing<F> {
    /// For the months `from..=to`.
    pub fn new(from: Month, to: Month, expire_days: F) -> Self {
        Self {
            from,
            to,
            expire_days,
            uniques: BTreeMap::new(),
            days: BTreeMap::new(),
            user: None,
            seen: Vec::new(),
        }
    }

    /// Takes the next mark; those of months before `from` count users who had not expired.
    pub fn add(&mut self, mark: &UserMark) {
        let owner = (Arc::clone(&mark.tenant), Arc::clone(&mark.licence));
        if mark.opened != 0 && mark.month >= self.from && mark.month <= self.to {
            let uniques = self.uniques.entry((owner.clone(), mark.month)).or_default();
            match mark.class {
                SessionClass::Editor => uniques.editors += 1,
                SessionClass::LiveViewer => uniques.live_viewers += 1,
                SessionClass::Viewer => uniques.viewers += 1,
            }
        }
        let user = (owner, mark.class, mark.user);
        if self.user.as_ref() != Some(&user) {
            self.finish_user();
            self.user = Some(user);
        }
        let first = day(mark.month.start());
        let days = mark.opened | mark.refused;
        self.seen.extend(
            (0..mark.month.days().min(32))
                .filter(|bit| days >> bit & 1 == 1)
                .map(|bit| first + i64::from(bit)),
        );
    }

    fn finish_user(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        let Some((owner, class, _)) = self.user.take() else { return };
        let Some(place) = place(class) else { return };
        let (first, last) = (day(self.from.start()), day(self.to.next().start()) - 1);
        let expire_days = (self.expire_days)(&owner.1);
        let length = usize::try_from(last - first + 2).unwrap_or(0);
        let days = self.days.entry((owner, place)).or_insert_with(|| Days {
            steps: vec![0; length],
            seen: BTreeMap::new(),
            expire_days,
        });
        for number in seen.iter().filter(|number| (first..=last).contains(number)) {
            let month = month_of(*number);
            *days.seen.entry(month).or_default() |= bit(month, *number);
        }
        let mut step = |at: i64, by: i64| {
            let place = usize::try_from(at - first).ok().and_then(|at| days.steps.get_mut(at));
            if let Some(step) = place {
                *step += by;
            }
        };
        let mut open: Option<(i64, i64)> = None;
        for seen in seen {
            let until = seen + i64::from(expire_days);
            open = match open {
                Some((from, to)) if seen <= to + 1 => Some((from, to.max(until))),
                Some((from, to)) => {
                    if to >= first {
                        step(from.max(first), 1);
                        step(to + 1, -1);
                    }
                    Some((seen, until))
                }
                None => Some((seen, until)),
            };
        }
        if let Some((from, to)) = open.filter(|(_, to)| *to >= first) {
            step(from.max(first), 1);
            step(to + 1, -1);
        }
    }

    /// What was found, up to `now`, on the days that were observed.
    pub fn finish(mut self, now: Timestamp, observed: &Observed) -> Sized {
        self.finish_user();
        let (first, today) = (day(self.from.start()), day(now));
        let mut enough = BTreeMap::new();
        for ((owner, place), days) in self.days {
            let mut counted = 0_i64;
            let mut months: BTreeMap<Month, Vec<u64>> = BTreeMap::new();
            for (step, number) in days.steps.iter().zip(first..=today) {
                counted += step;
                let month = month_of(number);
                let known = observed.get(&(owner.clone(), month)).copied().unwrap_or(u32::MAX);
                // Where somebody was seen, somebody was looking, whatever became of the hours.
                let known = known | days.seen.get(&month).copied().unwrap_or(0);
                if month <= self.to && known & bit(month, number) != 0 {
                    months.entry(month).or_default().push(u64::try_from(counted).unwrap_or(0));
                }
            }
            for (month, numbers) in months {
                let found: &mut Found = enough.entry((owner.clone(), month)).or_default();
                found.expire_days = days.expire_days;
                match place {
                    0 => found.editors = Enough::of(numbers),
                    _ => found.live_viewers = Enough::of(numbers),
                }
            }
        }
        Sized { uniques: self.uniques, enough }
    }
}

/// What user licence would have been enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub expire_days: u32,
    pub editors: Enough,
    pub live_viewers: Enough,
}

/// What was found, by owner and month.
#[derive(Debug, Default)]
pub struct Sized {
    pub uniques: BTreeMap<(Owner, Month), Uniques>,
    pub enough: BTreeMap<(Owner, Month), Found>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn mark(user: u8, month: u32, opened: u32, refused: u32) -> UserMark {
        UserMark {
            tenant: "acme".into(),
            licence: "l".into(),
            class: SessionClass::Editor,
            user: [user; 16],
            month: Month(month),
            name: None,
            opened,
            refused,
        }
    }

    fn owner() -> Owner {
        ("acme".into(), "l".into())
    }

    #[test]
    fn a_user_counts_until_the_end_of_the_last_day() {
        let mut sizing = Sizing::new(Month(202_611), Month(202_611), |_| 1);
        // Counts on the first of November by the last of October, and on the 10th and 11th.
        sizing.add(&mark(1, 202_610, 1 << 30, 0));
        sizing.add(&mark(1, 202_611, 1 << 9, 0));
        // Refused on the 11th only.
        sizing.add(&mark(2, 202_611, 0, 1 << 10));
        let found = sizing.finish("2026-12-24T00:00:00Z".parse().unwrap(), &Observed::new());
        let key = (owner(), Month(202_611));
        assert_eq!(found.uniques[&key].editors, 1);
        assert_eq!(found.enough[&key].editors, Enough { p95: 1, p99: 2, peak: 2 });
        assert_eq!(found.enough[&key].expire_days, 1);
    }

    #[test]
    fn days_that_nobody_observed_say_nothing() {
        let mut sizing = Sizing::new(Month(202_611), Month(202_611), |_| 0);
        for user in 0..31 {
            sizing.add(&mark(user, 202_611, 1 << 22, 0));
        }
        let mut observed = Observed::new();
        for hour in ["2026-11-22T23:00:00Z", "2026-11-23T00:00:00Z", "2026-11-23T09:00:00Z"] {
            observe(&mut observed, owner(), hour.parse().unwrap());
        }
        let found = sizing.finish("2026-11-23T10:00:00Z".parse().unwrap(), &observed);
        let found = found.enough[&(owner(), Month(202_611))];
        assert_eq!(found.editors, Enough { p95: 31, p99: 31, peak: 31 });
    }

    proptest! {
        #[test]
        fn days_are_those_of_a_naive_count(
            masks in prop::collection::vec((0..1_u32 << 30, 0..1_u32 << 30), 0..6),
            expire in 0..40_u32,
            observed: u32,
        ) {
            let mut sizing = Sizing::new(Month(202_611), Month(202_611), |_| expire);
            for (user, (september, november)) in (0_u8..).zip(&masks) {
                // October has none.
                sizing.add(&mark(user, 202_609, *september, 0));
                sizing.add(&mark(user, 202_611, *november, 0));
            }
            let days = Observed::from([((owner(), Month(202_611)), observed)]);
            let found = sizing.finish("2027-01-01T00:00:00Z".parse().unwrap(), &days);
            let seen = masks.iter().fold(observed, |seen, (_, november)| seen | november);
            let mut numbers: Vec<u64> = Vec::new();
            for day in (61..91_u32).filter(|day| seen >> (day - 61) & 1 == 1) {
                let counts = |mask: u32, first: u32| {
                    (0..30).any(|bit| mask >> bit & 1 == 1 && (first + bit..=first + bit + expire).contains(&day))
                };
                let users: BTreeSet<usize> = masks
                    .iter()
                    .enumerate()
                    .filter(|(_, (september, november))| counts(*september, 0) || counts(*november, 61))
                    .map(|(user, _)| user)
                    .collect();
                numbers.push(users.len() as u64);
            }
            let key = (owner(), Month(202_611));
            let enough = found.enough.get(&key).map_or(Enough::default(), |found| found.editors);
            prop_assert_eq!(enough, Enough::of(numbers));
        }
    }
}
