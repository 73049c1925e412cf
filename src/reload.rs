//! Asking for a reload, and what came of it: between whoever asks and the one who does it.

use tokio::sync::{mpsc, oneshot};

use crate::config::ConfigErrors;
use crate::store::StoreError;

/// Requests that may wait; they are answered one after the other.
const QUEUE: usize = 16;

/// Why the old configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the new configuration is refused, the old one stays:\n{0}")]
    Config(ConfigErrors),
    #[error("the new configuration is refused, the old one stays: {0}")]
    Store(#[from] StoreError),
    #[error("the new configuration is refused, the old one stays: {0}")]
    Tls(String),
    #[error("the gateway is about to end: nothing is reloaded any more")]
    Ending,
}

/// What came of a reload: what is odd about the configuration that is now in force, or why the
/// old one stays.
pub type Answer = Result<Vec<String>, Refused>;

/// Somebody waits for the answer.
pub type Request = oneshot::Sender<Answer>;

/// Where a reload can be asked for.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Request>);

impl Reloads {
    /// A place to ask, and where the requests come.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Loads the configuration anew, all or nothing, and waits for it.
    ///
    /// # Errors
    /// The old one stays.
    pub async fn ask(&self) -> Answer {
        let (request, answer) = oneshot::channel();
        self.0.send(request).await.map_err(|_| Refused::Ending)?;
        answer.await.map_err(|_| Refused::Ending)?
    }
}
