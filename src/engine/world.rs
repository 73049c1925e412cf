//! What an engine has around it: a way to a server, a place for its tasks, chance.
//!
//! `System` is the real one. Others let everything above run where nothing is real, in particular
//! time: that of the runtime, and no other, is what pauses and limits go by.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::mpsc;

use super::{link, listen};
use crate::config::{Engine as Settings, Topology};

/// A task of the engine's.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A message of a channel; `None`: some may have been lost before.
pub type Message = Option<Vec<u8>>;

/// What an engine has around it.
#[async_trait]
pub trait World: fmt::Debug + Send + Sync {
    /// Where the server is, for people; without a password.
    fn told(&self) -> String;

    /// Connects, and makes sure that it is answered.
    ///
    /// # Errors
    /// The server's.
    async fn connect(&self) -> RedisResult<Arc<dyn Connection>>;

    /// Hands the messages of a channel over, until their connection ends or nobody takes them; `None`
    /// as soon as it hears.
    ///
    /// # Errors
    /// The server's.
    async fn listen(&self, channel: &str, sender: &mpsc::Sender<Message>) -> RedisResult<()>;

    /// Runs a task beside the others.
    fn spawn(&self, task: Task);

    /// Any number, by chance.
    fn random(&self) -> u64;

    /// Whether there are threads beside the engine's, to connect from as well.
    fn has_threads(&self) -> bool {
        false
    }
}

/// A connection. What is sent side by side shares its round trips.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Carries out a command; what the server refuses is an error.
    ///
    /// # Errors
    /// The connection's or the server's.
    async fn send(&self, command: &Cmd) -> RedisResult<Value>;

    /// Carries out commands in one round trip, each for itself.
    ///
    /// # Errors
    /// As [`Self::send`], the first that one of them has.
    async fn send_all(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>>;

    /// The answer of every server that takes writes, by its name where there are several.
    ///
    /// # Errors
    /// As [`Self::send`].
    async fn send_to_each(&self, command: &Cmd) -> RedisResult<Vec<(String, Value)>> {
        Ok(vec![(String::new(), self.send(command).await?)])
    }

    /// Whether the server takes writes.
    async fn takes_writes(&self) -> bool;
}

/// A server as the configuration has it, and the engine's own thread.
pub(super) struct System {
    pub(super) settings: Settings,
    pub(super) runtime: tokio::runtime::Handle,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("address", &self.told()).finish_non_exhaustive()
    }
}

#[async_trait]
impl World for System {
    fn told(&self) -> String {
        let address = &self.settings.address;
        let hosts: Vec<_> =
            address.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        match &address.topology {
            Topology::Single => hosts.join(","),
            Topology::Sentinel { service } => {
                format!("{service} of the sentinels {}", hosts.join(","))
            }
            Topology::Cluster => format!("the cluster of {}", hosts.join(",")),
        }
    }

    async fn connect(&self) -> RedisResult<Arc<dyn Connection>> {
        Ok(Arc::new(link::connect(&self.settings).await?))
    }

    async fn listen(&self, channel: &str, sender: &mpsc::Sender<Message>) -> RedisResult<()> {
        listen(&self.settings, channel, sender).await
    }

    fn spawn(&self, task: Task) {
        self.runtime.spawn(task);
    }

    fn random(&self) -> u64 {
        // A system that has no random bytes at first has them a moment later.
        loop {
            if let Ok(random) = getrandom::u64() {
                return random;
            }
            std::thread::yield_now();
        }
    }

    fn has_threads(&self) -> bool {
        true
    }
}
