//! Signed licence files: a compact JWS (RFC 7515) with Ed25519 (`alg: EdDSA`, RFC 8037).
//!
//! The payload is JSON: what a licence file states, and when it was signed. The header names the
//! key by its `kid`, and holds the public key (`jwk`) for one purpose: so that a file which was
//! changed can be told from one that another key signed. It is never trusted.
//!
//! Pure: no files, no clock.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    KeypairBytes,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// How the names of signed files end.
pub const EXTENSION: &str = ".jws";

/// The `typ` of the header.
const TYPE: &str = "seatgate-licences+jws";

const ALGORITHM: &str = "EdDSA";

/// A key that licence files are verified by.
pub type PublicKey = VerifyingKey;

/// A public key that signs licence files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    pub kid: String,
    pub key: VerifyingKey,
}

/// Why a signed file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    #[error("it is not a signed licence file: {0}; get it anew from who signed it")]
    Malformed(&'static str),
    #[error(
        "it is signed with the algorithm {0}, and only EdDSA is taken; have it signed by \
         `seatgate licence sign`"
    )]
    Algorithm(String),
    #[error("no trusted key has the kid {kid}; {}", known(.trusted))]
    UnknownKid { kid: String, trusted: Vec<String> },
    #[error(
        "it says to be signed by the key {kid}, but another key signed it ({signer}); put the \
         right public key into [licences] trusted_keys, or get the file anew from who signed it"
    )]
    WrongKey { kid: String, signer: String },
    #[error(
        "its signature is not good: it was changed after the key {kid} signed it, or damaged; get \
         it anew from who signed it"
    )]
    BadSignature { kid: String },
}

fn known(trusted: &[String]) -> String {
    if trusted.is_empty() {
        return "there is none in [licences] trusted_keys: put the public key there".to_owned();
    }
    format!("trusted are: {}; put its public key into [licences] trusted_keys", trusted.join(", "))
}

/// A public or private key that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "it is not an Ed25519 private key in PKCS#8 PEM; make one with `seatgate licence keygen`"
    )]
    Private,
    #[error("it is not an Ed25519 public key: 32 bytes in base64, or PEM")]
    Public,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwk: Option<Jwk>,
    /// Extensions that must be understood: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Jwk {
    crv: String,
    kty: String,
    x: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    /// Seconds of the Unix epoch (RFC 7519).
    iat: i64,
    #[serde(flatten)]
    stated: Map<String, Value>,
}

/// A signed file whose signature is good.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    pub kid: String,
    pub issued_at: Timestamp,
    /// What a licence file states: `licence` and `app`.
    pub stated: Map<String, Value>,
}

/// A new private key.
///
/// # Errors
/// The system gives no random bytes.
pub fn generate() -> Result<SigningKey, getrandom::Error> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// The private key in PKCS#8 PEM.
pub fn private_pem(key: &SigningKey) -> Option<String> {
    // Without the public half, which OpenSSL does not read in a private key.
    let bytes = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    bytes.to_pkcs8_pem(LineEnding::LF).ok().map(|pem| pem.to_string())
}

/// The public key in PEM.
pub fn public_pem(key: &VerifyingKey) -> Option<String> {
    key.to_public_key_pem(LineEnding::LF).ok()
}

/// The public key's 32 bytes in base64.
pub fn public_base64(key: &VerifyingKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// Reads a private key in PKCS#8 PEM.
///
/// # Errors
/// [`KeyError::Private`].
pub fn read_private(pem: &str) -> Result<SigningKey, KeyError> {
    SigningKey::from_pkcs8_pem(pem.trim()).map_err(|_| KeyError::Private)
}

/// Reads a public key: PEM, or its 32 bytes in base64.
///
/// # Errors
/// [`KeyError::Public`].
pub fn read_public(text: &str) -> Result<VerifyingKey, KeyError> {
    let text = text.trim();
    if text.starts_with("-----") {
        return VerifyingKey::from_public_key_pem(text).map_err(|_| KeyError::Public);
    }
    let bytes = STANDARD.decode(text).map_err(|_| KeyError::Public)?;
    from_bytes(&bytes).ok_or(KeyError::Public)
}

fn from_bytes(bytes: &[u8]) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
    // A weak key would take one signature for many texts.
    (!key.is_weak()).then_some(key)
}

