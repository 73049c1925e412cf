//! TLS to document servers: one way to dial, for Pingora's requests, for the gateway's own, for
//! health checks and for WebSockets.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::PeerOptions;
use pingora::{Error, ErrorType};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stream::HTTP_1_1;
use crate::certificate::provider;
use crate::config::UpstreamTls;

/// Dials one set of document servers.
#[derive(Debug)]
pub struct Dialer {
    config: Result<Arc<ClientConfig>, rustls::Error>,
    stated_name: Option<String>,
    /// The hosts of the configuration, by the addresses that they have now.
    hosts: ArcSwap<HashMap<SocketAddr, String>>,
    limit: Duration,
    /// Keeps pooled connections apart from those with other settings.
    id: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("no connection within {0:?}")]
    Late(Duration),
}

impl Dialer {
    /// `limit` is the time for a connection, its handshake included.
    pub fn new(settings: &UpstreamTls, limit: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            config: client_config(settings).map(Arc::new),
            stated_name: settings.server_name.clone(),
            hosts: ArcSwap::default(),
            limit,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Replaces what is known of the servers' addresses.
    pub fn set_hosts(&self, hosts: HashMap<SocketAddr, String>) {
        self.hosts.store(Arc::new(hosts));
    }

    /// The name that the server at `address` is asked for.
    pub fn name(&self, address: SocketAddr) -> String {
        match &self.stated_name {
            Some(name) => name.clone(),
            None => {
                let hosts = self.hosts.load();
                hosts.get(&address).cloned().unwrap_or_else(|| address.ip().to_string())
            }
        }
    }

    /// Connects to a server and does the handshake.
    ///
    /// # Errors
    /// It cannot be reached, or is not the one that it should be.
    pub async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, DialError> {
        let dial = async {
            let stream = TcpStream::connect(address).await.map_err(DialError::Connect)?;
            // Small messages must not wait for the acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
            let config = self.config.clone().map_err(|error| tls(io::Error::other(error)))?;
            let name = self.name(address);
            let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare).map_err(|error| tls(io::Error::other(error)))?;
            TlsConnector::from(config).connect(name, stream).await.map_err(tls)
        };
        timeout(self.limit, dial).await.unwrap_or(Err(DialError::Late(self.limit)))
    }

    /// Makes Pingora's connections to a peer go this way.
    pub fn apply(self: &Arc<Self>, options: &mut PeerOptions, group: &mut u64) {
        let dialer: Arc<dyn L4Connect + Send + Sync> = Arc::<Self>::clone(self);
        options.custom_l4 = Some(dialer);
        *group = self.id;
    }
}

fn tls(error: io::Error) -> DialError {
    DialError::Tls(error)
}

#[async_trait]
impl L4Connect for Dialer {
    async fn connect(&self, address: &PingoraAddr) -> pingora::Result<L4Stream> {
        let PingoraAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::ConnectError, "TLS over a Unix socket");
        };
        match self.connect(*address).await {
            Ok(stream) => {
                Ok(L4Stream::from(VirtualSocketStream::new(Box::new(ServerStream(stream)))))
            }
            Err(error) => {
                let kind = match error {
                    DialError::Connect(_) => ErrorType::ConnectError,
                    DialError::Tls(_) => ErrorType::TLSHandshakeFailure,
                    DialError::Late(_) => ErrorType::ConnectTimedout,
                };
                Error::e_because(kind, format!("connecting to {address}"), error)
            }
        }
    }
}

/// A connection as Pingora takes it from others.
#[derive(Debug)]
struct ServerStream(TlsStream<TcpStream>);

impl VirtualSocket for ServerStream {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.0.get_ref().0.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn client_config(settings: &UpstreamTls) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match settings.verify {
        true => builder.with_root_certificates(Arc::clone(&settings.authorities.roots)),
        false => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(config)
}

/// `tls_verify = false`: takes any certificate, but the server must have its key.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
