//! Changes to licences and apps: in the store first, then in the registry.
//!
//! The one way by which the administration and the declared files change what is in force. A
//! change that was begun is finished even if its caller leaves, so that store and registry never
//! part ways; changes happen one after the other.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::{Place, Settings};
use crate::licence::Licence;
use crate::registry::Registry;
use crate::store::{
    AppRecord, Change, Changed, Declared, KeyHash, LicenceRecord, Origin, Result, Sha256Hash,
    Store, StoreError,
};

/// How soon what could not be read after a change is read again.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Makes changes durable, and then puts them in force.
#[derive(Clone, Debug)]
pub struct Registrar {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    turn: Arc<Mutex<Turn>>,
}

#[derive(Debug, Default)]
struct Turn {
    /// Another process makes the changes.
    is_closed: bool,
}

/// Changes wait for as long as this lives.
#[derive(Debug)]
#[must_use = "changes go on when this is dropped"]
pub struct Pause(OwnedMutexGuard<Turn>);

impl Pause {
    /// No change is made here any more.
    pub fn keep(mut self) {
        self.0.is_closed = true;
    }
}

impl Registrar {
    /// Puts everything in force that the store holds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self> {
        let registry = Arc::new(Registry::new());
        let filled = Arc::clone(&registry);
        store.for_each_licence(Box::new(move |record| filled.put(record))).await?;
        registry.set_apps(store.apps().await?);
        Ok(Self { store, registry, turn: Arc::default() })
    }

    /// Puts in force what other gateways change, for as long as it is waited for.
    pub async fn follow(&self) {
        let Some(mut feed) = self.store.changes() else { return };
        loop {
            let changes = feed.next().await;
            // In turn with the changes made here, so that nothing older is put over them.
            let _turn = self.turn.lock().await;
            for changed in changes {
                match changed {
                    Changed::Licence(id) => self.refresh_licence(&id).await,
                    Changed::Apps => self.refresh_apps().await,
                    Changed::Devices(id) => self.registry.unbound(&id),
                    Changed::Everything => {
                        self.refresh_licences().await;
                        self.refresh_apps().await;
                        self.registry.all_unbound();
                    }
                }
            }
        }
    }

    /// What is in force.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The store, for everything that is not in the registry: devices, users, usage, audit.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Lets the change under way end, and no other begin.
    pub async fn pause(&self) -> Pause {
        Pause(Arc::clone(&self.turn).lock_owned().await)
    }

    /// Applies the declared files: see [`Store::apply_declared`].
    ///
    /// # Errors
    /// The store's; nothing changed then.
    pub async fn apply_declared(&self, settings: &Settings, now: Timestamp) -> Result<()> {
        let declared = declared(settings, &*self.store);
        let change = Change { at: now, by: "configuration".into() };
        self.carry_out(|this| async move {
            let changed = this.store.apply_declared(declared, change).await?;
            for id in changed {
                this.refresh_licence(&id).await;
            }
            this.refresh_apps().await;
            Ok(())
        })
        .await
    }

    /// See [`Store::issue`].
    ///
    /// # Errors
    /// The store's.
    pub async fn issue(
        &self,
        licence: Licence,
        key: Option<KeyHash>,
        change: Change,
    ) -> Result<()> {
        let id = Arc::clone(&licence.id);
        self.change_licence(id, move |store| async move { store.issue(licence, key, change).await })
            .await
    }

    /// See [`Store::change_terms`].
    ///
    /// # Errors
    /// The store's.
    pub async fn change_terms(&self, licence: Licence, change: Change) -> Result<()> {
        let id = Arc::clone(&licence.id);
        self.change_licence(
            id,
            move |store| async move { store.change_terms(licence, change).await },
        )
        .await
    }

    /// See [`Store::revoke`].
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke(&self, licence: &str, reason: String, change: Change) -> Result<bool> {
        let id: Arc<str> = licence.into();
        self.change_licence(Arc::clone(&id), move |store| async move {
            store.revoke(&id, reason, change).await
        })
        .await
    }

    /// See [`Store::reinstate`].
    ///
    /// # Errors
    /// The store's.
    pub async fn reinstate(&self, licence: &str, change: Change) -> Result<bool> {
        let id: Arc<str> = licence.into();
        self.change_licence(Arc::clone(&id), move |store| async move {
            store.reinstate(&id, change).await
        })
        .await
    }

    /// See [`Store::unbind_device`]; what was known of the licence's devices is void from then on.
    ///
    /// # Errors
    /// The store's.
    pub async fn unbind_device(
        &self,
        licence: &str,
        device: &[u8],
        change: Change,
    ) -> Result<bool> {
        let (id, device) = (licence.to_owned(), device.to_vec());
        self.carry_out(|this| async move {
            let outcome = this.store.unbind_device(&id, &device, change).await;
            // Even after an error: it may have been carried out.
            this.registry.unbound(&id);
            outcome
        })
        .await
    }

    /// See [`Store::add_app`].
    ///
    /// # Errors
    /// The store's.
    pub async fn add_app(&self, id: &str, api_key: Sha256Hash, change: Change) -> Result<()> {
        let id = id.to_owned();
        self.change_apps(move |store| async move { store.add_app(&id, api_key, change).await })
            .await
    }

    /// See [`Store::rotate_app`].
    ///
    /// # Errors
    /// The store's.
    pub async fn rotate_app(
        &self,
        id: &str,
        api_key: Sha256Hash,
        until: Timestamp,
        change: Change,
    ) -> Result<()> {
        let id = id.to_owned();
        self.change_apps(
            move |store| async move { store.rotate_app(&id, api_key, until, change).await },
        )
        .await
    }

    /// See [`Store::remove_app`].
    ///
    /// # Errors
    /// The store's.
    pub async fn remove_app(&self, id: &str, change: Change) -> Result<()> {
        let id = id.to_owned();
        self.change_apps(move |store| async move { store.remove_app(&id, change).await }).await
    }

    async fn change_licence<T, W, F>(&self, id: Arc<str>, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<dyn Store>) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.carry_out(|this| async move {
            let outcome = work(Arc::clone(&this.store)).await;
            if may_have_changed(&outcome) {
                this.refresh_licence(&id).await;
            }
            outcome
        })
        .await
    }

    async fn change_apps<T, W, F>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<dyn Store>) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.carry_out(|this| async move {
            let outcome = work(Arc::clone(&this.store)).await;
            if may_have_changed(&outcome) {
                this.refresh_apps().await;
            }
            outcome
        })
        .await
    }

    /// Runs a change in its turn, to its end, whatever becomes of the caller.
    async fn carry_out<T, W, F>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Self) -> F + Send,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if turn.is_closed {
            return Err(StoreError::Closed);
        }
        let change = work(self.clone());
        let running = tokio::spawn(async move {
            let outcome = change.await;
            drop(turn);
            outcome
        });
        running.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Reads a licence anew, until that works.
    async fn refresh_licence(&self, id: &str) {
        loop {
            match self.store.licence(id).await {
                Ok(Some(record)) => return self.registry.put(record),
                // Licences are never removed: it was not added.
                Ok(None) | Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::error!(licence = id, %error, "cannot be read after a change")
                }
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }

    async fn refresh_licences(&self) {
        loop {
            let registry = Arc::clone(&self.registry);
            let put = Box::new(move |record| registry.put(record));
            match self.store.for_each_licence(put).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => tracing::error!(%error, "licences cannot be read"),
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }

    async fn refresh_apps(&self) {
        loop {
            match self.store.apps().await {
                Ok(apps) => return self.registry.set_apps(apps),
                Err(StoreError::Closed) => return,
                Err(error) => tracing::error!(%error, "apps cannot be read after a change"),
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }
}

/// A store that did not answer in time may have carried it out.
fn may_have_changed<T>(outcome: &Result<T>) -> bool {
    outcome.is_ok() || matches!(outcome, Err(StoreError::Timeout))
}

/// What the files of a configuration state.
fn declared(settings: &Settings, store: &dyn Store) -> Declared {
    let origin = |place: &Place| Origin::File {
        file: place.file.display().to_string().into(),
        line: place.line as u64,
    };
    let licences = settings.licences.iter().map(|declared| LicenceRecord {
        licence: Arc::clone(&declared.licence),
        key: declared.key.as_ref().map(|key| store.hash_key(key.expose())),
        origin: origin(&declared.place),
        revocation: None,
    });
    let apps = settings.apps.iter().map(|app| AppRecord {
        id: app.id.as_str().into(),
        api_key: Sha256Hash(app.api_key_sha256),
        previous: None,
        origin: origin(&app.place),
    });
    Declared { licences: licences.collect(), apps: apps.collect() }
}
