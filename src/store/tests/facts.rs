//! What is stored is found again: licences, apps, devices, users, audit.

use std::sync::Arc;

use super::{Place, at, change, declared, licence, licences, now, user, users};
use crate::licence::{Licence, Quota};
use crate::seat::SeatClass;
use crate::store::{
    AppRecord, Binding, Change, Declared, LicenceRecord, Origin, Sha256Hash, Store, StoreError,
};

fn full(id: &str) -> Licence {
    Licence {
        app: Some("app".into()),
        issued_to: "公司名称".into(),
        start: Some(at("2025-08-24T00:00:00.123456Z")),
        end: Some(at("9999-12-30T22:00:00Z")),
        trial: true,
        customization: true,
        features: vec!["a".into(), "b\"c".into()],
        max_devices: Some(u32::MAX),
        ..licence(id)
    }
}

pub(super) async fn licences_come_back_as_they_were_issued(mut place: Place) {
    let store = place.open().await;
    let key = store.hash_key("LIC-1");
    store.issue(full("l1"), Some(key), change()).await.unwrap();
    store.issue(licence("l2"), None, change()).await.unwrap();
    drop(store);
    let store = place.open_again().await;
    let found = store.licence("l1").await.unwrap().unwrap();
    assert_eq!(*found.licence, full("l1"));
    assert_eq!((found.key, &found.origin), (Some(key), &Origin::Store));
    assert_eq!(key, store.hash_key("LIC-1"), "the pepper stays");
    assert_eq!(licences(&*store).await.len(), 2);
    assert_eq!(store.licence("l3").await.unwrap(), None);
    let taken =
        |licence: &str| StoreError::KeyTaken { licence: licence.into(), holder: "l1".into() };
    assert_eq!(store.issue(licence("l3"), Some(key), change()).await, Err(taken("l3")));
    assert!(matches!(store.issue(licence("l1"), None, change()).await, Err(StoreError::Exists(_))));
    let renewed = Licence { end: None, ..full("l1") };
    store.change_terms(renewed.clone(), change()).await.unwrap();
    let found = store.licence("l1").await.unwrap().unwrap();
    assert_eq!((&*found.licence, found.key), (&renewed, Some(key)));
}

pub(super) async fn a_revocation_stays_until_it_is_taken_back(mut place: Place) {
    let store = place.open().await;
    store.issue(licence("l1"), None, change()).await.unwrap();
    assert!(store.revoke("l1", "unpaid".into(), change()).await.unwrap());
    assert!(!store.revoke("l1", "again".into(), change()).await.unwrap());
    drop(store);
    let store = place.open_again().await;
    let found = store.licence("l1").await.unwrap().unwrap();
    assert!(found.licence.revoked);
    let revocation = found.revocation.unwrap();
    assert_eq!((&*revocation.by, &*revocation.reason, revocation.at), ("alice", "unpaid", now()));
    let bound = store.bind_device("l1", b"d", now()).await.unwrap();
    assert_eq!(bound, Binding::Revoked);
    assert!(store.reinstate("l1", change()).await.unwrap());
    assert!(!store.reinstate("l1", change()).await.unwrap());
    assert!(!store.licence("l1").await.unwrap().unwrap().licence.revoked);
    let missing = store.revoke("l9", String::new(), change()).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
}

