//! A small HTTP/1.1 client that sends exactly what it is told, odd targets and headers included,
//! from any loopback address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::pattern;
use super::wait::PATIENCE;

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    method: String,
    target: Vec<u8>,
    headers: Vec<(String, String)>,
    body: Body,
    source: Option<IpAddr>,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Bytes(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
    /// The pattern of this length, with `Content-Length`.
    Pattern(u64),
    /// The same in chunks.
    PatternChunks(u64),
}

/// One response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first header of this name, any letter case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    pub fn is_pattern(&self, length: u64) -> bool {
        let mut checker = pattern::Checker::default();
        checker.take(&self.body);
        checker.matches && checker.length == length
    }
}

/// The value of the first header of this name.
pub fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Call {
    pub fn new(method: &str, target: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.as_ref().to_vec(),
            headers: Vec::new(),
            body: Body::None,
            source: None,
        }
    }

    pub fn get(target: impl AsRef<[u8]>) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: impl AsRef<[u8]>, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// Sends the body in these chunks (`Transfer-Encoding: chunked`).
    pub fn chunks(mut self, chunks: Vec<Vec<u8>>) -> Self {
        self.body = Body::Chunks(chunks);
        self
    }

    /// Streams this many bytes of the pattern.
    pub fn pattern(mut self, length: u64) -> Self {
        self.body = Body::Pattern(length);
        self
    }

    pub fn pattern_chunks(mut self, length: u64) -> Self {
        self.body = Body::PatternChunks(length);
        self
    }

    /// Connects from this loopback address.
    pub fn from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().expect("an address"));
        self
    }

    /// Sends it on a connection of its own and reads the answer; panics if there is none.
    pub async fn send(&self, to: SocketAddr) -> Answer {
        self.try_send(to).await.unwrap_or_else(|error| {
            panic!(
                "no answer to {} {}: {error}",
                self.method,
                String::from_utf8_lossy(&self.target)
            )
        })
    }

    /// As [`Call::send`], for exchanges that may fail.
    pub async fn try_send(&self, to: SocketAddr) -> io::Result<Answer> {
        let mut connection = Connection::open_from(to, self.source).await?;
        connection.exchange(self, false).await
    }

    /// The head as bytes.
    fn head(&self, to: SocketAddr, keep_alive: bool) -> Vec<u8> {
        let mut head = Vec::new();
        head.extend(self.method.as_bytes());
        head.push(b' ');
        head.extend(&self.target);
        head.extend(b" HTTP/1.1\r\n");
        let mut line = |name: &str, value: &str| {
            head.extend(format!("{name}: {value}\r\n").as_bytes());
        };
        if find(&self.headers, "host").is_none() {
            line("Host", &to.to_string());
        }
        if find(&self.headers, "connection").is_none() && !keep_alive {
            line("Connection", "close");
        }
        match &self.body {
            Body::None => {}
            Body::Bytes(bytes) => line("Content-Length", &bytes.len().to_string()),
            Body::Pattern(length) => line("Content-Length", &length.to_string()),
            Body::Chunks(_) | Body::PatternChunks(_) => line("Transfer-Encoding", "chunked"),
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        head.extend(b"\r\n");
        head
    }

    async fn write_body(&self, to: &mut OwnedWriteHalf) -> io::Result<()> {
        match &self.body {
            Body::None => {}
            Body::Bytes(bytes) => to.write_all(bytes).await?,
            Body::Chunks(chunks) => {
                for chunk in chunks {
                    write_chunk(to, chunk).await?;
                }
                to.write_all(b"0\r\n\r\n").await?;
            }
            Body::Pattern(length) => {
                let mut sent = 0;
                while sent < *length {
                    let piece = pattern::piece(sent, length - sent);
                    to.write_all(&piece).await?;
                    sent += piece.len() as u64;
                }
            }
            Body::PatternChunks(length) => {
                let mut sent = 0;
                while sent < *length {
                    let piece = pattern::piece(sent, length - sent);
                    write_chunk(to, &piece).await?;
                    sent += piece.len() as u64;
                }
                to.write_all(b"0\r\n\r\n").await?;
            }
        }
        Ok(())
    }
}

async fn write_chunk(to: &mut (impl AsyncWrite + Unpin), chunk: &[u8]) -> io::Result<()> {
    to.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
    to.write_all(chunk).await?;
    to.write_all(b"\r\n").await
}

/// Opens a TCP connection, from a given loopback address if that matters.
pub async fn connect(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that carries several requests, one after the other.
pub struct Connection {
    to: SocketAddr,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    pub async fn open(to: SocketAddr) -> io::Result<Self> {
        Self::open_from(to, None).await
    }

    async fn open_from(to: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let (reader, writer) = connect(to, source).await?.into_split();
        Ok(Self { to, reader: BufReader::with_capacity(64 * 1024, reader), writer })
    }

    /// Sends a request and keeps the connection.
    pub async fn send(&mut self, call: &Call) -> io::Result<Answer> {
        self.exchange(call, true).await
    }

    /// Writes bytes of any kind.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Reads one answer to a request that was written by hand.
    pub async fn read(&mut self) -> io::Result<Answer> {
        timed(read_answer(&mut self.reader, false)).await
    }

    /// Everything that comes until the connection ends.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timed(self.reader.read_to_end(&mut rest)).await;
        rest
    }

    /// Writes and reads at the same time: an answer may come before the body was sent whole.
    async fn exchange(&mut self, call: &Call, keep_alive: bool) -> io::Result<Answer> {
        let head = call.head(self.to, keep_alive);
        let Self { reader, writer, .. } = self;
        let write = async {
            writer.write_all(&head).await?;
            call.write_body(writer).await
        };
        let read = read_answer(reader, call.method == "HEAD");
        timed(async {
            tokio::pin!(write, read);
            tokio::select! {
                answer = &mut read => answer,
                written = &mut write => {
                    let answer = read.await;
                    match (answer, written) {
                        (Ok(answer), _) => Ok(answer),
                        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
                    }
                }
            }
        })
        .await
    }
}

async fn timed<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(4 * PATIENCE, future)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

async fn read_answer(reader: &mut BufReader<OwnedReadHalf>, head_only: bool) -> io::Result<Answer> {
    let mut answer = loop {
        let answer = read_head(reader).await?;
        if answer.status >= 200 || answer.status == 101 {
            break answer;
        }
    };
    if head_only || matches!(answer.status, 101 | 204 | 304) {
        return Ok(answer);
    }
    let chunked = answer
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked {
        answer.body = read_chunks(reader).await?;
    } else if let Some(length) = answer.header("content-length") {
        let length = length.parse().map_err(|_| invalid("content-length"))?;
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body).await?;
        if (body.len() as u64) < length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was cut"));
        }
        answer.body = body;
    } else {
        reader.read_to_end(&mut answer.body).await?;
    }
    Ok(answer)
}

async fn read_head(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Answer> {
    let line = read_line(reader).await?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| invalid(&line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader).await?;
        if line.is_empty() {
            return Ok(Answer { status, headers, body: Vec::new() });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

async fn read_chunks(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid(&line))?;
        if size == 0 {
            while !read_line(reader).await?.is_empty() {}
            return Ok(body);
        }
        if (&mut *reader).take(size).read_to_end(&mut body).await? as u64 != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a chunk was cut"));
        }
        read_line(reader).await?;
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer's end"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}
