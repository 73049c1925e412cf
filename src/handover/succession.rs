//! The successor as the authority over the seats whose connections are still here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Asked, Elder, HandoverError, Heir, wire};
use crate::ledger::{
    Accepted, Ask, Authority, CloseReason, Denied, Granted, Ledger, SeatId, Unconfirmed,
};

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The successor is getting ready.
    Pending,
    /// The successor.
    Live,
    /// This process, as before: the successor failed.
    Withdrawn,
    /// Nobody: the successor is gone.
    Lost,
}

/// A process that takes over.
pub struct Succession {
    outgoing: mpsc::UnboundedSender<Elder>,
    state: watch::Sender<State>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    /// The successor is gone: nobody answers any more.
    is_over: bool,
    admissions: HashMap<u64, oneshot::Sender<Result<Granted, Denied>>>,
    confirmations: HashMap<u64, oneshot::Sender<Result<(), Unconfirmed>>>,
}

/// What is still to be told to the successor.
pub struct Outgoing(mpsc::UnboundedReceiver<Elder>);

impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Succession").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl Succession {
    /// A successor that is getting ready: whoever asks waits.
    pub fn pending() -> (Arc<Self>, Outgoing) {
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let state = watch::Sender::new(State::Pending);
        (Arc::new(Self { outgoing, state, waiting: Mutex::default() }), Outgoing(receiver))
    }

    /// The successor decides from here on.
    pub fn begin(&self) {
        let _ = self.outgoing.send(Elder::Go);
        self.state.send_replace(State::Live);
    }

    /// The successor failed before it decided anything.
    pub fn withdraw(&self) {
        self.state.send_replace(State::Withdrawn);
    }

    /// Waits until the successor is gone.
    pub async fn lost(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| *state == State::Lost).await;
    }

    /// Waits until the successor has heard everything that was to be told until now.
    pub async fn told(&self) {
        if *self.state.borrow() == State::Live
            && let Some((number, answer)) = self.wait(|waiting| &mut waiting.confirmations)
        {
            let _ = self.outgoing.send(Elder::Sync { number });
            let _ = answer.await;
        }
    }

    /// A number for a question, and where its answer comes; `None` if the successor is gone.
    fn wait<T>(
        &self,
        of: impl FnOnce(&mut Waiting) -> &mut HashMap<u64, oneshot::Sender<T>>,
    ) -> Option<(u64, oneshot::Receiver<T>)> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.is_over {
            return None;
        }
        waiting.last += 1;
        let number = waiting.last;
        of(&mut waiting).insert(number, sender);
        Some((number, answer))
    }

    /// Who decides, once that is known.
    async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| *state != State::Pending).await;
        settled.map_or(State::Lost, |state| *state)
    }

    /// Carries word to and from the successor until it is gone.
    pub async fn carry(
        &self,
        mut outgoing: Outgoing,
        mut read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
        ledger: &Ledger,
    ) {
        let sending = async {
            while let Some(message) = outgoing.0.recv().await {
                let frame = wire::frame(&message)?;
                write.write_all(&frame).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let receiving = async {
            while let Some(message) = wire::read::<Heir>(&mut read).await? {
                if self.take(message, ledger).is_err() {
                    return Err(std::io::Error::other("an unexpected message"));
                }
            }
            Ok(())
        };
        let ended = tokio::select! {
            ended = sending => ended,
            ended = receiving => ended,
        };
        match ended {
            Ok(()) => tracing::error!("the new process is gone"),
            Err(error) => tracing::error!(%error, "the new process is out of reach"),
        }
        self.state.send_replace(State::Lost);
        *self.waiting.lock() = Waiting { is_over: true, ..Waiting::default() };
    }

    fn take(&self, message: Heir, ledger: &Ledger) -> Result<(), HandoverError> {
        match message {
            Heir::Admitted { number, answer } => {
                let waits = self.waiting.lock().admissions.remove(&number);
                if let Some(waits) = waits {
                    // Whoever asked may have left; then they released it.
                    let _ = waits.send(answer);
                }
            }
            Heir::Confirmed { number, answer } => {
                let waits = self.waiting.lock().confirmations.remove(&number);
                if let Some(waits) = waits {
                    let _ = waits.send(answer);
                }
            }
            Heir::Close { licence, seat, reason } => {
                let seats = ledger.licence(&licence);
                match reason {
                    CloseReason::Superseded => seats.supersede(seat),
                    CloseReason::Operator => {
                        seats.close(seat);
                    }
                }
            }
            Heir::Prepared { .. } | Heir::Serving => return Err(HandoverError::Unexpected),
        }
        Ok(())
    }
}

#[async_trait]
impl Authority for Succession {
    async fn admit(&self, ask: Ask<'_>) -> Result<Granted, Denied> {
        match self.settled().await {
            State::Live => {}
            State::Withdrawn => return Err(Denied::Withdrawn),
            State::Pending | State::Lost => return Err(Denied::Unavailable),
        }
        let waits = self.wait(|waiting| &mut waiting.admissions);
        let Some((number, answer)) = waits else { return Err(Denied::Unavailable) };
        let asked = Asked {
            licence: Arc::clone(ask.licence),
            seat: ask.seat,
            class: ask.class,
            occupant: ask.occupant.clone(),
            session_id: ask.session_id.map(str::to_owned),
            replaces: ask.replaces,
            force: ask.force,
        };
        if self.outgoing.send(Elder::Admit { number, asked }).is_err() {
            return Err(Denied::Unavailable);
        }
        answer.await.unwrap_or(Err(Denied::Unavailable))
    }

    async fn confirm(&self, licence: &Arc<str>, accepted: &Accepted) -> Result<(), Unconfirmed> {
        match self.settled().await {
            State::Live => {}
            State::Withdrawn => return Err(Unconfirmed::Withdrawn),
            State::Pending | State::Lost => return Err(Unconfirmed::Unavailable),
        }
        let waits = self.wait(|waiting| &mut waiting.confirmations);
        let Some((number, answer)) = waits else { return Err(Unconfirmed::Unavailable) };
        let (licence, accepted) = (Arc::clone(licence), accepted.clone());
        if self.outgoing.send(Elder::Confirm { number, licence, accepted }).is_err() {
            return Err(Unconfirmed::Unavailable);
        }
        answer.await.unwrap_or(Err(Unconfirmed::Unavailable))
    }

    fn release(&self, licence: &Arc<str>, seat: SeatId) {
        let _ = self.outgoing.send(Elder::Release { licence: Arc::clone(licence), seat });
    }

    fn keep(&self, licence: &Arc<str>, seat: SeatId, grace: Duration) {
        let milliseconds = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let licence = Arc::clone(licence);
        let _ = self.outgoing.send(Elder::Keep { licence, seat, milliseconds });
    }
}
