//! The embedded store against its contract.

mod facts;
mod files;
mod usage;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::Embedded;
use crate::ledger::UserRecord;
use crate::licence::tests::licence as terms;
use crate::licence::{Licence, Quota};
use crate::seat::SeatClass;
use crate::store::{Change, LicenceRecord, OpenError, Origin, Store as _, StoredUser};

fn at(instant: &str) -> Timestamp {
    instant.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-22T10:00:00Z")
}

fn change() -> Change {
    Change { at: now(), by: "alice".into() }
}

fn try_open(folder: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(&folder.join("seatgate.db"), Arc::new(|_| {}))
}

/// Opens the store of a folder, waiting for the one that was just dropped.
fn open(folder: &Path) -> Embedded {
    loop {
        match try_open(folder) {
            Ok(store) => return store,
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn licence(id: &str) -> Licence {
    Licence { id: id.into(), ..terms(Quota { users_count: 3, ..Quota::default() }) }
}

fn declared(store: &Embedded, licence: Licence, key: &str) -> LicenceRecord {
    LicenceRecord {
        licence: licence.into(),
        key: (!key.is_empty()).then(|| store.hash_key(key)),
        origin: Origin::File { file: "licences.toml".into(), line: 3 },
        revocation: None,
    }
}

fn user(name: &str, expires: &str) -> UserRecord {
    UserRecord {
        class: SeatClass::Editor,
        user: name.into(),
        expires: at(expires),
        anonymous: false,
    }
}

async fn users(store: &Embedded, now: Timestamp) -> Vec<StoredUser> {
    let (found, listed) = std::sync::mpsc::channel();
    store.for_each_user(now, Box::new(move |user| found.send(user).unwrap())).await.unwrap();
    listed.iter().collect()
}

async fn licences(store: &Embedded) -> Vec<LicenceRecord> {
    let (found, listed) = std::sync::mpsc::channel();
    store.for_each_licence(Box::new(move |licence| found.send(licence).unwrap())).await.unwrap();
    listed.iter().collect()
}
