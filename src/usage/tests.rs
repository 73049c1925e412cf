//! Counting against a real store, with the time of day as it is wanted.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Digest, Point, Range, Refused, TenantUse, Usage};
use crate::admission::Reason;
use crate::config::{self, UserIds};
use crate::seat::SessionClass;
use crate::store::embedded::Embedded;
use crate::store::{MarkQuery, Month, OpenError, Span, Store, UserMark};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn after(from: &str, seconds: i64) -> Timestamp {
    at(from).checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

const START: &str = "2026-11-30T22:30:00Z";

fn settings(user_ids: UserIds) -> config::Usage {
    config::Usage { user_ids, retention: std::time::Duration::from_secs(400 * 86_400) }
}

fn open(folder: &Path) -> Arc<dyn Store> {
    loop {
        match Embedded::open(&folder.join("seatgate.db"), Arc::new(|_| {})) {
            Ok(store) => return Arc::new(store),
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn usage(folder: &Path) -> Arc<Usage> {
    Arc::new(Usage::new(open(folder), settings(UserIds::Plain)))
}

fn owner() -> (Arc<str>, Arc<str>) {
    ("acme".into(), "l".into())
}

/// So many editor connections of ten.
fn editors(used: u64) -> [TenantUse; 1] {
    let (tenant, licence) = owner();
    [TenantUse { tenant, licence, kinds: [(used, Some(10)), (0, None), (0, None), (0, None)] }]
}

/// Samples every two seconds.
fn run(usage: &Usage, from: &str, seconds: std::ops::Range<i64>, used: impl Fn(i64) -> u64) {
    for second in seconds.step_by(2) {
        usage.sample(&editors(used(second)), after(from, second));
    }
}

fn editor_points(usage: &Usage, range: Range, now: Timestamp) -> Vec<Point> {
    usage.history("acme", range, now).unwrap().remove(0).points
}

async fn digests(store: &Arc<dyn Store>, span: Span) -> Vec<(Timestamp, Digest)> {
    let (found, listed) = std::sync::mpsc::channel();
    let each = Box::new(move |record| found.send(record).unwrap());
    store
        .for_each_usage(span, at("2000-01-01T00:00:00Z"), at("2100-01-01T00:00:00Z"), each)
        .await
        .unwrap();
    listed
        .iter()
        .map(|record: crate::store::UsageRecord| (record.start, Digest::of(&record.counts)))
        .collect()
}

async fn marks(store: &Arc<dyn Store>) -> Vec<UserMark> {
    let (found, listed) = std::sync::mpsc::channel();
    let query = MarkQuery { from: Month(0), to: Month(999_912), tenant: None, after: None };
    store.for_each_mark(query, Box::new(move |mark| found.send(mark).is_ok())).await.unwrap();
    listed.iter().collect()
}

#[tokio::test]
async fn an_hour_is_counted_to_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let usage = usage(folder.path());
    // 30 minutes: 3 in use, for the last minute of it all 10.
    run(&usage, START, 0..1_800, |second| if second > 1_740 { 10 } else { 3 });
    let (tenant, licence) = owner();
    let me = (&tenant, &licence);
    usage.taken(me, [11, 0, 0, 0], after(START, 1_799));
    for user in ["ann", "bob", "ann"] {
        let refused = Refused::Really(Reason::Connections);
        usage.refused(me, SessionClass::Editor, refused, user, after(START, 1_799));
    }
    let observed = Refused::Observed(Reason::Connections);
    usage.refused(me, SessionClass::Editor, observed, "eve", after(START, 1_799));
    usage.admitted(me, SessionClass::Viewer, after(START, 1_799));
    usage.write(true, after(START, 1_799)).await.unwrap();
    for span in [Span::Hour, Span::Month] {
        let found = digests(&usage.store, span).await;
        let [(start, digest)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*start, span.start(at(START)));
        let kind = &digest.kinds[0];
        assert_eq!((digest.observed_ms, kind.at_limit_ms), (1_798_000, 58_000));
        assert_eq!(kind.seat_ms, 1_740_000 * 3 + 58_000 * 10);
        assert_eq!((kind.peak, kind.limit), (11, Some(10)));
        assert_eq!(kind.wanted, 13, "eleven, ann and bob");
        assert_eq!((kind.times.percentile(950, 11), kind.times.percentile(990, 11)), (3, 10));
        assert_eq!(digest.refused["connections"], 3);
        assert_eq!((digest.refusals(), digest.observed["connections"]), (3, 1));
        assert_eq!(digest.admitted["viewer"], 1);
    }
    let seen = marks(&usage.store).await;
    let refused: Vec<_> = seen.iter().map(|mark| (mark.name.as_deref(), mark.refused)).collect();
    assert_eq!(seen.iter().map(|mark| mark.opened).sum::<u32>(), 0);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|(_, days)| *days == 1 << 29), "the 30th of November");
    // What is written is not written again.
    usage.write(true, after(START, 1_799)).await.unwrap();
    assert_eq!(digests(&usage.store, Span::Hour).await[0].1.refusals(), 3);
}

#[tokio::test]
async fn charts_have_minutes_hours_and_months_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = usage(folder.path());
    assert!(first.history("acme", Range::Hours, at(START)).is_none());
    let (tenant, licence) = owner();
    first.refused(
        (&tenant, &licence),
        SessionClass::Editor,
        Refused::Really(Reason::LicenceExpired),
        "ann",
        at(START),
    );
    // Until half past midnight of December: 2 in use, in December 4.
    run(&first, START, 0..7_200, |second| if second >= 5_400 { 4 } else { 2 });
    let now = after(START, 7_199);
    first.write(true, now).await.unwrap();
    let check = |usage: &Usage, minutes: bool| {
        let months = editor_points(usage, Range::Months, now);
        let told: Vec<_> = months.iter().map(|point| (point.peak, point.refusals)).collect();
        assert_eq!(told, [(2, 1), (4, 0)]);
        assert!((months[0].mean - 2.0).abs() < 0.01, "{months:?}");
        assert_eq!(months[0].seconds, 30 * 86_400);
        let hours = editor_points(usage, Range::Days, now);
        let told: Vec<_> = hours.iter().map(|point| (point.at.to_string(), point.peak)).collect();
        let hour = |hour: &str, peak| (format!("{hour}:00:00Z"), peak);
        let expected =
            [hour("2026-11-30T22", 2), hour("2026-11-30T23", 2), hour("2026-12-01T00", 4)];
        assert_eq!(told, expected);
        assert_eq!(hours[1].limit, Some(10));
        let day = editor_points(usage, Range::Hours, now);
        assert_eq!(day.iter().map(|point| point.refusals).sum::<u64>(), 1);
        if minutes {
            assert_eq!((day.len(), day[0].seconds), (24, 300));
            let last = editor_points(usage, Range::Minutes, now);
            assert_eq!(last.len(), 61);
            assert_eq!((last[0].peak, last[60].peak, last[60].seconds), (2, 4, 60));
        } else {
            // The hour that goes on is minutes from now on.
            assert_eq!(day[0].seconds, 3_600);
        }
    };
    check(&first, true);
    drop(first);
    let second = usage(folder.path());
    second.restore(now).await.unwrap();
    check(&second, false);
    // It goes on where the other ended.
    run(&second, START, 7_202..7_300, |_| 5);
    let now = after(START, 7_300);
    let december = editor_points(&second, Range::Months, now)[1];
    assert_eq!(december.peak, 5);
    assert!((4.0..4.2).contains(&december.mean), "{december:?}");
    second.write(true, now).await.unwrap();
    let (_, digest) = digests(&second.store, Span::Month).await.remove(1);
    assert_eq!(digest.kinds[0].peak, 5);
}

