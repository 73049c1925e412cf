//! The end of the process: at once by SIGINT, after a drain by SIGTERM or SIGQUIT, and when a new
//! process has taken over and the last session is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::HttpServerApp as _;
use pingora::proxy::HttpProxy;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

use super::upgrading::Successor;
use crate::clock;
use crate::cluster::Cluster;
use crate::gateway::proxy::Gateway;
use crate::gateway::site::Shared;
use crate::listen::Access;
use crate::ops::notify::Notifier;

/// How long sessions may take to end once they are told to.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);

/// How long a client may take that connected before the drain and has asked nothing yet, or nothing
/// more.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether anything is still under way.
const LOOK: Duration = Duration::from_millis(20);

/// How often the service manager is told how far the drain is.
const WORD: Duration = Duration::from_secs(2);

/// How long the end of the process waits for Redis.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Waits for the signal to end.
pub(super) struct Signals {
    pub(super) shared: Arc<Shared>,
    /// Those of the public listeners.
    pub(super) proxies: Vec<Arc<HttpProxy<Gateway>>>,
    /// Whether anybody is let in by the operations listener.
    pub(super) reception: watch::Sender<Access>,
    pub(super) notifier: Arc<Notifier>,
    /// The process that took over, once there is one.
    pub(super) successor: Arc<Mutex<Option<Successor>>>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::quit()),
        ) else {
            tracing::error!("signals cannot be received");
            return std::future::pending().await;
        };
        let mut left = self.shared.left.subscribe();
        let (stop_limit, drain_limit) = {
            let site = self.shared.site.load();
            (site.stop_limit, site.drain_limit)
        };
        let stopped = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = quit.recv() => {}
            }
        };
        tokio::pin!(stopped);
        tokio::select! {
            _ = interrupt.recv() => {}
            () = &mut stopped => self.drain(stop_limit, &mut interrupt).await,
            () = becomes_true(&mut left) => {
                tokio::select! {
                    () = self.drain(drain_limit, &mut interrupt) => {}
                    // The service manager stops both processes.
                    () = &mut stopped => self.close().await,
                }
            }
        }
        // Polling clients that did not ask again in time.
        let grace = self.shared.site.load().reconnect_grace;
        self.shared.polled.lose(clock::now(), grace);
        let successor = self.successor.lock().take();
        match successor {
            // What became of the last seats must arrive.
            Some(successor) => {
                let _ = timeout(FAREWELL_LIMIT, successor.succession.told()).await;
            }
            None => {
                self.notifier.stopping("Stopping");
                // The store says by itself when it fails.
                let _ = self.shared.usage.write(true, clock::now()).await;
            }
        }
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    /// Lets what is under way go on for so long, then tells it to end; at once by `interrupt`.
    async fn drain(&self, limit: Duration, interrupt: &mut Signal) {
        let listens = self.successor.lock().as_ref().map(|there| Arc::clone(&there.listens));
        let access = listens.map_or(Access::Closed, Access::Left);
        if *self.shared.left.borrow() {
            self.reception.send_replace(access.clone());
        }
        self.shared.access.send_replace(access);
        tracing::info!(under_way = self.under_way(), ?limit, "draining");
        // Whoever took over is the service; what becomes of this process is nobody's concern.
        let is_service = !*self.shared.left.borrow();
        if is_service {
            self.notifier.stopping("Draining");
        }
        let mut closing = self.shared.closing.subscribe();
        let drained = async {
            self.heard().await;
            self.drained().await;
        };
        let draining = async {
            tokio::select! {
                () = drained => {}
                () = sleep(limit) => self.close().await,
                () = becomes_true(&mut closing) => self.close().await,
            }
        };
        tokio::select! {
            () = draining => {}
            () = self.keep_told(), if is_service => {}
            _ = interrupt.recv() => {}
        }
    }

    /// Tells editors to connect again, to whoever comes next, and waits for that.
    async fn close(&self) {
        tracing::info!(under_way = self.under_way(), "ending what still goes on");
        self.shared.closing.send_replace(true);
        tokio::select! {
            () = self.drained() => {}
            () = sleep(FAREWELL_LIMIT) => {
                tracing::warn!(under_way = self.under_way(), "not all ended in time");
            }
        }
    }

    /// Requests and sessions that go on; a process that this one took over from counts as one, for
    /// as long as it has to be answered.
    fn under_way(&self) -> usize {
        let predecessors = usize::from(self.shared.predecessor.load().is_some());
        self.shared.busy_count().max(self.shared.polled.len()) + predecessors
    }

    /// Waits until whoever was let in has asked something, or had time to.
    async fn heard(&self) {
        if *self.shared.left.borrow() {
            // What comes over idle connections is for the new process. A busy client, or a proxy, uses
            // them in the very moment in which they would be closed: first each has time to be told
            // with an answer that it is the last one.
            sleep(FIRST_REQUEST_LIMIT).await;
            for proxy in &self.proxies {
                proxy.http_cleanup().await;
            }
        } else {
            let arrived = async {
                while self.shared.arrivals.count() > 0 {
                    sleep(LOOK).await;
                }
            };
            let _ = timeout(FIRST_REQUEST_LIMIT, arrived).await;
        }
    }

    /// Waits until nothing is under way.
    async fn drained(&self) {
        while self.under_way() > 0 {
            sleep(LOOK).await;
        }
    }

    /// Tells the service manager how far it is, for ever.
    async fn keep_told(&self) {
        let mut turn = interval(WORD);
        loop {
            turn.tick().await;
            let left = self.under_way();
            self.notifier.still_at_it(&format!("Draining: {left} requests and sessions left"));
        }
    }
}

async fn becomes_true(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await.is_ok();
}

/// Gives the seats back to those who share the licences, without waiting for the lease to end.
pub(super) fn leave(cluster: &Cluster) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let left = runtime.block_on(async { tokio::time::timeout(LEAVE_LIMIT, cluster.leave()).await });
    if left.is_err() {
        tracing::warn!("Redis did not hear that this gateway ends: its lease ends later");
    }
}
