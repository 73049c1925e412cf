//! Usage: what is added adds up, comes back in order, is added once, and is swept.

use std::sync::Arc;

use super::{Place, at};
use crate::seat::SessionClass;
use crate::store::{
    Counts, MarkPlace, MarkQuery, Month, Span, Store, UsageBatch, UsageRecord, UserMark,
};

fn counts(sum: u64, peak: u64) -> Counts {
    let mut counts = Counts::default();
    counts.sum("s", sum);
    counts.peak("p", peak);
    counts
}

fn record(span: Span, start: &str, tenant: &str, counts: Counts) -> UsageRecord {
    UsageRecord { span, start: at(start), tenant: tenant.into(), licence: "l".into(), counts }
}

fn mark(tenant: &str, user: u8, month: u32, opened: u32, name: Option<&str>) -> UserMark {
    UserMark {
        tenant: tenant.into(),
        licence: "l".into(),
        class: SessionClass::Editor,
        user: [user; 16],
        month: Month(month),
        name: name.map(Arc::from),
        opened,
        refused: 0,
    }
}

fn batch(id: u8, records: Vec<UsageRecord>, marks: Vec<UserMark>) -> Arc<UsageBatch> {
    Arc::new(UsageBatch { id: [id; 16], records, marks })
}

async fn usage(store: &dyn Store, span: Span, from: &str, to: &str) -> Vec<UsageRecord> {
    let (found, listed) = std::sync::mpsc::channel();
    let each = Box::new(move |record| found.send(record).unwrap());
    store.for_each_usage(span, at(from), at(to), each).await.unwrap();
    listed.iter().collect()
}

async fn marks(store: &dyn Store, from: u32, to: u32, tenant: Option<&str>) -> Vec<UserMark> {
    let (found, listed) = std::sync::mpsc::channel();
    let tenant = tenant.map(Arc::from);
    let query = MarkQuery { from: Month(from), to: Month(to), tenant, after: None };
    let each = Box::new(move |mark| found.send(mark).is_ok());
    store.for_each_mark(query, each).await.unwrap();
    listed.iter().collect()
}

const HOUR: &str = "2026-11-22T10:00:00Z";
const NEXT: &str = "2026-11-22T11:00:00Z";

pub(super) async fn sums_are_added_peaks_are_raised_days_are_joined(mut place: Place) {
    let store = place.open().await;
    let hour = |tenant, sum, peak| record(Span::Hour, HOUR, tenant, counts(sum, peak));
    let month = record(Span::Month, "2026-11-01T00:00:00Z", "acme", counts(1, 1));
    let first = vec![hour("公司", 2, 5), hour("acme", 1, 1), month.clone()];
    let one = mark("acme", 1, 202_611, 0b01, Some("ann"));
    store.add_usage(batch(1, first, vec![one])).await.unwrap();
    let refused = UserMark { refused: 0b1000, ..mark("acme", 1, 202_611, 0b10, None) };
    store.add_usage(batch(2, vec![hour("公司", 3, 4)], vec![refused])).await.unwrap();
    // The same once more: its caller did not learn that it was added.
    store.add_usage(batch(2, vec![hour("公司", 3, 4)], Vec::new())).await.unwrap();
    drop(store);
    let store = place.open_again().await;
    store.add_usage(batch(2, vec![hour("公司", 3, 4)], Vec::new())).await.unwrap();
    let found = usage(&*store, Span::Hour, HOUR, NEXT).await;
    assert_eq!(found, [hour("acme", 1, 1), hour("公司", 5, 5)]);
    assert_eq!(usage(&*store, Span::Hour, "2000-01-01T00:00:00Z", HOUR).await, []);
    let found = usage(&*store, Span::Month, "2026-11-01T00:00:00Z", HOUR).await;
    assert_eq!(found, [month]);
    let joined = UserMark { refused: 0b1000, ..mark("acme", 1, 202_611, 0b11, Some("ann")) };
    assert_eq!(marks(&*store, 202_611, 202_611, None).await, [joined]);
}

