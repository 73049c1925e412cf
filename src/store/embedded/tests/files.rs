//! The file itself: locked, foreign, damaged, newer, unwritable; backups.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::{change, licence, licences, now, open, try_open};
use crate::store::embedded::schema;
use crate::store::{Binding, OpenError, Store as _, StoreError, UsageBatch};

/// One of those that [`made`] binds.
const DEVICE: &str = concat!("device ", "00000000000000000000000000000000000000000000000000000000");

fn database(folder: &Path) -> std::path::PathBuf {
    folder.join("seatgate.db")
}

/// A store with something in it, closed.
async fn made(folder: &Path) {
    let store = open(folder);
    store.issue(licence("l"), Some(store.hash_key("k")), change()).await.unwrap();
    let devices: Vec<_> = (0..2000).map(|number| format!("device {number:056}")).collect();
    let binding = devices.iter().map(|device| store.bind_device("l", device.as_bytes(), now()));
    for bound in futures_util::future::join_all(binding).await {
        assert_eq!(bound, Ok(Binding::Bound));
    }
    drop(store);
    // Its threads close the file a moment later; the last one to do so clears the log away.
    while folder.join("seatgate.db-wal").exists() {
        Connection::open(database(folder)).unwrap().execute_batch("SELECT 1 FROM meta").unwrap();
    }
}

/// Opening fails, and leaves the file as it was.
fn refused(folder: &Path) -> OpenError {
    let before = fs::read(database(folder)).unwrap();
    let error = loop {
        match try_open(folder) {
            Err(OpenError::Locked { .. }) => {}
            Err(error) => break error,
            Ok(_) => panic!("it was opened"),
        }
    };
    assert!(fs::read(database(folder)).unwrap() == before, "the file was changed");
    error
}

#[tokio::test]
async fn nobody_else_opens_a_store_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(matches!(try_open(folder.path()), Err(OpenError::Locked { .. })));
    store.issue(licence("l"), None, change()).await.unwrap();
    for name in ["seatgate.db", "seatgate.db.lock", "seatgate.db-wal", "store.key"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is for its owner only");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for content in [&b"x"[..], &[0; 4096], b"[server]\nlisten = []\n"] {
        fs::write(database(folder.path()), content).unwrap();
        assert!(matches!(refused(folder.path()), OpenError::Foreign { .. }));
    }
    fs::remove_file(database(folder.path())).unwrap();
    let other = Connection::open(database(folder.path())).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    assert!(matches!(refused(folder.path()), OpenError::Foreign { .. }));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let newer = Connection::open(database(folder.path())).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("newer Seatgate"), "{error}");
}

#[tokio::test]
async fn damage_is_found_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let whole = fs::read(database(folder.path())).unwrap();
    assert!(whole.len() > 40 * 4096, "{}", whole.len());
    // Pages in the middle, and the rest of the file.
    for (from, to) in [(4096, 8192), (20 * 4096, 30 * 4096), (100, 4096)] {
        let mut damaged = whole.clone();
        damaged[from..to].fill(0xa5);
        fs::write(database(folder.path()), &damaged).unwrap();
        let error = refused(folder.path());
        assert!(matches!(error, OpenError::Damaged { .. }), "{from}: {error}");
    }
    fs::write(database(folder.path()), &whole[..20 * 4096]).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::Damaged { .. }));
    fs::write(database(folder.path()), &whole).unwrap();
    assert_eq!(licences(&open(folder.path())).await.len(), 1);
}

#[tokio::test]
async fn the_key_file_belongs_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let key = folder.path().join("store.key");
    let text = fs::read_to_string(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::KeyMissing { .. }));
    assert!(!key.exists(), "no other is made");
    fs::write(&key, "0".repeat(64)).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::KeyWrong { .. }));
    fs::write(&key, text).unwrap();
    open(folder.path());
}

#[tokio::test]
async fn a_backup_is_whole_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let store = open(folder.path());
    let target = folder.path().join("copy/seatgate.db");
    let missing = store.backup(target.clone()).await;
    assert!(matches!(missing, Err(StoreError::Target { .. })), "{missing:?}");
    fs::create_dir(target.parent().unwrap()).unwrap();
    store.backup(target.clone()).await.unwrap();
    let again = store.backup(target.clone()).await;
    assert!(matches!(again, Err(StoreError::Target { .. })), "{again:?}");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);

    fs::copy(folder.path().join("store.key"), target.with_file_name("store.key")).unwrap();
    let copy = open(target.parent().unwrap());
    assert_eq!(copy.licence("l").await.unwrap(), store.licence("l").await.unwrap());
    assert_eq!(copy.devices_bound(vec!["l".into()]).await.unwrap(), [2000]);
    let bound = copy.bind_device("l", DEVICE.as_bytes(), now()).await.unwrap();
    assert_eq!(bound, Binding::AlreadyBound);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_says_so_and_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let (path, failures) = (database(folder.path()), std::sync::mpsc::channel());
    let hook = std::sync::Arc::new(move |operation| failures.0.send(operation).unwrap());
    let store = super::Embedded::open(&path, hook).unwrap();
    // Somebody else holds the database for longer than SQLite waits.
    let other = Connection::open(&path).unwrap();
    other.pragma_update(None, "locking_mode", "normal").unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failed = store.bind_device("l", b"new", now()).await;
    assert_eq!(failed, Err(StoreError::Timeout));
    assert_eq!(failures.1.try_recv().unwrap(), crate::store::Operation::Bind);
    let known = store.bind_device("l", DEVICE.as_bytes(), now()).await.unwrap();
    assert_eq!(known, Binding::AlreadyBound);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.bind_device("l", b"new", now()).await.unwrap(), Binding::Bound);
}

#[tokio::test]
async fn the_audit_log_is_append_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.note("seat.close", "7", "asked by phone".into(), change()).await.unwrap();
    let beside = Connection::open(database(folder.path())).unwrap();
    for statement in ["DELETE FROM audit", "UPDATE audit SET by = 'nobody'"] {
        let error = beside.execute(statement, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

/// A store of the version before is brought to this one, and keeps what it had.
#[tokio::test]
async fn the_first_schema_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.issue(licence("kept"), None, change()).await.unwrap();
    drop(store);
    drop(open(folder.path()));
    let connection = Connection::open(folder.path().join("seatgate.db")).unwrap();
    schema::tests::back_to_the_first(&connection);
    drop(connection);
    let store = open(folder.path());
    assert_eq!(licences(&store).await.len(), 1);
    let batch = UsageBatch { id: [1; 16], records: Vec::new(), marks: Vec::new() };
    store.add_usage(Arc::new(batch)).await.unwrap();
}
