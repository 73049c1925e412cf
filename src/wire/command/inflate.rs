//! Command bodies that come compressed.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::{GzDecoder, ZlibDecoder};

/// Why a body cannot be read. None of these may be forwarded: the server might read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// An encoding that the server does not take either; HTTP 415.
    #[error("the content encoding is neither identity, gzip nor deflate")]
    Unsupported,
    /// More bytes than the limit; HTTP 413.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// Not what its encoding says, cut short, or with something behind its end; HTTP 400.
    #[error("the compressed body is damaged")]
    Corrupt,
}

/// `body` with its `Content-Encoding` undone, at most `limit_bytes` long.
///
/// `content_encoding` is the header's value, several headers joined by commas as node joins them.
/// The encodings are body-parser's: gzip, deflate (the zlib format), identity, one of them, in any
/// case. A gzip body is one member with nothing behind it; zlib's and node's ways with further
/// members, padding and rubbish differ, and no client sends them.
///
/// # Errors
/// See [`InflateError`].
pub fn inflate<'a>(
    body: &'a [u8],
    content_encoding: Option<&str>,
    limit_bytes: usize,
) -> Result<Cow<'a, [u8]>, InflateError> {
    let encoding = content_encoding.unwrap_or("").trim();
    if body.len() > limit_bytes {
        return Err(InflateError::TooLarge);
    }
    if body.is_empty() || encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        return Ok(Cow::Borrowed(body));
    }
    if encoding.eq_ignore_ascii_case("gzip") {
        let mut decoder = GzDecoder::new(body);
        let inflated = read_to_limit(&mut decoder, limit_bytes)?;
        at_end(decoder.into_inner(), inflated)
    } else if encoding.eq_ignore_ascii_case("deflate") {
        let mut decoder = ZlibDecoder::new(body);
        let inflated = read_to_limit(&mut decoder, limit_bytes)?;
        at_end(decoder.into_inner(), inflated)
    } else {
        Err(InflateError::Unsupported)
    }
}

fn read_to_limit(decoder: &mut impl Read, limit_bytes: usize) -> Result<Vec<u8>, InflateError> {
    let mut inflated = Vec::new();
    // One byte more than the limit tells "as long as" from "longer than".
    let bound = u64::try_from(limit_bytes).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(bound).read_to_end(&mut inflated).map_err(|_| InflateError::Corrupt)?;
    if inflated.len() > limit_bytes { Err(InflateError::TooLarge) } else { Ok(inflated) }
}

fn at_end<'a>(rest: &[u8], inflated: Vec<u8>) -> Result<Cow<'a, [u8]>, InflateError> {
    if rest.is_empty() { Ok(Cow::Owned(inflated)) } else { Err(InflateError::Corrupt) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn encodings() {
        use InflateError::{Corrupt, TooLarge, Unsupported};
        let body = br#"{"c":"license"}"#;
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(body).unwrap();
        let raw = raw.finish().unwrap();
        let with = |tail: &[u8], of: Vec<u8>| [of, tail.to_vec()].concat();
        let short = gzip(body)[..20].to_vec();
        let bomb = gzip(&vec![b' '; 100_000]);
        for (sent, encoding, expected) in [
            (body.to_vec(), None, Ok(&body[..])),
            (body.to_vec(), Some(""), Ok(&body[..])),
            (body.to_vec(), Some("Identity"), Ok(&body[..])),
            (gzip(body), Some("gzip"), Ok(&body[..])),
            (gzip(body), Some("GZip"), Ok(&body[..])),
            (zlib(body), Some("deflate"), Ok(&body[..])),
            (gzip(b""), Some("gzip"), Ok(&b""[..])),
            (Vec::new(), Some("gzip"), Ok(&b""[..])),
            (raw, Some("deflate"), Err(Corrupt)),
            (body.to_vec(), Some("gzip"), Err(Corrupt)),
            (short, Some("gzip"), Err(Corrupt)),
            (with(b"\0", gzip(body)), Some("gzip"), Err(Corrupt)),
            (with(&gzip(b"x"), gzip(body)), Some("gzip"), Err(Corrupt)),
            (with(b"x", zlib(body)), Some("deflate"), Err(Corrupt)),
            (bomb, Some("gzip"), Err(TooLarge)),
            (vec![b' '; 1001], None, Err(TooLarge)),
            (gzip(&[b' '; 1000]), Some("gzip"), Ok(&[b' '; 1000][..])),
            (gzip(&[b' '; 1001]), Some("gzip"), Err(TooLarge)),
            (body.to_vec(), Some("br"), Err(Unsupported)),
            (gzip(body), Some("x-gzip"), Err(Unsupported)),
            (gzip(&gzip(body)), Some("gzip, gzip"), Err(Unsupported)),
        ] {
            let inflated = inflate(&sent, encoding, 1000);
            assert_eq!(inflated.as_deref(), expected.as_ref().map(|body| *body), "{encoding:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_do(body in any::<Vec<u8>>(), encoding in "gzip|deflate|identity|br") {
            let _ = inflate(&body, Some(&encoding), 64);
            let sent = gzip(&body);
            prop_assert_eq!(&*inflate(&sent, Some("gzip"), 1000).unwrap(), body.as_slice());
        }
    }
}
