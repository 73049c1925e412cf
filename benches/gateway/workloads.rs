//! What the clients of each closed-loop workload do, over and over.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::frames::client_text;
use crate::load::{Counters, Sample, measure};
use crate::options::Options;
use crate::peers::{Canned, Kind, Peer};
use crate::requests::{Connection, Request};
use crate::socket::Socket;
use crate::upstream::{BATCH, IS_SAVE_LOCK, LARGE, STREAM, changes};
use crate::workload::Workload;
use crate::{Result, sessions};

/// Size of an echoed message in bytes.
pub(crate) const SMALL: usize = 200;

/// Sizes of what an editor sends while somebody types.
const CURSOR: usize = 250;
const SAVE: usize = 2048;

/// Cursors between two saves.
const CURSORS: usize = 8;

/// A WebSocket that is none of the co-authoring service's.
const PLAIN: &str = "/ws/plain";

/// Measures one workload through one peer.
pub(crate) fn run(
    workload: Workload,
    peer: &Peer,
    canned: &Canned,
    options: &Options,
) -> Result<Sample> {
    let (address, window) = (peer.address, options.window());
    // A real server tells of its own users.
    let length = match peer.kind {
        Kind::DocumentServer => None,
        _ => canned.length(workload),
    };
    let client = move |counters: Arc<Counters>, number| async move {
        let client = Client { address, number, counters: &counters };
        match workload {
            Workload::WsEcho => client.echo(client.session().await?).await,
            Workload::WsEchoPlain => client.echo(client.plain().await?).await,
            Workload::Ws16kUp => client.up(client.session().await?).await,
            Workload::Ws16kUpPlain => client.up(client.plain().await?).await,
            Workload::Ws16kDown => client.down(client.session().await?).await,
            Workload::Ws16kDownPlain => client.down(client.plain().await?).await,
            Workload::EditorMix => client.edit(client.session().await?).await,
            Workload::WsOpen => client.open().await,
            _ => client.ask(workload, length).await,
        }
    };
    measure(peer, workload.clients(), window, client)
}

/// One client, for as long as its connection lasts.
struct Client<'a> {
    address: SocketAddr,
    number: usize,
    counters: &'a Counters,
}

impl Client<'_> {
    fn done(&self) -> bool {
        self.counters.done(self.number)
    }

    async fn session(&self) -> Result<Socket> {
        Socket::open(self.address, self.number as u64).await
    }

    async fn plain(&self) -> Result<Socket> {
        Socket::connect(self.address, PLAIN).await
    }

    /// The same request on one connection; every answer has the length that is expected, or that
    /// of the first.
    async fn ask(&self, workload: Workload, length: Option<usize>) -> Result<()> {
        let request = Request::of(workload, &self.address.to_string());
        let request = request.ok_or("no workload of a rate")?;
        let mut connection = Connection::open(self.address).await?;
        self.counters.connected();
        let mut expected = length;
        loop {
            let length = connection.ask(&request).await?;
            if *expected.get_or_insert(length) != length {
                return Err(format!("an answer of {length} bytes").into());
            }
            if !self.done() {
                return Ok(());
            }
        }
    }

    /// Small messages there and back.
    async fn echo(&self, mut socket: Socket) -> Result<()> {
        let mut message = Vec::new();
        client_text(&mut message, &cursor(SMALL));
        self.counters.connected();
        loop {
            socket.write(&message).await?;
            socket.expect_length(SMALL).await?;
            if !self.done() {
                return Ok(());
            }
        }
    }

    /// Large messages to the server, as fast as they are taken.
    async fn up(&self, mut socket: Socket) -> Result<()> {
        let mut message = Vec::new();
        client_text(&mut message, &changes(LARGE, false));
        self.counters.connected();
        loop {
            socket.write(&message).await?;
            if !self.done() {
                return Ok(());
            }
        }
    }

    /// Large messages to the client; one batch is asked for ahead.
    async fn down(&self, mut socket: Socket) -> Result<()> {
        let mut request = Vec::new();
        client_text(&mut request, STREAM);
        self.counters.connected();
        socket.write(&request).await?;
        loop {
            socket.write(&request).await?;
            for _ in 0..BATCH {
                socket.expect_length(LARGE).await?;
                if !self.done() {
                    return Ok(());
                }
            }
        }
    }

    /// What an editor sends, and the answers that it waits for.
    async fn edit(&self, mut socket: Socket) -> Result<()> {
        let message = |text: &str| {
            let mut frame = Vec::new();
            client_text(&mut frame, text);
            frame
        };
        let cursor = message(&cursor(CURSOR));
        let (is_locked, save) = (message(IS_SAVE_LOCK), message(&changes(SAVE, true)));
        let round: Vec<&Vec<u8>> =
            std::iter::repeat_n(&cursor, CURSORS).chain([&is_locked, &save]).collect();
        self.counters.connected();
        loop {
            for message in &round {
                socket.write(message).await?;
                socket.expect_text().await?;
                if !self.done() {
                    return Ok(());
                }
            }
        }
    }

    /// Whole sessions.
    async fn open(&self) -> Result<()> {
        self.counters.connected();
        loop {
            sessions::open_and_close(self.address, self.number as u64).await?;
            if !self.done() {
                return Ok(());
            }
        }
    }
}

/// A message of `size` bytes that says where somebody's cursor is.
pub(crate) fn cursor(size: usize) -> String {
    let (head, tail) = (r#"42["message",{"type":"cursor","cursor":""#, r#""}]"#);
    format!("{head}{}{tail}", "7".repeat(size - head.len() - tail.len()))
}
