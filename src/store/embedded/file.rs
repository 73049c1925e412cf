//! Opening the database file: nobody else has it, it is ours, it is whole, it is of our time.
//!
//! Nothing is written before all of that is known.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Examined, schema};
use crate::store::error::OpenError;
use crate::store::key::{self, KeyHasher};

/// How long a start waits for the look through the whole file; a larger one is looked through
/// while it is in use already.
const CHECK_AT_START: Duration = Duration::from_millis(1500);

/// How long SQLite waits for a lock of its own. Nobody but a backup tool could hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The write-ahead log is cut down to this when it is begun anew, in bytes.
const LOG_LIMIT: i64 = 64 << 20;

/// An opened store, before its threads are started.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) keys: KeyHasher,
    /// Held for as long as the file is open.
    pub(super) lock: File,
    /// A connection to finish the check for damage with, if the start did not wait for its end.
    pub(super) unchecked: Option<Connection>,
}

/// Opens the store at `path`, or makes a new one where there is none; under `lock`, if another
/// process passed it on.
pub(super) fn open(path: &Path, readers: usize, lock: Option<File>) -> Result<Opened, OpenError> {
    let failed = |error: rusqlite::Error| database_error(path, &error);
    make_folder(path)?;
    let lock = match lock {
        Some(lock) => lock,
        None => take_lock(path)?,
    };
    let key_path = path.with_file_name("store.key");
    let known_keys = key::read(&key_path)?;
    look_at_header(path)?;

    touch(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut writer = Connection::open_with_flags(path, flags).map_err(failed)?;
    prepare(&writer).map_err(failed)?;
    // Until it is known to be ours, closing it must not write either.
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let version = version(&writer, path)?;
    let whole = version == 0 || check(&mut writer, path, Some(CHECK_AT_START))?;
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;

    let keys = match (known_keys, version) {
        (Some(keys), _) => keys,
        (None, 0) => key::create(&key_path)?,
        (None, _) => return Err(OpenError::KeyMissing { path: key_path }),
    };
    if version < schema::VERSION {
        schema::migrate(&mut writer, version, &keys.check_value()).map_err(failed)?;
    }
    let stored: Vec<u8> = writer
        .query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0))
        .map_err(failed)?;
    if stored != keys.check_value() {
        return Err(OpenError::KeyWrong { path: key_path });
    }
    writer.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    writer.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    writer.pragma_update(None, "journal_size_limit", LOG_LIMIT).map_err(failed)?;
    key::sync_folder(path).map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;

    let readers: Result<Vec<_>, _> = (0..readers).map(|_| open_reader(path)).collect();
    let unchecked = if whole { None } else { Some(open_reader(path).map_err(failed)?) };
    Ok(Opened { writer, readers: readers.map_err(failed)?, keys, lock, unchecked })
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Looks through the whole database for damage; `false` if `limit` was over first.
pub(super) fn check(
    connection: &mut Connection,
    path: &Path,
    limit: Option<Duration>,
) -> Result<bool, OpenError> {
    let failed = |error: rusqlite::Error| database_error(path, &error);
    if let Some(limit) = limit {
        let started = Instant::now();
        let over = move || started.elapsed() > limit;
        connection.progress_handler(10_000, Some(over)).map_err(failed)?;
    }
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    match found {
        Ok(found) if found == "ok" => Ok(true),
        Ok(detail) => Err(OpenError::Damaged { path: path.to_owned(), detail }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Looks at the store of a gateway that may run or not, without changing anything in it.
///
/// # Errors
/// The file is another program's, damaged, of a newer version, or out of reach; or its key is.
pub(super) fn examine(path: &Path, limit: Duration) -> Result<Examined, OpenError> {
    if !path.exists() {
        return Ok(Examined::Absent);
    }
    look_at_header(path)?;
    let failed = |error: rusqlite::Error| database_error(path, &error);
    let mut connection = open_reader(path).map_err(failed)?;
    if version(&connection, path)? == 0 {
        return Ok(Examined::Absent);
    }
    let key_path = path.with_file_name("store.key");
    let Some(keys) = key::read(&key_path)? else {
        return Err(OpenError::KeyMissing { path: key_path });
    };
    let stored: Vec<u8> = connection
        .query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0))
        .map_err(failed)?;
    if stored != keys.check_value() {
        return Err(OpenError::KeyWrong { path: key_path });
    }
    let whole = check(&mut connection, path, Some(limit))?;
    Ok(if whole { Examined::Whole } else { Examined::Unfinished })
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cache_size", -16_384)
}

/// The schema version of a database that is ours; 0 if it is new.
fn version(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let failed = |error: rusqlite::Error| database_error(path, &error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(failed)?;
    let found = pragma("user_version").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application == 0 && found == 0 && tables == 0 {
        return Ok(0);
    }
    if application != schema::APPLICATION_ID || found < 1 {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if found > schema::VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION });
    }
    Ok(found)
}

pub(super) fn make_folder(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    crate::store::make_folder(folder)
        .map_err(|source| OpenError::Folder { path: folder.to_owned(), source })
}

/// Two processes on one file would each have half of the users. The lock is a file of its own:
/// SQLite loses its own locks if anybody else in the process closes the database file.
pub(super) fn take_lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let folder = |source| OpenError::Folder { path: lock_path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&lock_path).map_err(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

/// Makes sure that the file is there, for its owner only.
fn touch(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    opened
        .map(drop)
        .map_err(|error| OpenError::Database { path: path.to_owned(), detail: error.to_string() })
}

/// Looks at the first bytes before SQLite does: merely opening a foreign database could change it
/// (<https://www.sqlite.org/fileformat.html#the_database_header>).
fn look_at_header(path: &Path) -> Result<(), OpenError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let detail = error.to_string();
            return Err(OpenError::Database { path: path.to_owned(), detail });
        }
    };
    let foreign = || OpenError::Foreign { path: path.to_owned() };
    let length = fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    if length == 0 {
        return Ok(());
    }
    let mut header = [0_u8; 100];
    file.read_exact(&mut header).map_err(|_| foreign())?;
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(foreign());
    }
    let application = header.get(68..72).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    match application.map(|bytes| i64::from(u32::from_be_bytes(bytes))) {
        Some(schema::APPLICATION_ID) => Ok(()),
        Some(_) | None => Err(foreign()),
    }
}

fn database_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Damaged { path, detail }
        }
        _ => OpenError::Database { path, detail },
    }
}
