//! The WebSocket handshake with the document server (RFC 6455, section 4), done by the gateway.
//!
//! The request is written anew from the client's, so that what goes out is exactly what was
//! judged: forwarding headers of our own, no hop-by-hop header but `Upgrade: websocket`, and for
//! inspected connections no extension (the document server never accepts one; WIRE.md section 2).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::tls::upstream::DialError;
use super::upstream::Upstreams;

/// The largest answer head that is read, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// The most headers of an answer.
const MAX_HEADERS: usize = 128;

/// The largest body of a refusal that is passed on, in bytes.
const MAX_REFUSAL_BODY: usize = 256 * 1024;

/// A connection to a document server; without TLS there is nothing around it.
pub type ServerStream = Either<TcpStream, Box<Either<TlsStream<TcpStream>, UnixStream>>>;

/// What the document server said to a handshake.
#[derive(Debug)]
pub enum Answer {
    /// 101: the tunnel is open.
    Upgraded {
        stream: ServerStream,
        /// The head as it goes to the client.
        head: Vec<u8>,
        /// What the server sent behind it.
        early: Bytes,
    },
    /// Any other answer, passed on as it is.
    Refused { head: Box<ResponseHeader>, body: Bytes },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no connection to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no connection to {address} within {after:?}")]
    ConnectTimeout { address: SocketAddr, after: Duration },
    #[error("no connection to {address} over TLS: {source}")]
    Tls { address: SocketAddr, source: io::Error },
    #[error("{address} did not answer the WebSocket handshake within {after:?}")]
    AnswerTimeout { address: SocketAddr, after: Duration },
    #[error("{address} broke off the WebSocket handshake: {source}")]
    Broken { address: SocketAddr, source: io::Error },
    #[error("{address} answered the WebSocket handshake with something that is not HTTP")]
    NotHttp { address: SocketAddr },
}

/// Whether a request is a WebSocket handshake: `GET`, `Connection: upgrade`,
/// `Upgrade: websocket`, and no body.
pub fn is_websocket(request: &RequestHeader) -> bool {
    let has_token = |name: HeaderName, token: &str| {
        request.headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value.split(',').any(|entry| entry.trim().eq_ignore_ascii_case(token))
            })
        })
    };
    request.method == http::Method::GET
        && request.version != http::Version::HTTP_2
        && has_token(header::UPGRADE, "websocket")
        && has_token(header::CONNECTION, "upgrade")
        && !request.headers.contains_key(header::TRANSFER_ENCODING)
        && request.headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// Writes a handshake from a client's request whose forwarding headers are already ours.
/// `extensions` are offered on only where nobody looks into the frames.
pub fn write_request(request: &RequestHeader, target: &[u8], extensions: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &request.headers {
        if is_hop_by_hop(name)
            || (name == header::SEC_WEBSOCKET_EXTENSIONS && !extensions)
            || name == header::CONTENT_LENGTH
            || name == header::EXPECT
        {
            continue;
        }
        write_header(&mut out, name, value);
    }
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    out
}

/// The same with the process that this one took over from, at its socket.
///
/// # Errors
/// As for [`perform`].
pub async fn perform_at(
    socket: &Path,
    request: &[u8],
    answer_timeout: Duration,
) -> Result<Answer, HandshakeError> {
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|source| HandshakeError::Connect { address, source })?;
    finish(address, Either::Right(Box::new(Either::Right(stream))), request, answer_timeout).await
}

/// Connects to `address`, one of `upstreams`, sends `request` and reads the answer.
///
/// # Errors
/// No connection, no answer in time, or none that is HTTP.
pub async fn perform(
    address: SocketAddr,
    request: &[u8],
    upstreams: &Upstreams,
    answer_timeout: Duration,
) -> Result<Answer, HandshakeError> {
    let stream = match &upstreams.dialer {
        None => Either::Left(connect(address, upstreams.settings.connect_timeout).await?),
        Some(dialer) => {
            let dialled = Box::pin(dialer.connect(address)).await;
            let dialled = dialled.map_err(|error| match error {
                DialError::Connect(source) => HandshakeError::Connect { address, source },
                DialError::Tls(source) => HandshakeError::Tls { address, source },
                DialError::Late(after) => HandshakeError::ConnectTimeout { address, after },
            })?;
            Either::Right(Box::new(Either::Left(dialled)))
        }
    };
    finish(address, stream, request, answer_timeout).await
}

async fn finish(
    address: SocketAddr,
    mut stream: ServerStream,
    request: &[u8],
    answer_timeout: Duration,
) -> Result<Answer, HandshakeError> {
    let answer = timeout(answer_timeout, exchange(address, &mut stream, request)).await;
    let (head, rest) =
        answer.map_err(|_| HandshakeError::AnswerTimeout { address, after: answer_timeout })??;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let head = write_upgrade(&head);
        return Ok(Answer::Upgraded { stream, head, early: rest });
    }
    let body = timeout(answer_timeout, read_body(&mut stream, &head, rest)).await;
    let body = body
        .map_err(|_| HandshakeError::AnswerTimeout { address, after: answer_timeout })?
        .map_err(|source| HandshakeError::Broken { address, source })?;
    Ok(Answer::Refused { head: Box::new(refusal_head(&head, body.len())), body })
}

