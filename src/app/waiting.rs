//! The wait for Redis at the start, and who hears of it: the log, the service manager, and whoever
//! asks the operations listener, which nobody else serves yet.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::apps::http_app::HttpServer;
use pingora::services::background::BackgroundService as _;
use tokio::sync::watch;

use crate::engine::{Engine, EngineError};
use crate::listen::{Access, Doors, Tally};
use crate::ops::listener::Starting;
use crate::ops::notify::Notifier;

/// Of the seconds without Redis, which are logged.
const WAITING_LOGGED: u32 = 10;

/// Tells of the wait.
pub(super) struct Waiting {
    notifier: Arc<Notifier>,
    operations: Vec<TcpListener>,
}

impl Waiting {
    /// `operations` are listeners that nobody else accepts on meanwhile.
    ///
    /// # Errors
    /// The process is out of files.
    pub(super) fn new(notifier: &Arc<Notifier>, operations: &[TcpListener]) -> io::Result<Self> {
        let operations: io::Result<_> = operations.iter().map(TcpListener::try_clone).collect();
        Ok(Self { notifier: Arc::clone(notifier), operations: operations? })
    }

    /// Waits for the engine, as long as it takes.
    ///
    /// # Errors
    /// The engine is there and refuses: waiting would not help.
    pub(super) async fn wait_for(self, engine: &Engine) -> Result<(), EngineError> {
        let why = Arc::new(Mutex::new(format!("Redis at {}", engine.told())));
        let application = Arc::new(HttpServer::new_app(Starting::new(Arc::clone(&why))));
        let (_open, access) = watch::channel(Access::Open);
        let doors = Doors::new(application, self.operations, access, Tally::default());
        let (over, shutdown) = watch::channel(false);
        let told = tokio::spawn(async move { doors.start(shutdown).await });
        let mut waited = 0_u32;
        let waiting = engine.first_connection(|error| {
            let text = format!("Redis at {}: {error}", engine.told());
            if waited.is_multiple_of(WAITING_LOGGED) {
                tracing::warn!("waiting for {text}");
            }
            waited = waited.saturating_add(1);
            self.notifier.still_at_it(&format!("Waiting for {text}"));
            *why.lock() = text;
        });
        let connected = waiting.await;
        over.send_replace(true);
        if let Err(error) = told.await {
            tracing::error!(%error, "the operations listener could not be served meanwhile");
        }
        connected
    }
}
