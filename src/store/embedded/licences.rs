//! Licences and apps: what one change reads and writes of them.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::rows::{self, APP_COLUMNS, find_licence, licence_number, place};
use crate::store::Result;
use crate::store::book::Book;
use crate::store::error::StoreError;
use crate::store::key::KeyHash;
use crate::store::records::{AppRecord, Change, LicenceRecord, Revocation};

/// The writer's connection within a transaction.
pub(super) struct Sql<'a>(pub(super) &'a Connection);

impl Book for Sql<'_> {
    fn licence(&mut self, id: &str) -> Result<Option<LicenceRecord>> {
        find_licence(self.0, id)
    }

    fn holder_of(&mut self, key: KeyHash) -> Result<Option<String>> {
        holder_of(self.0, key)
    }

    fn put(&mut self, record: &LicenceRecord) -> Result<()> {
        put(self.0, record)
    }

    fn clear_key(&mut self, licence: &str) -> Result<()> {
        let mut statement =
            self.0.prepare_cached("UPDATE licences SET key_hash = NULL WHERE id = ?1")?;
        statement.execute([licence])?;
        Ok(())
    }

    fn set_revocation(&mut self, licence: &str, revocation: Option<&Revocation>) -> Result<()> {
        let number = licence_number(self.0, licence)?;
        match revocation {
            Some(Revocation { at, by, reason }) => self
                .0
                .prepare_cached(
                    "INSERT INTO revocations (licence, at, by, reason) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![number, at.as_microsecond(), by, reason])?,
            None => self
                .0
                .prepare_cached("DELETE FROM revocations WHERE licence = ?1")?
                .execute([number])?,
        };
        Ok(())
    }

    fn declared_licences(&mut self) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        declared(self.0, "licences")
    }

    fn leave_licence(&mut self, id: &str) -> Result<()> {
        leave(self.0, "licences", id)
    }

    fn app(&mut self, id: &str) -> Result<Option<AppRecord>> {
        find_app(self.0, id)
    }

    fn put_app(&mut self, app: &AppRecord) -> Result<()> {
        put_app(self.0, app)
    }

    fn remove_app(&mut self, id: &str) -> Result<()> {
        self.0.prepare_cached("DELETE FROM apps WHERE id = ?1")?.execute([id])?;
        Ok(())
    }

    fn declared_apps(&mut self) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        declared(self.0, "apps")
    }

    fn leave_app(&mut self, id: &str) -> Result<()> {
        leave(self.0, "apps", id)
    }

    fn note(&mut self, change: &Change, action: &str, subject: &str, detail: &str) -> Result<()> {
        rows::note(self.0, change, action, subject, detail)
    }
}

/// What of a table belongs to files.
fn declared(connection: &Connection, table: &str) -> Result<Vec<(Arc<str>, Arc<str>)>> {
    let sql = format!("SELECT id, file FROM {table} WHERE file IS NOT NULL");
    let mut statement = connection.prepare_cached(&sql)?;
    let found: rusqlite::Result<Vec<_>> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect();
    Ok(found?)
}

fn leave(connection: &Connection, table: &str, id: &str) -> Result<()> {
    let sql = format!("UPDATE {table} SET file = NULL, line = NULL WHERE id = ?1");
    connection.prepare_cached(&sql)?.execute([id])?;
    Ok(())
}

/// Writes a licence's terms, key and origin, new or over those of its id.
fn put(connection: &Connection, record: &LicenceRecord) -> Result<(), StoreError> {
    let licence = &*record.licence;
    let features = serde_json::to_string(&licence.features)
        .map_err(|error| StoreError::Internal(error.to_string()))?;
    let (file, line) = place(&record.origin);
    let mut statement = connection.prepare_cached(
        "INSERT INTO licences (id, app, key_hash, issued_to, starts, ends, trial, customization, \
         features, max_devices, connections, connections_view, users_count, users_view_count, \
         users_expire_days, file, line) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
         ON CONFLICT (id) DO UPDATE SET app = excluded.app, key_hash = excluded.key_hash, \
         issued_to = excluded.issued_to, starts = excluded.starts, ends = excluded.ends, \
         trial = excluded.trial, customization = excluded.customization, \
         features = excluded.features, max_devices = excluded.max_devices, \
         connections = excluded.connections, connections_view = excluded.connections_view, \
         users_count = excluded.users_count, users_view_count = excluded.users_view_count, \
         users_expire_days = excluded.users_expire_days, file = excluded.file, \
         line = excluded.line",
    )?;
    let written = statement.execute(params![
        licence.id,
        licence.app,
        record.key.map(|key| key.0),
        licence.issued_to,
        licence.start.map(|start| start.as_microsecond()),
        licence.end.map(|end| end.as_microsecond()),
        licence.trial,
        licence.customization,
        features,
        licence.max_devices,
        licence.quota.connections,
        licence.quota.connections_view,
        licence.quota.users_count,
        licence.quota.users_view_count,
        licence.quota.users_expire_days,
        file,
        line,
    ]);
    match (written, record.key) {
        (Ok(_), _) => Ok(()),
        // The only constraint that good records can meet.
        (Err(error), Some(key))
            if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
        {
            let holder = holder_of(connection, key)?.ok_or(error)?;
            Err(StoreError::KeyTaken { licence: licence.id.to_string(), holder })
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Which licence has a key.
fn holder_of(connection: &Connection, key: KeyHash) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id FROM licences WHERE key_hash = ?1")?;
    Ok(statement.query_row([key.0], |row| row.get(0)).optional()?)
}

/// Every app.
pub(super) fn apps(connection: &Connection) -> Result<Vec<AppRecord>, StoreError> {
    let sql = rows::select(APP_COLUMNS, "apps", "true");
    let mut statement = connection.prepare_cached(&sql)?;
    let found: rusqlite::Result<Vec<_>> = statement.query_map([], rows::app)?.collect();
    Ok(found?)
}

fn find_app(connection: &Connection, id: &str) -> Result<Option<AppRecord>, StoreError> {
    let sql = rows::select(APP_COLUMNS, "apps", "id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([id], rows::app).optional()?)
}

/// Writes an app, new or over that of its id.
fn put_app(connection: &Connection, app: &AppRecord) -> Result<(), StoreError> {
    let (file, line) = place(&app.origin);
    let previous = app.previous.map(|previous| previous.api_key.0);
    let until = app.previous.map(|previous| previous.until.as_microsecond());
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO apps (id, api_key, previous_key, previous_until, file, line) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![app.id, app.api_key.0, previous, until, file, line])?;
    Ok(())
}
