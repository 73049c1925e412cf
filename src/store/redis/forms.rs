//! Records as they stand in the engine: JSON, instants in microseconds, hashes in hexadecimal.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::licence::{Licence, Quota};
use crate::seat::SeatClass;
use crate::store::error::StoreError;
use crate::store::key::KeyHash;
use crate::store::records::{
    AppRecord, AuditEntry, Change, LicenceRecord, Origin, PreviousKey, Revocation, Sha256Hash,
};
use crate::store::{Result, hexadecimal};

/// A licence. New fields are optional, so that gateways of two versions can share an engine.
#[derive(Serialize, Deserialize)]
struct LicenceForm {
    /// The change that wrote it.
    version: u64,
    id: String,
    app: Option<String>,
    key: Option<String>,
    issued_to: String,
    start: Option<i64>,
    end: Option<i64>,
    trial: bool,
    customization: bool,
    features: Vec<String>,
    max_devices: Option<u32>,
    connections: u32,
    connections_view: u32,
    users_count: u32,
    users_view_count: u32,
    users_expire_days: u32,
    origin: OriginForm,
    revocation: Option<RevocationForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct OriginForm(Option<(String, u64)>);

#[derive(Serialize, Deserialize)]
struct RevocationForm {
    at: i64,
    by: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct AppForm {
    api_key: String,
    previous: Option<(String, i64)>,
    origin: OriginForm,
}

#[derive(Serialize, Deserialize)]
struct EntryForm {
    at: i64,
    by: String,
    action: String,
    subject: String,
    detail: String,
}

pub(super) fn write_licence(record: &LicenceRecord, version: u64) -> Result<String> {
    let LicenceRecord { licence, key, origin, revocation } = record;
    let licence = (**licence).clone();
    let revocation = revocation.as_ref().map(|revocation| RevocationForm {
        at: revocation.at.as_microsecond(),
        by: revocation.by.clone(),
        reason: revocation.reason.clone(),
    });
    write(&LicenceForm {
        version,
        id: licence.id.to_string(),
        app: licence.app.map(|app| app.to_string()),
        key: key.map(|key| hexadecimal::write(&key.0)),
        issued_to: licence.issued_to,
        start: licence.start.map(|start| start.as_microsecond()),
        end: licence.end.map(|end| end.as_microsecond()),
        trial: licence.trial,
        customization: licence.customization,
        features: licence.features,
        max_devices: licence.max_devices,
        connections: licence.quota.connections,
        connections_view: licence.quota.connections_view,
        users_count: licence.quota.users_count,
        users_view_count: licence.quota.users_view_count,
        users_expire_days: licence.quota.users_expire_days,
        origin: OriginForm::of(origin),
        revocation,
    })
}

/// Reads a licence, and the version of the change that wrote it.
pub(super) fn read_licence(text: &str) -> Result<(LicenceRecord, u64)> {
    let form: LicenceForm = read(text)?;
    let instant = |at: Option<i64>| at.map(read_instant).transpose();
    let revocation = match form.revocation {
        None => None,
        Some(RevocationForm { at, by, reason }) => {
            Some(Revocation { at: read_instant(at)?, by, reason })
        }
    };
    let licence = Licence {
        id: form.id.into(),
        app: form.app.map(Into::into),
        issued_to: form.issued_to,
        start: instant(form.start)?,
        end: instant(form.end)?,
        trial: form.trial,
        customization: form.customization,
        features: form.features,
        max_devices: form.max_devices,
        quota: Quota {
            connections: form.connections,
            connections_view: form.connections_view,
            users_count: form.users_count,
            users_view_count: form.users_view_count,
            users_expire_days: form.users_expire_days,
        },
        revoked: revocation.is_some(),
    };
    let record = LicenceRecord {
        licence: Arc::new(licence),
        key: form.key.map(|key| read_hash(&key)).transpose()?.map(KeyHash),
        origin: form.origin.read(),
        revocation,
    };
    Ok((record, form.version))
}

pub(super) fn write_app(app: &AppRecord) -> Result<String> {
    let previous = app.previous.map(|PreviousKey { api_key, until }| {
        (hexadecimal::write(&api_key.0), until.as_microsecond())
    });
    let api_key = hexadecimal::write(&app.api_key.0);
    write(&AppForm { api_key, previous, origin: OriginForm::of(&app.origin) })
}

pub(super) fn read_app(id: &str, text: &str) -> Result<AppRecord> {
    let form: AppForm = read(text)?;
    let previous = match form.previous {
        None => None,
        Some((key, until)) => {
            Some(PreviousKey { api_key: Sha256Hash(read_hash(&key)?), until: read_instant(until)? })
        }
    };
    let api_key = Sha256Hash(read_hash(&form.api_key)?);
    Ok(AppRecord { id: id.into(), api_key, previous, origin: form.origin.read() })
}

pub(super) fn write_entry(
    change: &Change,
    action: &str,
    subject: &str,
    detail: &str,
) -> Result<String> {
    write(&EntryForm {
        at: change.at.as_microsecond(),
        by: change.by.to_string(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail: detail.to_owned(),
    })
}

/// An entry of another store.
pub(super) fn write_raw_entry(entry: &AuditEntry) -> Result<String> {
    let AuditEntry { number: _, at, by, action, subject, detail } = entry.clone();
    write(&EntryForm { at: at.as_microsecond(), by, action, subject, detail })
}

pub(super) fn read_entry(number: u64, text: &str) -> Result<AuditEntry> {
    let EntryForm { at, by, action, subject, detail } = read(text)?;
    Ok(AuditEntry { number, at: read_instant(at)?, by, action, subject, detail })
}

/// The class in the names of keys.
pub(super) fn class_letter(class: SeatClass) -> char {
    match class {
        SeatClass::Editor => 'e',
        SeatClass::LiveViewer => 'v',
    }
}

impl OriginForm {
    fn of(origin: &Origin) -> Self {
        match origin {
            Origin::File { file, line } => Self(Some((file.to_string(), *line))),
            Origin::Store => Self(None),
        }
    }

    fn read(self) -> Origin {
        match self.0 {
            Some((file, line)) => Origin::File { file: file.into(), line },
            None => Origin::Store,
        }
    }
}

pub(super) fn read_instant(microseconds: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(microseconds).map_err(unreadable)
}

fn read_hash(digits: &str) -> Result<[u8; 32]> {
    hexadecimal::read(digits).ok_or_else(|| unreadable("a hash has not 64 hexadecimal digits"))
}

fn write(form: &impl Serialize) -> Result<String> {
    serde_json::to_string(form).map_err(|error| StoreError::Internal(error.to_string()))
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(unreadable)
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}
