//! The end of the process: at once by SIGINT, after a drain by SIGTERM or SIGQUIT.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep};

use crate::clock;
use crate::gateway::site::Shared;
use crate::ops::notify::Notifier;

/// How long sessions may take to end once they are told to.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether anything is still under way.
const LOOK: Duration = Duration::from_millis(20);

/// How often the service manager is told how far the drain is.
const WORD: Duration = Duration::from_secs(2);

/// Waits for the signal to end.
pub(super) struct Signals {
    pub(super) shared: Arc<Shared>,
    pub(super) notifier: Arc<Notifier>,
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
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => self.drain(&mut interrupt).await,
            _ = quit.recv() => self.drain(&mut interrupt).await,
        }
        self.notifier.stopping("Stopping");
        // The store says by itself when it fails.
        let _ = self.shared.usage.write(true, clock::now()).await;
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    /// Lets what is under way go on for a while, then tells it to end; at once by `interrupt`.
    async fn drain(&self, interrupt: &mut tokio::signal::unix::Signal) {
        self.shared.draining.send_replace(true);
        let limit = self.shared.site.load().stop_limit;
        tracing::info!(under_way = self.shared.busy_count(), ?limit, "draining");
        self.notifier.stopping("Draining");
        let draining = async {
            tokio::select! {
                () = self.drained() => return,
                () = sleep(limit) => {}
            }
            // Editors connect again to whoever comes next.
            tracing::info!(under_way = self.shared.busy_count(), "ending what still goes on");
            self.shared.closing.send_replace(true);
            tokio::select! {
                () = self.drained() => {}
                () = sleep(FAREWELL_LIMIT) => {
                    tracing::warn!(under_way = self.shared.busy_count(), "not all ended in time");
                }
            }
        };
        tokio::select! {
            () = draining => {}
            () = self.keep_told() => {}
            _ = interrupt.recv() => {}
        }
    }

    /// Waits until nothing is under way.
    async fn drained(&self) {
        while self.shared.busy_count() > 0 {
            sleep(LOOK).await;
        }
    }

    /// Tells the service manager how far it is, for ever.
    async fn keep_told(&self) {
        let mut turn = interval(WORD);
        loop {
            turn.tick().await;
            let left = self.shared.busy_count();
            self.notifier.still_at_it(&format!("Draining: {left} requests and sessions left"));
        }
    }
}
