//! Certificates: a chain with its key, the names that it is good for, and its dates.
//!
//! PEM text in, checked values out. Which files they stand in is the configuration's business,
//! which certificate a client gets the gateway's.

use std::fmt;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The most certificates of one file: the system's own list has some 150.
const MOST_CERTIFICATES: usize = 4096;

/// The algorithms of every TLS connection, in either direction.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// The algorithms of every TLS connection, in either direction: ring's.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Certificate {
    /// DNS names in lower case, `*.` patterns included, then IP addresses.
    pub names: Vec<String>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub key: Arc<CertifiedKey>,
    /// Of chain and key, so that two readings of the files can be told apart.
    fingerprint: [u8; 32],
}

/// Why files hold no certificate that can be served, or no authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no certificate in it")]
    NoCertificate,
    #[error("certificate {0} in it cannot be read")]
    BadCertificate(usize),
    #[error("there are more than {MOST_CERTIFICATES} certificates in it")]
    TooMany,
    #[error("there is no private key in it")]
    NoKey,
    #[error("the private key in it is encrypted")]
    EncryptedKey,
    #[error("the private key in it is of a kind that TLS does not use")]
    UnknownKey,
    #[error("the private key in it does not belong to the certificate")]
    Mismatch,
}

impl CertificateError {
    /// What to do about it.
    pub fn mend(self) -> &'static str {
        match self {
            Self::NoCertificate | Self::TooMany => {
                "name a PEM file that begins with -----BEGIN CERTIFICATE-----"
            }
            Self::BadCertificate(_) => {
                "write it anew; openssl x509 -in FILE -text shows what is there"
            }
            Self::NoKey => "name a PEM file with a -----BEGIN PRIVATE KEY-----",
            Self::EncryptedKey => "decrypt it: openssl pkey -in FILE -out FILE",
            Self::UnknownKey => {
                "take an ECDSA (P-256, P-384), RSA (2048 to 8192 bit) or Ed25519 key"
            }
            Self::Mismatch => "name the key that the certificate was made for",
        }
    }

    /// Whether the key's file is meant, not the certificate's.
    pub fn is_about_key(self) -> bool {
        match self {
            Self::NoCertificate | Self::BadCertificate(_) | Self::TooMany => false,
            Self::NoKey | Self::EncryptedKey | Self::UnknownKey | Self::Mismatch => true,
        }
    }
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// One of the two is not what it should be, or they do not belong together.
    pub fn read(chain: &str, key: &str) -> Result<Self, CertificateError> {
        let chain = read_chain(chain)?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let leaf = x509_cert::Certificate::from_der(leaf)
            .map_err(|_| CertificateError::BadCertificate(1))?;
        let key = match PrivateKeyDer::from_pem_slice(key.as_bytes()) {
            Ok(key) => key,
            Err(_) if key.contains("ENCRYPTED") => return Err(CertificateError::EncryptedKey),
            Err(_) => return Err(CertificateError::NoKey),
        };
        let fingerprint = fingerprint(&chain, key.secret_der());
        let key = CertifiedKey::from_der(chain, key, &PROVIDER).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            rustls::Error::InvalidCertificate(_) => CertificateError::BadCertificate(1),
            _ => CertificateError::UnknownKey,
        })?;
        let validity = &leaf.tbs_certificate.validity;
        let at = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        Ok(Self {
            names: names(&leaf)?,
            start: at(validity.not_before),
            end: at(validity.not_after),
            key: Arc::new(key),
            fingerprint,
        })
    }

    /// What logs and metrics call it: its first name.
    pub fn name(&self) -> &str {
        self.names.first().map_or("unnamed", String::as_str)
    }

    /// Whether a browser takes it for `host`: exactly, or by a `*.` that stands for one label.
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => name == host || parent == Some(suffix),
            None => name == host,
        })
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Certificate");
        told.field("names", &self.names).field("end", &self.end).finish_non_exhaustive()
    }
}

/// Certificate authorities that are trusted.
#[derive(Clone)]
pub struct Authorities {
    pub roots: Arc<RootCertStore>,
    fingerprint: [u8; 32],
}

impl Authorities {
    /// Reads authorities from PEM.
    ///
    /// # Errors
    /// There are none, or one of them cannot be read.
    pub fn read(text: &str) -> Result<Self, CertificateError> {
        let certificates = read_chain(text)?;
        let fingerprint = fingerprint(&certificates, &[]);
        let mut roots = RootCertStore::empty();
        for (certificate, number) in certificates.into_iter().zip(1..) {
            roots.add(certificate).map_err(|_| CertificateError::BadCertificate(number))?;
        }
        Ok(Self { roots: Arc::new(roots), fingerprint })
    }

    /// Nobody.
    pub fn none() -> Self {
        Self { roots: Arc::new(RootCertStore::empty()), fingerprint: fingerprint(&[], &[]) }
    }

