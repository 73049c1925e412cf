//! Ports that nobody else is given.

#![allow(unreachable_pub, clippy::expect_used)]

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below those that the system gives to connections: none of them takes one while nobody listens.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port that nobody listens on, and that no other caller gets for as long as this process runs,
/// wherever it asks from.
pub fn free_port() -> u16 {
    let start = u64::from(std::process::id()) * 61;
    let place = |number| u16::try_from((start + u64::from(number)) % u64::from(COUNT));
    (0..COUNT)
        .map(|number| FIRST + place(number).expect("less than the count"))
        .find(|port| claim(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Takes a name that is the port's alone in the whole system, and keeps it.
fn claim(port: u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("seatgate-test-port-{port}"));
    let claimed = UnixListener::bind_addr(&name.expect("a short name"));
    claimed.map(std::mem::forget).is_ok()
}
