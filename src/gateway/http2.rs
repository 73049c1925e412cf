//! HTTP/2 connections, which browsers choose over TLS: each stream is a request of Pingora's proxy.
//!
//! Requests are brought into the form that HTTP/1.1's have before anybody looks at them
//! ([`settle`]), so that every rule holds for both alike. WebSockets are not offered over HTTP/2
//! (RFC 8441): browsers open them over HTTP/1.1 then. Pingora's own loop has no time limit for
//! the beginning of a connection or for a body, so this one does it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Version, header};
use pingora::apps::HttpServerApp as _;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession};
use pingora::protocols::{Digest, GetSocketDigest as _, GetTimingDigest as _, Ssl as _};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::front::{FIRST_HEAD, NEXT_HEAD};
use super::proxy::{CLIENT_STALL, Gateway};
use super::tls::stream::ClientStream;
use crate::listen::{Access, Busy};

/// Requests of one connection at a time.
const MAX_STREAMS: u32 = 100;

/// Requests of one connection that are under way, those included that the client took back. Beyond
/// that the connection ends: it opens and resets streams faster than anybody could serve them.
const MAX_UNDER_WAY: usize = 200;

/// Requests of one connection that are refused before they are any, until it ends.
const MAX_REJECTED: usize = 32;

/// The headers of a request, decompressed, in bytes; and how many there may be, as in HTTP/1.1.
const MAX_HEADER_LIST: u32 = 64 * 1024;
const MAX_HEADERS: usize = 256;

/// Bytes of bodies that a client may send ahead: of one request, of one connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of an answer that wait in memory for the client's window.
const SEND_BUFFER: usize = 256 * 1024;

tokio::task_local! {
    /// Since when the client owes more of the body of a request that is being forwarded.
    static OWES_BODY: Cell<Option<Instant>>;
}

/// Notes that the client of the present stream owes a body, or more of one, or no more.
pub fn note_body(owed: bool) {
    let _ = OWES_BODY.try_with(|since| since.set(owed.then(Instant::now)));
}

fn options() -> H2Options {
    let mut options = server::default_h2_options();
    options
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

/// Serves a connection to its end.
pub async fn serve(
    proxy: &Arc<HttpProxy<Gateway>>,
    stream: ClientStream,
    arrival: Busy,
    mut access: watch::Receiver<Access>,
    shutdown: &ShutdownWatch,
) {
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: None,
        socket_digest: stream.get_socket_digest(),
    });
    let greeting = server::handshake(Box::new(stream), Some(options()));
    let Ok(Ok(mut connection)) = timeout(FIRST_HEAD, greeting).await else { return };
    let mut under_way = JoinSet::new();
    let mut limit = FIRST_HEAD;
    let mut rejected = 0;
    let mut leaving = false;
    let mut arrival = Some(arrival);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = access.wait_for(Access::is_closed), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
                continue;
            }
            Some(_) = under_way.join_next() => continue,
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            // Nothing is asked, and no head is coming along.
            () = sleep(limit), if under_way.is_empty() => break,
        };
        limit = NEXT_HEAD;
        match accepted {
            Ok(Some(H2Accept::Session(session))) if under_way.len() < MAX_UNDER_WAY => {
                let session = ServerSession::new_http2(session);
                let (proxy, shutdown) = (Arc::clone(proxy), shutdown.clone());
                under_way.spawn(carry(proxy, session, arrival.take(), shutdown));
            }
            Ok(Some(H2Accept::Session(_))) => {
                tracing::info!("a client takes requests back faster than they are served");
                break;
            }
            Ok(Some(H2Accept::Rejected)) => {
                rejected += 1;
                if rejected >= MAX_REJECTED {
                    tracing::info!("a client sends requests that are none");
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "an HTTP/2 connection broke");
                break;
            }
        }
    }
    // They find out by themselves, and are logged and counted.
    under_way.detach_all();
}

/// One request.
async fn carry(
    proxy: Arc<HttpProxy<Gateway>>,
    session: ServerSession,
    arrival: Option<Busy>,
    shutdown: ShutdownWatch,
) {
    let request = async {
        tokio::select! {
            biased;
            _ = proxy.process_new_http(session, &shutdown) => {}
            () = body_is_stalled(CLIENT_STALL) => {
                tracing::debug!("a client did not go on with its request");
            }
        }
    };
    OWES_BODY.scope(Cell::new(None), request).await;
    drop(arrival);
}

/// Completes when nothing came for `limit` of a body that is owed.
async fn body_is_stalled(limit: Duration) {
    loop {
        match OWES_BODY.with(Cell::get) {
            None => sleep(limit).await,
            Some(since) if since.elapsed() >= limit => return,
            Some(since) => sleep_until(since + limit).await,
        }
    }
}

/// Brings a request of HTTP/2 into the form of HTTP/1.1: its authority as `Host`, its cookies in
/// one header (RFC 9113, sections 8.2.3 and 8.3.1). Pingora refused it already if `Host` and
/// authority differ, or if neither is there.
///
/// # Errors
/// It has more headers than a request of HTTP/1.1 may have.
pub fn settle(request: &mut RequestHeader) -> Result<(), TooManyHeaders> {
    if request.version != Version::HTTP_2 {
        return Ok(());
    }
    if request.headers.len() > MAX_HEADERS {
        return Err(TooManyHeaders);
    }
    let authority = request.uri.authority().map(|authority| authority.as_str().to_owned());
    if let Some(authority) = authority {
        let _ = request.insert_header(header::HOST, authority);
    }
    let cookies: Vec<_> = request.headers.get_all(header::COOKIE).iter().cloned().collect();
    if cookies.len() > 1 {
        let joined = cookies.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        let _ = request.insert_header(header::COOKIE, joined);
    }
    Ok(())
}

/// A request with more headers than `MAX_HEADERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyHeaders;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut builder = http::Request::builder()
            .version(Version::HTTP_2)
            .uri("https://docs.example:8443/doc/k/c/?EIO=4");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0.into()
    }

    #[test]
    fn a_request_is_as_over_http_1() {
        let mut asked = request(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
        settle(&mut asked).unwrap();
        let all = |name: &str| {
            let values = asked.headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(all("host"), ["docs.example:8443"]);
        assert_eq!(all("cookie"), ["a=1; b=2; c=3"]);
        assert_eq!(all("x"), ["y"]);
        assert_eq!(asked.raw_path(), b"/doc/k/c/?EIO=4");
    }

    #[test]
    fn headers_are_counted() {
        let mut asked = request(&vec![("x", "y"); MAX_HEADERS]);
        assert_eq!(settle(&mut asked), Ok(()));
        let mut asked = request(&vec![("x", "y"); MAX_HEADERS + 1]);
        assert_eq!(settle(&mut asked), Err(TooManyHeaders));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_stand_still() {
        let limit = Duration::from_secs(60);
        let started = Instant::now();
        let slow = async {
            tokio::select! {
                () = body_is_stalled(limit) => {}
                () = async {
                    for _ in 0..5 {
                        note_body(true);
                        sleep(Duration::from_secs(50)).await;
                    }
                    std::future::pending::<()>().await;
                } => {}
            }
        };
        OWES_BODY.scope(Cell::new(None), slow).await;
        let after = started.elapsed().as_secs();
        assert!((260..=261).contains(&after), "{after}");

        let done = OWES_BODY.scope(Cell::new(Some(Instant::now())), async {
            note_body(false);
            timeout(Duration::from_secs(1000), body_is_stalled(limit)).await
        });
        assert!(done.await.is_err());
    }
}
