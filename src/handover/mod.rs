//! Passing the service on to a new process without losing an editor.
//!
//! | module | what it is |
//! |---|---|
//! | this one | what the two say to each other |
//! | [`giving`] | the process that runs: it starts its successor and hands everything over |
//! | [`succession`] | the successor as the authority over the seats that are still here |
//! | [`taking`] | the new process: it takes sockets, lock and seats over |
//! | `wire` | frames, and open files on a Unix socket |
//!
//! The way of it:
//!
//! 1. The old process starts the new one, which reads its configuration and says
//!    `Heir::Prepared`, and where it will listen on the old one's sockets. If that fails, nothing has
//!    happened.
//! 2. The old one stops accepting and deciding, and sends the sockets, the store's lock and every
//!    seat that is held. Opens that arrive on its connections wait.
//! 3. The new one opens the store, counts the users, adopts the seats, begins to serve and says
//!    `Heir::Serving`. If it fails before, the old one goes on as if nothing had been.
//! 4. From then on the new process decides about every seat. The old one only carries the
//!    sessions that it has, asks for what they need, and tells what becomes of their seats, until they are
//!    over or its time is.
//!
//! There is no moment at which two decide, and none at which a seat is counted by nobody.

pub mod giving;
pub mod succession;
pub mod taking;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::ledger::{
    Accepted, CloseReason, Denied, Granted, Occupant, SeatId, SeatState, Unconfirmed,
};
use crate::seat::SeatClass;

/// What the two speak. A successor that speaks another does not take over.
const PROTOCOL: u32 = 2;

/// Names the socket of the process that hands over, in its successor's environment.
pub const VARIABLE: &str = "SEATGATE_TAKE_OVER";

/// What a passed file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// A TCP socket that listens on this address.
    Listener(SocketAddr),
    /// The Unix socket of the administration API.
    Administration,
    /// The lock on the store.
    Store,
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Elder {
    Hello {
        protocol: u32,
        version: String,
        files: Vec<Passed>,
    },
    /// Some of the seats that are held.
    Seats {
        #[serde(with = "crate::ledger::shared_text")]
        licence: Arc<str>,
        seats: Vec<SeatState>,
    },
    /// Those were all.
    Counted,
    /// It decides no more.
    Go,
    Admit {
        number: u64,
        asked: Asked,
    },
    Confirm {
        number: u64,
        #[serde(with = "crate::ledger::shared_text")]
        licence: Arc<str>,
        accepted: Accepted,
    },
    Release {
        #[serde(with = "crate::ledger::shared_text")]
        licence: Arc<str>,
        seat: SeatId,
    },
    Keep {
        #[serde(with = "crate::ledger::shared_text")]
        licence: Arc<str>,
        seat: SeatId,
        milliseconds: u64,
    },
    /// Asks whether everything before it was heard.
    Sync {
        number: u64,
    },
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Heir {
    /// Its configuration is good, and it will listen there on sockets of the old process; it waits
    /// for the seats.
    Prepared {
        listens: Vec<SocketAddr>,
    },
    /// It accepts connections and decides.
    Serving,
    Admitted {
        number: u64,
        answer: Result<Granted, Denied>,
    },
    Confirmed {
        number: u64,
        answer: Result<(), Unconfirmed>,
    },
    /// The connection with this seat is to end.
    Close {
        #[serde(with = "crate::ledger::shared_text")]
        licence: Arc<str>,
        seat: SeatId,
        reason: CloseReason,
    },
}

/// An open that the old process asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    #[serde(with = "crate::ledger::shared_text")]
    licence: Arc<str>,
    seat: SeatId,
    class: SeatClass,
    occupant: Occupant,
    session_id: Option<String>,
    replaces: Option<SeatId>,
    force: bool,
}

/// What came of an upgrade: the process that serves now, or why this one goes on.
pub type Answer = Result<u32, String>;

/// Somebody waits for the answer.
pub type Request = oneshot::Sender<Answer>;

/// Where an upgrade can be asked for.
#[derive(Clone, Debug)]
pub struct Upgrades(mpsc::Sender<Request>);

impl Upgrades {
    /// A place to ask, and where the requests come.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Has a new process take over, and waits for it.
    ///
    /// # Errors
    /// This one goes on, and why.
    pub async fn ask(&self) -> Answer {
        let (request, answer) = oneshot::channel();
        let ending = || HandoverError::Busy.to_string();
        self.0.try_send(request).map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

/// Why the service is not passed on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("the new process cannot be started: {0}")]
    Start(std::io::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the new process ended ({0}): {hint}", hint = hint(.0))]
    Ended(std::process::ExitStatus),
    #[error("the new process was not ready within {} s", .0.as_secs())]
    Late(std::time::Duration),
    #[error(
        "the other process speaks another protocol ({found}, this is {PROTOCOL}): restart instead"
    )]
    Protocol { found: u32 },
    #[error("the other process said something unexpected")]
    Unexpected,
    #[error("what is under way did not come to rest")]
    Restless,
    #[error("another upgrade or the end is under way")]
    Busy,
}

/// The exit code of a process whose configuration is refused.
const BAD_CONFIGURATION: i32 = 2;

/// What to do about a successor that ended.
fn hint(status: &std::process::ExitStatus) -> &'static str {
    match status.code() {
        Some(code) if code == BAD_CONFIGURATION => {
            "its configuration is refused, and `seatgate check` tells every error, as the log does"
        }
        _ => "the log says why",
    }
}
