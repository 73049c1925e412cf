//! What is open before anything is served: the store, the seats that several gateways share, and
//! the users who are counted already.

use std::fs::File;
use std::sync::Arc;

use super::waiting::Waiting;
use super::{StartError, public_addresses};
use crate::clock::{self, Clock};
use crate::cluster::{Cluster, Sharing, Standing};
use crate::config::{self, Settings, StoreBackend};
use crate::engine::Engine;
use crate::ledger::Ledger;
use crate::ops::metrics::{self, Metrics};
use crate::registrar::Registrar;
use crate::store::embedded::Embedded;
use crate::store::redis::Redis;
use crate::store::{ErrorHook, Store, StoredUser};

/// What is opened before anything is served.
pub(super) struct Opened {
    pub(super) registrar: Registrar,
    pub(super) ledger: Ledger,
    /// The others that share the licences, if any may.
    pub(super) cluster: Option<Cluster>,
}

/// Opens the store, applies the licence files to it, and counts the users that it remembers.
pub(super) fn open_store(
    settings: &Settings,
    lock: Option<File>,
    metrics: &Arc<Metrics>,
    waiting: Waiting,
) -> Result<Opened, StartError> {
    let counted = Arc::clone(metrics);
    let on_error: ErrorHook = Arc::new(move |operation| counted.count_store_error(operation));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let now = clock::now();
        let (store, engine): (Arc<dyn Store>, _) = match &settings.store.backend {
            StoreBackend::Embedded { path } => {
                (Arc::new(Embedded::open_under(lock, path, on_error)?), None)
            }
            StoreBackend::Redis(redis) => {
                let (store, engine) = open_redis(redis, on_error, waiting).await?;
                (store, Some((engine, redis)))
            }
        };
        let registrar = Registrar::load(store).await?;
        registrar.apply_declared(settings, now).await?;
        let (ledger, cluster) = match engine {
            None => (Ledger::new(), None),
            Some((engine, redis)) => {
                let sharing = Sharing { lease: redis.lease, on_failure: redis.on_failure };
                let registry = Arc::clone(registrar.registry());
                let terms = Arc::new(move |id: &str| registry.find(id)?.licence());
                let (cluster, ledger) =
                    Cluster::join(engine, sharing, terms, Clock::system()).await?;
                cluster.name(&name_among_others(settings));
                let (seen, told) = (cluster.clone(), Arc::clone(metrics));
                cluster.watch(Arc::new(move || {
                    let Standing { connected, alone, ended, overshoot } = seen.standing();
                    let (lost, over) = (ended, overshoot);
                    told.note_sharing(metrics::Sharing { connected, alone, lost, over });
                }));
                (ledger, Some(cluster))
            }
        };
        let counted = ledger.clone();
        let count = move |user: StoredUser| {
            counted.licence(&user.licence).load_users([user.record], now);
        };
        registrar.store().for_each_user(now, Box::new(count)).await?;
        Ok(Opened { registrar, ledger, cluster })
    })
}

/// Waits for the engine, as long as it takes, and opens the store in it.
async fn open_redis(
    settings: &config::Redis,
    on_error: ErrorHook,
    waiting: Waiting,
) -> Result<(Arc<dyn Store>, Engine), StartError> {
    let engine = Engine::start(settings.engine.clone())?;
    waiting.wait_for(&engine).await?;
    tracing::info!("connected to Redis at {}", engine.told());
    let topology = settings.engine.address.topology.clone();
    let key_file = settings.key_file.as_deref();
    let store = Redis::open(engine.clone(), topology, key_file, on_error).await?;
    for risk in store.risks().await {
        tracing::warn!("{risk}");
    }
    Ok((Arc::new(store), engine))
}

/// What this gateway is called among those that share the licences: its host, and a port that no
/// other on that host has.
fn name_among_others(settings: &Settings) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let port = public_addresses(settings).next().map_or(0, |(address, _)| address.port());
    format!("{}:{port}", host.trim())
}
