//! The embedded store: one SQLite file, for one gateway.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Embedded`]: the operations, each handed to a thread |
//! | `file` | opening: the lock, the key file, damaged, foreign and newer files |
//! | `schema` | tables and migrations |
//! | `worker` | the threads; group commit |
//! | `rows` | rows to records and back |
//! | `licences` | licences and apps: what a change reads and writes |
//! | `holdings` | devices, users, the audit log |
//! | `usage` | hours, months, and who was seen |
//!
//! WAL mode with `synchronous = FULL`: a commit is on disk when it returns, and readers, who see
//! committed data only, never wait for the writer.

mod file;
mod holdings;
mod licences;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod usage;
mod worker;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::time::timeout;

use super::book::Book as _;
use super::error::{OpenError, StoreError};
use super::key::{self, KeyHash, KeyHasher};
use super::migrate::Item;
use super::records::{
    AppRecord, AuditEntry, Binding, Change, Declared, Device, LicenceRecord, Sha256Hash, StoredUser,
};
use super::usage::{MarkQuery, Pseudonym, Span, UsageBatch, UsageRecord, UserMark};
use super::{ErrorHook, Operation, Result, Store, changes, declared};
use crate::ledger::UserRecord;
use crate::licence::Licence;
use crate::seat::SeatClass;
use licences::Sql;
use worker::{Queue, Task};

/// Connections that read.
const READERS: usize = 2;

/// How long anybody waits for the store: a disk that hangs must not gather requests for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for what goes through everything.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// The store in one SQLite file.
pub struct Embedded {
    path: PathBuf,
    writer: Queue,
    reader: Queue,
    keys: KeyHasher,
    on_error: ErrorHook,
    lock: File,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What [`examine`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    /// There is no store yet.
    Absent,
    /// It was looked through: no damage.
    Whole,
    /// The time was over first: no damage so far.
    Unfinished,
}

/// Looks through a store for damage, for `limit` at most, whether a gateway has it or not; changes
/// nothing.
///
/// # Errors
/// The file is another program's, damaged, of a newer version, or out of reach; or its key is.
pub fn examine(path: &Path, limit: Duration) -> Result<Examined, OpenError> {
    file::examine(path, limit)
}

/// Keeps other processes away from the store at `path`, until it is dropped.
///
/// # Errors
/// Somebody has it.
pub fn lock(path: &Path) -> Result<File, OpenError> {
    file::make_folder(path)?;
    file::take_lock(path)
}

/// Writes the key of a store that is about to be at `path`.
///
/// # Errors
/// The file cannot be written.
pub fn put_key(path: &Path, keys: &KeyHasher) -> Result<(), OpenError> {
    key::write(&path.with_file_name("store.key"), keys)
}

impl Embedded {
    /// Opens the store at `path`, or makes a new one where there is none. Blocks: for the start.
    ///
    /// # Errors
    /// The file is another program's, damaged, of a newer version, in use, or out of reach. It is
    /// left as it was.
    pub fn open(path: &Path, on_error: ErrorHook) -> Result<Self, OpenError> {
        Self::open_under(None, path, on_error)
    }

    /// The same under the lock that another process passed on, while that one still has the store.
    ///
    /// # Errors
    /// As above.
    pub fn open_under(
        lock: Option<File>,
        path: &Path,
        on_error: ErrorHook,
    ) -> Result<Self, OpenError> {
        let opened = file::open(path, READERS, lock)?;
        let failed = |error: std::io::Error| OpenError::Database {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        let lock = opened.lock.try_clone().map_err(failed)?;
        let writer = worker::start_writer(opened.writer, opened.lock).map_err(failed)?;
        let reader = worker::start_readers(opened.readers).map_err(failed)?;
        if let Some(connection) = opened.unchecked {
            check_aside(connection, path.to_owned(), Arc::clone(&on_error)).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), writer, reader, keys: opened.keys, on_error, lock })
    }

