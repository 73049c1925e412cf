//! Accepting in the runtime of a service.

use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;

use super::{cannot_accept, serve, transport};

/// The service that accepts for one application.
pub struct Doors<A> {
    application: Arc<A>,
    listeners: Mutex<Vec<TcpListener>>,
    /// Nothing is accepted while it is `true`; what comes waits in the kernel's queue.
    closed: watch::Receiver<bool>,
}

impl<A> Doors<A> {
    /// Will accept on `listeners` for `application` while `closed` does not say otherwise.
    pub fn new(
        application: Arc<A>,
        listeners: Vec<TcpListener>,
        closed: watch::Receiver<bool>,
    ) -> Self {
        Self { application, listeners: Mutex::new(listeners), closed }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> BackgroundService for Doors<A> {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        let mut doors = tokio::task::JoinSet::new();
        for listener in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let door = Door {
                        listener,
                        application: Arc::clone(&self.application),
                        closed: self.closed.clone(),
                        shutdown: shutdown.clone(),
                    };
                    doors.spawn(door.keep());
                }
                Err(error) => tracing::error!(%error, "a listener cannot be served"),
            }
        }
        let _ = shutdown.changed().await;
        doors.shutdown().await;
        self.application.cleanup().await;
    }
}

/// One socket.
struct Door<A> {
    listener: tokio::net::TcpListener,
    application: Arc<A>,
    closed: watch::Receiver<bool>,
    shutdown: ShutdownWatch,
}

impl<A: ServerApp + Send + Sync + 'static> Door<A> {
    /// Accepts for ever, but for when the door is closed.
    async fn keep(mut self) {
        let mut closed = self.closed.clone();
        while closed.wait_for(|closed| !*closed).await.is_ok() {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => {}
                () = self.accept() => {}
            }
        }
    }

    async fn accept(&mut self) {
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(stream) = transport(stream, peer) {
                    serve(Arc::clone(&self.application), stream, self.shutdown.clone());
                }
            }
            Err(error) => cannot_accept(&error).await,
        }
    }
}
