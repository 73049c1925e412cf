//! The validation API: does a licence key hold, and may this device use it?
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Desk`]: who may ask, and the decision |
//! | [`request`] | a body's bytes to a licence key and a device id |
//! | [`answer`] | outcomes to JSON, in two languages |
//! | [`language`] | which of them: `Accept-Language` |
//! | [`failures`] | how often a client address may fail |
//!
//! The rules are the seed `validate-api` and INTERFACE.md section 4. Nothing that a caller can
//! measure tells an unknown app from a wrong API key, or an unknown licence key from another app's:
//! the same hashing is done for each, and none of them reaches the store.
//!
//! May not know HTTP's framing, Pingora or SQL; `now` is an argument.

pub mod answer;
pub mod failures;
pub mod language;
pub mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

pub use answer::{Outcome, Refusal};
pub use failures::Failures;
pub use request::{Problem, ValidationRequest};

use crate::licence::Licence;
use crate::registrar::Registrar;
use crate::registry::Slot;
use crate::store::Binding;

/// Memory for devices that are known to be bound, in bytes.
const KNOWN_BYTES: u64 = 64 << 20;

/// What an entry of that cache takes beside the device's id, roughly.
const ENTRY_BYTES: usize = 160;

/// Decides about validations.
#[derive(Debug)]
pub struct Desk {
    registrar: Registrar,
    /// Devices that are bound, with their licence's [`Slot::unbound_version`] of that moment: they
    /// are answered without the store.
    known: Cache<Box<[u8]>, u64>,
    pub failures: Failures,
}

impl Desk {
    /// A desk that knows no device yet.
    pub fn new(registrar: Registrar) -> Self {
        #[expect(clippy::borrowed_box, reason = "the cache shows its keys like that")]
        let weigh = |device: &Box<[u8]>, _: &u64| {
            u32::try_from(device.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        let known = Cache::builder().weigher(weigh).max_capacity(KNOWN_BYTES).build();
        Self { registrar, known, failures: Failures::default() }
    }

    /// The app that calls, if it is one and its API key is right. Takes as long for any answer.
    pub fn authenticate(
        &self,
        app: Option<&[u8]>,
        api_key: Option<&[u8]>,
        now: Timestamp,
    ) -> Option<Arc<str>> {
        let id = app.and_then(|id| std::str::from_utf8(id).ok());
        let found = id.and_then(|id| self.registrar.registry().app(id));
        let presented: [u8; 32] = Sha256::digest(api_key.unwrap_or_default()).into();
        let nobody = ([0; 32], None);
        let (current, previous) =
            found.as_ref().map_or(nobody, |app| (app.api_key.0, app.previous));
        let (old, until) =
            previous.map_or(([0; 32], Timestamp::MIN), |old| (old.api_key.0, old.until));
        let still_good = Choice::from(u8::from(now < until));
        let right = presented.ct_eq(&current) | (presented.ct_eq(&old) & still_good);
        let known = Choice::from(u8::from(found.is_some() && api_key.is_some()));
        if bool::from(right & known) { found.map(|app| app.id) } else { None }
    }

    /// Validates a licence key for an authenticated app, and binds the device.
    ///
    /// A device that is bound stays so, even above a `max_devices` that was lowered since. The
    /// binding is on disk before the licence comes back.
    ///
    /// # Errors
    /// Why not: the first of not found (another app's, not started), revoked, expired, too many
    /// devices.
    pub async fn validate(
        &self,
        app: &str,
        request: &ValidationRequest,
        now: Timestamp,
    ) -> Result<Arc<Licence>, Refusal> {
        let hash = self.registrar.store().hash_key(&request.licence_key);
        let slot = self.registrar.registry().by_key(&hash).ok_or(Refusal::NotFound)?;
        let licence = in_force(&slot, app, now)?;
        let device = request.device_id.as_bytes();
        // Noted before the store is asked: whatever is unbound from now on makes it void.
        let version = slot.unbound_version();
        let known = cache_key(&slot, device);
        if self.known.get(&known) == Some(version) {
            return Ok(licence);
        }
        let binding = self.registrar.store().bind_device(&licence.id, device, now).await;
        match binding {
            Ok(Binding::Bound | Binding::AlreadyBound) => {
                self.known.insert(known, version);
                // It may have been revoked in the meantime.
                in_force(&slot, app, now)
            }
            Ok(Binding::LimitReached) => Err(Refusal::MaxDevices),
            Ok(Binding::Revoked) => Err(Refusal::Revoked),
            Ok(Binding::UnknownLicence) => Err(Refusal::NotFound),
            Err(error) => {
                tracing::error!(licence = &*licence.id, %error, "a device cannot be bound");
                Err(Refusal::ServerError)
            }
        }
    }
}

/// The licence of a slot, if it is `app`'s and holds at `now`.
fn in_force(slot: &Slot, app: &str, now: Timestamp) -> Result<Arc<Licence>, Refusal> {
    let licence = slot.licence().filter(|licence| licence.app.as_deref() == Some(app));
    let licence = licence.ok_or(Refusal::NotFound)?;
    if licence.start.is_some_and(|start| now < start) {
        Err(Refusal::NotFound)
    } else if licence.revoked {
        Err(Refusal::Revoked)
    } else if licence.end.is_some_and(|end| now >= end) {
        Err(Refusal::Expired)
    } else {
        Ok(licence)
    }
}

fn cache_key(slot: &Slot, device: &[u8]) -> Box<[u8]> {
    [&slot.number().to_le_bytes(), device].concat().into()
}