pub(super) async fn marks_come_in_order_and_until_enough(place: Place) {
    let store = place.open().await;
    let expected = [
        mark("a", 1, 202_610, 1, None),
        mark("a", 1, 202_611, 1, None),
        mark("a", 2, 202_610, 1, None),
        mark("b", 1, 202_611, 1, None),
    ];
    let shuffled = [3, 1, 2, 0].map(|index: usize| expected[index].clone()).to_vec();
    store.add_usage(batch(1, Vec::new(), shuffled)).await.unwrap();
    assert_eq!(marks(&*store, 202_610, 202_611, None).await, expected);
    assert_eq!(marks(&*store, 202_611, 202_612, Some("b")).await, expected[3..]);
    let [first, ..] = &expected;
    let place = MarkPlace {
        tenant: Arc::clone(&first.tenant),
        licence: Arc::clone(&first.licence),
        class: first.class,
        user: first.user,
    };
    let (found, listed) = std::sync::mpsc::channel();
    let query = MarkQuery { from: Month(0), to: Month(999_912), tenant: None, after: Some(place) };
    store.for_each_mark(query, Box::new(move |mark| found.send(mark).is_ok())).await.unwrap();
    assert_eq!(listed.iter().collect::<Vec<_>>(), expected[2..]);
    let query = MarkQuery { from: Month(0), to: Month(999_912), tenant: None, after: None };
    let (found, listed) = std::sync::mpsc::channel();
    let mut left = 2;
    let each = move |mark: UserMark| {
        found.send(mark).unwrap();
        left -= 1;
        left > 0
    };
    store.for_each_mark(query, Box::new(each)).await.unwrap();
    assert_eq!(listed.iter().count(), 2);
}

pub(super) async fn what_is_old_is_swept_and_names_when_they_shall_not_be_kept(place: Place) {
    let store = place.open().await;
    let records = vec![
        record(Span::Hour, HOUR, "a", counts(1, 1)),
        record(Span::Hour, NEXT, "a", counts(1, 1)),
        record(Span::Month, "2026-10-01T00:00:00Z", "a", counts(1, 1)),
        record(Span::Month, "2026-11-01T00:00:00Z", "a", counts(1, 1)),
    ];
    let seen = vec![mark("a", 1, 202_610, 1, Some("ann")), mark("a", 1, 202_611, 1, Some("ann"))];
    store.add_usage(batch(1, records, seen)).await.unwrap();
    // In pieces.
    assert!(store.purge_usage(at(NEXT), false, 1).await.unwrap() >= 1);
    while store.purge_usage(at(NEXT), false, 1).await.unwrap() > 0 {}
    let all = ("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    assert_eq!(usage(&*store, Span::Hour, all.0, all.1).await.len(), 1);
    assert_eq!(usage(&*store, Span::Month, all.0, all.1).await.len(), 1, "November goes on");
    let left = marks(&*store, 0, 999_912, None).await;
    assert_eq!(left, [mark("a", 1, 202_611, 1, Some("ann"))]);
    store.purge_usage(at(NEXT), true, 10).await.unwrap();
    assert_eq!(marks(&*store, 0, 999_912, None).await, [mark("a", 1, 202_611, 1, None)]);
}

pub(super) async fn a_pseudonym_is_the_installations_own_and_no_licence_keys_hash(
    mut place: Place,
) {
    let store = place.open().await;
    let ann = store.pseudonym("ann");
    assert_ne!(ann, store.pseudonym("bob"));
    assert_ne!(ann[..], store.hash_key("ann").0[..16]);
    drop(store);
    assert_eq!(place.open_again().await.pseudonym("ann"), ann);
    let other = match place {
        Place::Folder(_) => Place::folder(),
        Place::Server(_) => Place::server(),
    };
    assert_ne!(other.open().await.pseudonym("ann"), ann);
}
