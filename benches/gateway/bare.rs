//! A Pingora proxy that does nothing but forward: what Seatgate's own work is measured against.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::upstreams::peer::HttpPeer;

use crate::Result;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    /// With the timeouts of Seatgate's upstream connections.
    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        let (connecting, silence) = (Duration::from_secs(5), Duration::from_secs(600));
        peer.options.connection_timeout = Some(connecting);
        peer.options.total_connection_timeout = Some(connecting);
        peer.options.read_timeout = Some(silence);
        peer.options.write_timeout = Some(silence);
        peer.options.idle_timeout = Some(Duration::from_secs(4));
        Ok(Box::new(peer))
    }
}

/// Serves until the process ends. The arguments: where to listen, the upstream, threads.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [listen, upstream, threads] = arguments else {
        return Err("bare needs an address, an upstream and a number of threads".into());
    };
    let conf = ServerConf {
        threads: threads.parse()?,
        upstream_keepalive_pool_size: 1024,
        max_retries: 3,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service =
        http_proxy_service(&server.configuration, Bare { upstream: upstream.parse()? });
    service.add_tcp(listen);
    server.add_service(service);
    server.run(RunArgs::default());
    Ok(())
}
