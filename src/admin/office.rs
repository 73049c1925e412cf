//! What the handlers work with.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::api;
use super::problem::ApiError;
use super::terms;
use crate::gateway::site::Shared;
use crate::handover::Upgrades;
use crate::high_water::HighWater;
use crate::ledger::LicenceSeats;
use crate::registrar::Registrar;
use crate::reload::Reloads;
use crate::store::{LicenceRecord, Origin, Store};

/// Where handlers ask for what others do.
#[derive(Clone, Debug)]
pub struct Desks {
    pub reloads: Reloads,
    pub upgrades: Upgrades,
}

/// What the handlers work with.
pub struct Office {
    pub(super) shared: Arc<Shared>,
    pub(super) high_water: Arc<HighWater>,
    pub(super) desks: Desks,
    pub(super) started: Timestamp,
    /// Whoever reads terms to write them back changed waits for the one before.
    pub(super) turn: Mutex<()>,
}

impl Office {
    /// The office of a process that started then.
    pub fn new(
        shared: Arc<Shared>,
        high_water: Arc<HighWater>,
        desks: Desks,
        started: Timestamp,
    ) -> Self {
        Self { shared, high_water, desks, started, turn: Mutex::default() }
    }

    pub(super) fn registrar(&self) -> &Registrar {
        &self.shared.registrar
    }

    pub(super) fn store(&self) -> &dyn Store {
        &**self.registrar().store()
    }

    /// A licence as the store has it.
    ///
    /// # Errors
    /// It is not there, or the store failed.
    pub(super) async fn licence(&self, id: &str) -> Result<LicenceRecord, ApiError> {
        let found = self.store().licence(id).await?;
        found.ok_or_else(|| ApiError::NotFound(format!("the licence {id}")))
    }

    /// A licence that no file states.
    ///
    /// # Errors
    /// It is not there, or belongs to a file, or the store failed.
    pub(super) async fn own_licence(&self, id: &str) -> Result<LicenceRecord, ApiError> {
        let record = self.licence(id).await?;
        match record.origin {
            Origin::Store => Ok(record),
            Origin::File { file, line } => {
                let id = format!("the licence {id}");
                Err(ApiError::Declared { id, file: file.to_string(), line })
            }
        }
    }

    /// A licence as the API tells it.
    ///
    /// # Errors
    /// It is not there, or the store failed.
    pub(super) async fn view(&self, id: &str, now: Timestamp) -> Result<api::Licence, ApiError> {
        let record = self.licence(id).await?;
        let bound = self.store().devices_bound(vec![Arc::clone(&record.licence.id)]).await?;
        Ok(terms::view(&record, bound.first().copied().unwrap_or(0), now))
    }

    /// The seats of a licence, if anybody ever asked for one.
    pub(super) fn seats(&self, licence: &str) -> Option<Arc<LicenceSeats>> {
        let all = self.shared.ledger.licences();
        all.into_iter().find(|seats| **seats.licence_id() == *licence)
    }
}