    /// Makes a new store at `path` under the key of another. Blocks: for the start.
    ///
    /// # Errors
    /// As [`Self::open`]; there is a store under another key already.
    pub fn create(path: &Path, keys: &KeyHasher, on_error: ErrorHook) -> Result<Self, OpenError> {
        let key_path = path.with_file_name("store.key");
        if key::read(&key_path)?.is_none() && !path.exists() {
            file::make_folder(path)?;
            key::write(&key_path, keys)?;
        }
        let store = Self::open(path, on_error)?;
        if store.keys.check_value() == keys.check_value() {
            return Ok(store);
        }
        Err(OpenError::KeyWrong { path: key_path })
    }

    /// Carries out a change; it is on disk when this returns.
    async fn write<T, F>(&self, operation: Operation, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let patience = match operation {
            Operation::Declare => LONG_PATIENCE,
            _ => PATIENCE,
        };
        self.submit(&self.writer, operation, patience, work).await
    }

    async fn read<T, F>(&self, operation: Operation, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.submit(&self.reader, operation, PATIENCE, work).await
    }

    async fn submit<T, F>(
        &self,
        queue: &Queue,
        operation: Operation,
        patience: Duration,
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (task, answer) = Task::new(work);
        let waiting = async {
            queue.send(Box::new(task)).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        };
        let outcome = timeout(patience, waiting).await.unwrap_or(Err(StoreError::Timeout));
        if let Err(error) = &outcome
            && error.is_failure()
        {
            tracing::error!(operation = operation.label(), %error, "the store failed");
            (self.on_error)(operation);
        }
        outcome
    }
}

/// Finishes the check of a large file while it is in use.
fn check_aside(
    mut connection: Connection,
    path: PathBuf,
    on_error: ErrorHook,
) -> std::io::Result<()> {
    thread::Builder::new().name("store-check".to_owned()).spawn(move || {
        match file::check(&mut connection, &path, None) {
            Ok(_) => tracing::debug!("the store was looked through: no damage"),
            Err(error) => {
                tracing::error!(%error, "the store is damaged");
                on_error(Operation::Check);
            }
        }
    })?;
    Ok(())
}

#[async_trait]
impl Store for Embedded {
    fn hash_key(&self, licence_key: &str) -> KeyHash {
        self.keys.hash(licence_key)
    }

    fn pseudonym(&self, user: &str) -> Pseudonym {
        self.keys.pseudonym(user)
    }

