//! What administrators do with licences and apps, on any [`Book`].

use jiff::Timestamp;

use super::book::Book;
use super::error::StoreError;
use super::records::{
    AppRecord, Change, LicenceRecord, Origin, PreviousKey, Revocation, Sha256Hash,
};
use super::{KeyHash, Result};
use crate::licence::Licence;

pub(super) fn issue(
    book: &mut impl Book,
    licence: Licence,
    key: Option<KeyHash>,
    change: &Change,
) -> Result<()> {
    let record =
        LicenceRecord { licence: licence.into(), key, origin: Origin::Store, revocation: None };
    let id = &record.licence.id;
    if book.licence(id)?.is_some() {
        return Err(StoreError::Exists(format!("the licence {id}")));
    }
    book.put(&record)?;
    book.note(change, "licence.issue", id, &tell(&record.licence))
}

pub(super) fn change_terms(book: &mut impl Book, licence: Licence, change: &Change) -> Result<()> {
    let id = &*licence.id.clone();
    let present = known_licence(book, id)?;
    refuse_declared("the licence", id, &present.origin)?;
    let detail = format!("{} -> {}", tell(&present.licence), tell(&licence));
    book.put(&LicenceRecord { licence: licence.into(), ..present })?;
    book.note(change, "licence.change", id, &detail)
}

pub(super) fn revoke(
    book: &mut impl Book,
    id: &str,
    reason: &str,
    change: &Change,
) -> Result<bool> {
    if known_licence(book, id)?.revocation.is_some() {
        return Ok(false);
    }
    let (by, told) = (change.by.to_string(), reason.to_owned());
    book.set_revocation(id, Some(&Revocation { at: change.at, by, reason: told }))?;
    book.note(change, "licence.revoke", id, reason)?;
    Ok(true)
}

pub(super) fn reinstate(book: &mut impl Book, id: &str, change: &Change) -> Result<bool> {
    if known_licence(book, id)?.revocation.is_none() {
        return Ok(false);
    }
    book.set_revocation(id, None)?;
    book.note(change, "licence.reinstate", id, "")?;
    Ok(true)
}

pub(super) fn add_app(
    book: &mut impl Book,
    id: &str,
    api_key: Sha256Hash,
    change: &Change,
) -> Result<()> {
    if book.app(id)?.is_some() {
        return Err(StoreError::Exists(format!("the app {id}")));
    }
    book.put_app(&AppRecord { id: id.into(), api_key, previous: None, origin: Origin::Store })?;
    book.note(change, "app.add", id, "")
}

pub(super) fn rotate_app(
    book: &mut impl Book,
    id: &str,
    api_key: Sha256Hash,
    until: Timestamp,
    change: &Change,
) -> Result<()> {
    let app = own_app(book, id)?;
    let previous = PreviousKey { api_key: app.api_key, until };
    book.put_app(&AppRecord { api_key, previous: Some(previous), ..app })?;
    book.note(change, "app.rotate", id, &format!("the old key is good until {until}"))
}

pub(super) fn remove_app(book: &mut impl Book, id: &str, change: &Change) -> Result<()> {
    own_app(book, id)?;
    book.remove_app(id)?;
    book.note(change, "app.remove", id, "")
}

/// An app that administrators may change.
fn own_app(book: &mut impl Book, id: &str) -> Result<AppRecord> {
    let app = book.app(id)?.ok_or_else(|| StoreError::NotFound(format!("the app {id}")))?;
    refuse_declared("the app", id, &app.origin)?;
    Ok(app)
}

fn known_licence(book: &mut impl Book, id: &str) -> Result<LicenceRecord> {
    book.licence(id)?.ok_or_else(|| StoreError::NotFound(format!("the licence {id}")))
}

fn refuse_declared(what: &str, id: &str, origin: &Origin) -> Result<()> {
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