/// The name that a key has where nobody gave it one: the start of its thumbprint (RFC 7638).
pub fn key_id(key: &VerifyingKey) -> String {
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let digest = Sha256::digest(canonical);
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Signs what a licence file states.
///
/// # Errors
/// It cannot be written as JSON.
pub fn sign(
    key: &SigningKey,
    kid: &str,
    issued_at: Timestamp,
    stated: Map<String, Value>,
) -> Result<String, serde_json::Error> {
    let public = key.verifying_key();
    let header = Header {
        alg: ALGORITHM.to_owned(),
        kid: kid.to_owned(),
        typ: Some(TYPE.to_owned()),
        jwk: Some(Jwk {
            crv: "Ed25519".to_owned(),
            kty: "OKP".to_owned(),
            x: URL_SAFE_NO_PAD.encode(public.as_bytes()),
        }),
        crit: None,
    };
    let payload = Payload { iat: issued_at.as_second(), stated };
    let mut text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload)?));
    let signature = key.sign(text.as_bytes());
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(signature.to_bytes()));
    Ok(text)
}

/// Verifies a signed file by the one trusted key of its `kid`.
///
/// # Errors
/// [`SignedError`]: nothing of the file is to be believed.
pub fn verify(text: &str, trusted: &[TrustedKey]) -> Result<Verified, SignedError> {
    const PARTS: &str = "it has not three parts with dots between them";
    let text = text.trim();
    let (signed, signature) = text.rsplit_once('.').ok_or(SignedError::Malformed(PARTS))?;
    let (header, payload) = signed.split_once('.').ok_or(SignedError::Malformed(PARTS))?;
    let header: Header = read(header).ok_or(SignedError::Malformed("its header cannot be read"))?;
    if header.alg != ALGORITHM {
        return Err(SignedError::Algorithm(header.alg.chars().take(32).collect()));
    }
    if header.typ.as_deref() != Some(TYPE) {
        return Err(SignedError::Malformed("its typ is another"));
    }
    if header.crit.is_some() {
        return Err(SignedError::Malformed("it asks for an extension of the format"));
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).ok();
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    let signature = signature.ok_or(SignedError::Malformed("its signature cannot be read"))?;
    let kid: String = header.kid.chars().filter(|c| !c.is_control()).take(128).collect();
    let Some(known) = trusted.iter().find(|known| known.kid == header.kid) else {
        let trusted = trusted.iter().map(|known| known.kid.clone()).collect();
        return Err(SignedError::UnknownKid { kid, trusted });
    };
    if known.key.verify_strict(signed.as_bytes(), &signature).is_err() {
        let signer = header.jwk.and_then(|jwk| URL_SAFE_NO_PAD.decode(jwk.x).ok());
        let signer = signer.and_then(|bytes| from_bytes(&bytes));
        return Err(match signer {
            Some(signer)
                if signer != known.key
                    && signer.verify_strict(signed.as_bytes(), &signature).is_ok() =>
            {
                SignedError::WrongKey { kid, signer: public_base64(&signer) }
            }
            _ => SignedError::BadSignature { kid },
        });
    }
    let payload: Payload =
        read(payload).ok_or(SignedError::Malformed("its payload cannot be read"))?;
    let issued_at = Timestamp::from_second(payload.iat)
        .map_err(|_| SignedError::Malformed("the time of its signing is none"))?;
    Ok(Verified { kid, issued_at, stated: payload.stated })
}

