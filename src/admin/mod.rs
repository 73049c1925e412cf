//! The administration API: HTTP with JSON on a Unix socket.
//!
//! | module | what it is |
//! |---|---|
//! | this one | the service that runs it |
//! | `socket` | the socket: its mode, what a dead process left there |
//! | `routes` | every path, in one list |
//! | [`api`] | the bodies; the command line reads the same |
//! | `extract`, `problem` | what handlers take from a request; refusals |
//! | `office` | what handlers work with |
//! | `licences`, `applying`, `apps`, `seats`, `usage`, `status` | the handlers |
//! | `terms` | a licence's terms between the API and the program |
//! | [`keys`] | new keys and ids |
//!
//! The socket's file mode is the only guard: who may open it may do everything here. Every change
//! is noted in the audit log with the user at the other end.

pub mod api;
mod applying;
mod apps;
mod extract;
pub mod keys;
mod licences;
mod office;
mod problem;
mod routes;
mod seats;
mod socket;
mod status;
pub(crate) mod terms;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

pub use office::{Desks, Office};
pub use socket::{Socket, SocketError, inherit, listen};

use extract::Peer;

/// The service that answers on the socket.
pub struct Administration {
    socket: Mutex<Option<Socket>>,
    office: Arc<Office>,
}

impl Administration {
    /// Will answer on `socket` when it is started.
    pub fn new(socket: Socket, office: Office) -> Self {
        Self { socket: Mutex::new(Some(socket)), office: Arc::new(office) }
    }
}

#[async_trait]
impl BackgroundService for Administration {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(Socket { listener, name }) = self.socket.lock().take() else { return };
        let listener = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the administration socket cannot be served");
                return;
            }
        };
        let router = routes::router(Arc::clone(&self.office));
        let service = router.into_make_service_with_connect_info::<Peer>();
        let mut left = self.office.shared.left.subscribe();
        let end = async move {
            tokio::select! {
                _ = shutdown.changed() => {}
                _ = left.wait_for(|left| *left) => {}
            }
        };
        if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(end).await {
            tracing::error!(%error, "the administration socket failed");
        }
        if *self.office.shared.left.borrow() {
            name.leave();
        }
    }
}
