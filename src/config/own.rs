//! The gateway's own listeners: a document server that is one of them would be asked for its own
//! requests, without end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::addresses::split_port;
use super::settings::Server;

/// What to do about such an address.
pub(super) const MEND: &str =
    "name the document server's own address; on one host, give one of the two another port";

/// Where the public is served.
#[derive(Debug)]
pub(super) struct Listeners(Vec<SocketAddr>);

impl Listeners {
    pub(super) fn of(server: &Server) -> Self {
        let over_tls = server.tls.iter().flat_map(|tls| &tls.listen);
        Self(server.listen.iter().chain(over_tls).copied().collect())
    }

    /// What is wrong with `host:port` as a document server, if it is one of them. Names other than
    /// `localhost` are not looked up: what they lead to is seen when a request comes back.
    pub(super) fn fault(&self, authority: &str) -> Option<String> {
        let (host, port) = split_port(authority);
        let port: u16 = port?.parse().ok()?;
        let reached: &[IpAddr] = match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => &[address],
            Err(_) if host.eq_ignore_ascii_case("localhost") => {
                &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            Err(_) => return None,
        };
        let found = self.0.iter().find(|own| {
            own.port() == port && reached.iter().any(|address| leads_to(*address, own.ip()))
        })?;
        Some(format!("{authority} is this gateway itself, which listens on {found}"))
    }
}

/// Whether a connection to `address` comes to a listener on `own`, as far as can be told without
/// asking the system for its interfaces.
fn leads_to(address: IpAddr, own: IpAddr) -> bool {
    let (address, own) = (address.to_canonical(), own.to_canonical());
    if own.is_unspecified() {
        // A socket on [::] takes IPv4 as well; one on 0.0.0.0 takes nothing else.
        let is_of_its_kind = own.is_ipv6() || address.is_ipv4();
        return is_of_its_kind && (address.is_loopback() || address.is_unspecified());
    }
    // The system connects to itself where no address is named.
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => own == IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => own == IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address == own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listeners_are_known_by_whatever_address() {
        for (own, address, is_own) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "localhost:8080", true),
            ("127.0.0.1:8080", "LocalHost:8080", true),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:8080", "0.0.0.0:8080", true),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("127.0.0.1:8080", "[::1]:8080", false),
            ("127.0.0.1:8080", "ds:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "127.8.9.1:8080", true),
            ("0.0.0.0:8080", "0.0.0.0:8080", true),
            ("0.0.0.0:8080", "localhost:8080", true),
            ("0.0.0.0:8080", "10.0.0.7:8080", false),
            ("0.0.0.0:8080", "[::1]:8080", false),
            ("0.0.0.0:8080", "localhost.example:8080", false),
            ("[::]:8080", "127.0.0.1:8080", true),
            ("[::]:8080", "[::1]:8080", true),
            ("[::]:8080", "[0:0::1]:8080", true),
            ("[::]:8080", "[2001:db8::1]:8080", false),
            ("[::1]:8080", "[::1]:8080", true),
            ("[::1]:8080", "[::]:8080", true),
            ("[::1]:8080", "localhost:8080", true),
            ("[::1]:8080", "127.0.0.1:8080", false),
            ("10.0.0.7:8080", "10.0.0.7:8080", true),
            ("10.0.0.7:8080", "10.0.0.8:8080", false),
            ("10.0.0.7:8080", "localhost:8080", false),
        ] {
            let listeners = Listeners(vec![own.parse().unwrap()]);
            assert_eq!(listeners.fault(address).is_some(), is_own, "{own} {address}");
        }
    }
}
