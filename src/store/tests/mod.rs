//! What every backend does: one suite, run on each of them.

mod facts;
mod moved;
#[path = "../../../tests/support/engine.rs"]
pub(crate) mod server;
mod usage;

use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use super::embedded::Embedded;
use super::redis::Redis;
use super::{Change, LicenceRecord, OpenError, Origin, Store, StoredUser};
use crate::config;
use crate::engine::Engine;
use crate::ledger::UserRecord;
use crate::licence::tests::licence as terms;
use crate::licence::{Licence, Quota};
use crate::seat::SeatClass;
use server::RedisServer;

/// Where a store is.
pub(super) enum Place {
    Folder(TempDir),
    Server(RedisServer),
}

impl Place {
    fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    fn server() -> Self {
        Self::Server(RedisServer::start())
    }

    pub(super) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Folder(folder) => loop {
                match Embedded::open(&folder.path().join("seatgate.db"), Arc::new(|_| {})) {
                    Ok(store) => return Arc::new(store),
                    // The one that was just dropped is closed a moment later.
                    Err(OpenError::Locked { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            },
            Self::Server(server) => Arc::new(open_redis(server).await),
        }
    }

    /// Opens the store again; a server was killed in between.
    pub(super) async fn open_again(&mut self) -> Arc<dyn Store> {
        if let Self::Server(server) = self {
            server.restart();
        }
        self.open().await
    }
}

/// The settings that a URL stands for.
pub(crate) fn engine_settings(url: &str) -> config::Engine {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seatgate.toml");
    let text = format!("licences.files = []\n[store]\nbackend = 'redis'\nurl = '{url}'\n");
    std::fs::write(&file, text).unwrap();
    let settings = config::load_with(&file, &config::Env::default()).unwrap().settings;
    match settings.store.backend {
        config::StoreBackend::Redis(redis) => redis.engine,
        config::StoreBackend::Embedded { .. } => unreachable!(),
    }
}

pub(crate) async fn engine(url: &str) -> Engine {
    let engine = Engine::start(engine_settings(url)).unwrap();
    engine.first_connection(|_| {}).await.unwrap();
    engine
}

pub(super) async fn open_redis(server: &RedisServer) -> Redis {
    let engine = engine(&server.url()).await;
    Redis::open(engine, config::Topology::Single, None, Arc::new(|_| {})).await.unwrap()
}

macro_rules! suite {
    ($($file:ident: $($name:ident)*;)*) => {
        mod embedded { $($(
            #[tokio::test]
            async fn $name() { super::$file::$name(super::Place::folder()).await; }
        )*)* }
        mod redis { $($(
            #[tokio::test]
            async fn $name() { super::$file::$name(super::Place::server()).await; }
        )*)* }
    };
}

suite! {
    facts:
        licences_come_back_as_they_were_issued
        a_revocation_stays_until_it_is_taken_back
        files_add_and_change_and_never_delete
        what_was_signed_is_changed_by_signed_files_only
        apps_rotate_with_a_grace_for_the_old_key
        two_hundred_at_a_limit_of_five_bind_five
        devices_are_bytes_and_listed_in_pages
        users_are_counted_until_they_expire
        a_refused_operation_does_not_touch_those_of_its_group
        the_audit_log_takes_notes
    ;
    usage:
        sums_are_added_peaks_are_raised_days_are_joined
        marks_come_in_order_and_until_enough
        what_is_old_is_swept_and_names_when_they_shall_not_be_kept
        a_pseudonym_is_the_installations_own_and_no_licence_keys_hash
    ;
}

pub(super) fn at(instant: &str) -> Timestamp {
    instant.parse().unwrap()
}

pub(super) fn now() -> Timestamp {
    at("2026-11-22T10:00:00Z")
}

pub(super) fn change() -> Change {
    Change { at: now(), by: "alice".into() }
}

pub(super) fn licence(id: &str) -> Licence {
    Licence { id: id.into(), ..terms(Quota { users_count: 3, ..Quota::default() }) }
}

pub(super) fn declared(store: &dyn Store, licence: Licence, key: &str) -> LicenceRecord {
    LicenceRecord {
        licence: licence.into(),
        key: (!key.is_empty()).then(|| store.hash_key(key)),
        origin: Origin::File { file: "licences.toml".into(), line: 3 },
        revocation: None,
    }
}

pub(super) fn user(name: &str, expires: &str) -> UserRecord {
    UserRecord {
        class: SeatClass::Editor,
        user: name.into(),
        expires: at(expires),
        anonymous: false,
    }
}

pub(super) async fn users(store: &dyn Store, now: Timestamp) -> Vec<StoredUser> {
    let (found, listed) = std::sync::mpsc::channel();
    store.for_each_user(now, Box::new(move |user| found.send(user).unwrap())).await.unwrap();
    listed.iter().collect()
}

pub(super) async fn licences(store: &dyn Store) -> Vec<LicenceRecord> {
    let (found, listed) = std::sync::mpsc::channel();
    store.for_each_licence(Box::new(move |licence| found.send(licence).unwrap())).await.unwrap();
    listed.iter().collect()
}
