//! Usage by hours and months, and who was seen.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::unreadable;
use crate::seat::SessionClass;
use crate::store::Result;
use crate::store::error::StoreError;
use crate::store::usage::{Counts, MarkQuery, Month, Span, UsageBatch, UsageRecord, UserMark};

/// The name of the last batch's id in `meta`.
const BATCH: &str = "usage_batch";

pub(super) fn add(connection: &Connection, batch: &UsageBatch) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let last: Option<Vec<u8>> = statement.query_row([BATCH], |row| row.get(0)).optional()?;
    if last.as_deref() == Some(batch.id.as_slice()) {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![BATCH, batch.id])?;
    for record in &batch.records {
        add_record(connection, record)?;
    }
    for mark in &batch.marks {
        add_mark(connection, mark)?;
    }
    Ok(())
}

fn add_record(connection: &Connection, record: &UsageRecord) -> Result<(), StoreError> {
    let key =
        params![record.span.number(), record.start.as_second(), record.tenant, record.licence];
    let known: Option<Counts> = connection
        .prepare_cached(
            "SELECT counts FROM usage \
             WHERE span = ?1 AND start = ?2 AND tenant = ?3 AND licence = ?4",
        )?
        .query_row(key, |row| counts(0, &row.get::<_, String>(0)?))
        .optional()?;
    let mut counts = known.unwrap_or_default();
    counts.add(&record.counts);
    let text =
        serde_json::to_string(&counts).map_err(|error| StoreError::Internal(error.to_string()))?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            record.span.number(),
            record.start.as_second(),
            record.tenant,
            record.licence,
            text
        ])?;
    Ok(())
}

fn add_mark(connection: &Connection, mark: &UserMark) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO usage_marks (tenant, licence, class, user, month, name, opened, refused) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
             ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name), \
             opened = opened | excluded.opened, refused = refused | excluded.refused",
        )?
        .execute(params![
            mark.tenant,
            mark.licence,
            class_number(mark.class),
            mark.user,
            mark.month.0,
            mark.name,
            mark.opened,
            mark.refused,
        ])?;
    Ok(())
}

pub(super) fn for_each(
    connection: &Connection,
    span: Span,
    from: Timestamp,
    to: Timestamp,
    each: &mut dyn FnMut(UsageRecord),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT start, tenant, licence, counts FROM usage \
         WHERE span = ?1 AND start >= ?2 AND start < ?3 ORDER BY start, tenant, licence",
    )?;
    let mut rows = statement.query(params![span.number(), from.as_second(), to.as_second()])?;
    while let Some(row) = rows.next()? {
        let start = Timestamp::from_second(row.get(0)?)
            .map_err(|error| unreadable(0, Type::Integer, error))?;
        let counts = counts(3, &row.get::<_, String>(3)?)?;
        each(UsageRecord { span, start, tenant: row.get(1)?, licence: row.get(2)?, counts });
    }
    Ok(())
}

pub(super) fn for_each_mark(
    connection: &Connection,
    query: &MarkQuery,
    each: &mut dyn FnMut(UserMark) -> bool,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT tenant, licence, class, user, month, name, opened, refused FROM usage_marks \
         WHERE month BETWEEN ?1 AND ?2 AND (?3 IS NULL OR tenant = ?3) \
         AND (?4 IS NULL OR (tenant, licence, class, user) > (?4, ?5, ?6, ?7)) \
         ORDER BY tenant, licence, class, user, month",
    )?;
    let after = query.after.as_ref();
    let mut rows = statement.query(params![
        query.from.0,
        query.to.0,
        query.tenant,
        after.map(|place| &place.tenant),
        after.map(|place| &place.licence),
        after.map(|place| class_number(place.class)),
        after.map(|place| place.user),
    ])?;
    while let Some(row) = rows.next()? {
        let mark = UserMark {
            tenant: row.get(0)?,
            licence: row.get(1)?,
            class: class_of(row.get(2)?),
            user: row.get(3)?,
            month: Month(row.get(4)?),
            name: row.get::<_, Option<Arc<str>>>(5)?,
            opened: row.get(6)?,
            refused: row.get(7)?,
        };
        if !each(mark) {
            break;
        }
    }
    Ok(())
}

pub(super) fn purge(
    connection: &Connection,
    before: Timestamp,
    names: bool,
    limit: u32,
) -> Result<u32, StoreError> {
    let month = Month::of(before);
    let mut gone = 0;
    for (span, start) in [(Span::Hour, before), (Span::Month, month.start())] {
        gone += connection
            .prepare_cached(
                "DELETE FROM usage WHERE (span, start, tenant, licence) IN \
                 (SELECT span, start, tenant, licence FROM usage \
                  WHERE span = ?1 AND start < ?2 LIMIT ?3)",
            )?
            .execute(params![span.number(), start.as_second(), limit])?;
    }
    gone += connection
        .prepare_cached(
            "DELETE FROM usage_marks WHERE (tenant, licence, class, user, month) IN \
             (SELECT tenant, licence, class, user, month FROM usage_marks \
              WHERE month < ?1 LIMIT ?2)",
        )?
        .execute(params![month.0, limit])?;
    if names {
        gone += connection
            .prepare_cached(
                "UPDATE usage_marks SET name = NULL \
                 WHERE (tenant, licence, class, user, month) IN \
                 (SELECT tenant, licence, class, user, month FROM usage_marks \
                  WHERE name IS NOT NULL LIMIT ?1)",
            )?
            .execute([limit])?;
    }
    Ok(u32::try_from(gone).unwrap_or(u32::MAX))
}

fn counts(column: usize, text: &str) -> rusqlite::Result<Counts> {
    serde_json::from_str(text).map_err(|error| unreadable(column, Type::Text, error))
}

fn class_number(class: SessionClass) -> u8 {
    match class {
        SessionClass::Editor => 0,
        SessionClass::LiveViewer => 1,
        SessionClass::Viewer => 2,
    }
}

fn class_of(number: u8) -> SessionClass {
    match number {
        0 => SessionClass::Editor,
        1 => SessionClass::LiveViewer,
        _ => SessionClass::Viewer,
    }
}
