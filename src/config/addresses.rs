//! The kinds of values that say where something is: sockets, networks, hosts, paths, origins, URLs.
//!
//! Pure: text to strong types.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use super::values::{Fault, Kind, kind};

/// A path of a file.
pub(super) const PATH: Kind<String> = kind("a path", "write a path in quotes", |text| {
    if text.is_empty() {
        return Err(Fault::PLAIN);
    }
    if text.contains('\0') {
        return Err(Fault::because("has a NUL character"));
    }
    Ok(text.to_owned())
});

/// An address to listen on.
pub(super) const SOCKET: Kind<SocketAddr> = kind(
    "an IP address with a port",
    "write it such as \"0.0.0.0:8080\" or \"[::]:8080\"",
    |text| text.parse().map_err(|_| Fault::PLAIN),
);

/// A network, or one address.
pub(super) const NETWORK: Kind<IpNet> =
    kind("a network", "write an address or a network, such as \"10.0.0.0/8\"", |text| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).map_err(|_| Fault::PLAIN)
    });

/// A server to connect to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `host:port`
    pub(super) authority: String,
    pub(super) tls: bool,
}

/// `host:port` of a server to connect to, or `https://host` with or without a port.
pub(super) const ADDRESS: Kind<Address> = kind(
    "a host with a port",
    "write it such as \"127.0.0.1:80\", or \"https://docs.internal\" for TLS",
    |text| {
        let (tls, authority) = match text.split_once("://") {
            Some(("https", authority)) => (true, authority),
            Some(("http", authority)) => (false, authority),
            Some(_) => return Err(Fault::because("has a scheme other than https")),
            None => (false, text),
        };
        let authority =
            if tls { authority.strip_suffix('/').unwrap_or(authority) } else { authority };
        if authority.contains('/') {
            return Err(Fault::mend(
                "has a path",
                "write it without one; path_prefix is for virtual paths",
            ));
        }
        let (host, _) = split_port(authority);
        let name = host.trim_start_matches('[').trim_end_matches(']');
        if tls && is_host(host) && ServerName::try_from(name).is_err() {
            return Err(Fault::because("has a host that no certificate can name"));
        }
        match split_port(authority) {
            (host, Some(port)) if is_host(host) && is_port(port) => {
                Ok(Address { authority: authority.to_owned(), tls })
            }
            (host, None) if is_host(host) && tls => {
                Ok(Address { authority: format!("{authority}:443"), tls })
            }
            (host, None) if is_host(host) => Err(Fault::because("has no port")),
            _ => Err(Fault::PLAIN),
        }
    },
);

/// The name that a server's certificate is looked at for.
pub(super) const SERVER_NAME: Kind<String> =
    kind("a host name", "write a name such as \"docs.internal\"", |text| {
        let name = text.to_ascii_lowercase();
        match ServerName::try_from(name.as_str()) {
            Ok(ServerName::DnsName(_) | ServerName::IpAddress(_)) => Ok(name),
            Ok(_) | Err(_) => Err(Fault::PLAIN),
        }
    });

/// A host pattern of a tenant, in the form that host names are compared in: lower case, no dot at
/// the end.
pub(super) const HOST_PATTERN: Kind<String> =
    kind("a host name", "write a name such as \"docs.example.com\" or \"*.example.com\"", |text| {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name == "*" {
            return Err(Fault::mend(
                "would be every host",
                "hosts that no tenant names have the licence of [licences] default",
            ));
        }
        if let Ok(address) = name.parse::<Ipv6Addr>() {
            return Ok(format!("[{address}]"));
        }
        if !name.is_ascii() {
            return Err(Fault::mend(
                "is not ASCII",
                "write the name as it goes over the wire, beginning with \"xn--\"",
            ));
        }
        if let (host, Some(port)) = split_port(&name)
            && is_host(host)
            && is_port(port)
        {
            return Err(Fault::mend(
                "has a port",
                "a tenant has a host on every port: leave it out",
            ));
        }
        if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = literal.parse::<Ipv6Addr>().map_err(|_| Fault::PLAIN)?;
            return Ok(format!("[{address}]"));
        }
        if is_host(name.strip_prefix("*.").unwrap_or(&name)) { Ok(name) } else { Err(Fault::PLAIN) }
    });

pub(super) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    }
}

