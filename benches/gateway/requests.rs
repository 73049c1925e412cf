//! HTTP requests that are made before they are sent, and reading their answers.

use std::io;
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::Result;
use crate::frames::Frames;
use crate::prepared;
use crate::workload::Workload;

/// What a client of HTTP reads at a time.
const ROOM: usize = 64 * 1024;

/// Size of an uploaded body.
const UPLOAD: usize = 1 << 20;

/// The path of the command service.
const COMMAND: &str = "/coauthoring/CommandService.ashx";

/// A request as it goes over the wire.
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// `head` is the request line, and header lines beside those that every request has.
    fn new(host: &str, head: &[&str], body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256 + body.len());
        let (line, headers) = head.split_first().unwrap_or((&"", &[]));
        let mut push = |line: &str| bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
        push(line);
        push(&format!("Host: {host}"));
        push("User-Agent: bench");
        push("Accept: */*");
        headers.iter().for_each(|line| push(line));
        if line.starts_with("POST") {
            push(&format!("Content-Length: {}", body.len()));
        }
        push("");
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// `GET` of so many bytes from the upstream.
    pub(crate) fn bytes(size: usize, host: &str) -> Self {
        Self::new(host, &[&format!("GET /bytes/{size} HTTP/1.1")], b"")
    }

    /// The license command, for the tenant that has so many users; 0: the one of all other hosts.
    pub(crate) fn license(users: u32) -> Self {
        let line = format!("POST {COMMAND} HTTP/1.1");
        let head = [line.as_str(), "Content-Type: application/json"];
        Self::new(&prepared::host(users), &head, br#"{"c":"license"}"#)
    }

    /// The validation of a device that is bound once this was sent.
    pub(crate) fn validation() -> Self {
        let head = [
            "POST /licences/api/validate HTTP/1.1",
            "Content-Type: application/json",
            &format!("X-App-Id: {}", prepared::APP),
            &format!("X-Api-Key: {}", prepared::API_KEY),
        ];
        let key = prepared::LICENCE_KEY;
        let body = format!(r#"{{"licenceKey":"{key}","deviceId":"device_12345"}}"#);
        Self::new(&prepared::host(0), &head, body.as_bytes())
    }

    /// What a workload asks for, over and over; `None` where it is no plain HTTP.
    pub(crate) fn of(workload: Workload, host: &str) -> Option<Self> {
        Some(match workload {
            Workload::Http1k | Workload::HttpPaced => Self::bytes(1024, host),
            Workload::Http64k => Self::bytes(64 * 1024, host),
            Workload::Upload1m => Self::new(host, &["POST /upload HTTP/1.1"], &vec![b'u'; UPLOAD]),
            Workload::License0 => Self::license(0),
            Workload::License1k => Self::license(1_000),
            Workload::License100k => Self::license(100_000),
            Workload::Validate => Self::validation(),
            _ => return None,
        })
    }

    pub(crate) fn polling_get(host: &str, target: &str) -> Self {
        Self::new(host, &[&format!("GET {target} HTTP/1.1")], b"")
    }

    pub(crate) fn polling_post(host: &str, target: &str, packets: &[u8]) -> Self {
        let line = format!("POST {target} HTTP/1.1");
        Self::new(host, &[&line, "Content-Type: text/plain;charset=UTF-8"], packets)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Frames,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Frames::with_room(ROOM) })
    }

    /// Sends a request, reads its answer and checks that it is 200; returns its length.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<usize> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = AnswerReader::new();
        loop {
            if let Some(length) = answer.read(&mut self.input)? {
                return Ok(length);
            }
            if self.input.fill(&mut self.stream).await? == 0 {
                return Err("the connection ended before the end of an answer".into());
            }
        }
    }
}

/// Where the reading of an answer stands.
pub(crate) struct AnswerReader {
    /// The body's length and what of it is missing, once the head was read.
    body: Option<(usize, usize)>,
    /// The body, where it is kept.
    kept: Option<Vec<u8>>,
}

impl AnswerReader {
    pub(crate) fn new() -> Self {
        Self { body: None, kept: None }
    }

    /// One that keeps the body.
    pub(crate) fn keeping() -> Self {
        Self { body: None, kept: Some(Vec::new()) }
    }

    /// Takes what was read; the body's length once all of it is there.
    ///
    /// # Errors
    /// The answer is not 200, or does not say its length.
    pub(crate) fn read(&mut self, input: &mut Frames) -> Result<Option<usize>> {
        if self.body.is_none() {
            let Some(end) = memmem::find(input.unread(), b"\r\n\r\n") else { return Ok(None) };
            let length = check_head(input.unread().get(..end).unwrap_or_default())?;
            input.skip(end + 4);
            self.body = Some((length, length));
        }
        let Some((length, missing)) = &mut self.body else { return Ok(None) };
        let here = input.unread().len().min(*missing);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(input.unread().get(..here).unwrap_or_default());
        }
        input.skip(here);
        *missing -= here;
        Ok((*missing == 0).then_some(*length))
    }

    pub(crate) fn into_body(self) -> Vec<u8> {
        self.kept.unwrap_or_default()
    }
}

/// The length that the head of an answer states.
fn check_head(head: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(head)?;
    let stated = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match stated {
        Some(length) if text.starts_with("HTTP/1.1 200") => Ok(length),
        _ => Err(format!("unexpected answer: {}", text.lines().next().unwrap_or_default()).into()),
    }
}

/// Sends one request on a connection of its own, and waits; the body of the answer.
pub(crate) fn ask_once(address: SocketAddr, request: &Request) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let (mut input, mut answer) = (Frames::with_room(ROOM), AnswerReader::keeping());
    while answer.read(&mut input)?.is_none() {
        if input.fill_from(&mut stream)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(answer.into_body())
}
