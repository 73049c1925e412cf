//! Who was seen: one mark for each user, class and month, that says on which days.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::UserIds;
use crate::seat::SessionClass;
use crate::store::{Month, Pseudonym, UserMark};

/// Users who are remembered as marked today; whoever comes beyond is marked again.
const KNOWN: usize = 200_000;

/// Marks that wait for the store.
const WAITING: usize = 200_000;

/// Refused users who are marked in a day: anybody can be refused, under any name.
const REFUSED_A_DAY: u32 = 20_000;

/// A user of a tenant, and how they were seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: Arc<str>,
    licence: Arc<str>,
    class: SessionClass,
    user: Pseudonym,
    refused: bool,
}

/// What is still to be written, and what was.
#[derive(Debug, Default)]
pub(super) struct Marks {
    today: i64,
    known: HashSet<Key>,
    refused_today: u32,
    waiting: HashMap<(Key, i64), Option<Arc<str>>>,
}

impl Marks {
    /// Marks a user as seen at `now`; `false` if there is no room.
    pub(super) fn see(
        &mut self,
        (tenant, licence): (&Arc<str>, &Arc<str>),
        class: SessionClass,
        (user, name): (Pseudonym, &Arc<str>),
        refused: bool,
        ids: UserIds,
        now: Timestamp,
    ) -> bool {
        let day = now.as_second().div_euclid(86_400);
        if day != self.today {
            self.today = day;
            self.known.clear();
            self.refused_today = 0;
        }
        let (tenant, licence) = (Arc::clone(tenant), Arc::clone(licence));
        let key = Key { tenant, licence, class, user, refused };
        if self.known.contains(&key) {
            return true;
        }
        if refused {
            if self.refused_today >= REFUSED_A_DAY {
                return false;
            }
            self.refused_today += 1;
        }
        if self.waiting.len() >= WAITING {
            return false;
        }
        let name = match ids {
            UserIds::Plain => Some(Arc::clone(name)),
            UserIds::Pseudonymous | UserIds::None => None,
        };
        self.waiting.insert((key.clone(), day), name);
        if self.known.len() < KNOWN {
            self.known.insert(key);
        }
        true
    }

    /// Takes what waits for the store.
    pub(super) fn take(&mut self) -> Vec<UserMark> {
        let waiting = std::mem::take(&mut self.waiting);
        let mark = |((key, day), name): ((Key, i64), Option<Arc<str>>)| {
            let at = Timestamp::from_second(day * 86_400).unwrap_or(Timestamp::MIN);
            let month = Month::of(at);
            let first = month.start().as_second().div_euclid(86_400);
            let bit = 1_u32.checked_shl(u32::try_from(day - first).unwrap_or(0)).unwrap_or(0);
            let (opened, refused) = if key.refused { (0, bit) } else { (bit, 0) };
            let Key { tenant, licence, class, user, .. } = key;
            UserMark { tenant, licence, class, user, month, name, opened, refused }
        };
        waiting.into_iter().map(mark).collect()
    }
}