    async fn for_each_licence(&self, mut each: Box<dyn FnMut(LicenceRecord) + Send>) -> Result<()> {
        let work = move |connection: &Connection| {
            let sql = rows::select(rows::LICENCE_COLUMNS, rows::LICENCE_TABLES, "true");
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(rows::licence(row)?);
            }
            Ok(())
        };
        self.submit(&self.reader, Operation::Read, LONG_PATIENCE, work).await
    }

    async fn licence(&self, id: &str) -> Result<Option<LicenceRecord>> {
        let id = id.to_owned();
        self.read(Operation::Read, move |connection| rows::find_licence(connection, &id)).await
    }

    async fn apps(&self) -> Result<Vec<AppRecord>> {
        self.read(Operation::Read, licences::apps).await
    }

    async fn apply_declared(&self, declared: Declared, change: Change) -> Result<Vec<Arc<str>>> {
        let work = move |connection: &Connection| {
            declared::apply(&mut Sql(connection), &declared, &change)
        };
        self.write(Operation::Declare, work).await
    }

    async fn issue(&self, licence: Licence, key: Option<KeyHash>, change: Change) -> Result<()> {
        self.write(Operation::Licence, move |connection| {
            changes::issue(&mut Sql(connection), licence, key, &change)
        })
        .await
    }

    async fn change_terms(&self, licence: Licence, change: Change) -> Result<()> {
        self.write(Operation::Licence, move |connection| {
            changes::change_terms(&mut Sql(connection), licence, &change)
        })
        .await
    }

    async fn revoke(&self, licence: &str, reason: String, change: Change) -> Result<bool> {
        let licence = licence.to_owned();
        self.write(Operation::Licence, move |connection| {
            changes::revoke(&mut Sql(connection), &licence, &reason, &change)
        })
        .await
    }

    async fn reinstate(&self, licence: &str, change: Change) -> Result<bool> {
        let licence = licence.to_owned();
        self.write(Operation::Licence, move |connection| {
            changes::reinstate(&mut Sql(connection), &licence, &change)
        })
        .await
    }

    async fn add_app(&self, id: &str, api_key: Sha256Hash, change: Change) -> Result<()> {
        let id = id.to_owned();
        self.write(Operation::App, move |connection| {
            changes::add_app(&mut Sql(connection), &id, api_key, &change)
        })
        .await
    }

    async fn rotate_app(
        &self,
        id: &str,
        api_key: Sha256Hash,
        until: Timestamp,
        change: Change,
    ) -> Result<()> {
        let id = id.to_owned();
        self.write(Operation::App, move |connection| {
            changes::rotate_app(&mut Sql(connection), &id, api_key, until, &change)
        })
        .await
    }

    async fn remove_app(&self, id: &str, change: Change) -> Result<()> {
        let id = id.to_owned();
        self.write(Operation::App, move |connection| {
            changes::remove_app(&mut Sql(connection), &id, &change)
        })
        .await
    }

    async fn bind_device(&self, licence: &str, device: &[u8], now: Timestamp) -> Result<Binding> {
        let (licence, device): (Arc<str>, Arc<[u8]>) = (licence.into(), device.into());
        let known = (Arc::clone(&licence), Arc::clone(&device));
        let look =
            move |connection: &Connection| holdings::is_bound(connection, &known.0, &known.1);
        // What is bound needs no turn with the writer.
        if self.read(Operation::Bind, look).await? {
            return Ok(Binding::AlreadyBound);
        }
        self.write(Operation::Bind, move |connection| {
            holdings::bind(connection, &licence, &device, now)
        })
        .await
    }

    async fn unbind_device(&self, licence: &str, device: &[u8], change: Change) -> Result<bool> {
        let (licence, device) = (licence.to_owned(), device.to_owned());
        self.write(Operation::Devices, move |connection| {
            holdings::unbind(connection, &licence, &device, &change)
        })
        .await
    }

    async fn devices(
        &self,
        licence: &str,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<Device>> {
        let licence = licence.to_owned();
        self.read(Operation::Devices, move |connection| {
            holdings::devices(connection, &licence, after.as_deref(), limit)
        })
        .await
    }

    async fn devices_bound(&self, licences: Vec<Arc<str>>) -> Result<Vec<u64>> {
        self.read(Operation::Devices, move |connection| {
            licences.iter().map(|id| holdings::bound_count(connection, id)).collect()
        })
        .await
    }

    async fn put_user(&self, licence: &str, record: &UserRecord, now: Timestamp) -> Result<()> {
        let (licence, record) = (licence.to_owned(), record.clone());
        self.write(Operation::User, move |connection| {
            holdings::put_user(connection, &licence, &record, now)
        })
        .await
    }

    async fn release_user(
        &self,
        licence: &str,
        class: SeatClass,
        user: &str,
        change: Change,
    ) -> Result<bool> {
        let (licence, user) = (licence.to_owned(), user.to_owned());
        self.write(Operation::Users, move |connection| {
            holdings::release_user(connection, &licence, class, &user, &change)
        })
        .await
    }

    async fn for_each_user(
        &self,
        now: Timestamp,
        mut each: Box<dyn FnMut(StoredUser) + Send>,
    ) -> Result<()> {
        let work =
            move |connection: &Connection| holdings::for_each_user(connection, now, &mut *each);
        self.submit(&self.reader, Operation::Users, LONG_PATIENCE, work).await
    }

    async fn purge_users(&self, before: Timestamp, limit: u32) -> Result<u32> {
        self.write(Operation::Users, move |connection| {
            holdings::purge_users(connection, before, limit)
        })
        .await
    }

    async fn add_usage(&self, batch: Arc<UsageBatch>) -> Result<()> {
        self.write(Operation::Usage, move |connection| usage::add(connection, &batch)).await
    }

    async fn for_each_usage(
        &self,
        span: Span,
        from: Timestamp,
        to: Timestamp,
        mut each: Box<dyn FnMut(UsageRecord) + Send>,
    ) -> Result<()> {
        let work =
            move |connection: &Connection| usage::for_each(connection, span, from, to, &mut *each);
        self.submit(&self.reader, Operation::Usage, LONG_PATIENCE, work).await
    }

    async fn for_each_mark(
        &self,
        query: MarkQuery,
        mut each: Box<dyn FnMut(UserMark) -> bool + Send>,
    ) -> Result<()> {
        let work =
            move |connection: &Connection| usage::for_each_mark(connection, &query, &mut *each);
        self.submit(&self.reader, Operation::Usage, LONG_PATIENCE, work).await
    }

    async fn purge_usage(&self, before: Timestamp, names: bool, limit: u32) -> Result<u32> {
        self.write(Operation::Usage, move |connection| {
            usage::purge(connection, before, names, limit)
        })
        .await
    }

    async fn note(
        &self,
        action: &str,
        subject: &str,
        detail: String,
        change: Change,
    ) -> Result<()> {
        let (action, subject) = (action.to_owned(), subject.to_owned());
        self.write(Operation::Audit, move |connection| {
            rows::note(connection, &change, &action, &subject, &detail)
        })
        .await
    }

    async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>> {
        self.read(Operation::Audit, move |connection| holdings::audit(connection, before, limit))
            .await
    }

    async fn take_in(&self, items: Vec<Item>) -> Result<()> {
        self.write(Operation::Declare, move |connection| intake(connection, &items)).await
    }

    fn key(&self) -> &KeyHasher {
        &self.keys
    }

    async fn backup(&self, file: PathBuf) -> Result<()> {
        let source = self.path.clone();
        // A thread of its own: it takes as long as the store is large.
        let (task, answer) = Task::new(move |connection: &Connection| back_up(connection, &file));
        let copy = move || match file::open_reader(&source) {
            Ok(connection) => {
                let mut task: Box<dyn worker::Job> = Box::new(task);
                let _ = task.run(&connection);
                task.answer(Ok(()));
            }
            Err(error) => task.refuse(error.into()),
        };
        let started = thread::Builder::new().name("store-backup".to_owned()).spawn(copy);
        let outcome = match started {
            Ok(_) => answer.await.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(StoreError::Internal(error.to_string())),
        };
        if outcome.as_ref().is_err_and(StoreError::is_failure) {
            (self.on_error)(Operation::Backup);
        }
        outcome
    }

    fn lock(&self) -> Option<&File> {
        Some(&self.lock)
    }

    async fn answers(&self) -> bool {
        let (task, answer) = Task::new(|_: &Connection| Ok(()));
        self.writer.send(Box::new(task)).await.is_ok() && answer.await.is_ok()
    }
}

