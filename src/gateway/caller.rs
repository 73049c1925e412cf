//! Who is calling, and what the document server is told about it (WIRE.md section 6).
//!
//! The document server takes its tenant, its base URL and its download links from the first
//! `X-Forwarded-*` values, and its address filter passes the leftmost `X-Forwarded-For`. So those
//! headers are believed from trusted proxies only, and written anew for everybody else.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use ipnet::IpNet;
use pingora::http::RequestHeader;

use super::loops;

/// The caller of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whether the peer is a trusted proxy, so that its `X-Forwarded-*` count.
    pub trusted: bool,
    /// The client behind the trusted proxies, or the peer itself.
    pub client: IpAddr,
    /// Whether the peer came over TLS.
    pub tls: bool,
}

impl Caller {
    /// Finds the client: the rightmost `X-Forwarded-For` entry that is not a trusted proxy, as
    /// long as every hop before it is one.
    pub fn identify(
        headers: &HeaderMap,
        peer: IpAddr,
        trusted_proxies: &[IpNet],
        tls: bool,
    ) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = |address: IpAddr| trusted_proxies.iter().any(|net| net.contains(&address));
        let trusted = is_trusted(peer);
        let mut client = peer;
        if trusted {
            'hops: for value in headers.get_all("x-forwarded-for").iter().rev() {
                let Ok(value) = value.to_str() else { break };
                for entry in value.rsplit(',') {
                    let Some(address) = parse_address(entry) else { break 'hops };
                    client = address;
                    if !is_trusted(address) {
                        break 'hops;
                    }
                }
            }
        }
        Self { trusted, client, tls }
    }

    /// The caller of a request that the process which took over from this one passes on: as it
    /// identified them.
    pub fn relayed(headers: &HeaderMap) -> Self {
        let stated = first_value(headers, "x-forwarded-for").and_then(parse_address);
        let client = stated.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self { trusted: true, client, tls: false }
    }

    /// The host that the browser asked for, with its port: `X-Forwarded-Host` of a trusted
    /// proxy, else `Host`. Empty if there is none.
    pub fn host<'a>(&self, request: &'a RequestHeader) -> &'a str {
        if self.trusted
            && let Some(first) = first_value(&request.headers, "x-forwarded-host")
        {
            return first;
        }
        request
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .or_else(|| request.uri.authority().map(|authority| authority.as_str()))
            .unwrap_or_default()
    }

    /// Writes the forwarding headers of a request that goes to the document server.
    ///
    /// # Errors
    /// A value that is no header value; the request must then not be forwarded.
    pub fn write_forwarding_headers(
        &self,
        request: &mut RequestHeader,
        path_prefix: &str,
    ) -> pingora::Result<()> {
        for untold in &UNTOLD {
            request.remove_header(untold);
        }
        if !self.trusted {
            for header in &REPLACED {
                request.remove_header(header);
            }
        }
        request.insert_header(X_FORWARDED_FOR, self.client.to_string())?;
        if !request.headers.contains_key(&X_FORWARDED_HOST)
            && let Some(host) = request.headers.get(header::HOST).cloned()
        {
            request.insert_header(X_FORWARDED_HOST, host)?;
        }
        if !request.headers.contains_key(&X_FORWARDED_PROTO) {
            let proto = HeaderValue::from_static(if self.tls { "https" } else { "http" });
            request.insert_header(X_FORWARDED_PROTO, proto)?;
        }
        if !path_prefix.is_empty() {
            let outer = first_value(&request.headers, "x-forwarded-prefix").unwrap_or_default();
            let prefix = format!("{}{path_prefix}", outer.trim_end_matches('/'));
            request.insert_header(X_FORWARDED_PREFIX, prefix)?;
        }
        loops::mark(request)
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Never forwarded: the document server would read them, and no proxy in front means them for it.
static UNTOLD: [HeaderName; 2] = [
    HeaderName::from_static("cloudfront-forwarded-proto"),
    HeaderName::from_static("http2-settings"),
];

/// Taken away when they come from a peer that is not trusted.
static REPLACED: [HeaderName; 8] = [
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    X_FORWARDED_PREFIX,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("forwarded"),
];

/// The first entry of a comma-separated header, trimmed; `None` if absent, empty or not text.
fn first_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    let first = value.split(',').next()?.trim();
    if first.is_empty() { None } else { Some(first) }
}

/// An address as proxies write it: bare, with a port, IPv6 with or without brackets.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(with_port) = entry.parse::<std::net::SocketAddr>() {
        return Some(with_port.ip().to_canonical());
    }
    let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn identify(peer: &str, headers: &[(&'static str, &str)]) -> Caller {
        let trusted = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        Caller::identify(&request(headers).headers, peer.parse().unwrap(), &trusted, false)
    }

    #[test]
    fn the_client_is_the_last_address_that_nobody_trusted_vouches_for() {
        for (peer, forwarded, expected) in [
            ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
            ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("127.0.0.1", "127.0.0.1, 198.51.100.1, 10.1.1.1", "198.51.100.1"),
            ("127.0.0.1", "1.1.1.1, 198.51.100.1:4711", "198.51.100.1"),
            ("127.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
            ("127.0.0.1", "garbage", "127.0.0.1"),
            ("127.0.0.1", "198.51.100.1, garbage", "127.0.0.1"),
            ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("127.0.0.1", "10.1.1.1, 10.1.1.2", "10.1.1.1"),
        ] {
            let caller = identify(peer, &[("X-Forwarded-For", forwarded)]);
            assert_eq!(caller.client, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded}");
        }
        let caller = identify(
            "127.0.0.1",
            &[("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "198.51.100.1, 10.0.0.1")],
        );
        assert_eq!(caller.client, "198.51.100.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn an_untrusted_peer_is_not_believed() {
        let mut forged = request(&[
            ("Host", "docs.example"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Prefix", "/evil"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Real-IP", "127.0.0.1"),
            ("Forwarded", "for=127.0.0.1"),
            ("Cloudfront-Forwarded-Proto", "https"),
        ]);
        let caller = Caller { trusted: false, client: "203.0.113.9".parse().unwrap(), tls: false };
        assert_eq!(caller.host(&forged), "docs.example");
        caller.write_forwarding_headers(&mut forged, "").unwrap();
        let value = |name: &str| forged.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(value("x-forwarded-host").as_deref(), Some("docs.example"));
        assert_eq!(value("x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(value("x-forwarded-for").as_deref(), Some("203.0.113.9"));
        for gone in ["x-forwarded-prefix", "x-real-ip", "forwarded", "cloudfront-forwarded-proto"] {
            assert_eq!(value(gone), None, "{gone}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_prefixes_add_up() {
        let mut told = request(&[
            ("Host", "127.0.0.1:8080"),
            ("X-Forwarded-Host", "docs.example, inner.example"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Prefix", "/outer/"),
            ("X-Forwarded-For", "198.51.100.1"),
            ("Cloudfront-Forwarded-Proto", "https"),
        ]);
        let caller = Caller { trusted: true, client: "198.51.100.1".parse().unwrap(), tls: false };
        assert_eq!(caller.host(&told), "docs.example");
        caller.write_forwarding_headers(&mut told, "/docs").unwrap();
        let value = |name: &str| told.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(value("x-forwarded-host").as_deref(), Some("docs.example, inner.example"));
        assert_eq!(value("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(value("x-forwarded-prefix").as_deref(), Some("/outer/docs"));
        assert_eq!(value("cloudfront-forwarded-proto"), None);
    }
}
