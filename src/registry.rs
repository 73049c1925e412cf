//! The licences and apps in force, in memory: what every decision reads.
//!
//! The truth is in the store; this is what the process knows of it. Only
//! [`Registrar`](crate::registrar::Registrar) changes it, after the store has the change, so that
//! the next decision, wherever it falls, sees what is durable. Whoever decides about one licence
//! again and again keeps its [`Slot`] and looks into it without a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::RwLock;

use crate::licence::Licence;
use crate::store::{AppRecord, KeyHash, LicenceRecord, Origin};

/// All licences and apps in force.
#[derive(Debug, Default)]
pub struct Registry {
    licences: RwLock<Licences>,
    apps: ArcSwap<HashMap<Arc<str>, AppRecord>>,
}

#[derive(Debug, Default)]
struct Licences {
    by_id: HashMap<Arc<str>, Arc<Slot>>,
    by_key: HashMap<KeyHash, Arc<Slot>>,
}

/// The place of one licence: it stays while the licence changes, comes or goes.
#[derive(Debug)]
pub struct Slot {
    number: u64,
    entry: ArcSwapOption<Entry>,
    unbound: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    licence: Arc<Licence>,
    key: Option<KeyHash>,
    origin: Origin,
}

impl Slot {
    /// The licence as it is in force; `None`: there is none of this id. As long as nothing about
    /// it changes, it is the same [`Arc`].
    pub fn licence(&self) -> Option<Arc<Licence>> {
        self.entry.load().as_ref().map(|entry| Arc::clone(&entry.licence))
    }

    /// Whom the licence belongs to.
    pub fn origin(&self) -> Option<Origin> {
        self.entry.load().as_ref().map(|entry| entry.origin.clone())
    }

    /// A number of its own while the process runs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Grows whenever a device loses its binding: what was known of bindings before is void.
    pub fn unbound_version(&self) -> u64 {
        self.unbound.load(Ordering::Acquire)
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot of an id, whether or not there is such a licence by now. For ids that the
    /// configuration names, never for those that a client sends.
    pub fn slot(&self, id: &str) -> Arc<Slot> {
        if let Some(found) = self.licences.read().by_id.get(id) {
            return Arc::clone(found);
        }
        self.licences.write().slot(id)
    }

    /// The slot of a licence that is there.
    pub fn find(&self, id: &str) -> Option<Arc<Slot>> {
        let found = self.licences.read().by_id.get(id).cloned();
        found.filter(|slot| slot.entry.load().is_some())
    }

    /// The slot of the licence that a key belongs to.
    pub fn by_key(&self, key: &KeyHash) -> Option<Arc<Slot>> {
        self.licences.read().by_key.get(key).cloned()
    }

    /// An app.
    pub fn app(&self, id: &str) -> Option<AppRecord> {
        self.apps.load().get(id).cloned()
    }

    /// How many licences are in force.
    pub fn len(&self) -> usize {
        self.licences.read().by_id.values().filter(|slot| slot.entry.load().is_some()).count()
    }

    /// Whether no licence is in force.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a licence in force as the store has it now.
    pub(crate) fn put(&self, record: LicenceRecord) {
        let mut licences = self.licences.write();
        let slot = licences.slot(&record.licence.id);
        let present = slot.entry.load_full();
        // Keys go first, so that none ever leads to two licences.
        if let Some(key) = present.as_ref().and_then(|present| present.key)
            && record.key != Some(key)
            && licences.by_key.get(&key).is_some_and(|holder| Arc::ptr_eq(holder, &slot))
        {
            licences.by_key.remove(&key);
        }
        if let Some(key) = record.key {
            licences.by_key.insert(key, Arc::clone(&slot));
        }
        // What was built from the same terms stays good.
        let licence = match present {
            Some(present) if present.licence == record.licence => Arc::clone(&present.licence),
            Some(_) | None => record.licence,
        };
        let entry = Entry { licence, key: record.key, origin: record.origin };
        slot.entry.store(Some(Arc::new(entry)));
    }

    /// Puts apps in force, and no others.
    pub(crate) fn set_apps(&self, apps: Vec<AppRecord>) {
        let apps = apps.into_iter().map(|app| (Arc::clone(&app.id), app)).collect();
        self.apps.store(Arc::new(apps));
    }

    /// Any device may have lost its binding.
    pub(crate) fn all_unbound(&self) {
        for slot in self.licences.read().by_id.values() {
            slot.unbound.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Devices of a licence lost their bindings.
    pub(crate) fn unbound(&self, id: &str) {
        if let Some(slot) = self.licences.read().by_id.get(id) {
            slot.unbound.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Licences {
    fn slot(&mut self, id: &str) -> Arc<Slot> {
        if let Some(found) = self.by_id.get(id) {
            return Arc::clone(found);
        }
        let slot = Arc::new(Slot {
            // Slots are never removed.
            number: self.by_id.len() as u64,
            entry: ArcSwapOption::empty(),
            unbound: AtomicU64::new(0),
        });
        self.by_id.insert(id.into(), Arc::clone(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licence::Quota;
    use crate::licence::tests::licence as terms;

    fn record(id: &str, key: Option<u8>) -> LicenceRecord {
        LicenceRecord {
            licence: Arc::new(Licence { id: id.into(), ..terms(Quota::default()) }),
            key: key.map(|key| KeyHash([key; 32])),
            origin: Origin::Store,
            revocation: None,
        }
    }

    #[test]
    fn a_slot_shows_what_is_in_force() {
        let registry = Registry::new();
        let slot = registry.slot("l");
        assert!(slot.licence().is_none() && registry.find("l").is_none());
        registry.put(record("l", None));
        let first = slot.licence().unwrap();
        assert!(Arc::ptr_eq(&slot, &registry.find("l").unwrap()));
        registry.put(record("l", Some(1)));
        assert!(Arc::ptr_eq(&first, &slot.licence().unwrap()), "nothing changed in the terms");
        let mut revoked = record("l", Some(1));
        Arc::make_mut(&mut revoked.licence).revoked = true;
        registry.put(revoked);
        assert!(slot.licence().unwrap().revoked && !first.revoked);
        assert_eq!(registry.len(), 1);
        let before = slot.unbound_version();
        registry.unbound("l");
        assert!(slot.unbound_version() > before);
    }

    #[test]
    fn keys_lead_to_their_licence_and_can_be_exchanged() {
        let registry = Registry::new();
        let holder = |key| {
            registry.by_key(&KeyHash([key; 32])).map(|slot| slot.licence().unwrap().id.to_string())
        };
        registry.put(record("a", Some(1)));
        registry.put(record("b", Some(2)));
        assert_eq!((holder(1).as_deref(), holder(2).as_deref()), (Some("a"), Some("b")));
        registry.put(record("a", Some(2)));
        registry.put(record("b", Some(1)));
        assert_eq!((holder(1).as_deref(), holder(2).as_deref()), (Some("b"), Some("a")));
        registry.put(record("a", None));
        assert_eq!(holder(2), None);
    }
}