async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, HandshakeError> {
    let connected = timeout(limit, TcpStream::connect(address)).await;
    let stream = connected
        .map_err(|_| HandshakeError::ConnectTimeout { address, after: limit })?
        .map_err(|source| HandshakeError::Connect { address, source })?;
    // Small messages must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn exchange(
    address: SocketAddr,
    stream: &mut ServerStream,
    request: &[u8],
) -> Result<(ResponseHeader, Bytes), HandshakeError> {
    let broken = |source| HandshakeError::Broken { address, source };
    stream.write_all(request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut buffer = BytesMut::with_capacity(1024);
    let mut interim = 0;
    loop {
        while let Some((head, length)) =
            parse_head(&buffer).map_err(|_| HandshakeError::NotHttp { address })?
        {
            let rest = buffer.split_off(length);
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok((head, rest.freeze()));
            }
            // Interim answers are nobody's here.
            interim += length;
            buffer = rest;
        }
        if interim + buffer.len() > MAX_HEAD {
            return Err(HandshakeError::NotHttp { address });
        }
        if stream.read_buf(&mut buffer).await.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Parses an answer's head, if it is complete: the head and its length in bytes.
fn parse_head(bytes: &[u8]) -> Result<Option<(ResponseHeader, usize)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let code = response.code.unwrap_or_default();
    let mut head = ResponseHeader::build(code, Some(response.headers.len()))
        .map_err(|_| httparse::Error::Status)?;
    for header in response.headers.iter() {
        head.append_header(header.name.to_owned(), header.value)
            .map_err(|_| httparse::Error::HeaderValue)?;
    }
    Ok(Some((head, length)))
}

/// The 101 as the client gets it.
fn write_upgrade(head: &ResponseHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in &head.headers {
        if !is_hop_by_hop(name) && name != header::CONTENT_LENGTH {
            write_header(&mut out, name, value);
        }
    }
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    out
}

/// A refusal's head for a body of `length` bytes that is already here.
fn refusal_head(head: &ResponseHeader, length: usize) -> ResponseHeader {
    let mut out = head.clone();
    let names: Vec<HeaderName> =
        head.headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in names {
        out.remove_header(&name);
    }
    let _ = out.insert_header(header::CONTENT_LENGTH, length);
    out
}

/// The body of a refusal: as long as it says, or until the server closes. A chunked one is not
/// worth a parser of its own here, and is left out.
async fn read_body(
    stream: &mut ServerStream,
    head: &ResponseHeader,
    early: Bytes,
) -> io::Result<Bytes> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(Bytes::new());
    }
    let stated = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    let length = stated.unwrap_or(MAX_REFUSAL_BODY).min(MAX_REFUSAL_BODY);
    let mut body = BytesMut::from(early);
    while body.len() < length && stream.read_buf(&mut body).await? > 0 {}
    body.truncate(length);
    Ok(body.freeze())
}

fn write_header(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Headers that concern one hop only (RFC 9110, section 7.6.1).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "upgrade"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "http2-settings"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/doc/k/c/?EIO=4", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn a_handshake_is_known_by_its_headers() {
        let upgrade = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")];
        assert!(is_websocket(&request(&upgrade)));
        assert!(!is_websocket(&request(&[("Upgrade", "websocket")])));
        assert!(!is_websocket(&request(&[("Connection", "Upgrade"), ("Upgrade", "h2c")])));
        let with_body = [upgrade[0], upgrade[1], ("Content-Length", "5")];
        assert!(!is_websocket(&request(&with_body)));
        let chunked = [upgrade[0], upgrade[1], ("Transfer-Encoding", "chunked")];
        assert!(!is_websocket(&request(&chunked)));
    }

    #[test]
    fn the_request_is_written_anew() {
        let request = request(&[
            ("Host", "docs.example"),
            ("Connection", "Upgrade, X-Secret"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "abc"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ]);
        let text = String::from_utf8(write_request(&request, b"/doc/k/c/?EIO=4", false)).unwrap();
        assert_eq!(
            text,
            "GET /doc/k/c/?EIO=4 HTTP/1.1\r\nhost: docs.example\r\nsec-websocket-key: abc\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        let text = String::from_utf8(write_request(&request, b"/x", true)).unwrap();
        assert!(text.contains("sec-websocket-extensions: permessage-deflate\r\n"));
    }

    #[test]
    fn an_answer_is_parsed_once_it_is_whole() {
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\nrest";
        for cut in 0..answer.len() - 4 {
            assert!(parse_head(&answer[..cut]).unwrap().is_none());
        }
        let (head, length) = parse_head(answer).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), &answer[length..]), (101, &b"rest"[..]));
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
