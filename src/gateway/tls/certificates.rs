//! Which certificate a client gets: by the name that it asks for (SNI), else the first one.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::Certificate;

/// The certificates of the listeners, by their names.
#[derive(Debug)]
pub struct Certificates {
    /// For clients that ask for no name, or for one that no certificate has.
    first: Arc<CertifiedKey>,
    /// Several of one name are for clients that do not know every kind of key.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// `None` if there are none.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> Option<Self> {
        let mut first = None;
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in certificates {
            first.get_or_insert(&certificate.key);
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        Some(Self { first: Arc::clone(first?), by_name })
    }

    /// The certificate for a client that asks for `name` and can check signatures by `schemes`.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let exact = self.by_name.get(&name);
            let wider = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
            let found = exact.or_else(wider)?;
            let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
            found.iter().find(usable).or(found.first())
        });
        Arc::clone(named.unwrap_or(&self.first))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name(), hello.signature_schemes()))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chain = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        Certificate::read(&chain, &key.serialize_pem()).unwrap()
    }

    #[test]
    fn the_name_decides_and_the_nearest_one_wins() {
        let p256 = &PKCS_ECDSA_P256_SHA256;
        let all = [
            certificate(&["house.example"], p256),
            certificate(&["*.acme.example"], p256),
            certificate(&["docs.acme.example"], &PKCS_ED25519),
            certificate(&["docs.acme.example"], p256),
        ];
        let certificates = Certificates::new(&all).unwrap();
        let ecdsa = SignatureScheme::ECDSA_NISTP256_SHA256;
        for (name, scheme, expected) in [
            (None, ecdsa, 0),
            (Some("other.example"), ecdsa, 0),
            (Some("acme.example"), ecdsa, 0),
            (Some("x.acme.example"), ecdsa, 1),
            (Some("X.ACME.example"), ecdsa, 1),
            (Some("y.x.acme.example"), ecdsa, 0),
            (Some("docs.acme.example"), ecdsa, 3),
            (Some("docs.acme.example"), SignatureScheme::ED25519, 2),
        ] {
            let chosen = certificates.choose(name, &[scheme]);
            assert!(Arc::ptr_eq(&chosen, &all[expected].key), "{name:?}");
        }
        assert!(Certificates::new(&[]).is_none());
    }
}