/// The kid that a file claims, before anything of it is believed.
pub fn claimed_kid(text: &str) -> Option<String> {
    let (header, _) = text.trim().split_once('.')?;
    read::<Header>(header).map(|header| header.kid)
}

fn read<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn trusted(kid: &str, seed: u8) -> TrustedKey {
        TrustedKey { kid: kid.to_owned(), key: key(seed).verifying_key() }
    }

    fn stated() -> Map<String, Value> {
        match json!({"licence": [{"id": "l", "connections": 5}]}) {
            Value::Object(map) => map,
            _ => unreachable!(),
        }
    }

    fn signed(kid: &str, seed: u8) -> String {
        sign(&key(seed), kid, Timestamp::from_second(1_795_000_000).unwrap(), stated()).unwrap()
    }

    #[test]
    fn what_is_signed_is_verified_by_either_key() {
        let keys = [trusted("old", 1), trusted("new", 2)];
        for (kid, seed) in [("old", 1), ("new", 2)] {
            let verified = verify(&format!("{}\n", signed(kid, seed)), &keys).unwrap();
            assert_eq!((verified.kid.as_str(), &verified.stated), (kid, &stated()));
            assert_eq!(verified.issued_at.as_second(), 1_795_000_000);
        }
    }

    #[test]
    fn each_kind_of_distrust_has_its_own_error() {
        let good = signed("k", 1);
        let keys = [trusted("k", 1)];
        assert!(matches!(verify(&good, &[]), Err(SignedError::UnknownKid { .. })));
        assert!(matches!(verify(&good, &[trusted("x", 1)]), Err(SignedError::UnknownKid { .. })));
        assert!(matches!(verify(&good, &[trusted("k", 2)]), Err(SignedError::WrongKey { .. })));
        let mut parts: Vec<&str> = good.split('.').collect();
        let other = URL_SAFE_NO_PAD.encode(br#"{"iat":1,"licence":[{"id":"l","connections":9}]}"#);
        parts[1] = &other;
        assert!(matches!(verify(&parts.join("."), &keys), Err(SignedError::BadSignature { .. })));
        for text in ["", "a.b", "a.b.c", "....", "id = 1"] {
            assert!(matches!(verify(text, &keys), Err(SignedError::Malformed(_))), "{text}");
        }
        for alg in ["none", "HS256", "ES256", "eddsa"] {
            let header = json!({"alg": alg, "kid": "k", "typ": TYPE}).to_string();
            let header = URL_SAFE_NO_PAD.encode(header);
            let text = [&header, parts[1], parts[2]].join(".");
            assert!(matches!(verify(&text, &keys), Err(SignedError::Algorithm(_))));
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = key(7);
        let public = key.verifying_key();
        assert_eq!(read_private(&private_pem(&key).unwrap()).unwrap(), key);
        assert_eq!(read_public(&public_pem(&public).unwrap()).unwrap(), public);
        assert_eq!(read_public(&public_base64(&public)).unwrap(), public);
        assert_eq!(key_id(&public).len(), 16);
        // The neutral element: any signature would do.
        let mut weak = [0_u8; 32];
        weak[0] = 1;
        for text in ["", "AAAA", "-----BEGIN PUBLIC KEY-----", &STANDARD.encode(weak)] {
            assert_eq!(read_public(text), Err(KeyError::Public), "{text}");
        }
        assert_eq!(read_private("no key").unwrap_err(), KeyError::Private);
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        let bytes = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        // kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k
        assert_eq!(key_id(&from_bytes(&bytes).unwrap()), "90facafea9b15566");
    }

    proptest! {
        #[test]
        fn no_changed_character_is_believed(at in 0_usize..400, with in "[A-Za-z0-9_.-]") {
            let good = signed("k", 1);
            let at = at % good.len();
            let mut text = good.clone();
            text.replace_range(at..=at, &with);
            let outcome = verify(&text, &[trusted("k", 1)]);
            prop_assert!(text == good || outcome.is_err(), "{}", text);
        }
    }
}
