//! What only a store in Redis does; what every store does is tried by the suite of all backends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Redis, keys};
use crate::config::Topology;
use crate::engine::{Engine, EngineError};
use crate::store::tests::server::RedisServer;
use crate::store::tests::{change, engine, engine_settings, licence, now, open_redis};
use crate::store::{Binding, ChangeFeed, Changed, OpenError, Sha256Hash, Store as _, StoreError};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

async fn open_with(server: &RedisServer, key_file: &std::path::Path) -> Result<Redis, OpenError> {
    let engine = engine(&server.url()).await;
    Redis::open(engine, Topology::Single, Some(key_file), Arc::new(|_| {})).await
}

/// Waits until a feed tells of something.
async fn hears(feed: &mut Box<dyn ChangeFeed>, what: Changed) {
    let heard = async { while !feed.next().await.contains(&what) {} };
    timeout(LIMIT, heard).await.unwrap_or_else(|_| panic!("{what:?} is not told"));
}

#[tokio::test]
async fn others_hear_of_every_change() {
    let server = RedisServer::start();
    let (here, there) = (open_redis(&server).await, open_redis(&server).await);
    let mut feed = there.changes().unwrap();
    hears(&mut feed, Changed::Everything).await;
    here.issue(licence("l"), Some(here.hash_key("k")), change()).await.unwrap();
    hears(&mut feed, Changed::Licence("l".into())).await;
    assert_eq!(there.licence("l").await.unwrap().unwrap().key, Some(there.hash_key("k")));
    here.add_app("a", Sha256Hash([1; 32]), change()).await.unwrap();
    hears(&mut feed, Changed::Apps).await;
    here.bind_device("l", b"d", now()).await.unwrap();
    here.unbind_device("l", b"d", change()).await.unwrap();
    hears(&mut feed, Changed::Devices("l".into())).await;
    // Without messages too.
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    here.revoke("l", String::new(), change()).await.unwrap();
    hears(&mut feed, Changed::Licence("l".into())).await;
    // And when the engine was set back.
    server.ask(&["FLUSHALL"]);
    hears(&mut feed, Changed::Everything).await;
}

#[tokio::test]
async fn the_key_is_in_the_engine_or_in_a_file() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (one, other) = (open_redis(&server).await, open_redis(&server).await);
    assert_eq!(one.hash_key("k"), other.hash_key("k"));
    let file = folder.path().join("store.key");
    assert!(matches!(open_with(&server, &file).await, Err(OpenError::KeyMissing { .. })));
    assert!(!file.exists(), "no other is made");

    server.ask(&["FLUSHALL"]);
    let made = open_with(&server, &file).await.unwrap();
    let again = open_with(&server, &file).await.unwrap();
    assert_eq!(made.hash_key("k"), again.hash_key("k"));
    let engine = engine(&server.url()).await;
    let without = Redis::open(engine, Topology::Single, None, Arc::new(|_| {})).await;
    assert!(matches!(without, Err(OpenError::KeyElsewhere { .. })));
    std::fs::write(&file, "0".repeat(64)).unwrap();
    assert!(matches!(open_with(&server, &file).await, Err(OpenError::KeyWrong { .. })));
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let server = RedisServer::start();
    drop(open_redis(&server).await);
    server.ask(&["HSET", &keys::home("meta"), "schema", "99"]);
    let engine = engine(&server.url()).await;
    let opened = Redis::open(engine, Topology::Single, None, Arc::new(|_| {})).await;
    assert!(matches!(opened, Err(OpenError::NewerEngine { found: 99, .. })));
}

#[tokio::test]
async fn scripts_are_sent_again_when_the_engine_forgot_them() {
    let server = RedisServer::start();
    let store = open_redis(&server).await;
    store.issue(licence("l"), None, change()).await.unwrap();
    for device in [b"a", b"b"] {
        server.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(store.bind_device("l", device, now()).await, Ok(Binding::Bound));
    }
}

#[tokio::test]
async fn a_change_that_was_half_told_is_finished_at_the_next_start() {
    let server = RedisServer::start();
    let store = open_redis(&server).await;
    store.issue(licence("l"), None, change()).await.unwrap();
    store.revoke("l", String::new(), change()).await.unwrap();
    // As if the gateway had ended between the two steps of the revocation.
    let terms = keys::of_licence("l", "terms");
    server.ask(&["HSET", &terms, "version", "1", "revoked", "0"]);
    server.ask(&["ZADD", &keys::home("behind"), "2", "l"]);
    assert_eq!(store.bind_device("l", b"d", now()).await, Ok(Binding::Bound));
    let store = open_redis(&server).await;
    assert_eq!(store.bind_device("l", b"d", now()).await, Ok(Binding::Revoked));
    assert!(server.ask(&["ZCARD", &keys::home("behind")]).starts_with(":0"));
}

#[tokio::test]
async fn what_is_away_fails_at_once_and_is_used_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let store = open_redis(&server).await;
    store.issue(licence("l"), None, change()).await.unwrap();
    server.kill();
    let failed = timeout(LIMIT, store.bind_device("l", b"d", now())).await.unwrap();
    assert!(matches!(failed, Err(StoreError::Io(_) | StoreError::Timeout)), "{failed:?}");
    server.restart();
    let bound = async {
        while store.bind_device("l", b"d", now()).await != Ok(Binding::Bound) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, bound).await.unwrap();
}

#[tokio::test]
async fn users_of_the_engine_and_wrong_passwords() {
    let server = RedisServer::start();
    let rules = ["on", ">secret", "~seatgate:*", "&seatgate:*", "+@all", "-@admin"];
    server.ask(&[&["ACL", "SETUSER", "gate"][..], &rules].concat());
    let url = format!("redis://gate:secret@127.0.0.1:{}/0", server.port);
    let engine = engine(&url).await;
    let store = Redis::open(engine, Topology::Single, None, Arc::new(|_| {})).await.unwrap();
    store.issue(licence("l"), None, change()).await.unwrap();
    let mut feed = store.changes().unwrap();
    hears(&mut feed, Changed::Everything).await;

    let url = format!("redis://gate:wrong@127.0.0.1:{}/0", server.port);
    let engine = Engine::start(engine_settings(&url)).unwrap();
    let refused = timeout(LIMIT, engine.first_connection(|_| {})).await.unwrap();
    assert!(matches!(&refused, Err(EngineError::Refused(_))), "{refused:?}");
    assert!(!format!("{refused:?} {engine:?}").contains("wrong@"));
}

#[tokio::test]
async fn settings_that_lose_data_are_told() {
    let safe = RedisServer::start();
    assert_eq!(open_redis(&safe).await.risks().await, [""; 0]);
    let server =
        RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let risks = open_redis(&server).await.risks().await.join("\n");
    assert!(risks.contains("appendonly yes") && risks.contains("noeviction"), "{risks}");
}
