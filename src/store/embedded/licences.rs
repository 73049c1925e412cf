//! Licences and apps: what administrators do with them.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::rows::{self, APP_COLUMNS, find_licence, note, place};
use crate::licence::Licence;
use crate::store::Result;
use crate::store::error::StoreError;
use crate::store::key::KeyHash;
use crate::store::records::{AppRecord, Change, LicenceRecord, Origin, Sha256Hash};

/// Writes a licence's terms, key and origin, new or over those of its id.
pub(super) fn put(connection: &Connection, record: &LicenceRecord) -> Result<(), StoreError> {
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
pub(super) fn holder_of(
    connection: &Connection,
    key: KeyHash,
) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id FROM licences WHERE key_hash = ?1")?;
    Ok(statement.query_row([key.0], |row| row.get(0)).optional()?)
}

pub(super) fn issue(
    connection: &Connection,
    record: &LicenceRecord,
    change: &Change,
) -> Result<(), StoreError> {
    let id = &record.licence.id;
    if find_licence(connection, id)?.is_some() {
        return Err(StoreError::Exists(format!("the licence {id}")));
    }
    put(connection, record)?;
    note(connection, change, "licence.issue", id, &tell(&record.licence))
}

pub(super) fn change_terms(
    connection: &Connection,
    licence: Licence,
    change: &Change,
) -> Result<(), StoreError> {
    let id = &*licence.id.clone();
    let present = known_licence(connection, id)?;
    refuse_declared("the licence", id, &present.origin)?;
    let detail = format!("{} -> {}", tell(&present.licence), tell(&licence));
    put(connection, &LicenceRecord { licence: licence.into(), ..present })?;
    note(connection, change, "licence.change", id, &detail)
}

pub(super) fn revoke(
    connection: &Connection,
    id: &str,
    reason: &str,
    change: &Change,
) -> Result<bool, StoreError> {
    let number = rows::licence_number(connection, id)?;
    let added = connection
        .prepare_cached(
            "INSERT INTO revocations (licence, at, by, reason) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![number, change.at.as_microsecond(), change.by, reason])?;
    if added > 0 {
        note(connection, change, "licence.revoke", id, reason)?;
    }
    Ok(added > 0)
}

pub(super) fn reinstate(
    connection: &Connection,
    id: &str,
    change: &Change,
) -> Result<bool, StoreError> {
    let number = rows::licence_number(connection, id)?;
    let removed = connection
        .prepare_cached("DELETE FROM revocations WHERE licence = ?1")?
        .execute([number])?;
    if removed > 0 {
        note(connection, change, "licence.reinstate", id, "")?;
    }
    Ok(removed > 0)
}

/// Every app.
pub(super) fn apps(connection: &Connection) -> Result<Vec<AppRecord>, StoreError> {
    let sql = rows::select(APP_COLUMNS, "apps", "true");
    let mut statement = connection.prepare_cached(&sql)?;
    let found: rusqlite::Result<Vec<_>> = statement.query_map([], rows::app)?.collect();
    Ok(found?)
}

pub(super) fn find_app(connection: &Connection, id: &str) -> Result<Option<AppRecord>, StoreError> {
    let sql = rows::select(APP_COLUMNS, "apps", "id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([id], rows::app).optional()?)
}

/// Writes an app, new or over that of its id.
pub(super) fn put_app(connection: &Connection, app: &AppRecord) -> Result<(), StoreError> {
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

pub(super) fn add_app(
    connection: &Connection,
    app: &AppRecord,
    change: &Change,
) -> Result<(), StoreError> {
    if find_app(connection, &app.id)?.is_some() {
        return Err(StoreError::Exists(format!("the app {}", app.id)));
    }
    put_app(connection, app)?;
    note(connection, change, "app.add", &app.id, "")
}

pub(super) fn rotate_app(
    connection: &Connection,
    id: &str,
    api_key: Sha256Hash,
    until: jiff::Timestamp,
    change: &Change,
) -> Result<(), StoreError> {
    let app = own_app(connection, id)?;
    let previous = crate::store::records::PreviousKey { api_key: app.api_key, until };
    put_app(connection, &AppRecord { api_key, previous: Some(previous), ..app })?;
    note(connection, change, "app.rotate", id, &format!("the old key is good until {until}"))
}

pub(super) fn remove_app(
    connection: &Connection,
    id: &str,
    change: &Change,
) -> Result<(), StoreError> {
    own_app(connection, id)?;
    connection.prepare_cached("DELETE FROM apps WHERE id = ?1")?.execute([id])?;
    note(connection, change, "app.remove", id, "")
}

/// An app that administrators may change.
fn own_app(connection: &Connection, id: &str) -> Result<AppRecord, StoreError> {
    let app = find_app(connection, id)?;
    let app = app.ok_or_else(|| StoreError::NotFound(format!("the app {id}")))?;
    refuse_declared("the app", id, &app.origin)?;
    Ok(app)
}

fn known_licence(connection: &Connection, id: &str) -> Result<LicenceRecord, StoreError> {
    let found = find_licence(connection, id)?;
    found.ok_or_else(|| StoreError::NotFound(format!("the licence {id}")))
}

fn refuse_declared(what: &str, id: &str, origin: &Origin) -> Result<(), StoreError> {
    match origin {
        Origin::Store => Ok(()),
        Origin::File { file, line } => Err(StoreError::Declared {
            id: format!("{what} {id}"),
            file: file.to_string(),
            line: *line,
        }),
    }
}

/// A licence's terms for the audit log.
pub(super) fn tell(licence: &Licence) -> String {
    let date = |date: Option<jiff::Timestamp>| date.map(|date| date.to_string());
    serde_json::json!({
        "app": licence.app.as_deref(),
        "issued_to": licence.issued_to,
        "start": date(licence.start),
        "end": date(licence.end),
        "trial": licence.trial,
        "customization": licence.customization,
        "features": licence.features,
        "max_devices": licence.max_devices,
        "connections": licence.quota.connections,
        "connections_view": licence.quota.connections_view,
        "users_count": licence.quota.users_count,
        "users_view_count": licence.quota.users_view_count,
        "users_expire": licence.quota.users_expire_days,
    })
    .to_string()
}