#[tokio::test]
async fn users_are_marked_once_a_day_and_by_as_much_as_is_wanted() {
    for (ids, expected) in [(UserIds::Plain, 2), (UserIds::Pseudonymous, 2), (UserIds::None, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let usage = usage(folder.path());
        usage.configure(settings(ids));
        let (tenant, licence) = owner();
        let open = |user: &str, second| {
            let me = (&tenant, &licence);
            usage.opened(me, SessionClass::Editor, user, after(START, second));
        };
        (0..100).for_each(|second| open("ann", second));
        open("ann", 86_400);
        open("", 3);
        usage.write(true, after(START, 86_400)).await.unwrap();
        open("ann", 86_500);
        usage.write(true, after(START, 86_500)).await.unwrap();
        let seen = marks(&usage.store).await;
        assert_eq!(seen.len(), expected, "{ids:?}");
        let days: Vec<_> = seen.iter().map(|mark| (mark.month.0, mark.opened)).collect();
        if expected == 2 {
            assert_eq!(days, [(202_611, 1 << 29), (202_612, 1)]);
            assert_eq!(seen[0].user, usage.store.pseudonym("ann"));
            let name = (ids == UserIds::Plain).then_some("ann");
            assert_eq!(seen[0].name.as_deref(), name);
        }
        // Names go when they are not wanted any more, and with them nobody is counted twice.
        usage.configure(settings(UserIds::Pseudonymous));
        usage.sweep(after(START, 86_500)).await.unwrap();
        open("ann", 86_600);
        usage.write(true, after(START, 86_600)).await.unwrap();
        assert!(marks(&usage.store).await.iter().all(|mark| mark.name.is_none()));
        assert_eq!(
            marks(&usage.store).await.len(),
            expected.max(usize::from(ids == UserIds::None))
        );
    }
}

#[tokio::test]
async fn a_flood_is_bounded_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let usage = usage(folder.path());
    let (tenant, licence) = owner();
    for _ in 0..super::EVENTS + 5 {
        usage.admitted((&tenant, &licence), SessionClass::Editor, at(START));
    }
    usage.write(true, at(START)).await.unwrap();
    let (_, digest) = digests(&usage.store, Span::Hour).await.remove(0);
    assert_eq!((digest.admitted["editor"], digest.lost), (super::EVENTS as u64, 5));
}