/// Takes items of another store in, as they are.
fn intake(connection: &Connection, items: &[Item]) -> Result<()> {
    let mut book = Sql(connection);
    for item in items {
        match item {
            Item::Licence(record) => {
                book.put(record)?;
                if let Some(revocation) = &record.revocation {
                    book.set_revocation(&record.licence.id, Some(revocation))?;
                }
            }
            Item::App(app) => book.put_app(app)?,
            Item::Device(licence, device) => {
                holdings::put_device(connection, licence, device)?;
            }
            Item::User(user) => {
                let (licence, record) = (&user.licence, &user.record);
                holdings::put_user(connection, licence, record, Timestamp::UNIX_EPOCH)?;
            }
            Item::Entry(AuditEntry { number: _, at, by, action, subject, detail }) => {
                let change = Change { at: *at, by: by.as_str().into() };
                rows::note(connection, &change, action, subject, detail)?;
            }
        }
    }
    Ok(())
}

/// Copies the store to a new file, under another name until it is whole.
fn back_up(connection: &Connection, target: &Path) -> Result<()> {
    let failed = |detail: String| StoreError::Target { path: target.to_owned(), detail };
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    // For its owner only, as the store itself.
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
    made.map_err(|error| failed(error.to_string()))?;
    let text = part.to_str().ok_or_else(|| failed("the path is not UTF-8".to_owned()))?;
    let copied = connection.execute("VACUUM INTO ?1", [text]).map_err(|error| error.to_string());
    let finished = copied.and_then(|_| {
        let finish = || {
            File::open(&part)?.sync_all()?;
            // Unlike a rename, this never replaces what is there.
            fs::hard_link(&part, target)?;
            key::sync_folder(target)
        };
        finish().map_err(|error| error.to_string())
    });
    let _ = fs::remove_file(&part);
    finished.map_err(failed)
}
