//! `/v1/usage`: what tenants used, by months.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;

use super::api::{self, Enough, KindUsage, MonthUsage, Sufficient, Tally};
use super::extract::{Asked, cut, limit};
use super::office::Office;
use super::problem::ApiError;
use crate::clock;
use crate::seat::SessionClass;
use crate::store::{Counts, MarkPlace, MarkQuery, Month, Span, UsageRecord, UserMark};
use crate::usage::sizing::{self, Observed, Sized, Sizing};
use crate::usage::{Digest, KindDigest};

/// How far back users can count in another month.
const MOST_EXPIRE_DAYS: u32 = 3_650;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    /// Months, such as `2026-11`; the present one where nothing is said.
    from: Option<String>,
    to: Option<String>,
    tenant: Option<String>,
    /// How many days users stay counted, instead of what the licence says.
    users_expire: Option<u32>,
    limit: Option<u32>,
    /// Month, tenant and licence.
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsersQuery {
    month: Option<String>,
    tenant: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

fn month(name: &str, text: Option<&str>) -> Result<Option<Month>, ApiError> {
    let invalid = |text: &str| {
        ApiError::Invalid(format!("{name} is {text:?}; write a month such as 2026-11"))
    };
    text.map(|text| Month::parse(text).ok_or_else(|| invalid(text))).transpose()
}

/// What each tenant used, month by month. A page is of one month at most.
pub(super) async fn usage(
    State(office): State<Arc<Office>>,
    Asked(asked): Asked<UsageQuery>,
) -> Result<Json<api::UsagePage>, ApiError> {
    let limit = limit(asked.limit)?;
    let now = clock::now();
    let to = month("to", asked.to.as_deref())?;
    let from = month("from", asked.from.as_deref())?.or(to).unwrap_or(Month::of(now));
    if to.is_some_and(|to| to < from) {
        return Err(ApiError::Invalid("from is after to".to_owned()));
    }
    let to = to.unwrap_or(Month::of(now)).max(from);
    if asked.users_expire.is_some_and(|days| days > MOST_EXPIRE_DAYS) {
        let told = format!("users_expire: write 0 to {MOST_EXPIRE_DAYS}");
        return Err(ApiError::Invalid(told));
    }
    let after = asked.after.as_deref().map(row_key).transpose()?;
    let from = after.as_ref().map_or(from, |(month, _, _)| from.max(*month));

    // What is still in memory belongs to it; if the store is away, the next question says so.
    let _ = office.shared.usage.write(true, now).await;
    let mut found = rows(&office, from, to, asked.tenant.as_deref()).await?;
    found.retain(|key, _| after.as_ref().is_none_or(|after| key > after));
    let Some((first, _, _)) = found.keys().next().cloned() else {
        known(&office, asked.tenant.as_deref()).await?;
        return Ok(Json(api::UsagePage { usage: Vec::new(), next: None }));
    };
    let later = found.keys().any(|(month, _, _)| *month > first);
    found.retain(|(month, _, _), _| *month == first);
    let mut rows: Vec<(RowKey, Counts)> = found.into_iter().collect();
    let mut next = cut(&mut rows, limit, |(key, _)| write_key(key));
    if later && next.is_none() {
        next = rows.last().map(|(key, _)| write_key(key));
    }

    let expire = ExpireDays { office: Arc::clone(&office), stated: asked.users_expire };
    let licences: Vec<Arc<str>> =
        rows.iter().map(|((_, _, licence), _)| Arc::clone(licence)).collect();
    let longest = licences.iter().map(|licence| expire.of(licence)).max().unwrap_or(0);
    let tenant = asked.tenant.map(Arc::from);
    let sized = size(&office, first, tenant, expire.clone(), longest, now).await?;
    let counted = office.shared.usage.counts_users();
    let usage = rows
        .iter()
        .map(|(key, counts)| view(key, counts, &sized, counted, expire.of(&key.2), now))
        .collect();
    Ok(Json(api::UsagePage { usage, next }))
}

/// A tenant of which nothing was found is one all the same where the configuration names it, or
/// something of another time is stored.
async fn known(office: &Office, tenant: Option<&str>) -> Result<(), ApiError> {
    let Some(tenant) = tenant else { return Ok(()) };
    if office.shared.site.load().tenant_named(tenant).is_some() {
        return Ok(());
    }
    let found = Arc::new(AtomicBool::new(false));
    let (seen, wanted) = (Arc::clone(&found), tenant.to_owned());
    let each = Box::new(move |record: UsageRecord| {
        seen.fetch_or(*record.tenant == *wanted, Ordering::Relaxed);
    });
    office.store().for_each_usage(Span::Month, Timestamp::MIN, Timestamp::MAX, each).await?;
    if found.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(ApiError::NotFound(format!("the tenant {tenant}")))
}

/// Month, tenant and licence.
type RowKey = (Month, Arc<str>, Arc<str>);

fn write_key((month, tenant, licence): &RowKey) -> String {
    format!("{}/{tenant}/{licence}", month.text())
}

fn row_key(text: &str) -> Result<RowKey, ApiError> {
    let mut parts = text.splitn(3, '/');
    match (parts.next().and_then(Month::parse), parts.next(), parts.next()) {
        (Some(month), Some(tenant), Some(licence)) => Ok((month, tenant.into(), licence.into())),
        _ => Err(ApiError::Invalid("after: write `next` of the page before".to_owned())),
    }
}

/// How many days users of a licence stay counted.
#[derive(Clone)]
struct ExpireDays {
    office: Arc<Office>,
    stated: Option<u32>,
}

impl ExpireDays {
    fn of(&self, licence: &str) -> u32 {
        let of_licence = || {
            let slot = self.office.registrar().registry().find(licence)?;
            Some(slot.licence()?.quota.users_expire_days)
        };
        self.stated.or_else(of_licence).unwrap_or(1).min(MOST_EXPIRE_DAYS)
    }
}

async fn rows(
    office: &Office,
    from: Month,
    to: Month,
    tenant: Option<&str>,
) -> Result<BTreeMap<RowKey, Counts>, ApiError> {
    let found: Arc<Mutex<BTreeMap<RowKey, Counts>>> = Arc::default();
    let (rows, wanted) = (Arc::clone(&found), tenant.map(str::to_owned));
    let each = Box::new(move |record: UsageRecord| {
        if wanted.as_deref().is_none_or(|wanted| *record.tenant == *wanted) {
            let key = (Month::of(record.start), record.tenant, record.licence);
            rows.lock().entry(key).or_default().add(&record.counts);
        }
    });
    office.store().for_each_usage(Span::Month, from.start(), to.next().start(), each).await?;
    Ok(std::mem::take(&mut *found.lock()))
}

async fn size(
    office: &Office,
    month: Month,
    tenant: Option<Arc<str>>,
    expire: ExpireDays,
    longest: u32,
    now: Timestamp,
) -> Result<Sized, ApiError> {
    let back = SignedDuration::from_hours(i64::from(longest) * 24);
    let from = Month::of(month.start().saturating_sub(back).unwrap_or(Timestamp::MIN));
    let sizing = Sizing::new(month, month, move |licence: &str| expire.of(licence));
    let sizing = Arc::new(Mutex::new(Some(sizing)));
    let counted = Arc::clone(&sizing);
    let each = Box::new(move |mark: UserMark| {
        if let Some(sizing) = &mut *counted.lock() {
            sizing.add(&mark);
        }
        true
    });
    let observed = observed(office, month, tenant.clone()).await?;
    let query = MarkQuery { from, to: month, tenant, after: None };
    office.store().for_each_mark(query, each).await?;
    let sizing = sizing.lock().take();
    Ok(sizing.map(|sizing| sizing.finish(now, &observed)).unwrap_or_default())
}

/// On which days of a month gateways were looking.
async fn observed(
    office: &Office,
    month: Month,
    tenant: Option<Arc<str>>,
) -> Result<Observed, ApiError> {
    let found: Arc<Mutex<Observed>> = Arc::default();
    let days = Arc::clone(&found);
    let each = Box::new(move |record: UsageRecord| {
        if tenant.as_ref().is_none_or(|tenant| *tenant == record.tenant) {
            let owner = (record.tenant, record.licence);
            sizing::observe(&mut days.lock(), owner, record.start);
        }
    });
    office.store().for_each_usage(Span::Hour, month.start(), month.next().start(), each).await?;
    Ok(std::mem::take(&mut *found.lock()))
}

fn view(
    key: &RowKey,
    counts: &Counts,
    sized: &Sized,
    counted: bool,
    users_expire: u32,
    now: Timestamp,
) -> MonthUsage {
    let (month, tenant, licence) = key;
    let digest = Digest::of(counts);
    let place = ((Arc::clone(tenant), Arc::clone(licence)), *month);
    let uniques = sized.uniques.get(&place).copied();
    let uniques = uniques.or(counted.then(Default::default));
    let enough = sized.enough.get(&place).copied();
    let enough = enough.or(counted.then(Default::default));
    let clock = Clock::of(*month, &digest, now);
    let [ec, vc, eu, vu] = &digest.kinds;
    let refused =
        |reasons: [&str; 2]| reasons.iter().any(|reason| digest.refused.contains_key(*reason));
    let (editors, viewers) =
        (refused(["connections", "users"]), refused(["connections_view", "users_view"]));
    // Where users are not marked, the licence's own count of them is what is known.
    let users = |marked: Option<sizing::Enough>, kind: &KindDigest, refused| match marked {
        Some(sizing::Enough { p95, p99, peak }) => {
            Some(Enough { p95, p99, peak, at_least: digest.lost > 0 })
        }
        None if kind.limit.is_some() => Some(of_kind(kind, refused)),
        None => None,
    };
    MonthUsage {
        month: month.text(),
        tenant: tenant.to_string(),
        licence: licence.to_string(),
        observed_seconds: clock.observed_seconds,
        editors: uniques.map(|uniques| uniques.editors),
        live_viewers: uniques.map(|uniques| uniques.live_viewers),
        viewers: uniques.map(|uniques| uniques.viewers),
        admitted: tallies(&digest.admitted),
        refused: tallies(&digest.refused),
        observed: tallies(&digest.observed),
        kinds: digest.kinds.iter().filter_map(|kind| kind_usage(kind, &clock)).collect(),
        sufficient: Sufficient {
            connections: of_kind(ec, editors),
            connections_view: of_kind(vc, viewers),
            users: users(enough.map(|found| found.editors), eu, editors),
            users_view: users(enough.map(|found| found.live_viewers), vu, viewers),
            users_expire,
        },
        lost_events: digest.lost,
    }
}

/// Several gateways observe the same time, each: what they add up to is brought back to it.
struct Clock {
    observed_seconds: u64,
    observed_ms: u64,
}

impl Clock {
    fn of(month: Month, digest: &Digest, now: Timestamp) -> Self {
        let passed = now.min(month.next().start()).duration_since(month.start()).as_millis();
        let passed = u64::try_from(passed).unwrap_or(0);
        let observed_ms = digest.observed_ms;
        Self { observed_seconds: observed_ms.min(passed) / 1_000, observed_ms }
    }

    fn seconds(&self, ms: u64) -> u64 {
        let share = u128::from(ms) * u128::from(self.observed_seconds);
        u64::try_from(share.checked_div(u128::from(self.observed_ms)).unwrap_or(0)).unwrap_or(0)
    }
}

fn tallies(of: &BTreeMap<String, u64>) -> Vec<Tally> {
    of.iter().map(|(name, count)| Tally { name: name.clone(), count: *count }).collect()
}

fn kind_usage(kind: &KindDigest, clock: &Clock) -> Option<KindUsage> {
    let percent = |percent: u64| kind.times.percentile(percent * 10, kind.peak);
    (kind.peak > 0 || kind.limit.is_some()).then(|| KindUsage {
        kind: kind.kind.label().to_owned(),
        peak: kind.peak,
        p50: percent(50),
        p95: percent(95),
        p99: percent(99),
        limit: kind.limit,
        at_limit_seconds: clock.seconds(kind.at_limit_ms),
    })
}

fn of_kind(kind: &KindDigest, at_least: bool) -> Enough {
    let percent = |thousandths| kind.times.percentile(thousandths, kind.peak);
    Enough { p95: percent(950), p99: percent(990), peak: kind.wanted, at_least }
}

/// Who was seen in a month.
pub(super) async fn users(
    State(office): State<Arc<Office>>,
    Asked(asked): Asked<UsersQuery>,
) -> Result<Json<api::UserUsagePage>, ApiError> {
    let limit = limit(asked.limit)?;
    let now = clock::now();
    let month = month("month", asked.month.as_deref())?.unwrap_or(Month::of(now));
    let after = asked.after.as_deref().map(place).transpose()?;
    let _ = office.shared.usage.write(true, now).await;
    let found: Arc<Mutex<Vec<UserMark>>> = Arc::default();
    let marks = Arc::clone(&found);
    let each = Box::new(move |mark| {
        let mut marks = marks.lock();
        marks.push(mark);
        marks.len() <= limit as usize
    });
    let tenant = asked.tenant.as_deref().map(Arc::from);
    office.store().for_each_mark(MarkQuery { from: month, to: month, tenant, after }, each).await?;
    let mut marks = std::mem::take(&mut *found.lock());
    if marks.is_empty() {
        known(&office, asked.tenant.as_deref()).await?;
    }
    let next = cut(&mut marks, limit, write_place);
    let users = marks.iter().map(|mark| api::UserUsage {
        month: mark.month.text(),
        tenant: mark.tenant.to_string(),
        licence: mark.licence.to_string(),
        class: mark.class.label().to_owned(),
        user: mark.name.as_deref().map(str::to_owned),
        pseudonym: hex(&mark.user),
        days: mark.opened.count_ones(),
        days_refused: mark.refused.count_ones(),
    });
    Ok(Json(api::UserUsagePage { users: users.collect(), next }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_place(mark: &UserMark) -> String {
    format!("{}/{}/{}/{}", mark.tenant, mark.class.label(), hex(&mark.user), mark.licence)
}

fn place(text: &str) -> Result<MarkPlace, ApiError> {
    let read = || {
        let mut parts = text.splitn(4, '/');
        let tenant = parts.next()?.into();
        let label = parts.next()?;
        let class = SessionClass::ALL.into_iter().find(|class| class.label() == label)?;
        let digits = parts.next()?;
        let licence = parts.next()?.into();
        let number = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?;
        Some(MarkPlace { tenant, licence, class, user: number.to_be_bytes() })
    };
    let invalid = || ApiError::Invalid("after: write `next` of the page before".to_owned());
    read().ok_or_else(invalid)
}
