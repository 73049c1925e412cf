//! Whether the runtime that serves the public still turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};

/// How often it beats.
const BEAT: Duration = Duration::from_millis(250);

/// When a runtime last gave its turn to a task that only wants to be called.
#[derive(Debug)]
pub struct Pulse {
    last: Mutex<Instant>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }
}

impl Pulse {
    /// For how long there was no beat.
    pub fn silence(&self) -> Duration {
        self.last.lock().elapsed()
    }

    async fn beat_for_ever(&self) {
        let mut turn = tokio::time::interval(BEAT);
        loop {
            turn.tick().await;
            *self.last.lock() = Instant::now();
        }
    }
}

/// A service with a pulse in its runtime, for as long as it runs.
pub struct Beating<S> {
    service: S,
    pulse: Arc<Pulse>,
}

impl<S> Beating<S> {
    pub fn new(service: S, pulse: Arc<Pulse>) -> Self {
        Self { service, pulse }
    }
}

#[async_trait]
impl<S: ServiceWithDependents> ServiceWithDependents for Beating<S> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        let running = self.service.start_service(fds, shutdown, listeners_per_fd, ready);
        tokio::select! {
            () = running => {}
            () = self.pulse.beat_for_ever() => {}
        }
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        self.service.runtime_opts_override(global)
    }

    fn on_startup_delay(&self, time_waited: Duration) {
        self.service.on_startup_delay(time_waited);
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}
