//! How a connection ends: the last words to both sides, and what becomes of its seat.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::Driver;
use crate::clock;
use crate::gateway::polling::Upgrade;
use crate::gateway::pump::{Peer, PumpEvent};
use crate::session::inspect::Event;
use crate::wire::coauthoring::{DisconnectCode, disconnect_reason};
use crate::wire::packet::DISCONNECT;
use crate::wire::payload;
use crate::wire::websocket::{Opcode, write_close, write_frame};

/// How long a peer has to take our last words, or to finish its own.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How a connection ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client said goodbye, or ended its stream after one.
    Goodbye,
    /// The client was gone without a word.
    ClientLost,
    ServerClosed,
    ServerLost,
    /// An open was refused.
    Refused,
    /// The client broke the protocol.
    Violation,
    /// A peer took or sent nothing any more.
    TimedOut,
    /// Asked by an operator, or by the same session on another connection.
    Closed,
    /// It never took over the polling session that it was opened for.
    ProbeEnded,
    /// The gateway is shutting down: the editor connects again, to whoever comes next.
    ShutDown,
}

impl<C, S> Driver<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// One stream is at its end: the other side gets the rest, and its own chance to finish.
    pub(super) async fn finish_after(&mut self, from: Peer) -> End {
        let to = from.other();
        let finishing = async {
            let said_all =
                self.pump.inspect.client.is_closed() && self.pump.inspect.server.is_closed();
            if said_all {
                for peer in [to, from] {
                    // To close a socket ends its stream as well, and both are closed next.
                    let _ = match self.encrypted {
                        true => self.pump.finish(peer).await,
                        false => self.pump.flush(peer).await,
                    };
                }
                return;
            }
            if self.pump.finish(to).await.is_err() {
                return;
            }
            if from == Peer::Server {
                // Closing with unread bytes would reset the client before it has read the rest.
                return self.pump.discard(Peer::Client).await;
            }
            loop {
                match self.pump.next().await {
                    PumpEvent::Inspected(
                        _,
                        Event::Goodbye | Event::Connected | Event::OpenFailed | Event::Closed,
                    ) => {}
                    // Nobody opens anything on a connection that is ending.
                    _ => return,
                }
            }
        };
        let _ = timeout(LINGER, finishing).await;
        match from {
            Peer::Client if self.client_said_goodbye => End::Goodbye,
            Peer::Client => End::ClientLost,
            Peer::Server => End::ServerClosed,
        }
    }

    /// Ends the connection with a reason that the editor understands.
    pub(super) async fn dismiss(&mut self, code: DisconnectCode) {
        let reason = disconnect_reason(code, code.description());
        self.farewell(&[reason.as_bytes(), DISCONNECT.as_bytes()], 1000).await;
    }

    /// Sends text messages and a close frame to the client, at a boundary of what it was sent so
    /// far, and waits a moment for it to take them. The document server sees its stream end before
    /// that, so that a client that lingers is nobody there any more.
    pub(super) async fn farewell(&mut self, messages: &[&[u8]], close_code: u16) {
        let last_words = async {
            self.pump.stop_reading(Peer::Client);
            let _ = self.pump.flush(Peer::Client).await;
            while !self.pump.inspect.server.at_message_boundary() {
                match self.pump.next().await {
                    PumpEvent::Inspected(
                        Peer::Server,
                        Event::Goodbye | Event::OpenFailed | Event::Closed,
                    ) => {}
                    _ => return,
                }
            }
            self.pump.stop_reading(Peer::Server);
            let _ = self.pump.finish(Peer::Server).await;
            let mut bytes = Vec::with_capacity(256);
            for message in messages {
                write_frame(&mut bytes, Opcode::Text, None, message);
            }
            write_close(&mut bytes, None, close_code);
            self.pump.send(Peer::Client, &bytes);
            if self.pump.finish(Peer::Client).await.is_ok() {
                self.pump.discard(Peer::Client).await;
            }
        };
        let _ = timeout(LINGER, last_words).await;
    }

    /// Settles what the session held: kept for a reconnect after a loss, free otherwise.
    pub(super) fn leave(&self, end: End) {
        if self.is_probing() {
            return;
        }
        let lost = match end {
            End::Goodbye | End::Refused | End::Violation | End::Closed | End::ProbeEnded => false,
            End::ClientLost | End::ServerLost | End::TimedOut | End::ShutDown => true,
            End::ServerClosed => !self.server_said_goodbye,
        };
        if let Some(Upgrade { id, .. }) = &self.upgrades {
            self.shared.polled.remove(id);
        }
        let mut session = self.session.lock();
        if lost && !self.client_said_goodbye {
            let grace = self.shared.site.load().reconnect_grace;
            session.lose(clock::now(), grace);
        } else {
            session.end();
        }
    }
}

/// The packets that end a polling session with a reason that the editor understands.
pub fn farewell_packets(code: DisconnectCode) -> Vec<u8> {
    let reason = disconnect_reason(code, code.description());
    payload::join([reason.as_bytes(), DISCONNECT.as_bytes()])
}
