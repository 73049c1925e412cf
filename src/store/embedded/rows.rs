//! Rows to records and back.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::licence::{Licence, Quota};
use crate::seat::SeatClass;
use crate::store::Result;
use crate::store::error::StoreError;
use crate::store::key::KeyHash;
use crate::store::records::{
    AppRecord, Change, LicenceRecord, Origin, PreviousKey, Revocation, Sha256Hash,
};

/// What [`licence`] reads, from `licences l LEFT JOIN revocations r`.
pub(super) const LICENCE_COLUMNS: &str = "l.id, l.app, l.key_hash, l.issued_to, l.starts, l.ends, \
    l.trial, l.customization, l.features, l.max_devices, l.connections, l.connections_view, \
    l.users_count, l.users_view_count, l.users_expire_days, l.file, l.line, r.at, r.by, r.reason";

/// The tables that go with it.
pub(super) const LICENCE_TABLES: &str =
    "licences l LEFT JOIN revocations r ON r.licence = l.number";

/// Reads one licence.
pub(super) fn licence(row: &Row<'_>) -> rusqlite::Result<LicenceRecord> {
    let revocation = match row.get(17)? {
        None => None,
        Some(at) => {
            Some(Revocation { at: instant(17, at)?, by: row.get(18)?, reason: row.get(19)? })
        }
    };
    let features: String = row.get(8)?;
    let features = match features.as_str() {
        "[]" => Vec::new(),
        list => serde_json::from_str(list).map_err(|error| unreadable(8, Type::Text, error))?,
    };
    let licence = Licence {
        id: row.get(0)?,
        app: row.get(1)?,
        issued_to: row.get(3)?,
        start: row.get::<_, Option<i64>>(4)?.map(|at| instant(4, at)).transpose()?,
        end: row.get::<_, Option<i64>>(5)?.map(|at| instant(5, at)).transpose()?,
        trial: row.get(6)?,
        customization: row.get(7)?,
        features,
        max_devices: row.get(9)?,
        quota: Quota {
            connections: row.get(10)?,
            connections_view: row.get(11)?,
            users_count: row.get(12)?,
            users_view_count: row.get(13)?,
            users_expire_days: row.get(14)?,
        },
        revoked: revocation.is_some(),
    };
    Ok(LicenceRecord {
        licence: Arc::new(licence),
        key: row.get::<_, Option<[u8; 32]>>(2)?.map(KeyHash),
        origin: origin(row, 15)?,
        revocation,
    })
}

/// The licence of an id.
pub(super) fn find_licence(
    connection: &Connection,
    id: &str,
) -> Result<Option<LicenceRecord>, StoreError> {
    let sql = select(LICENCE_COLUMNS, LICENCE_TABLES, "l.id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([id], licence).optional()?)
}

/// The number of a licence within the file.
pub(super) fn licence_number(connection: &Connection, id: &str) -> Result<i64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT number FROM licences WHERE id = ?1")?;
    let number = statement.query_row([id], |row| row.get(0)).optional()?;
    number.ok_or_else(|| StoreError::NotFound(format!("the licence {id}")))
}

/// What [`app`] reads.
pub(super) const APP_COLUMNS: &str = "id, api_key, previous_key, previous_until, file, line";

/// Reads one app.
pub(super) fn app(row: &Row<'_>) -> rusqlite::Result<AppRecord> {
    let previous: (Option<[u8; 32]>, Option<i64>) = (row.get(2)?, row.get(3)?);
    let previous = match previous {
        (Some(key), Some(until)) => {
            Some(PreviousKey { api_key: Sha256Hash(key), until: instant(3, until)? })
        }
        (None, _) | (_, None) => None,
    };
    let api_key = Sha256Hash(row.get(1)?);
    Ok(AppRecord { id: row.get(0)?, api_key, previous, origin: origin(row, 4)? })
}

/// `SELECT … FROM … WHERE …`
pub(super) fn select(columns: &str, tables: &str, condition: &str) -> String {
    format!("SELECT {columns} FROM {tables} WHERE {condition}")
}

fn origin(row: &Row<'_>, file: usize) -> rusqlite::Result<Origin> {
    let place: (Option<Arc<str>>, Option<u64>) = (row.get(file)?, row.get(file + 1)?);
    Ok(match place {
        (Some(file), line) => Origin::File { file, line: line.unwrap_or(1) },
        (None, _) => Origin::Store,
    })
}

/// The columns `file` and `line` of an origin.
pub(super) fn place(origin: &Origin) -> (Option<&str>, Option<u64>) {
    match origin {
        Origin::File { file, line } => (Some(file), Some(*line)),
        Origin::Store => (None, None),
    }
}

/// Reads an instant; `column` is for the error.
pub(super) fn instant(column: usize, microseconds: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|error| unreadable(column, Type::Integer, error))
}

/// The `class` of users.
pub(super) fn class_number(class: SeatClass) -> u8 {
    match class {
        SeatClass::Editor => 0,
        SeatClass::LiveViewer => 1,
    }
}

/// Appends to the audit log.
pub(super) fn note(
    connection: &Connection,
    change: &Change,
    action: &str,
    subject: &str,
    detail: &str,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO audit (at, by, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![change.at.as_microsecond(), change.by, action, subject, detail])?;
    Ok(())
}

pub(super) fn unreadable(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}
