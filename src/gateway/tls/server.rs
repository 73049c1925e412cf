//! The TLS listeners' side: TLS 1.2 and 1.3, certificates by name, handshakes within limits.
//!
//! What a handshake is done by is replaced as a whole on reload. Connections that are there keep
//! what they have; tickets for resumption are worth nothing after a change, so that nobody comes
//! in by a certificate that is no longer good.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::Stream;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::WebPkiClientVerifier;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::stream::{ClientStream, H2, HTTP_1_1};
use crate::certificate::provider;
use crate::config::{ClientAuth, Tls};

/// How long a handshake may take, the wait for a place included.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The most handshakes under way at a time; those beyond wait for a place, the listener does not.
const HANDSHAKES: usize = 4096;

/// Why there are no TLS listeners.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("client_ca cannot be used: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    #[error("TLS cannot be set up without a certificate")]
    NoCertificate,
}

/// What TLS listeners share.
pub struct TlsServer {
    current: ArcSwap<Ready>,
    places: Semaphore,
}

/// A state of the settings, ready for handshakes.
pub struct Ready {
    certificates: Vec<crate::certificate::Certificate>,
    clients: Option<ClientAuth>,
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// # Errors
    /// The settings cannot be used.
    pub fn new(settings: &Tls) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(prepare(settings)?);
        Ok(Self { current, places: Semaphore::new(HANDSHAKES) })
    }

    /// Makes new settings ready without using them yet.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn prepare(&self, settings: &Tls) -> Result<Arc<Ready>, TlsError> {
        let current = self.current.load_full();
        let same = settings.clients == current.clients
            && settings
                .certificates
                .iter()
                .map(|stated| &stated.certificate)
                .eq(&current.certificates);
        // Tickets stay good where nothing changed.
        if same { Ok(current) } else { prepare(settings).map(Arc::new) }
    }

    /// Handshakes that begin from now on are done by `ready`.
    pub fn install(&self, ready: Arc<Ready>) {
        self.current.store(ready);
    }

    /// Does the handshake with a client; `None` if it came to nothing.
    pub async fn accept(&self, stream: Stream) -> Option<ClientStream> {
        let handshake = async {
            let _place = self.places.acquire().await.ok()?;
            let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
            match acceptor.accept(stream).await {
                Ok(stream) => Some(ClientStream::new(stream)),
                Err(error) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    None
                }
            }
        };
        match timeout(HANDSHAKE_TIME, handshake).await {
            Ok(stream) => stream,
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

fn prepare(settings: &Tls) -> Result<Ready, TlsError> {
    let certificates: Vec<_> =
        settings.certificates.iter().map(|stated| stated.certificate.clone()).collect();
    let resolver = Certificates::new(&certificates).ok_or(TlsError::NoCertificate)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match &settings.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::clone(&clients.authorities.roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match clients.required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // Resumption without memory per client.
    config.ticketer = Ticketer::new()?;
    Ok(Ready { certificates, clients: settings.clients.clone(), config: Arc::new(config) })
}
