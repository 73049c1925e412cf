//! The declared files, applied: adds and changes, never deletes (INTERFACE.md section 3).

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::licences::{find_app, holder_of, put, put_app, tell};
use super::rows::{find_licence, note};
use crate::licence::Licence;
use crate::store::Result;
use crate::store::error::StoreError;
use crate::store::records::{AppRecord, Change, Declared, LicenceRecord, Origin};

/// Applies what the files state; gives the ids of the licences that changed.
pub(super) fn apply(
    connection: &Connection,
    declared: &Declared,
    change: &Change,
) -> Result<Vec<Arc<str>>, StoreError> {
    let mut changed = Vec::new();
    let mut to_write = Vec::new();
    for stated in &declared.licences {
        let present = find_licence(connection, &stated.licence.id)?;
        let stated = stored_form(stated);
        if let Some(present) = &present {
            refuse_unsigned(present, &stated)?;
        }
        if present.as_ref().is_none_or(|present| !says_the_same(present, &stated)) {
            to_write.push((present, stated));
        }
    }
    // Keys may be exchanged between licences: all that change are free before any is taken.
    for (present, stated) in &to_write {
        if let Some(present) = present
            && present.key.is_some()
            && present.key != stated.key
        {
            connection
                .prepare_cached("UPDATE licences SET key_hash = NULL WHERE id = ?1")?
                .execute([&present.licence.id])?;
        }
    }
    for (_, stated) in &to_write {
        changed.extend(take_key(connection, stated, change)?);
    }
    for (present, stated) in to_write {
        put(connection, &stated)?;
        if let Some(detail) = tell_difference(present.as_ref(), &stated) {
            note(connection, change, "licence.declare", &stated.licence.id, &detail)?;
        }
        changed.push(Arc::clone(&stated.licence.id));
    }
    let stated: HashSet<&str> =
        declared.licences.iter().map(|stated| &*stated.licence.id).collect();
    changed.extend(leave(connection, "licences", "licence.leave", &stated, change)?);

    for stated in &declared.apps {
        let present = find_app(connection, &stated.id)?;
        let stated = AppRecord { previous: None, ..stated.clone() };
        if present.as_ref() == Some(&stated) {
            continue;
        }
        put_app(connection, &stated)?;
        if present.is_none_or(|present| present.api_key != stated.api_key) {
            note(connection, change, "app.declare", &stated.id, "")?;
        }
    }
    let stated: HashSet<&str> = declared.apps.iter().map(|stated| &*stated.id).collect();
    leave(connection, "apps", "app.leave", &stated, change)?;
    Ok(changed)
}

/// What was signed is not replaced by what is not.
fn refuse_unsigned(present: &LicenceRecord, stated: &LicenceRecord) -> Result<(), StoreError> {
    match (&present.origin, &stated.origin) {
        (Origin::File { file, .. }, Origin::File { file: other, .. })
            if present.origin.is_signed() && !stated.origin.is_signed() =>
        {
            Err(StoreError::Signed {
                id: format!("the licence {}", stated.licence.id),
                file: file.to_string(),
                other: other.to_string(),
            })
        }
        (Origin::File { .. } | Origin::Store, _) => Ok(()),
    }
}

/// Takes a stated key from the licence beside the files that has it: an id was changed in a file.
/// Gives that licence's id.
///
/// # Errors
/// [`StoreError::KeyRevoked`]: with another id, the key of a revoked licence would be good again.
fn take_key(
    connection: &Connection,
    stated: &LicenceRecord,
    change: &Change,
) -> Result<Option<Arc<str>>, StoreError> {
    let Some(key) = stated.key else { return Ok(None) };
    let id = &stated.licence.id;
    let Some(holder) = holder_of(connection, key)?.filter(|holder| **holder != **id) else {
        return Ok(None);
    };
    let found = find_licence(connection, &holder)?;
    if let Some(found) = &found {
        refuse_unsigned(found, stated)?;
    }
    if found.is_some_and(|found| found.licence.revoked) {
        return Err(StoreError::KeyRevoked { licence: id.to_string(), holder });
    }
    connection
        .prepare_cached("UPDATE licences SET key_hash = NULL WHERE id = ?1")?
        .execute([&holder])?;
    note(
        connection,
        change,
        "licence.key",
        &holder,
        &format!("its key is the licence {id}'s now"),
    )?;
    Ok(Some(holder.into()))
}

/// What no file states any more becomes the store's own, but for licences of signed files: these
/// would be anybody's to change then.
fn leave(
    connection: &Connection,
    table: &str,
    action: &str,
    stated: &HashSet<&str>,
    change: &Change,
) -> Result<Vec<Arc<str>>, StoreError> {
    let sql = format!("SELECT id, file FROM {table} WHERE file IS NOT NULL");
    let mut statement = connection.prepare_cached(&sql)?;
    let declared: rusqlite::Result<Vec<(Arc<str>, String)>> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect();
    let mut left = Vec::new();
    for (id, file) in declared? {
        let is_signed = table == "licences" && file.ends_with(crate::signed::EXTENSION);
        if stated.contains(&*id) || is_signed {
            continue;
        }
        let sql = format!("UPDATE {table} SET file = NULL, line = NULL WHERE id = ?1");
        connection.prepare_cached(&sql)?.execute(params![id])?;
        note(connection, change, action, &id, &format!("no longer stated by {file}"))?;
        left.push(id);
    }
    Ok(left)
}

/// The record as it would read back: instants have microseconds there.
fn stored_form(stated: &LicenceRecord) -> LicenceRecord {
    let round = |instant: Option<jiff::Timestamp>| {
        instant.map(|instant| {
            jiff::Timestamp::from_microsecond(instant.as_microsecond()).unwrap_or(instant)
        })
    };
    let licence = Licence {
        start: round(stated.licence.start),
        end: round(stated.licence.end),
        ..(*stated.licence).clone()
    };
    LicenceRecord { licence: licence.into(), ..stated.clone() }
}

fn says_the_same(present: &LicenceRecord, stated: &LicenceRecord) -> bool {
    present.key == stated.key
        && present.origin == stated.origin
        && same_terms(&present.licence, &stated.licence)
}

/// Whether two licences grant the same, whatever was revoked.
fn same_terms(one: &Licence, other: &Licence) -> bool {
    *one == Licence { revoked: one.revoked, ..other.clone() }
}

/// What the audit log says of a change; nothing for a licence that only moved in its file.
fn tell_difference(present: Option<&LicenceRecord>, stated: &LicenceRecord) -> Option<String> {
    let Some(present) = present else { return Some(tell(&stated.licence)) };
    let mut parts = Vec::new();
    if !same_terms(&present.licence, &stated.licence) {
        parts.push(format!("{} -> {}", tell(&present.licence), tell(&stated.licence)));
    }
    if present.key != stated.key {
        parts.push("another key".to_owned());
    }
    if present.origin == Origin::Store {
        parts.push("stated by a file now".to_owned());
    }
    if parts.is_empty() { None } else { Some(parts.join("; ")) }
}