pub(super) async fn files_add_and_change_and_never_delete(place: Place) {
    let store = place.open().await;
    let state = |licences: &[(&str, &str)], apps: &[(&str, u8)]| Declared {
        licences: licences.iter().map(|(id, key)| declared(&*store, licence(id), key)).collect(),
        apps: apps
            .iter()
            .map(|(id, key)| AppRecord {
                id: (*id).into(),
                api_key: Sha256Hash([*key; 32]),
                previous: None,
                origin: Origin::File { file: "licences.toml".into(), line: 1 },
            })
            .collect(),
    };
    let apply = async |declared| {
        let changed = store.apply_declared(declared, change()).await.unwrap();
        let mut changed: Vec<String> = changed.iter().map(ToString::to_string).collect();
        changed.sort();
        changed
    };
    let both = || state(&[("l1", "k1"), ("l2", "k2")], &[("a", 1)]);
    assert_eq!(apply(both()).await, ["l1", "l2"]);
    assert_eq!(apply(both()).await, [""; 0], "the same again is nothing");
    let noted = store.audit(None, 99).await.unwrap();
    assert_eq!(noted.len(), 3, "{noted:?}");

    store.bind_device("l1", b"x", now()).await.unwrap();
    store.revoke("l1", String::new(), change()).await.unwrap();
    assert_eq!(apply(both()).await, [""; 0]);
    assert!(store.licence("l1").await.unwrap().unwrap().licence.revoked);

    // Keys change hands within a file.
    assert_eq!(apply(state(&[("l1", "k2"), ("l2", "k1")], &[("a", 2)])).await, ["l1", "l2"]);
    let found = store.licence("l1").await.unwrap().unwrap();
    assert_eq!(found.key, Some(store.hash_key("k2")));
    assert_eq!(store.apps().await.unwrap()[0].api_key, Sha256Hash([2; 32]));

    // What a file owns, nobody else changes.
    let refused = store.change_terms(licence("l1"), change()).await;
    let declared = |id: &str| StoreError::Declared {
        id: id.to_owned(),
        file: "licences.toml".into(),
        line: if id.starts_with("the app") { 1 } else { 3 },
    };
    assert_eq!(refused, Err(declared("the licence l1")));
    assert_eq!(store.remove_app("a", change()).await, Err(declared("the app a")));

    // What no file states any more stays, and is the store's.
    assert_eq!(apply(state(&[("l2", "k1")], &[])).await, ["l1"]);
    let left = store.licence("l1").await.unwrap().unwrap();
    assert_eq!((&left.origin, left.key), (&Origin::Store, Some(store.hash_key("k2"))));
    store.change_terms(licence("l1"), change()).await.unwrap();
    store.remove_app("a", change()).await.unwrap();

    // A key under another id would undo the revocation of l1.
    let taken = store.apply_declared(state(&[("l3", "k2")], &[]), change()).await;
    assert_eq!(taken, Err(StoreError::KeyRevoked { licence: "l3".into(), holder: "l1".into() }));
    assert_eq!(store.licence("l3").await.unwrap(), None, "nothing was applied");
    // Otherwise the file has its way, and the licence stays without its key.
    store.reinstate("l1", change()).await.unwrap();
    assert_eq!(apply(state(&[("l3", "k2")], &[])).await, ["l1", "l2", "l3"]);
    assert_eq!(store.licence("l1").await.unwrap().unwrap().key, None);
    assert_eq!(store.devices_bound(vec!["l1".into()]).await.unwrap(), [1]);
    assert_eq!(apply(state(&[("l3", "k2")], &[])).await, [""; 0]);
}

pub(super) async fn what_was_signed_is_changed_by_signed_files_only(place: Place) {
    let store = place.open().await;
    let state = |file: &str, users| {
        let terms =
            Licence { quota: Quota { users_count: users, ..Quota::default() }, ..licence("l") };
        let origin = Origin::File { file: file.into(), line: 1 };
        let licences = vec![LicenceRecord { origin, ..declared(&*store, terms, "") }];
        store.apply_declared(Declared { licences, apps: Vec::new() }, change())
    };
    let users = async || store.licence("l").await.unwrap().unwrap().licence.quota.users_count;
    state("a.jws", 1).await.unwrap();
    state("b.jws", 2).await.unwrap();
    assert!(matches!(state("licences.toml", 3).await, Err(StoreError::Signed { .. })));
    // Nor does it become anybody's when its file is gone.
    assert!(store.apply_declared(Declared::default(), change()).await.unwrap().is_empty());
    let refused = store.change_terms(licence("l"), change()).await;
    assert!(matches!(refused, Err(StoreError::Declared { .. })));
    assert!(matches!(state("licences.toml", 3).await, Err(StoreError::Signed { .. })));
    assert_eq!(users().await, 2);
    assert!(store.revoke("l", String::new(), change()).await.unwrap());
}

pub(super) async fn apps_rotate_with_a_grace_for_the_old_key(place: Place) {
    let store = place.open().await;
    store.add_app("a", Sha256Hash([1; 32]), change()).await.unwrap();
    let again = store.add_app("a", Sha256Hash([1; 32]), change()).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    let until = at("2026-11-23T10:00:00Z");
    store.rotate_app("a", Sha256Hash([2; 32]), until, change()).await.unwrap();
    let apps = store.apps().await.unwrap();
    assert_eq!(apps[0].api_key, Sha256Hash([2; 32]));
    let previous = apps[0].previous.unwrap();
    assert_eq!((previous.api_key, previous.until), (Sha256Hash([1; 32]), until));
    assert_eq!(format!("{:?}", apps[0].api_key), "***");
}

pub(super) async fn two_hundred_at_a_limit_of_five_bind_five(place: Place) {
    let store = place.open().await;
    for round in 0..20 {
        let id = format!("l{round}");
        let limited = Licence { max_devices: Some(5), ..licence(&id) };
        store.issue(limited, None, change()).await.unwrap();
        let calls = (0..200).map(|call| {
            let (store, id) = (Arc::clone(&store), id.clone());
            tokio::spawn(async move {
                let device = format!("device-{}", call % 50);
                (device.clone(), store.bind_device(&id, device.as_bytes(), now()).await.unwrap())
            })
        });
        let calls: Vec<_> = calls.collect();
        let mut bound = std::collections::BTreeMap::<_, Vec<_>>::new();
        for call in calls {
            let (device, binding) = call.await.unwrap();
            bound.entry(device).or_default().push(binding);
        }
        let winners: Vec<_> = bound.values().filter(|all| all.contains(&Binding::Bound)).collect();
        assert_eq!(winners.len(), 5, "{bound:?}");
        for all in winners {
            assert_eq!(all.iter().filter(|one| **one == Binding::Bound).count(), 1);
        }
        let listed = store.devices(&id, None, 99).await.unwrap();
        assert_eq!(listed.len(), 5);
        assert_eq!(store.devices_bound(vec![id.as_str().into()]).await.unwrap(), [5]);
        assert!(store.unbind_device(&id, &listed[0].id, change()).await.unwrap());
        assert!(!store.unbind_device(&id, &listed[0].id, change()).await.unwrap());
        let free = store.bind_device(&id, b"another", now()).await.unwrap();
        assert_eq!(free, Binding::Bound);
        let none = store.bind_device(&id, b"one more", now()).await.unwrap();
        assert_eq!(none, Binding::LimitReached);
    }
    let unknown = store.bind_device("nobody's", b"d", now()).await.unwrap();
    assert_eq!(unknown, Binding::UnknownLicence);
}

