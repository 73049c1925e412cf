//! What one change reads and writes: the seam between [`super::changes`] and a backend.

use std::sync::Arc;

use super::Result;
use super::key::KeyHash;
use super::records::{AppRecord, Change, LicenceRecord, Revocation};

/// A backend within one change: everything that is written here counts together, or not at all.
pub(super) trait Book {
    fn licence(&mut self, id: &str) -> Result<Option<LicenceRecord>>;

    /// Which licence has a key.
    fn holder_of(&mut self, key: KeyHash) -> Result<Option<String>>;

    /// Writes a licence's terms, key and origin, new or over those of its id.
    ///
    /// # Errors
    /// [`super::StoreError::KeyTaken`].
    fn put(&mut self, record: &LicenceRecord) -> Result<()>;

    /// Takes the key from a licence.
    fn clear_key(&mut self, licence: &str) -> Result<()>;

    fn set_revocation(&mut self, licence: &str, revocation: Option<&Revocation>) -> Result<()>;

    /// The ids of the licences that files state, with the file of each.
    fn declared_licences(&mut self) -> Result<Vec<(Arc<str>, Arc<str>)>>;

    /// The licence is no file's from now on.
    fn leave_licence(&mut self, id: &str) -> Result<()>;

    fn app(&mut self, id: &str) -> Result<Option<AppRecord>>;

    /// Writes an app, new or over that of its id.
    fn put_app(&mut self, app: &AppRecord) -> Result<()>;

    fn remove_app(&mut self, id: &str) -> Result<()>;

    /// The ids of the apps that files state, with the file of each.
    fn declared_apps(&mut self) -> Result<Vec<(Arc<str>, Arc<str>)>>;

    /// The app is no file's from now on.
    fn leave_app(&mut self, id: &str) -> Result<()>;

    /// Appends to the audit log.
    fn note(&mut self, change: &Change, action: &str, subject: &str, detail: &str) -> Result<()>;
}
