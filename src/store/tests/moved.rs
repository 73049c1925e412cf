//! A store carried to the other backend and back is the same store.

use std::sync::Arc;

use super::server::RedisServer;
use super::{change, engine, licence, licences, now, open_redis, user, users};
use crate::config::Topology;
use crate::licence::Licence;
use crate::store::embedded::Embedded;
use crate::store::migrate::migrate;
use crate::store::redis::Redis;
use crate::store::{Binding, ErrorHook, OpenError, Sha256Hash, Store, StoreError};

fn quiet() -> ErrorHook {
    Arc::new(|_| {})
}

/// Everything that can be listed.
async fn told(store: &dyn Store) -> String {
    let mut licences = licences(store).await;
    licences.sort_by(|a, b| a.licence.id.cmp(&b.licence.id));
    let entries = store.audit(None, 99).await.unwrap();
    let devices = store.devices("l", None, 99).await.unwrap();
    let entries: Vec<_> = entries.iter().map(|e| (e.at, &e.by, &e.action, &e.detail)).collect();
    format!(
        "{licences:?} {:?} {devices:?} {:?} {entries:?} {:?}",
        store.apps().await.unwrap(),
        users(store, now()).await,
        store.hash_key("k").0
    )
}

#[tokio::test]
async fn there_and_back_again() {
    let (server, one, other) =
        (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Embedded::open(&one.path().join("seatgate.db"), quiet()).unwrap();
    let limited = Licence { max_devices: Some(2), ..licence("l") };
    from.issue(limited.clone(), Some(from.hash_key("k")), change()).await.unwrap();
    for device in [b"a", b"b"] {
        assert_eq!(from.bind_device("l", device, now()).await, Ok(Binding::Bound));
    }
    // More than it may have by now, and revoked.
    from.change_terms(Licence { max_devices: Some(1), ..limited }, change()).await.unwrap();
    from.revoke("l", "unpaid".into(), change()).await.unwrap();
    from.add_app("app", Sha256Hash([7; 32]), change()).await.unwrap();
    for name in ["z", "y"] {
        from.put_user("l", &user(name, "2027-01-01T23:59:59Z"), now()).await.unwrap();
    }

    let connected = engine(&server.url()).await;
    let to = Redis::create(connected.clone(), Topology::Single, None, from.key(), false, quiet());
    let to = to.await.unwrap();
    let carried = migrate(&from, &to, now()).await.unwrap();
    // Nobody takes it for a store before it is finished.
    let early = Redis::open(connected, Topology::Single, None, quiet()).await;
    assert!(matches!(early, Err(OpenError::Unfinished { .. })));
    to.finish().await.unwrap();
    assert_eq!((carried.licences, carried.devices, carried.users, carried.entries), (1, 2, 2, 4));
    assert_eq!(told(&to).await, told(&from).await);
    assert_eq!(to.bind_device("l", b"a", now()).await, Ok(Binding::Revoked));
    assert_eq!(migrate(&from, &to, now()).await, Err(StoreError::NotEmpty));

    let again = open_redis(&server).await;
    let back = Embedded::create(&other.path().join("seatgate.db"), again.key(), quiet()).unwrap();
    migrate(&again, &back, now()).await.unwrap();
    assert_eq!(told(&back).await, told(&from).await);
}
