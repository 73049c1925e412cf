//! The document server's JWTs, as integrators sign them (RFC 7515, HMAC only).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

pub const SECRET: &str = "a secret of the test's document server";

#[derive(Clone, Copy, Debug)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// Signs `claims` with HS256.
pub fn sign(secret: &str, claims: &Value) -> String {
    sign_with(Algorithm::Hs256, secret, claims)
}

pub fn sign_with(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    let name = match algorithm {
        Algorithm::Hs256 => "HS256",
        Algorithm::Hs384 => "HS384",
        Algorithm::Hs512 => "HS512",
    };
    let signed = format!("{}.{}", part(&json!({"alg": name, "typ": "JWT"})), part(claims));
    let signature = signature(algorithm, secret, &signed);
    format!("{signed}.{signature}")
}

/// A token with `alg: none` and no signature.
pub fn unsigned(claims: &Value) -> String {
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

/// The claims of a valid HS256 token; the error is the document server's code (4005 or 4006).
pub fn verify(secret: &str, token: &str) -> Result<Value, u16> {
    let (signed, theirs) = token.rsplit_once('.').ok_or(4006_u16)?;
    if signature(Algorithm::Hs256, secret, signed) != theirs {
        return Err(4006);
    }
    let claims = signed.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = serde_json::from_slice(&claims.ok_or(4006_u16)?).map_err(|_| 4006_u16)?;
    match claims["exp"].as_u64() {
        Some(end) if end < now() => Err(4005),
        _ => Ok(claims),
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn signature(algorithm: Algorithm, secret: &str, signed: &str) -> String {
    fn with<M: Mac + hmac::digest::KeyInit>(secret: &str, signed: &str) -> String {
        let mut mac = <M as Mac>::new_from_slice(secret.as_bytes()).expect("any key will do");
        mac.update(signed.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
    match algorithm {
        Algorithm::Hs256 => with::<Hmac<Sha256>>(secret, signed),
        Algorithm::Hs384 => with::<Hmac<Sha384>>(secret, signed),
        Algorithm::Hs512 => with::<Hmac<Sha512>>(secret, signed),
    }
}
