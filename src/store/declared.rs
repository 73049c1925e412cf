//! The declared files, applied: adds and changes, never deletes (INTERFACE.md section 3).

use std::collections::HashSet;
use std::sync::Arc;

use super::Result;
use super::book::Book;
use super::changes::tell;
use super::error::StoreError;
use super::records::{AppRecord, Change, Declared, LicenceRecord, Origin};
use crate::licence::Licence;

/// Applies what the files state; gives the ids of the licences that changed.
pub(super) fn apply(
    book: &mut impl Book,
    declared: &Declared,
    change: &Change,
) -> Result<Vec<Arc<str>>, StoreError> {
    let mut changed = Vec::new();
    let mut to_write = Vec::new();
    for stated in &declared.licences {
        let present = book.licence(&stated.licence.id)?;
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
            book.clear_key(&present.licence.id)?;
        }
    }
    for (_, stated) in &to_write {
        changed.extend(take_key(book, stated, change)?);
    }
    for (present, stated) in to_write {
        book.put(&stated)?;
        if let Some(detail) = tell_difference(present.as_ref(), &stated) {
            book.note(change, "licence.declare", &stated.licence.id, &detail)?;
        }
        changed.push(Arc::clone(&stated.licence.id));
    }
    let stated: HashSet<&str> =
        declared.licences.iter().map(|stated| &*stated.licence.id).collect();
    for (id, file) in book.declared_licences()? {
        // Those of signed files would be anybody's to change then.
        if !stated.contains(&*id) && !file.ends_with(crate::signed::EXTENSION) {
            book.leave_licence(&id)?;
            book.note(change, "licence.leave", &id, &format!("no longer stated by {file}"))?;
            changed.push(id);
        }
    }

    for stated in &declared.apps {
        let present = book.app(&stated.id)?;
        let stated = AppRecord { previous: None, ..stated.clone() };
        if present.as_ref() == Some(&stated) {
            continue;
        }
        book.put_app(&stated)?;
        if present.is_none_or(|present| present.api_key != stated.api_key) {
            book.note(change, "app.declare", &stated.id, "")?;
        }
    }
    let stated: HashSet<&str> = declared.apps.iter().map(|stated| &*stated.id).collect();
    for (id, file) in book.declared_apps()? {
        if !stated.contains(&*id) {
            book.leave_app(&id)?;
            book.note(change, "app.leave", &id, &format!("no longer stated by {file}"))?;
        }
    }
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
    book: &mut impl Book,
    stated: &LicenceRecord,
    change: &Change,
) -> Result<Option<Arc<str>>, StoreError> {
    let Some(key) = stated.key else { return Ok(None) };
    let id = &stated.licence.id;
    let Some(holder) = book.holder_of(key)?.filter(|holder| **holder != **id) else {
        return Ok(None);
    };
    let found = book.licence(&holder)?;
    if let Some(found) = &found {
        refuse_unsigned(found, stated)?;
    }
    if found.is_some_and(|found| found.licence.revoked) {
        return Err(StoreError::KeyRevoked { licence: id.to_string(), holder });
    }
    book.clear_key(&holder)?;
    book.note(change, "licence.key", &holder, &format!("its key is the licence {id}'s now"))?;
    Ok(Some(holder.into()))
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
