//! Devices, unique users, the audit log.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{class_number, instant, licence_number, note};
use crate::ledger::UserRecord;
use crate::seat::SeatClass;
use crate::store::Result;
use crate::store::error::StoreError;
use crate::store::records::{AuditEntry, Binding, Change, Device, StoredUser};

/// Whether a device is bound; asked before the writer is.
pub(super) fn is_bound(
    connection: &Connection,
    licence: &str,
    device: &[u8],
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM devices WHERE device = ?2 \
         AND licence = (SELECT number FROM licences WHERE id = ?1) \
         AND licence NOT IN (SELECT licence FROM revocations)",
    )?;
    Ok(statement.query_row(params![licence, device], |_| Ok(())).optional()?.is_some())
}

/// Binds a device, within the writer's transaction.
pub(super) fn bind(
    connection: &Connection,
    licence: &str,
    device: &[u8],
    now: jiff::Timestamp,
) -> Result<Binding, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, max_devices, devices, \
         EXISTS (SELECT 1 FROM revocations WHERE licence = number), \
         EXISTS (SELECT 1 FROM devices WHERE licence = number AND device = ?2) \
         FROM licences WHERE id = ?1",
    )?;
    let found = statement
        .query_row(params![licence, device], |row| {
            let (max, bound): (Option<u64>, u64) = (row.get(1)?, row.get(2)?);
            let full = max.is_some_and(|max| bound >= max);
            Ok((row.get::<_, i64>(0)?, full, row.get::<_, bool>(3)?, row.get::<_, bool>(4)?))
        })
        .optional()?;
    match found {
        None => Ok(Binding::UnknownLicence),
        Some((_, _, true, _)) => Ok(Binding::Revoked),
        Some((_, _, false, true)) => Ok(Binding::AlreadyBound),
        Some((_, true, false, false)) => Ok(Binding::LimitReached),
        Some((number, false, false, false)) => {
            connection
                .prepare_cached(
                    "INSERT INTO devices (licence, device, bound_at) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![number, device, now.as_microsecond()])?;
            Ok(Binding::Bound)
        }
    }
}

/// Binds a device of another store, whatever the licence allows now.
pub(super) fn put_device(
    connection: &Connection,
    licence: &str,
    device: &Device,
) -> Result<(), StoreError> {
    let number = licence_number(connection, licence)?;
    connection
        .prepare_cached("INSERT INTO devices (licence, device, bound_at) VALUES (?1, ?2, ?3)")?
        .execute(params![number, device.id, device.bound_at.as_microsecond()])?;
    Ok(())
}

pub(super) fn unbind(
    connection: &Connection,
    licence: &str,
    device: &[u8],
    change: &Change,
) -> Result<bool, StoreError> {
    let number = licence_number(connection, licence)?;
    let removed = connection
        .prepare_cached("DELETE FROM devices WHERE licence = ?1 AND device = ?2")?
        .execute(params![number, device])?;
    if removed > 0 {
        let detail = String::from_utf8_lossy(device);
        note(connection, change, "licence.unbind", licence, &detail)?;
    }
    Ok(removed > 0)
}

pub(super) fn devices(
    connection: &Connection,
    licence: &str,
    after: Option<&[u8]>,
    limit: u32,
) -> Result<Vec<Device>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT device, bound_at FROM devices \
         WHERE licence = (SELECT number FROM licences WHERE id = ?1) AND device > ?2 \
         ORDER BY device LIMIT ?3",
    )?;
    // Every device has at least one byte.
    let after = after.unwrap_or_default();
    let found: rusqlite::Result<Vec<_>> = statement
        .query_map(params![licence, after, limit], |row| {
            Ok(Device { id: row.get(0)?, bound_at: instant(1, row.get(1)?)? })
        })?
        .collect();
    Ok(found?)
}

pub(super) fn bound_count(connection: &Connection, licence: &str) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT devices FROM licences WHERE id = ?1")?;
    let found = statement.query_row([licence], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(0))
}

pub(super) fn put_user(
    connection: &Connection,
    licence: &str,
    record: &UserRecord,
    now: jiff::Timestamp,
) -> Result<(), StoreError> {
    let number = licence_number(connection, licence)?;
    let class = class_number(record.class);
    let expires = record.expires.as_second();
    let mut statement = connection.prepare_cached(
        "SELECT number, expires FROM users WHERE licence = ?1 AND class = ?2 AND user = ?3",
    )?;
    let present: Option<(i64, i64)> = statement
        .query_row(params![number, class, record.user], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((row, known)) = present {
        if known > now.as_second() {
            connection
                .prepare_cached(
                    "UPDATE users SET expires = max(expires, ?2), anonymous = ?3 WHERE number = ?1",
                )?
                .execute(params![row, expires, record.anonymous])?;
            return Ok(());
        }
        // Counted anew, behind everybody who is counted.
        connection.prepare_cached("DELETE FROM users WHERE number = ?1")?.execute([row])?;
    }
    connection
        .prepare_cached(
            "INSERT INTO users (licence, class, user, expires, anonymous) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![number, class, record.user, expires, record.anonymous])?;
    Ok(())
}

pub(super) fn release_user(
    connection: &Connection,
    licence: &str,
    class: SeatClass,
    user: &str,
    change: &Change,
) -> Result<bool, StoreError> {
    let number = licence_number(connection, licence)?;
    let removed = connection
        .prepare_cached("DELETE FROM users WHERE licence = ?1 AND class = ?2 AND user = ?3")?
        .execute(params![number, class_number(class), user])?;
    if removed > 0 {
        note(connection, change, "user.release", licence, user)?;
    }
    Ok(removed > 0)
}

pub(super) fn for_each_user(
    connection: &Connection,
    now: jiff::Timestamp,
    each: &mut dyn FnMut(StoredUser),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT l.id, u.class, u.user, u.expires, u.anonymous \
         FROM users u JOIN licences l ON l.number = u.licence \
         WHERE +u.expires > ?1 ORDER BY u.number",
    )?;
    let mut rows = statement.query([now.as_second()])?;
    while let Some(row) = rows.next()? {
        let class = match row.get::<_, u8>(1)? {
            0 => SeatClass::Editor,
            _ => SeatClass::LiveViewer,
        };
        let expires = jiff::Timestamp::from_second(row.get(3)?).unwrap_or(jiff::Timestamp::MAX);
        let record = UserRecord { class, user: row.get(2)?, expires, anonymous: row.get(4)? };
        each(StoredUser { licence: row.get(0)?, record });
    }
    Ok(())
}

pub(super) fn purge_users(
    connection: &Connection,
    before: jiff::Timestamp,
    limit: u32,
) -> Result<u32, StoreError> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM users WHERE number IN \
             (SELECT number FROM users WHERE expires < ?1 LIMIT ?2)",
        )?
        .execute(params![before.as_second(), limit])?;
    Ok(u32::try_from(removed).unwrap_or(u32::MAX))
}

pub(super) fn audit(
    connection: &Connection,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, at, by, action, subject, detail FROM audit \
         WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let found: rusqlite::Result<Vec<_>> = statement
        .query_map(params![before, limit], |row| {
            Ok(AuditEntry {
                number: row.get(0)?,
                at: instant(1, row.get(1)?)?,
                by: row.get(2)?,
                action: row.get(3)?,
                subject: row.get(4)?,
                detail: row.get(5)?,
            })
        })?
        .collect();
    Ok(found?)
}
