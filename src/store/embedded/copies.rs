//! Whole stores: what another one held is taken in, and this one is backed up.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;

use super::licences::Sql;
use super::{holdings, rows};
use crate::store::Result;
use crate::store::book::Book as _;
use crate::store::error::StoreError;
use crate::store::key;
use crate::store::migrate::Item;
use crate::store::records::{AuditEntry, Change};

/// Takes items of another store in, as they are.
pub(super) fn take_in(connection: &Connection, items: &[Item]) -> Result<()> {
    let mut book = Sql(connection);
    for item in items {
        match item {
            Item::Licence(record) => {
                book.put(record)?;
                if let Some(revocation) = &record.revocation {
                    book.set_revocation(&record.licence.id, Some(revocation))?;
                }
            }
            Item::App(app) => book.put_app(app)?,
            Item::Device(licence, device) => {
                holdings::put_device(connection, licence, device)?;
            }
            Item::User(user) => {
                let (licence, record) = (&user.licence, &user.record);
                holdings::put_user(connection, licence, record, Timestamp::UNIX_EPOCH)?;
            }
            Item::Entry(AuditEntry { number: _, at, by, action, subject, detail }) => {
                let change = Change { at: *at, by: by.as_str().into() };
                rows::note(connection, &change, action, subject, detail)?;
            }
        }
    }
    Ok(())
}

/// Copies the store to a new file, under another name until it is whole.
pub(super) fn back_up(connection: &Connection, target: &Path) -> Result<()> {
    let failed = |detail: String| StoreError::Target { path: target.to_owned(), detail };
    let refused = |error: io::Error| failed(format!("{error}; {}", mend(&error)));
    if fs::symlink_metadata(target).is_ok() {
        return Err(refused(io::ErrorKind::AlreadyExists.into()));
    }
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    // For its owner only, as the store itself.
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
    made.map_err(refused)?;
    let text = part.to_str().ok_or_else(|| failed("the path is not UTF-8".to_owned()))?;
    let copied =
        connection.execute("VACUUM INTO ?1", [text]).map_err(|error| failed(error.to_string()));
    let finished = copied.and_then(|_| {
        let finish = || {
            File::open(&part)?.sync_all()?;
            // Unlike a rename, this never replaces what is there.
            fs::hard_link(&part, target)?;
            key::sync_folder(target)
        };
        finish().map_err(refused)
    });
    let _ = fs::remove_file(&part);
    finished
}

/// What to do where a copy cannot be written.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "a backup replaces nothing: name a file that is not there",
        io::ErrorKind::NotFound => "make the folder, writable for the gateway's user",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or name a file on another disk"
        }
        _ => {
            "the gateway writes it as its own user: name a file in a folder that this user may \
             write to"
        }
    }
}
