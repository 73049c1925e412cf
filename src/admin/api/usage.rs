//! The bodies of the usage report.

use serde::{Deserialize, Serialize};

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// A class of session, or a reason.
    pub name: String,
    pub count: u64,
}

/// How much of a kind of seat was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindUsage {
    pub kind: String,
    pub peak: u64,
    /// What was not exceeded in 50, 95 and 99 hundredths of the time.
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
    /// The greatest limit of the month; none where the licence did not limit the kind.
    pub limit: Option<u64>,
    pub at_limit_seconds: u64,
}

/// How many seats would have been enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enough {
    /// For 95 and 99 hundredths of the time (of the days, where users are counted), and always.
    pub p95: u64,
    pub p99: u64,
    pub peak: u64,
    /// Opens were refused, and nobody knows how long those who were would have stayed: it may be
    /// more.
    pub at_least: bool,
}

/// What licence would have been enough: of connections, or of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sufficient {
    pub connections: Enough,
    pub connections_view: Enough,
    /// None where users are not counted.
    pub users: Option<Enough>,
    pub users_view: Option<Enough>,
    /// The `users_expire` that the numbers of users are for.
    pub users_expire: u32,
}

/// A tenant's use of a licence in a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonthUsage {
    /// `2026-11`.
    pub month: String,
    pub tenant: String,
    pub licence: String,
    /// For how long it is known what was used.
    pub observed_seconds: u64,
    /// Unique users who were let in; none where users are not counted.
    pub editors: Option<u64>,
    pub live_viewers: Option<u64>,
    pub viewers: Option<u64>,
    pub admitted: Vec<Tally>,
    pub refused: Vec<Tally>,
    /// What would have been refused, had the tenant not only been observed.
    pub observed: Vec<Tally>,
    /// Only those that were sold or used.
    pub kinds: Vec<KindUsage>,
    pub sufficient: Sufficient,
    /// Events that nobody had time to count: if not 0, the numbers are too low.
    pub lost_events: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsagePage {
    pub usage: Vec<MonthUsage>,
    pub next: Option<String>,
}

/// A user who was seen in a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserUsage {
    pub month: String,
    pub tenant: String,
    pub licence: String,
    pub class: String,
    /// The id; none where `[usage] user_ids` is not `"plain"`.
    pub user: Option<String>,
    /// A keyed hash of the id, the same in all months.
    pub pseudonym: String,
    /// On how many days they were let in, and refused for lack of a seat.
    pub days: u32,
    pub days_refused: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserUsagePage {
    pub users: Vec<UserUsage>,
    pub next: Option<String>,
}