pub(super) async fn devices_are_bytes_and_listed_in_pages(place: Place) {
    let store = place.open().await;
    store.issue(licence("l"), None, change()).await.unwrap();
    let names: [&[u8]; 5] = [b"a", b"a\0", "\u{e9}".as_bytes(), "e\u{301}".as_bytes(), b"A"];
    for name in names {
        assert_eq!(store.bind_device("l", name, now()).await.unwrap(), Binding::Bound);
        assert_eq!(store.bind_device("l", name, now()).await.unwrap(), Binding::AlreadyBound);
    }
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = store.devices("l", after.clone(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        pages.extend(page);
    }
    let mut expected: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    assert_eq!(pages.iter().map(|device| device.id.clone()).collect::<Vec<_>>(), expected);
    assert!(pages.iter().all(|device| device.bound_at == now()));
}

pub(super) async fn users_are_counted_until_they_expire(mut place: Place) {
    let store = place.open().await;
    store.issue(licence("l"), None, change()).await.unwrap();
    let (soon, later) = ("2026-11-22T23:59:59Z", "2026-11-23T23:59:59Z");
    for (name, expires) in [("b", later), ("a", soon), ("c", soon)] {
        store.put_user("l", &user(name, expires), now()).await.unwrap();
    }
    // A later expiry stays; the place in the order too.
    store.put_user("l", &user("b", soon), now()).await.unwrap();
    store.put_user("l", &user("a", later), now()).await.unwrap();
    async fn names(store: &dyn Store, at: jiff::Timestamp) -> Vec<String> {
        let users = users(store, at).await;
        users.iter().map(|user| format!("{} {}", user.record.user, user.record.expires)).collect()
    }
    let all = [format!("b {later}"), format!("a {later}"), format!("c {soon}")];
    assert_eq!(names(&*store, now()).await, all);
    assert_eq!(names(&*store, at(soon)).await, all[..2], "counted before the instant");
    // Who expired and comes back is counted behind the others.
    let next = at("2026-11-23T00:00:00Z");
    store.put_user("l", &user("c", later), next).await.unwrap();
    let live = store.put_user("l", &user("d", soon), now()).await;
    live.unwrap();
    drop(store);
    let store = place.open_again().await;
    let order = [format!("b {later}"), format!("a {later}"), format!("c {later}")];
    assert_eq!(names(&*store, next).await, order);
    assert_eq!(store.purge_users(next, 10).await.unwrap(), 1, "d");
    assert!(store.release_user("l", SeatClass::Editor, "a", change()).await.unwrap());
    assert!(!store.release_user("l", SeatClass::LiveViewer, "b", change()).await.unwrap());
    assert_eq!(store.purge_users(at("2027-01-01T00:00:00Z"), 1).await.unwrap(), 1);
    assert_eq!(users(&*store, now()).await.len(), 1);
    let unknown = store.put_user("nobody's", &user("a", soon), now()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

pub(super) async fn a_refused_operation_does_not_touch_those_of_its_group(place: Place) {
    let store = place.open().await;
    let calls: Vec<_> = (0..300)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let id = format!("l{}", number % 100);
                store.issue(licence(&id), None, change()).await.is_ok()
            })
        })
        .collect();
    let mut issued = 0;
    for call in calls {
        issued += usize::from(call.await.unwrap());
    }
    assert_eq!((issued, licences(&*store).await.len()), (100, 100));
    let audit = store.audit(None, 1000).await.unwrap();
    assert_eq!(audit.len(), 100);
    assert!(audit.is_sorted_by(|one, next| one.number > next.number));
    assert_eq!(store.audit(Some(audit[98].number), 9).await.unwrap(), audit[99..]);
}

pub(super) async fn the_audit_log_takes_notes(place: Place) {
    let store = place.open().await;
    let by = Change { at: now(), by: "bob".into() };
    store.note("seat.close", "7", "asked by phone".into(), by).await.unwrap();
    let entries = store.audit(None, 9).await.unwrap();
    assert_eq!(
        (&*entries[0].action, &*entries[0].by, &*entries[0].detail, entries[0].at),
        ("seat.close", "bob", "asked by phone", now())
    );
}
