//! TLS for the tests: an authority that makes certificates on the spot, relays that put TLS in
//! front of any of the other clients and servers, and a client of HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::http::{self, Answer};
use super::wait::within;

/// A certificate with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key` and returns their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (chain, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&chain, &self.chain).expect("a file is written");
        std::fs::write(&key, &self.key).expect("a file is written");
        (chain, key)
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("a chain");
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key"))
    }
}

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for servers and clients of these names.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2040)
    }

    /// One that ends with the beginning of a year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { chain, key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let pem = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate");
        roots.add(pem).expect("an authority");
        roots
    }
}

/// How a client connects over TLS.
#[derive(Clone)]
pub struct Client {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    name: String,
    pair: Option<Pair>,
    /// What is sent before TLS.
    before: Vec<u8>,
    source: Option<IpAddr>,
    /// One state for all connections, which remembers sessions.
    resuming: Option<Arc<ClientConfig>>,
}

impl Client {
    /// A client that trusts `authority` and asks for `name`.
    pub fn new(authority: &Authority, name: &str) -> Self {
        Self {
            roots: authority.roots(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            name: name.to_owned(),
            pair: None,
            before: Vec::new(),
            source: None,
            resuming: None,
        }
    }

    /// Comes back with the tickets that it was given.
    pub fn resuming(mut self) -> Self {
        self.resuming = Some(Arc::new(self.config(&["http/1.1"])));
        self
    }

    /// Asks for the health page; the answer, and whether the session was resumed.
    pub async fn ask(&self, to: SocketAddr) -> std::io::Result<(String, bool)> {
        let mut stream = self.connect(to, &["http/1.1"]).await?;
        let request = b"GET /healthcheck HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((answer, resumed))
    }

    /// Speaks this version only.
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Shows a certificate of its own.
    pub fn pair(mut self, pair: &Pair) -> Self {
        self.pair = Some(pair.clone());
        self
    }

    /// Sends bytes before TLS begins.
    pub fn before(mut self, bytes: &[u8]) -> Self {
        self.before = bytes.to_vec();
        self
    }

    /// Connects from this loopback address.
    pub fn from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().expect("an address"));
        self
    }

    fn config(&self, protocols: &[&str]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let (chain, key) = pair.der();
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// Connects; `protocols` are offered by ALPN.
    pub async fn connect(
        &self,
        to: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.resuming.clone().unwrap_or_else(|| Arc::new(self.config(protocols)));
        let mut stream = http::connect(to, self.source).await?;
        stream.write_all(&self.before).await?;
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        within("a TLS handshake", TlsConnector::from(config).connect(name, stream)).await
    }

    /// The names of the certificate that the server shows.
    pub async fn shown(&self, to: SocketAddr) -> std::io::Result<Vec<u8>> {
        let stream = self.connect(to, &["http/1.1"]).await?;
        let certificates = stream.get_ref().1.peer_certificates().expect("certificates");
        Ok(certificates[0].to_vec())
    }

    /// An address on which the other clients reach `to` over TLS by HTTP/1.1.
    pub async fn relay(&self, to: SocketAddr) -> Relay {
        let client = self.clone();
        relay(move |mut plain| {
            let client = client.clone();
            async move {
                if let Ok(mut tls) = client.connect(to, &["http/1.1"]).await {
                    let _ = copy_bidirectional(&mut plain, &mut tls).await;
                }
            }
        })
        .await
    }

    /// A connection of HTTP/2.
    pub async fn http2(&self, to: SocketAddr) -> Http2 {
        let stream = self.connect(to, &["h2"]).await.expect("a TLS connection");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        let sender = within("the server's settings", sender.ready()).await.expect("HTTP/2");
        Http2 { sender, task, authority: format!("{}:{}", self.name, to.port()) }
    }
}

/// Something that listens and passes bytes on.
pub struct Relay {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay<F: Future<Output = ()> + Send + 'static>(
    carry: impl Fn(TcpStream) -> F + Send + 'static,
) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a bound address");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(carry(stream));
        }
    });
    Relay { addr, task }
}

/// TLS in front of a server without.
pub async fn tls_before(server: SocketAddr, pair: &Pair) -> Relay {
    let (chain, key) = pair.der();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    relay(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut tls) = acceptor.accept(stream).await else { return };
            let Ok(mut plain) = TcpStream::connect(server).await else { return };
            let _ = copy_bidirectional(&mut tls, &mut plain).await;
        }
    })
    .await
}

/// A client of HTTP/2.
pub struct Http2 {
    pub sender: SendRequest<Bytes>,
    pub task: JoinHandle<()>,
    pub authority: String,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Http2 {
    /// A request for `target` without a body, to be changed before it is sent.
    pub fn request(&self, method: &str, target: &str) -> ::http::Request<()> {
        let uri = format!("https://{}{target}", self.authority);
        ::http::Request::builder()
            .method(method)
            .uri(uri)
            .version(::http::Version::HTTP_2)
            .body(())
            .expect("a request")
    }

    /// Sends a request and reads the answer.
    pub async fn send(&self, request: ::http::Request<()>, body: &[u8]) -> Answer {
        self.try_send(request, body).await.expect("an answer")
    }

    /// As [`Http2::send`], for exchanges that may fail.
    pub async fn try_send(
        &self,
        request: ::http::Request<()>,
        body: &[u8],
    ) -> Result<Answer, h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let (head, mut rest) = within("an answer over HTTP/2", answer).await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = within("the answer goes on", rest.data()).await {
            let piece = piece?;
            let _ = rest.flow_control().release_capacity(piece.len());
            body.extend_from_slice(&piece);
        }
        let text = |value: &::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(Answer { status: head.status.as_u16(), headers, body })
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(self.request("GET", target), b"").await
    }

    pub async fn post(&self, target: &str, content_type: &str, body: &[u8]) -> Answer {
        let mut request = self.request("POST", target);
        let value = content_type.parse().expect("a header value");
        request.headers_mut().insert("content-type", value);
        self.send(request, body).await
    }
}
