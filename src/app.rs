//! Wiring: configuration to a running process, reload, drain.

mod migrating;
mod reloading;
mod sockets;
mod stopping;
mod upgrading;
mod waiting;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use parking_lot::Mutex;
use pingora::apps::http_app::HttpServer;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::{Administration, Desks, Office, SocketError};
use crate::clock::{self, Clock};
use crate::cluster::{Cluster, Sharing, Standing};
use crate::config::{self, ConfigErrors, ConfigWarning, Loaded, Settings, StoreBackend};
use crate::engine::{Engine, EngineError};
use crate::gateway::exchange::Dispatcher;
use crate::gateway::front::Front;
use crate::gateway::proxy::Gateway;
use crate::gateway::site::{Shared, Site};
use crate::gateway::tls::server::{TlsError, TlsServer};
use crate::handover::giving::{Giver, Program};
use crate::handover::taking::{Link, Taking};
use crate::handover::{HandoverError, Upgrades};
use crate::high_water::HighWater;
use crate::ledger::Ledger;
use crate::listen::{Doors, Entrance, ListenError, Pulse, Tally, Workers};
use crate::log;
use crate::ops::listener::Operations;
use crate::ops::metrics::{self, Metrics};
use crate::ops::notify::{self, Notifier};
use crate::ops::status::Reporter;
use crate::ops::warnings::Warnings;
use crate::registrar::Registrar;
use crate::reload::{Reloads, Request};
use crate::store::embedded::Embedded;
use crate::store::redis::Redis;
use crate::store::{ErrorHook, OpenError, Store, StoreError, StoredUser};
use crate::usage::Usage;

pub use migrating::{Migration, migrate};
use sockets::Sockets;
use stopping::Signals;
use upgrading::Upgrader;
use waiting::Waiting;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or "unknown".
pub const REVISION: &str = match option_env!("SEATGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// How often what is over is cleared out of the ledger.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often the clock is looked at for signed licences.
const HIGH_WATER_INTERVAL: Duration = Duration::from_secs(60);

/// How long the end of the process waits for Redis.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// How often expired users are cleared out of the store, and how many in one go.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
const PURGE_PIECE: u32 = 1_000;

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
    let visitors = Tally::default();
    let doors = Doors::new(application, operations, shared.left.subscribe(), visitors.clone());
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
        files,
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

    let closed = shared.draining.subscribe();
    let workers = Workers::start(proxies.len(), entrances, &closed, &shared.arrivals, &pulse)?;
    let signals = Signals { shared, visitors, notifier, successor };
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

/// What is opened before anything is served.
struct Opened {
    registrar: Registrar,
    ledger: Ledger,
    /// The others that share the licences, if any may.
    cluster: Option<Cluster>,
}

/// Opens the store, applies the licence files to it, and counts the users that it remembers.
fn open_store(
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

/// What this gateway is called among those that share the licences: its host, and a port that no
/// other on that host has.
fn name_among_others(settings: &Settings) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let port = public_addresses(settings).next().map_or(0, |(address, _)| address.port());
    format!("{}:{port}", host.trim())
}

/// Gives the seats back to those who share the licences, without waiting for the lease to end.
fn leave(cluster: &Cluster) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let left = runtime.block_on(async { tokio::time::timeout(LEAVE_LIMIT, cluster.leave()).await });
    if left.is_err() {
        tracing::warn!("Redis did not hear that this gateway ends: its lease ends later");
    }
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

/// What goes on beside the requests: health checks, clearing away, reload.
struct Keeper {
    shared: Arc<Shared>,
    tls: Option<Arc<TlsServer>>,
    /// The process that this one took over from.
    link: Mutex<Option<Link>>,
    settings: Arc<Settings>,
    path: PathBuf,
    listening: Arc<AtomicBool>,
    high_water: Arc<HighWater>,
    log_filter: log::Filter,
    /// Reloads that somebody waits for.
    requests: Mutex<Option<mpsc::Receiver<Request>>>,
    notifier: Arc<Notifier>,
    pulse: Arc<Pulse>,
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let dispatcher = Arc::new(Dispatcher::once());
        let mut watches = self.watch_upstreams(&dispatcher);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut high_water = tokio::time::interval(HIGH_WATER_INTERVAL);
        let mut jumps = clock::Jumps::watch();
        tokio::spawn(purge_users(Arc::clone(&self.shared)));
        let usage = Arc::clone(&self.shared.usage);
        tokio::spawn(usage.run(Arc::clone(&self.shared) as _, clock::now));
        let registrar = self.shared.registrar.clone();
        tokio::spawn(async move { registrar.follow().await });
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be received: no reload");
                return;
            }
        };
        let Some(mut requests) = self.requests.lock().take() else { return };
        self.listening.store(true, Ordering::Release);
        self.greet();
        self.relieve().await;
        self.tell_ready();
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = sweep.tick() => {
                    if let Some(jump) = jumps.look() {
                        self.tell_jump(jump);
                    }
                    let now = clock::now();
                    self.shared.polled.sweep(now, self.shared.site.load().reconnect_grace);
                    self.shared.ledger.sweep(now);
                }
                _ = high_water.tick() => {
                    if self.follow_clock().await && self.reload().await.is_ok() {
                        watches = self.watch_upstreams(&dispatcher);
                    }
                }
                _ = hangup.recv() => {
                    if self.reload().await.is_ok() {
                        watches = self.watch_upstreams(&dispatcher);
                    }
                }
                Some(request) = requests.recv() => {
                    let answer = self.reload().await;
                    if answer.is_ok() {
                        watches = self.watch_upstreams(&dispatcher);
                    }
                    // Whoever asked may have left.
                    let _ = request.send(answer);
                }
            }
            while let Some(ended) = watches.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a health check task failed");
                }
            }
        }
    }
}