pub(super) fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let label = |label: &str| {
        let hyphen = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && !hyphen && label.bytes().all(good)
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// A virtual path, without a slash at the end; `""` where there is none.
pub(super) const PATH_PREFIX: Kind<String> =
    kind("a path", "write a path such as \"/docs\", or \"\" where there is none", |text| {
        let path = text.trim_end_matches('/');
        if path.is_empty() || is_plain_path(path) { Ok(path.to_owned()) } else { Err(Fault::PLAIN) }
    });

/// The path of the validation API.
pub(super) const API_PATH: Kind<String> =
    kind("a path", "write a path such as \"/licences/api/validate\"", |text| {
        if !is_plain_path(text) {
            return Err(Fault::PLAIN);
        }
        let lower = format!("{}/", text.to_ascii_lowercase());
        let taken =
            ["/command/", "/coauthoring/commandservice.ashx/", "/doc/", "/info/", "/internal/"];
        if taken.iter().any(|taken| lower.starts_with(taken)) {
            return Err(Fault::because("is the document server's own"));
        }
        Ok(text.to_owned())
    });

/// Absolute, nothing encoded, no empty or dot segments: reads the same to everyone.
fn is_plain_path(path: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(good)
    };
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

/// A browser origin as browsers send it: lower case, without the scheme's own port; or `*`.
pub(super) const ORIGIN: Kind<String> = kind(
    "an origin",
    "write scheme, host and port, such as \"https://app.example.com\", without a path",
    |text| {
        if text == "*" {
            return Ok(text.to_owned());
        }
        let origin = text.to_ascii_lowercase();
        let (scheme, authority) = origin.split_once("://").ok_or(Fault::PLAIN)?;
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(good) {
            return Err(Fault::PLAIN);
        }
        match split_port(authority) {
            (host, None) if is_host(host) => Ok(origin),
            (host, Some(port)) if is_host(host) && is_port(port) => match (scheme, port) {
                ("http", "80") | ("https", "443") => Ok(format!("{scheme}://{host}")),
                _ => Ok(origin),
            },
            _ => Err(Fault::PLAIN),
        }
    },
);

/// A URL to call. Not repeated in errors: it may hold a token.
pub(super) const WEB_URL: Kind<String> = Kind {
    confidential: true,
    ..kind("a URL", "write it such as \"https://hooks.example.com/seatgate\"", |text| {
        let uri = text.parse::<http::Uri>().map_err(|_| Fault::PLAIN)?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(text.to_owned()),
            _ => Err(Fault::PLAIN),
        }
    })
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts with what they are read as; `None` where they are refused.
    fn check(kind: &Kind<String>, table: &[(&str, Option<&str>)]) {
        for (text, expected) in table {
            assert_eq!((kind.parse)(text).ok().as_deref(), *expected, "{text}");
        }
    }

    #[test]
    fn hosts_are_told_from_what_is_none() {
        let long = "a".repeat(64);
        check(
            &HOST_PATTERN,
            &[
                ("docs.example.com", Some("docs.example.com")),
                ("Docs.Example.COM.", Some("docs.example.com")),
                ("*.Example.com", Some("*.example.com")),
                ("localhost", Some("localhost")),
                ("document_server", Some("document_server")),
                ("192.0.2.1", Some("192.0.2.1")),
                ("2001:DB8::1", Some("[2001:db8::1]")),
                ("[2001:db8:0::1]", Some("[2001:db8::1]")),
                ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
                ("", None),
                (".", None),
                ("*", None),
                ("*.", None),
                ("a..b", None),
                ("*.*.b", None),
                ("a*.b", None),
                ("-a.b", None),
                ("a b", None),
                ("a/b", None),
                ("a:80", None),
                ("[::1]:80", None),
                ("[::1", None),
                (&long, None),
            ],
        );
    }

    #[test]
    fn addresses_have_a_port() {
        for (text, authority, tls) in [
            ("127.0.0.1:80", "127.0.0.1:80", false),
            ("ds:1", "ds:1", false),
            ("ds-1.internal:65535", "ds-1.internal:65535", false),
            ("[::1]:80", "[::1]:80", false),
            ("a_b:80", "a_b:80", false),
            ("http://ds:80", "ds:80", false),
            ("https://ds", "ds:443", true),
            ("https://ds/", "ds:443", true),
            ("https://ds:8443", "ds:8443", true),
            ("https://[::1]", "[::1]:443", true),
        ] {
            let expected = Address { authority: authority.to_owned(), tls };
            assert_eq!((ADDRESS.parse)(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            ":80",
            "ds",
            "ds:",
            "ds:0",
            "ds:65536",
            "ds:+1",
            "::1:80",
            "[::1]",
            "ds:80/",
            "http://ds",
            "https://",
            "https://ds/x",
            "https://ds:0",
            "ftp://ds:1",
            "https://u@ds",
        ] {
            assert!((ADDRESS.parse)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_read_the_same_to_everyone() {
        check(
            &PATH_PREFIX,
            &[
                ("", Some("")),
                ("/", Some("")),
                ("/docs/", Some("/docs")),
                ("/a/b-c_d~e.f", Some("/a/b-c_d~e.f")),
                ("docs", None),
                ("/a//b", None),
                ("/a/../b", None),
                ("/a%2fb", None),
                ("/a?b", None),
                ("/ä", None),
            ],
        );
        for bad in
            ["/", "", "/doc", "/DOC/x", "/command", "/coauthoring/CommandService.ashx", "/info"]
        {
            check(&API_PATH, &[(bad, None)]);
        }
        check(&API_PATH, &[("/document/validate", Some("/document/validate"))]);
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        check(
            &ORIGIN,
            &[
                ("https://App.example", Some("https://app.example")),
                ("https://app.example:443", Some("https://app.example")),
                ("http://app.example:80", Some("http://app.example")),
                ("http://app.example:443", Some("http://app.example:443")),
                ("http://[::1]:3000", Some("http://[::1]:3000")),
                ("capacitor://localhost", Some("capacitor://localhost")),
                ("*", Some("*")),
                ("null", None),
                ("https://", None),
                ("https://app.example/", None),
                ("https://u@app.example", None),
                ("https://*.example", None),
            ],
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text: String, ascii in "[ -~]{0,40}") {
            for text in [text, ascii] {
                let _ = (ADDRESS.parse)(&text);
                for kind in [SERVER_NAME, HOST_PATTERN, PATH, PATH_PREFIX, API_PATH, ORIGIN, WEB_URL] {
                    let _ = (kind.parse)(&text);
                }
                let _ = (SOCKET.parse)(&text);
                let _ = (NETWORK.parse)(&text);
                // What is read once reads the same again.
                if let Ok(pattern) = (HOST_PATTERN.parse)(&text) {
                    prop_assert_eq!((HOST_PATTERN.parse)(&pattern), Ok(pattern));
                }
            }
        }
    }
}