#[tokio::test]
async fn a_host_that_slept_used_nothing_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let usage = usage(folder.path());
    usage.sample(&editors(5), at(START));
    usage.sample(&editors(5), after(START, 3_000));
    // Nor does a clock that is set back count twice.
    usage.sample(&editors(5), after(START, 1_000));
    usage.write(true, after(START, 3_000)).await.unwrap();
    let (_, digest) = digests(&usage.store, Span::Month).await.remove(0);
    assert_eq!(digest.observed_ms, 10_000);
}

#[tokio::test]
async fn an_idle_tenant_is_written_when_its_hour_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let usage = usage(folder.path());
    run(&usage, START, 0..60, |_| 0);
    usage.write(false, after(START, 60)).await.unwrap();
    assert_eq!(digests(&usage.store, Span::Hour).await.len(), 1, "its limit is new");
    run(&usage, START, 60..1_000, |_| 0);
    usage.write(false, after(START, 1_000)).await.unwrap();
    assert_eq!(digests(&usage.store, Span::Hour).await[0].1.observed_ms, 58_000);
    run(&usage, START, 1_000..1_810, |_| 0);
    usage.write(false, after(START, 1_810)).await.unwrap();
    let hours = digests(&usage.store, Span::Hour).await;
    assert_eq!(hours[0].1.observed_ms, 1_798_000);
    assert_eq!(hours[0].1.kinds[0].times.percentile(1_000, 9), 0);
}

#[tokio::test]
async fn what_the_store_could_not_take_is_brought_again_and_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let usage = usage(folder.path());
    run(&usage, START, 0..60, |_| 1);
    let other = rusqlite::Connection::open(folder.path().join("seatgate.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    usage.write(true, after(START, 60)).await.unwrap_err();
    other.execute_batch("ROLLBACK").unwrap();
    run(&usage, START, 60..120, |_| 1);
    usage.write(true, after(START, 120)).await.unwrap();
    let (_, digest) = digests(&usage.store, Span::Hour).await.remove(0);
    assert_eq!((digest.observed_ms, digest.kinds[0].seat_ms), (118_000, 118_000));
}
