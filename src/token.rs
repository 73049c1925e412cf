//! Tokens of the document server: compact JWTs signed with HS256, HS384 or HS512.
//!
//! The rules are those of the server's own verification (node `jsonwebtoken` 9 with
//! `clockTolerance: 60`; WIRE.md sections 1 and 3), so that both ends accept the same tokens; where
//! they differ, this side is the stricter one. Pure: the clock is an argument, nothing is cached,
//! and what the claims mean is somebody else's business.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};

use crate::config::Secret;

/// Longest token that is looked at. An editor configuration is some kilobytes.
pub const MAX_TOKEN_BYTES: usize = 256 * 1024;

/// Clock tolerance for `exp` and `nbf` (the server's `token.verifyOptions.clockTolerance`).
const LEEWAY_SECONDS: f64 = 60.0;

/// Life of a token that the gateway signs (the server's `token.outbox.expires`).
const SIGNED_LIFE_SECONDS: i64 = 300;

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Rightly signed, but past its `exp` by a minute or more.
    #[error("the token is expired")]
    Expired,
    /// Anything else: malformed, wrongly signed, another algorithm, not yet valid.
    #[error("the token is not valid")]
    Invalid,
}

/// The claims of `token`, if any of `secrets` signed it and `now` is within its time.
///
/// The result is always [`Value::Object`]. A claim set of another kind is invalid, as is one that
/// nests deeper than `serde_json` reads (128).
///
/// # Errors
/// [`TokenError::Expired`] only for a token whose signature is good; [`TokenError::Invalid`] for
/// every other fault.
pub fn verify(token: &str, secrets: &[Secret], now: Timestamp) -> Result<Value, TokenError> {
    let parts = Parts::split(token).ok_or(TokenError::Invalid)?;
    let algorithm = parts.algorithm().ok_or(TokenError::Invalid)?;
    let signature = URL_SAFE_NO_PAD.decode(parts.signature).map_err(|_| TokenError::Invalid)?;
    let good = |secret: &Secret| algorithm.verifies(secret, parts.signed, &signature);
    if !secrets.iter().any(good) {
        return Err(TokenError::Invalid);
    }
    let claims = parts.claims().ok_or(TokenError::Invalid)?;
    check_time(&claims, now)?;
    Ok(Value::Object(claims))
}

/// The claims of `token` as they stand, **whoever wrote them**: for recognising, never for
/// trusting. `None` if it is not a token with an object in it.
pub fn decode_unverified(token: &str) -> Option<Value> {
    Parts::split(token)?.claims().map(Value::Object)
}

/// An HS256 token over `claims`, for the gateway's own questions to the document server.
///
/// `iat` and an `exp` five minutes later are added where `claims` does not have them.
pub fn sign(claims: &Map<String, Value>, secret: &Secret, now: Timestamp) -> String {
    let mut claims = claims.clone();
    let issued = now.as_second();
    claims.entry("iat").or_insert_with(|| issued.into());
    claims.entry("exp").or_insert_with(|| (issued + SIGNED_LIFE_SECONDS).into());
    let mut token = String::new();
    URL_SAFE_NO_PAD.encode_string(r#"{"alg":"HS256","typ":"JWT"}"#, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(Value::Object(claims).to_string(), &mut token);
    let signature = keyed::<Hmac<Sha256>>(secret).map(|mac| mac.chain_update(&token).finalize());
    token.push('.');
    if let Some(signature) = signature {
        URL_SAFE_NO_PAD.encode_string(signature.into_bytes(), &mut token);
    }
    token
}

/// The signature algorithms that the server takes for a shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    /// Whether `signature` is `secret`'s over `signed`, compared in constant time.
    fn verifies(self, secret: &Secret, signed: &str, signature: &[u8]) -> bool {
        fn check<M: Mac + hmac::digest::KeyInit>(
            secret: &Secret,
            signed: &str,
            signature: &[u8],
        ) -> bool {
            keyed::<M>(secret)
                .is_some_and(|mac| mac.chain_update(signed).verify_slice(signature).is_ok())
        }
        match self {
            Self::Hs256 => check::<Hmac<Sha256>>(secret, signed, signature),
            Self::Hs384 => check::<Hmac<Sha384>>(secret, signed, signature),
            Self::Hs512 => check::<Hmac<Sha512>>(secret, signed, signature),
        }
    }
}

/// A MAC with `secret` as its key. An empty secret is no secret: everybody knows it.
fn keyed<M: Mac + hmac::digest::KeyInit>(secret: &Secret) -> Option<M> {
    let key = secret.expose().as_bytes();
    if key.is_empty() { None } else { <M as Mac>::new_from_slice(key).ok() }
}

/// The three parts of a compact JWT, and what is signed of it.
struct Parts<'a> {
    signed: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// base64url as node reads it in a header or payload: stray low bits at the end do no harm there,
/// the signature is over the characters. A signature itself is read strictly.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        Some(Self { signed, header, payload, signature })
    }

    fn algorithm(&self) -> Option<Algorithm> {
        let header = LENIENT.decode(self.header).ok()?;
        let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
        match header.get("alg")?.as_str()? {
            "HS256" => Some(Algorithm::Hs256),
            "HS384" => Some(Algorithm::Hs384),
            "HS512" => Some(Algorithm::Hs512),
            _ => None,
        }
    }

    fn claims(&self) -> Option<Map<String, Value>> {
        let payload = LENIENT.decode(self.payload).ok()?;
        let text = String::from_utf8_lossy(&payload);
        // A name that its integrator cut in the middle of an emoji carries half a surrogate pair:
        // `JSON.parse` takes it, serde does not.
        serde_json::from_str(&text)
            .or_else(|_| serde_json::from_str(&mend_lone_surrogates(&text)))
            .ok()
    }
}

/// `json` with every `\uD800`…`\uDFFF` escape that is not half of a pair replaced by `\ufffd`.
fn mend_lone_surrogates(json: &str) -> String {
    fn escape(text: &str) -> Option<u16> {
        u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
    }
    let mut mended = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, from)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        mended.push_str(before);
        // An escape is `\uXXXX` or a backslash and one character: `\\` must not lend its second half.
        let length = match escape(from) {
            None => 1 + from.chars().nth(1).map_or(0, char::len_utf8),
            Some(0xD800..=0xDBFF) => {
                let next = from.get(6..).and_then(escape);
                if next.is_some_and(|next| (0xDC00..=0xDFFF).contains(&next)) { 12 } else { 0 }
            }
            Some(0xDC00..=0xDFFF) => 0,
            Some(_) => 6,
        };
        let (kept, after) = from.split_at_checked(length).unwrap_or((from, ""));
        if length == 0 {
            mended.push_str("\\ufffd");
            rest = from.get(6..).unwrap_or("");
        } else {
            mended.push_str(kept);
            rest = after;
        }
    }
    mended.push_str(rest);
    mended
}

/// The server's order: `nbf` first, then `exp`; each must be a number where it stands at all.
fn check_time(claims: &Map<String, Value>, now: Timestamp) -> Result<(), TokenError> {
    let now = now.as_second() as f64;
    if let Some(not_before) = claims.get("nbf") {
        let not_before = not_before.as_f64().ok_or(TokenError::Invalid)?;
        if not_before > now + LEEWAY_SECONDS {
            return Err(TokenError::Invalid);
        }
    }
    if let Some(expires) = claims.get("exp") {
        let expires = expires.as_f64().ok_or(TokenError::Invalid)?;
        if now >= expires + LEEWAY_SECONDS {
            return Err(TokenError::Expired);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
