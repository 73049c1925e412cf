//! The threads that talk to SQLite: one writes, some read. Nobody else ever waits for the disk.
//!
//! **Group commit.** The writer takes all operations that wait, carries them out in one
//! transaction, and answers each caller after its commit, which is one `fsync` for all of them.
//! While that is under way the next group gathers. An operation that refuses (a licence that is
//! not there) is rolled back alone, by a savepoint; one that fails (a full disk) fails its group.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::store::Result;
use crate::store::error::StoreError;

/// Operations that may wait; beyond that callers wait for a place.
const QUEUE: usize = 4096;

/// The most operations that share a commit.
const GROUP: usize = 1024;

/// An operation on its way to a connection.
pub(super) trait Job: Send {
    /// Carries it out; what it gives is kept for [`Job::answer`].
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;

    /// Answers its caller, with the error if it was not committed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);

    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// A [`Job`] made of a closure and its caller.
pub(super) struct Task<T, F> {
    work: Option<F>,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    /// A job, and where its answer comes.
    pub(super) fn new(work: F) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work: Some(work), done: None, reply }, answer)
    }

    /// Answers the caller that it was not begun.
    pub(super) fn refuse(self, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let done = work(connection);
        let outcome = done.as_ref().map(|_| ()).map_err(Clone::clone);
        self.done = Some(done);
        outcome
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (self.done, committed) {
            // Its own error says more than that of its group.
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(done)), Ok(())) => Ok(done),
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // A caller who left does not need it.
        let _ = self.reply.send(answer);
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Where jobs are handed in. The thread behind it ends when all its clones are dropped.
pub(super) type Queue = mpsc::Sender<Box<dyn Job>>;

/// Starts the thread that writes. It holds `lock` until it is done.
pub(super) fn start_writer(connection: Connection, lock: File) -> std::io::Result<Queue> {
    let (queue, mut jobs) = mpsc::channel::<Box<dyn Job>>(QUEUE);
    thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
        let mut group = Vec::with_capacity(GROUP);
        while let Some(first) = jobs.blocking_recv() {
            group.push(first);
            while group.len() < GROUP
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            commit_group(&connection, &mut group);
        }
        drop(connection);
        drop(lock);
    })?;
    Ok(queue)
}

/// Starts a thread for each of the connections that read.
pub(super) fn start_readers(connections: Vec<Connection>) -> std::io::Result<Queue> {
    let (queue, jobs) = mpsc::channel::<Box<dyn Job>>(QUEUE);
    let jobs = Arc::new(Mutex::new(jobs));
    for connection in connections {
        let jobs = Arc::clone(&jobs);
        thread::Builder::new().name("store-reader".to_owned()).spawn(move || {
            loop {
                // One waits for the next job, the others for their turn to wait.
                let Some(mut job) = jobs.lock().blocking_recv() else { return };
                if !job.is_abandoned() {
                    let _ = job.run(&connection);
                    job.answer(Ok(()));
                }
            }
        })?;
    }
    Ok(queue)
}

/// Carries a group out and answers it.
fn commit_group(connection: &Connection, group: &mut Vec<Box<dyn Job>>) {
    group.retain(|job| !job.is_abandoned());
    if group.is_empty() {
        return;
    }
    let committed = carry_out(connection, group);
    if committed.is_err() && !connection.is_autocommit() {
        // An error here means that SQLite rolled back by itself.
        let _ = connection.execute_batch("ROLLBACK");
    }
    for job in group.drain(..) {
        job.answer(committed.clone());
    }
}

fn carry_out(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    execute(connection, "BEGIN IMMEDIATE")?;
    for job in group {
        execute(connection, "SAVEPOINT job")?;
        match job.run(connection) {
            Ok(()) => execute(connection, "RELEASE job")?,
            Err(error) if error.is_failure() || connection.is_autocommit() => return Err(error),
            Err(_) => {
                execute(connection, "ROLLBACK TO job")?;
                execute(connection, "RELEASE job")?;
            }
        }
    }
    execute(connection, "COMMIT")
}

fn execute(connection: &Connection, statement: &str) -> Result<(), StoreError> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Io(detail),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(detail),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Timeout,
            _ => Self::Internal(detail),
        }
    }
}
