//! What goes on beside the requests: health checks, clearing away, and when the configuration is
//! loaded anew.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{VERSION, public_addresses};
use crate::clock;
use crate::config::Settings;
use crate::gateway::exchange::Dispatcher;
use crate::gateway::site::Shared;
use crate::gateway::tls::server::TlsServer;
use crate::handover::taking::Link;
use crate::high_water::HighWater;
use crate::listen::Pulse;
use crate::log;
use crate::ops::notify::{self, Notifier};
use crate::reload::Request;

/// How often what is over is cleared out of the ledger.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often the clock is looked at for signed licences.
const HIGH_WATER_INTERVAL: Duration = Duration::from_secs(60);

/// How often expired users are cleared out of the store, and how many in one go.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
const PURGE_PIECE: u32 = 1_000;

/// What goes on beside the requests: health checks, clearing away, reload.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) tls: Option<Arc<TlsServer>>,
    /// The process that this one took over from.
    pub(super) link: Mutex<Option<Link>>,
    pub(super) settings: Arc<Settings>,
    pub(super) path: PathBuf,
    pub(super) listening: Arc<AtomicBool>,
    pub(super) high_water: Arc<HighWater>,
    pub(super) log_filter: log::Filter,
    /// Reloads that somebody waits for.
    pub(super) requests: Mutex<Option<mpsc::Receiver<Request>>>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) pulse: Arc<Pulse>,
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
