//! Wiring: configuration to a running process, reload, drain.

mod keeping;
mod migrating;
mod opening;
mod reloading;
mod sockets;
mod stopping;
mod upgrading;
mod waiting;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use pingora::apps::http_app::HttpServer;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use tokio::sync::watch;

use crate::admin::{Administration, Desks, Office, SocketError};
use crate::clock;
use crate::config::{self, ConfigErrors, ConfigWarning, Loaded, Settings};
use crate::engine::EngineError;
use crate::gateway::front::Front;
use crate::gateway::proxy::Gateway;
use crate::gateway::site::{Shared, Site};
use crate::gateway::tls::server::{TlsError, TlsServer};
use crate::handover::giving::{Giver, Program};
use crate::handover::taking::Taking;
use crate::handover::{HandoverError, Upgrades};
use crate::high_water::HighWater;
use crate::listen::{Access, Doors, Entrance, ListenError, Pulse, Tally, Workers};
use crate::log;
use crate::ops::listener::Operations;
use crate::ops::metrics::Metrics;
use crate::ops::notify::Notifier;
use crate::ops::status::Reporter;
use crate::ops::warnings::Warnings;
use crate::reload::Reloads;
use crate::store::{OpenError, StoreError};
use crate::usage::Usage;

use keeping::Keeper;
pub use migrating::{Migration, migrate};
use opening::{Opened, open_store};
use sockets::Sockets;
use stopping::{Signals, leave};
use upgrading::Upgrader;
use waiting::Waiting;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or "unknown".
pub const REVISION: &str = match option_env!("SEATGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The most upstream connections that a worker keeps idle.
const UPSTREAM_POOL: usize = 1024;

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}")]
    Listen(#[from] ListenError),
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
    #[error("cannot open the store: {0}")]
    Open(#[from] OpenError),
    #[error("cannot start: {0}; see [store] in the configuration")]
    Engine(#[from] EngineError),
    #[error("cannot start: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Socket(#[from] SocketError),
    #[error("cannot start: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot take over: {0}")]
    Handover(#[from] HandoverError),
    #[error("cannot declare the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs the gateway until it is told to end.
///
/// # Errors
/// The configuration is wrong, or an address cannot be listened on.
pub fn run(path: &Path) -> Result<(), StartError> {
    keep_freed_memory();
    let Loaded { mut settings, warnings } = config::load(path)?;
    let (_log, log_filter) = log::init(&settings.log);
    let notifier = Arc::new(Notifier::from_process());
    warn_of(&settings, &warnings);
    let tls = settings.server.tls.as_ref().map(TlsServer::new).transpose()?.map(Arc::new);
    let mut taking = Taking::from_process()?;
    if let Some(taking) = &taking {
        tracing::info!(version = taking.version(), "taking over");
    }
    let Sockets { public, public_over_tls, operations, mut files } =
        Sockets::open(&settings, taking.as_mut())?;
    let high_water = Arc::new(HighWater::open(&settings.server.state_directory));
    high_water.judge(&mut settings.licences, clock::now());
    let metrics = Arc::new(Metrics::new(VERSION, REVISION)?);
    let started = clock::now();
    metrics.note_start(started);
    let lock = taking.as_mut().and_then(Taking::store_lock);
    let seats = taking.as_mut().map(Taking::prepared).transpose()?;
    // A process that is to be taken over from goes on answering there.
    let told = if taking.is_some() { &[][..] } else { &operations[..] };
    let waiting = Waiting::new(&notifier, told)?;
    let Opened { registrar, ledger, cluster } = open_store(&settings, lock, &metrics, waiting)?;
    let (administration, copy) = sockets::open_administration(&settings, taking.as_mut())?;
    files.push(copy);
    let adopted = seats.map(|seats| seats.adopt(&ledger));
    let site = Site::build(&settings, &ledger, registrar.registry(), None);
    reloading::note(&metrics, true);
    let warnings = Warnings::start(Arc::clone(&metrics), settings.notify.clone())?;
    let usage = Arc::new(Usage::new(Arc::clone(registrar.store()), settings.usage));
    let shared = Arc::new(Shared::new(site, ledger, metrics, warnings, registrar, usage));
    resolve(&shared)?;

    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        max_retries: 3,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let conf = Arc::clone(&server.configuration);
    let new_proxy = || {
        let gateway = Gateway::new(Arc::clone(&shared));
        let mut proxy = HttpProxy::new(gateway, Arc::clone(&conf));
        proxy.handle_init_modules();
        Arc::new(proxy)
    };
    // Each thread has its own: what they pool is not shared.
    let proxies: Vec<_> = (0..settings.server.workers).map(|_| new_proxy()).collect();
    let entrance = |listener, tls: Option<&Arc<TlsServer>>| {
        let front =
            |proxy| Arc::new(Front::new(Arc::clone(proxy), Arc::clone(&shared), tls.cloned()));
        Entrance { listener, applications: proxies.iter().map(front).collect() }
    };
    let plain = public.into_iter().map(|listener| entrance(listener, None));
    let over_tls = public_over_tls.into_iter().map(|listener| entrance(listener, tls.as_ref()));
    let entrances = plain.chain(over_tls).collect();
    let pulse = Arc::new(Pulse::new(settings.server.workers));

    let listening = Arc::new(AtomicBool::new(false));
    let application = Operations::new(Reporter {
        shared: Arc::clone(&shared),
        listening: Arc::clone(&listening),
        high_water: Arc::clone(&high_water),
        started,
        version: VERSION,
        revision: REVISION,
    });
    let application = Arc::new(HttpServer::new_app(application));
    let reception = watch::Sender::new(Access::Open);
    let doors = Doors::new(application, operations, reception.subscribe(), Tally::default());
    server.add_service(background_service("operations", doors));

    let (reloads, requests) = Reloads::new();
    let (upgrades, upgrade_requests) = Upgrades::new();
    let desks = Desks { reloads, upgrades };
    let office = Office::new(Arc::clone(&shared), Arc::clone(&high_water), desks, started);
    let administration = Administration::new(administration, office);
    let mut administration = background_service("administration", administration);
    administration.threads = Some(1);
    server.add_service(administration);

    let arguments = ["run".into(), "--config".into(), path.into()].to_vec();
    let giver = Giver {
        shared: Arc::clone(&shared),
        program: Program::of_process(arguments)?,
        folder: folder_of(&settings.admin.socket),
        files: Mutex::new(files),
    };
    let successor = Arc::default();
    let upgrader = Upgrader {
        giver,
        proxy: new_proxy(),
        notifier: Arc::clone(&notifier),
        successor: Arc::clone(&successor),
        requests: Mutex::new(Some(upgrade_requests)),
    };
    server.add_service(background_service("upgrade", upgrader));

    let link = taking.zip(adopted).map(|(taking, adopted)| taking.link(adopted));
    shared.predecessor.store(link.as_ref().map(|link| Arc::new(link.path().to_owned())));
    let keeper = Keeper {
        shared: Arc::clone(&shared),
        tls,
        link: Mutex::new(link),
        settings: Arc::new(settings),
        path: path.to_owned(),
        listening,
        high_water,
        log_filter,
        requests: Mutex::new(Some(requests)),
        notifier: Arc::clone(&notifier),
        pulse: Arc::clone(&pulse),
    };
    let mut keeper = background_service("keeper", keeper);
    keeper.threads = Some(1);
    server.add_service(keeper);

    let access = shared.access.subscribe();
    let workers = Workers::start(proxies.len(), entrances, &access, &shared.arrivals, &pulse)?;
    let signals = Signals { shared, proxies, reception, notifier, successor };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    drop(workers);
    if let Some(cluster) = cluster {
        leave(&cluster);
    }
    tracing::info!("stopped");
    Ok(())
}

/// The addresses of the public listeners, and whether they are over TLS.
fn public_addresses(settings: &Settings) -> impl Iterator<Item = (SocketAddr, bool)> {
    let plain = settings.server.listen.iter().map(|address| (*address, false));
    let over_tls = settings.server.tls.iter().flat_map(|tls| &tls.listen);
    plain.chain(over_tls.map(|address| (*address, true)))
}

/// Logs what is odd about a configuration.
fn warn_of(settings: &Settings, warnings: &[ConfigWarning]) {
    for warning in warnings.iter().chain(&config::certificate_warnings(settings, clock::now())) {
        tracing::warn!("{warning}");
    }
}

/// Teaches glibc's allocator not to give 64 KiB body buffers back to the system with each answer.
///
/// It raises its threshold for that to twice the largest block that was ever mapped and freed; a
/// process that never freed a large one pays a system call and a dozen page faults a request. The
/// block is never touched, so it costs no memory.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
}

/// Finds the document servers' addresses before the first request comes.
fn resolve(shared: &Shared) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { shared.site.load().resolve().await });
    Ok(())
}

/// Where a file is.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}
