//! What the clients of each workload do, over and over.

use std::net::SocketAddr;
use std::sync::Arc;

use memchr::memmem;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::frames::{Frames, client_text};
use crate::load::{Counters, Sample, measure};
use crate::options::{Options, Workload};
use crate::peers::Peer;
use crate::socket::Socket;
use crate::upstream::{BATCH, LARGE, STREAM, large_message};
use crate::{Result, sessions};

/// Size of an echoed message in bytes.
const SMALL: usize = 200;

/// Measures one workload through one peer.
pub(crate) fn run(workload: Workload, peer: &Peer, options: &Options) -> Result<Sample> {
    let (address, window) = (peer.address, options.window());
    let client = move |counters: Arc<Counters>, number| async move {
        let client = Client { address, number, counters: &counters };
        match workload {
            Workload::Http1k => client.get(1024).await,
            Workload::Http64k => client.get(64 * 1024).await,
            Workload::WsEcho => client.echo(client.session().await?).await,
            Workload::WsPlain => client.echo(Socket::connect(address, "/ws/echo").await?).await,
            Workload::Ws16kUp => client.up().await,
            Workload::Ws16kDown => client.down().await,
            Workload::WsOpen => client.open().await,
            Workload::IdleMemory | Workload::SoakOpens => Err("not counted in a window".into()),
        }
    };
    measure(peer, clients(workload), window, client)
}

fn clients(workload: Workload) -> usize {
    match workload {
        Workload::Http1k | Workload::Http64k | Workload::WsOpen => 32,
        Workload::WsEcho | Workload::WsPlain => 64,
        Workload::Ws16kUp | Workload::Ws16kDown => 8,
        Workload::IdleMemory | Workload::SoakOpens => 0,
    }
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

    /// GETs of `size` bytes on one connection.
    async fn get(&self, size: usize) -> Result<()> {
        let address = self.address;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /bytes/{size} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        );
        let mut input = Frames::new();
        self.counters.connected();
        loop {
            stream.write_all(request.as_bytes()).await?;
            read_answer(&mut stream, &mut input, size).await?;
            if !self.done() {
                return Ok(());
            }
        }
    }

    /// Small messages there and back.
    async fn echo(&self, mut socket: Socket) -> Result<()> {
        let mut message = Vec::new();
        client_text(&mut message, &small_message());
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
    async fn up(&self) -> Result<()> {
        let mut socket = self.session().await?;
        let mut message = Vec::new();
        client_text(&mut message, &large_message());
        self.counters.connected();
        loop {
            socket.write(&message).await?;
            if !self.done() {
                return Ok(());
            }
        }
    }

    /// Large messages to the client; one batch is asked for ahead.
    async fn down(&self) -> Result<()> {
        let mut socket = self.session().await?;
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

/// Reads an answer whose body has `size` bytes, and checks that it says so.
async fn read_answer(stream: &mut TcpStream, input: &mut Frames, size: usize) -> Result<()> {
    let head = loop {
        if let Some(end) = memmem::find(input.unread(), b"\r\n\r\n") {
            break end + 4;
        }
        if input.fill(stream).await? == 0 {
            return Err("the connection ended before an answer".into());
        }
    };
    check_head(input.unread().get(..head).unwrap_or_default(), size)?;
    input.skip(head);
    let mut left = size;
    loop {
        let here = input.unread().len().min(left);
        input.skip(here);
        left -= here;
        if left == 0 {
            return Ok(());
        }
        if input.fill(stream).await? == 0 {
            return Err("the connection ended within an answer".into());
        }
    }
}

fn check_head(head: &[u8], size: usize) -> Result<()> {
    let text = std::str::from_utf8(head)?;
    let stated = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if text.starts_with("HTTP/1.1 200") && stated == Some(size) {
        return Ok(());
    }
    Err(format!("unexpected answer: {}", text.lines().next().unwrap_or_default()).into())
}

/// What an editor sends while somebody types.
pub(crate) fn small_message() -> String {
    let (head, tail) = (r#"42["message",{"type":"cursor","cursor":""#, r#""}]"#);
    format!("{head}{}{tail}", "7".repeat(SMALL - head.len() - tail.len()))
}
