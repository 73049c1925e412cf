//! Accepting in the runtime of a service.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Application, Tally, cannot_accept, transport};

/// The service that accepts for one application.
pub struct Doors<A> {
    application: Arc<A>,
    listeners: Mutex<Vec<TcpListener>>,
    /// Nothing is accepted while it is `true`; what comes waits in the kernel's queue.
    closed: watch::Receiver<bool>,
    arrivals: Tally,
}

impl<A> Doors<A> {
    /// Will accept on `listeners` for `application` while `closed` does not say otherwise.
    /// `arrivals` will count the doors that are open, and the connections that have asked nothing.
    pub fn new(
        application: Arc<A>,
        listeners: Vec<TcpListener>,
        closed: watch::Receiver<bool>,
        arrivals: Tally,
    ) -> Self {
        Self { application, listeners: Mutex::new(listeners), closed, arrivals }
    }
}

#[async_trait]
impl<A: Application> BackgroundService for Doors<A> {
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
                        arrivals: self.arrivals.clone(),
                        shutdown: shutdown.clone(),
                    };
                    doors.spawn(door.keep());
                }
                Err(error) => tracing::error!(%error, "a listener cannot be served"),
            }
        }
        let _ = shutdown.changed().await;
        doors.shutdown().await;
    }
}

/// One socket.
struct Door<A> {
    listener: tokio::net::TcpListener,
    application: Arc<A>,
    closed: watch::Receiver<bool>,
    arrivals: Tally,
    shutdown: ShutdownWatch,
}

impl<A: Application> Door<A> {
    /// Accepts for ever, but for when the door is closed.
    async fn keep(self) {
        let mut closed = self.closed.clone();
        while closed.wait_for(|closed| !*closed).await.is_ok() {
            let _open = self.arrivals.begin();
            loop {
                let accepted = tokio::select! {
                    biased;
                    _ = closed.wait_for(|closed| *closed) => break,
                    accepted = self.listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => self.serve(stream, peer),
                    Err(error) => cannot_accept(&error).await,
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        if let Some(stream) = transport(stream, peer) {
            let (application, arrival) = (Arc::clone(&self.application), self.arrivals.begin());
            tokio::spawn(application.serve(stream, arrival, self.shutdown.clone()));
        }
    }
}