    /// The system's, or `None` where it has none.
    pub fn of_system() -> Option<Self> {
        let found = rustls_native_certs::load_native_certs().certs;
        let fingerprint = fingerprint(&found, &[]);
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found);
        (taken > 0).then(|| Self { roots: Arc::new(roots), fingerprint })
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("count", &self.roots.len()).finish()
    }
}

fn read_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut chain = Vec::new();
    for (certificate, number) in CertificateDer::pem_slice_iter(text.as_bytes()).zip(1..) {
        if number > MOST_CERTIFICATES {
            return Err(CertificateError::TooMany);
        }
        chain.push(certificate.map_err(|_| CertificateError::BadCertificate(number))?);
    }
    if chain.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(chain) }
}

fn fingerprint(certificates: &[CertificateDer<'_>], key: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in certificates.iter().map(AsRef::as_ref).chain([key]) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The alternative names: the subject's common name is no name to any browser.
fn names(leaf: &x509_cert::Certificate) -> Result<Vec<String>, CertificateError> {
    let stated = leaf.tbs_certificate.get::<SubjectAltName>();
    let stated = stated.map_err(|_| CertificateError::BadCertificate(1))?;
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for name in stated.iter().flat_map(|(_, names)| names.0.iter()) {
        match name {
            GeneralName::DnsName(name) => names.push(name.as_str().to_ascii_lowercase()),
            GeneralName::IpAddress(bytes) => {
                let bytes = bytes.as_bytes();
                if let Ok(four) = <[u8; 4]>::try_from(bytes) {
                    addresses.push(std::net::Ipv4Addr::from(four).to_string());
                } else if let Ok(sixteen) = <[u8; 16]>::try_from(bytes) {
                    addresses.push(format!("[{}]", std::net::Ipv6Addr::from(sixteen)));
                }
            }
            _ => {}
        }
    }
    names.append(&mut addresses);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, date_time_ymd};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 2);
        params.not_after = date_time_ymd(2031, 3, 4);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn names_and_dates_are_read() {
        let (chain, key) = pair(&["Docs.Example", "*.b.example", "192.0.2.1", "::1"]);
        let read = Certificate::read(&chain, &key).unwrap();
        assert_eq!(read.names, ["docs.example", "*.b.example", "192.0.2.1", "[::1]"]);
        assert_eq!(read.name(), "docs.example");
        assert_eq!(read.start, "2020-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(read.end, "2031-03-04T00:00:00Z".parse().unwrap());
        assert!(!format!("{read:?}").to_lowercase().contains("sign"), "{read:?}");
        for (host, covered) in [
            ("docs.example", true),
            ("x.docs.example", false),
            ("x.b.example", true),
            ("y.x.b.example", false),
            ("b.example", false),
            ("*.b.example", true),
            ("192.0.2.1", true),
        ] {
            assert_eq!(read.covers(host), covered, "{host}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let (chain, key) = pair(&["a.example"]);
        let (other_chain, other_key) = pair(&["a.example"]);
        let read = |chain: &str, key: &str| Certificate::read(chain, key).unwrap_err();
        assert_eq!(read(&chain, &other_key), CertificateError::Mismatch);
        assert_eq!(read("", &key), CertificateError::NoCertificate);
        assert_eq!(read(&key, &key), CertificateError::NoCertificate);
        assert_eq!(read(&chain, &chain), CertificateError::NoKey);
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(read(&chain, &encrypted), CertificateError::EncryptedKey);
        let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(read(broken, &key), CertificateError::BadCertificate(1));
        let not_key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
        assert_eq!(read(&chain, not_key), CertificateError::UnknownKey);
        assert_eq!(
            Certificate::read(&chain, &key).unwrap(),
            Certificate::read(&format!("# a note\n{chain}"), &key).unwrap()
        );
        let other = Certificate::read(&other_chain, &other_key).unwrap();
        assert_ne!(Certificate::read(&chain, &key).unwrap(), other);
    }

    #[test]
    fn the_usual_keys_are_known() {
        for algorithm in [&PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let chain = params.self_signed(&key).unwrap().pem();
            Certificate::read(&chain, &key.serialize_pem()).unwrap();
        }
        // ring makes no RSA keys; it reads them.
        let _ = &PKCS_RSA_SHA256;
    }

    #[test]
    fn authorities_are_certificates() {
        let (chain, _) = pair(&["a.example"]);
        let (other, _) = pair(&["a.example"]);
        let both = Authorities::read(&format!("{chain}{other}")).unwrap();
        assert_eq!(both.roots.len(), 2);
        assert_ne!(both, Authorities::read(&chain).unwrap());
        assert_eq!(Authorities::read("x").unwrap_err(), CertificateError::NoCertificate);
    }
}
