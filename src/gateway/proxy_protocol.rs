//! The PROXY protocol, versions 1 and 2: a header in front of everything else by which a proxy
//! that only passes bytes on says who its client is.
//!
//! From the peers of `[server] proxy_protocol` a connection must begin with one. From all others
//! it must not: to HTTP and to TLS it is a broken request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use ipnet::IpNet;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{GetSocketDigest as _, SocketDigest, Stream};
use ppp::{HeaderResult, v1, v2};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// How long a peer may take for the header.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// The longest header that is read: version 2 may have fields of its own behind the addresses.
const MAX_HEADER: usize = 2048;

/// The longest header of version 1, its line end included.
const MAX_LINE: usize = 107;

/// Why a connection does not begin as it should.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("no header within {HEADER_TIME:?}")]
    Late,
    #[error("no header in the first {MAX_HEADER} bytes")]
    TooLong,
    #[error("the connection ended before its header did")]
    Ended,
    #[error("not a PROXY header: {0}")]
    Malformed(String),
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("a stream that is not a socket's")]
    NoSocket,
}

/// The address of a connection's peer, if it is an internet one.
pub fn peer(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    Some(digest.peer_addr()?.as_inet()?.ip().to_canonical())
}

/// Whether connections of `peer` begin with a header.
pub fn is_expected(peer: Option<IpAddr>, networks: &[IpNet]) -> bool {
    peer.is_some_and(|peer| networks.iter().any(|network| network.contains(&peer)))
}

/// Reads the header away. From then on the stream's peer is the client that the header tells, if
/// it tells one: a proxy's own connections (health checks) have none.
///
/// # Errors
/// There is no header, or none that can be read; the connection must end.
pub async fn read_header(stream: Stream) -> Result<Stream, HeaderError> {
    let mut stream =
        stream.into_any().downcast::<TcpStream>().map_err(|_| HeaderError::NoSocket)?;
    let client = match timeout(HEADER_TIME, read(&mut stream)).await {
        Ok(read) => read?,
        Err(_) => return Err(HeaderError::Late),
    };
    if let Some(client) = client {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // A new cell is empty.
        let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(client)));
        stream.set_socket_digest(digest);
    }
    Ok(stream)
}

async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if bytes.len() >= MAX_HEADER {
            return Err(HeaderError::TooLong);
        }
        let room = u64::try_from(MAX_HEADER - bytes.len()).unwrap_or_default();
        if (&mut *stream).take(room).read_buf(&mut bytes).await? == 0 {
            return Err(HeaderError::Ended);
        }
        if let Some((client, length)) = parse(&bytes)? {
            stream.rewind(bytes.get(length..).unwrap_or_default());
            return Ok(client);
        }
    }
}

/// The client and the length of the header, once it is complete.
fn parse(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, HeaderError> {
    let malformed = |error: String| Err(HeaderError::Malformed(error));
    // The parser takes some headers that are not complete for malformed ones.
    if !is_complete(bytes) {
        return Ok(None);
    }
    let parsed = HeaderResult::parse(bytes);
    let (client, length) = match parsed {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(told) => Some((told.source_address.into(), told.source_port)),
                v1::Addresses::Tcp6(told) => Some((told.source_address.into(), told.source_port)),
                v1::Addresses::Unknown => None,
            };
            (client, header.header.len())
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, &header.addresses) {
                (v2::Command::Local, _) => None,
                (v2::Command::Proxy, _) if header.protocol == v2::Protocol::Datagram => {
                    return malformed("it is about datagrams".to_owned());
                }
                (v2::Command::Proxy, v2::Addresses::IPv4(told)) => {
                    Some((told.source_address.into(), told.source_port))
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(told)) => {
                    Some((told.source_address.into(), told.source_port))
                }
                (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            };
            (client, header.len())
        }
        HeaderResult::V1(Err(error)) => return malformed(error.to_string()),
        HeaderResult::V2(Err(error)) => return malformed(error.to_string()),
    };
    let client = client.map(|(address, port): (IpAddr, u16)| SocketAddr::new(address, port));
    Ok(Some((client, length)))
}

/// Whether a header is here to its end, or it is clear that none will be.
fn is_complete(bytes: &[u8]) -> bool {
    let begins_like = |start: &[u8]| {
        let length = bytes.len().min(start.len());
        bytes.get(..length) == start.get(..length)
    };
    if begins_like(v2::PROTOCOL_PREFIX) {
        let length = bytes.get(14..16).and_then(|length| <[u8; 2]>::try_from(length).ok());
        return length
            .is_some_and(|length| bytes.len() >= 16 + usize::from(u16::from_be_bytes(length)));
    }
    let line = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let ends = memchr::memmem::find(line, b"\r\n").is_some();
    !begins_like(b"PROXY ") || ends || bytes.len() >= MAX_LINE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn headers_are_read_to_their_end_and_no_further() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x11, 0x5c, 0, 80];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&4444_u16.to_be_bytes());
        let with_fields = [&v4[..], &[4, 0, 2, 7, 7]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4444 80\r\n".to_vec(), Some("203.0.113.9:4444")),
            (b"PROXY TCP6 2001:db8::9 ::1 4444 80\r\n".to_vec(), Some("[2001:db8::9]:4444")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (version_2(1, 0x11, &v4), Some("203.0.113.9:4444")),
            (version_2(1, 0x11, &with_fields), Some("203.0.113.9:4444")),
            (version_2(1, 0x21, &v6), Some("[2001:db8::9]:4444")),
            (version_2(0, 0x11, &v4), None),
            (version_2(0, 0, &[]), None),
            (version_2(1, 0, &[]), None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            let length = header.len();
            for cut in 0..length {
                assert!(matches!(parse(&header[..cut]), Ok(None)), "{cut} of {header:?}");
            }
            let whole = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&whole).unwrap(), Some((expected, length)));
        }
    }

    #[test]
    fn whatever_else_is_refused() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x11, 0x5c, 0, 80];
        for bad in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4444 80\n\r\n".to_vec(),
            b"PROXY TCP4 999.0.113.9 10.0.0.1 4444 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 10.0.0.1 4444 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4444 99999\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.9 10.0.0.1 4444 80\r\n".to_vec(),
            b"proxy TCP4 203.0.113.9 10.0.0.1 4444 80\r\n".to_vec(),
            [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat(),
            version_2(2, 0x11, &v4),
            version_2(1, 0x12, &v4),
            version_2(1, 0x11, &v4[..11]),
            version_2(1, 0x51, &v4),
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            version in 0..3_u8,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let start: &[u8] = match version {
                0 => b"",
                1 => b"PROXY TCP4 ",
                _ => b"\r\n\r\n\0\r\nQUIT\n\x21",
            };
            let bytes = [start, &bytes].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
