//! Accepting in the runtime of a service.

use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;

use super::door::Door;
use super::{Access, Application, Tally, cannot_accept, transport};

/// The service that accepts for one application.
pub struct Doors<A> {
    application: Arc<A>,
    listeners: Mutex<Vec<TcpListener>>,
    access: watch::Receiver<Access>,
    arrivals: Tally,
}

impl<A> Doors<A> {
    /// Will accept on `listeners` for `application` as `access` says.
    /// `arrivals` will count the doors that are open, and the connections that have asked nothing.
    pub fn new(
        application: Arc<A>,
        listeners: Vec<TcpListener>,
        access: watch::Receiver<Access>,
        arrivals: Tally,
    ) -> Self {
        Self { application, listeners: Mutex::new(listeners), access, arrivals }
    }
}

#[async_trait]
impl<A: Application> BackgroundService for Doors<A> {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        let mut doors = tokio::task::JoinSet::new();
        for listener in listeners {
            match Door::new(listener, self.access.clone(), self.arrivals.clone()) {
                Ok(door) => {
                    doors.spawn(keep(door, Arc::clone(&self.application), shutdown.clone()));
                }
                Err(error) => tracing::error!(%error, "a listener cannot be served"),
            }
        }
        let _ = shutdown.changed().await;
        doors.shutdown().await;
    }
}

/// Serves whoever comes in.
async fn keep<A: Application>(mut door: Door, application: Arc<A>, shutdown: ShutdownWatch) {
    while let Some(accepted) = door.next().await {
        match accepted {
            Ok((stream, peer, arrival)) => {
                if let Some(stream) = transport(stream, peer) {
                    let application = Arc::clone(&application);
                    tokio::spawn(application.serve(stream, arrival, shutdown.clone()));
                }
            }
            Err(error) => cannot_accept(&error).await,
        }
    }
}