impl Keeper {
    /// A task for each set of document servers; they end when the set is dropped.
    fn watch_upstreams(&self, dispatcher: &Arc<Dispatcher>) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        for upstreams in &self.shared.site.load().upstreams {
            let upstreams = Arc::clone(upstreams);
            let dispatcher = Arc::clone(dispatcher);
            watches.spawn(async move { upstreams.watch(&dispatcher).await });
        }
        watches
    }

    /// Tells the process that this one took over from that it may go, and decides for it until it is
    /// gone.
    async fn relieve(&self) {
        let Some(link) = self.link.lock().take() else { return };
        let serving = tokio::task::spawn_blocking(move || {
            let mut link = link;
            let outcome = link.serving();
            (link, outcome)
        });
        let Ok((link, outcome)) = serving.await else { return };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the old process ended before it had let go");
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            link.run(&shared).await;
            shared.predecessor.store(None);
        });
    }

    /// Says what listens where, and what to try next.
    fn greet(&self) {
        let Settings { server, ops, validate, .. } = &*self.settings;
        for (address, is_tls) in public_addresses(&self.settings) {
            let scheme = if is_tls { "https" } else { "http" };
            tracing::info!("listening on {scheme}://{address}, version {VERSION}");
        }
        tracing::info!("operations on http://{0}/ (metrics: http://{0}/metrics)", ops.listen);
        let port = server.listen.first().map_or(0, SocketAddr::port);
        tracing::info!(
            "try: curl -s -d '{{\"c\":\"license\"}}' http://127.0.0.1:{port}/coauthoring/CommandService.ashx"
        );
        tracing::debug!("validation API at {}", validate.path);
        for upstreams in &self.shared.site.load().upstreams {
            for name in &upstreams.settings.addresses {
                tracing::info!("document server: {name}; its health: http://{}/readyz", ops.listen);
            }
        }
    }

    /// Says that the clock was set: what follows may surprise.
    fn tell_jump(&self, jump: SignedDuration) {
        let back = jump.is_negative();
        self.shared.metrics.count_clock_jump(back);
        tracing::warn!(
            "the clock was set {} by {:#}: ends of licences, counted users and tokens follow it at \
             once; if it is wrong now, set it right",
            if back { "back" } else { "forward" },
            SignedDuration::from_secs(jump.abs().as_secs()),
        );
    }

    /// Follows the clock for signed licences; returns whether they are to be judged anew.
    async fn follow_clock(&self) -> bool {
        let high_water = Arc::clone(&self.high_water);
        // It may write a file.
        let ticked = tokio::task::spawn_blocking(move || high_water.tick(clock::now()));
        ticked.await.unwrap_or(false)
    }

    /// Tells the service manager that the listeners are open, and from then on how things are.
    fn tell_ready(&self) {
        self.notifier.ready(&notify::status_text(&self.shared, clock::now()));
        let told = (Arc::clone(&self.notifier), Arc::clone(&self.shared), Arc::clone(&self.pulse));
        tokio::spawn(async move { notify::keep_told(&told.0, &told.1, &told.2).await });
    }
}

/// Clears expired users out of the store, some at a time.
async fn purge_users(shared: Arc<Shared>) {
    let mut turn = tokio::time::interval(PURGE_INTERVAL);
    loop {
        turn.tick().await;
        // As in the ledger: a clock that steps back by less counts right.
        let before = clock::now().saturating_sub(SignedDuration::from_hours(1));
        let Ok(before) = before else { continue };
        while shared.registrar.store().purge_users(before, PURGE_PIECE).await == Ok(PURGE_PIECE) {}
    }
}
