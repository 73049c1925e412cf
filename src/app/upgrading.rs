//! The upgrade: by SIGUSR2 or the administration API a new process is started, and takes over.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::gateway::front::Front;
use crate::gateway::proxy::Gateway;
use crate::gateway::relay;
use crate::gateway::site::Shared;
use crate::handover::Request;
use crate::handover::giving::{Given, Giver};
use crate::handover::succession::Succession;
use crate::listen::Access;
use crate::ops::notify::Notifier;

/// A process that took over.
pub(super) struct Successor {
    pub(super) succession: Arc<Succession>,
    /// Where it listens on sockets that this process has as well.
    pub(super) listens: Arc<[SocketAddr]>,
}

/// Waits for somebody who wants an upgrade.
pub(super) struct Upgrader {
    pub(super) giver: Giver,
    pub(super) proxy: Arc<HttpProxy<Gateway>>,
    pub(super) notifier: Arc<Notifier>,
    /// The process that took over, once there is one.
    pub(super) successor: Arc<Mutex<Option<Successor>>>,
    /// Upgrades that somebody waits for.
    pub(super) requests: Mutex<Option<mpsc::Receiver<Request>>>,
}

#[async_trait]
impl BackgroundService for Upgrader {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(mut requests) = self.requests.lock().take() else { return };
        let mut wanted = match signal(SignalKind::user_defined2()) {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::error!(%error, "SIGUSR2 cannot be received: no upgrade by it");
                return;
            }
        };
        let mut access = self.shared().access.subscribe();
        let given = loop {
            let request = tokio::select! {
                _ = shutdown.changed() => return,
                _ = access.wait_for(Access::is_closed) => {
                    self.giver.close();
                    return;
                }
                _ = wanted.recv() => None,
                Some(request) = requests.recv() => Some(request),
            };
            let given = self.giver.give().await;
            if let Err(error) = &given {
                tracing::error!("no upgrade, this process goes on: {error}");
            }
            if let Some(request) = request {
                let answer = given.as_ref().map(|given| given.pid).map_err(ToString::to_string);
                // Whoever asked may have left.
                let _ = request.send(answer);
            }
            if let Ok(given) = given {
                break given;
            }
        };
        // Who asked meanwhile is told that another was faster.
        drop(requests);
        self.giver.close();
        self.leave(given, shutdown).await;
    }
}

impl Upgrader {
    fn shared(&self) -> &Arc<Shared> {
        &self.giver.shared
    }

    /// The new process is the service; this one ends with its last session.
    async fn leave(&self, given: Given, mut shutdown: ShutdownWatch) {
        let Given { pid, succession, listens, door: (door, _name), carrier } = given;
        tracing::info!(pid, "the new process serves; sessions that are here go on");
        self.notifier.main_pid(pid);
        let successor = Successor { succession: Arc::clone(&succession), listens };
        *self.successor.lock() = Some(successor);
        self.shared().left.send_replace(true);
        let front = Front::for_successor(Arc::clone(&self.proxy), Arc::clone(self.shared()));
        let arrivals = self.shared().arrivals.clone();
        let relayed = relay::serve(door, pid, Arc::new(front), arrivals, shutdown.clone());
        let relayed = tokio::spawn(relayed);
        tokio::select! {
            _ = shutdown.changed() => {}
            () = succession.lost() => {
                // Its seats are counted by nobody: editors connect again, to whoever comes next.
                tracing::error!("sessions that are here are ended: the new process is gone");
                self.shared().closing.send_replace(true);
                let _ = shutdown.changed().await;
            }
        }
        carrier.abort();
        relayed.abort();
    }
}
