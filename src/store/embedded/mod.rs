//! The embedded store: one SQLite file, for one gateway.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Embedded`]: opening it, and handing work to its threads |
//! | `operations` | the operations, each a piece of work |
//! | `file` | opening: the lock, the key file, damaged, foreign and newer files |
//! | `schema` | tables and migrations |
//! | `worker` | the threads; group commit |
//! | `rows` | rows to records and back |
//! | `licences` | licences and apps: what a change reads and writes |
//! | `holdings` | devices, users, the audit log |
//! | `usage` | hours, months, and who was seen |
//! | `copies` | whole stores: taken in, backed up |
//!
//! WAL mode with `synchronous = FULL`: a commit is on disk when it returns, and readers, who see
//! committed data only, never wait for the writer.

mod copies;
mod file;
mod holdings;
mod licences;
mod operations;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod usage;
mod worker;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::timeout;

use super::error::{OpenError, StoreError};
use super::key::{self, KeyHasher};
use super::{ErrorHook, Operation, Result};
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
