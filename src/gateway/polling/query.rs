//! The query of an Engine.IO request, read as strictly as `engine.io` 6 could read it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The most parameters of a query. Node reads a thousand and ignores the rest, so that a longer
/// one could be read in two ways; an editor sends five.
const MAX_PAIRS: usize = 100;

/// What an Engine.IO server answers to a request that it does not take: 400 with this body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineRefusal {
    UnknownTransport,
    UnknownSession,
    BadHandshakeMethod,
    BadRequest,
    UnsupportedProtocol,
}

impl EngineRefusal {
    /// The JSON body.
    pub fn body(self) -> &'static str {
        match self {
            Self::UnknownTransport => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::UnknownSession => r#"{"code":1,"message":"Session ID unknown"}"#,
            Self::BadHandshakeMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            Self::UnsupportedProtocol => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }
}

/// The parameters that an Engine.IO server looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineQuery<'a> {
    pub protocol: Option<Cow<'a, str>>,
    pub transport: Option<Cow<'a, str>>,
    /// The engine's session, unless this is a handshake.
    pub session: Option<Cow<'a, str>>,
    /// JSONP: bodies in another encoding, which no editor uses.
    jsonp: bool,
}

impl<'a> EngineQuery<'a> {
    /// Reads a query.
    ///
    /// # Errors
    /// A parameter that matters is given twice, is not UTF-8, or asks for another protocol
    /// version, whose packets the gateway does not read.
    pub fn parse(query: Option<&'a str>) -> Result<Self, EngineRefusal> {
        let mut found = Self::default();
        for (index, pair) in query.unwrap_or_default().split('&').enumerate() {
            if index >= MAX_PAIRS {
                return Err(EngineRefusal::BadRequest);
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key)?;
            let slot = match &*key {
                "EIO" => &mut found.protocol,
                "transport" => &mut found.transport,
                "sid" => &mut found.session,
                "j" => {
                    found.jsonp = true;
                    continue;
                }
                _ => continue,
            };
            if slot.replace(decode(value)?).is_some() {
                return Err(EngineRefusal::BadRequest);
            }
        }
        if found.protocol.as_ref().is_some_and(|version| version != "4") {
            return Err(EngineRefusal::UnsupportedProtocol);
        }
        Ok(found)
    }

    /// Checks that this is the WebSocket of a session that began by polling.
    ///
    /// # Errors
    /// It names another transport or protocol version, or none.
    pub fn require_upgrade(&self) -> Result<(), EngineRefusal> {
        match (self.protocol.as_deref(), self.transport.as_deref()) {
            (Some("4"), Some("websocket")) => Ok(()),
            (Some("4"), _) => Err(EngineRefusal::BadRequest),
            _ => Err(EngineRefusal::UnsupportedProtocol),
        }
    }

    /// Checks that this is a request of the polling transport.
    ///
    /// # Errors
    /// It is not, or it is JSONP, or names no protocol version.
    pub fn require_polling(&self) -> Result<(), EngineRefusal> {
        if self.transport.as_deref() != Some("polling") {
            return Err(EngineRefusal::UnknownTransport);
        }
        if self.protocol.is_none() {
            return Err(EngineRefusal::UnsupportedProtocol);
        }
        if self.jsonp { Err(EngineRefusal::BadRequest) } else { Ok(()) }
    }
}

/// Percent-decoding; a `+` stands for a blank in node's query strings, which no value that
/// matters holds.
fn decode(text: &str) -> Result<Cow<'_, str>, EngineRefusal> {
    if text.contains('+') {
        return Ok(Cow::Owned(text.replace('+', " ")));
    }
    percent_decode_str(text).decode_utf8().map_err(|_| EngineRefusal::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_in_one_way_or_refused() {
        let parse = |query| EngineQuery::parse(Some(query));
        let polling = parse("EIO=4&transport=polling&t=x&sid=abc").unwrap();
        assert_eq!(polling.require_polling(), Ok(()));
        assert_eq!(polling.session.as_deref(), Some("abc"));
        let encoded = parse("%45IO=%34&trans%70ort=polling&s%69d=abc").unwrap();
        assert_eq!(encoded.session.as_deref(), Some("abc"));
        for (query, refusal) in [
            ("EIO=3&transport=polling", EngineRefusal::UnsupportedProtocol),
            ("EIO=4&sid=a&sid=b", EngineRefusal::BadRequest),
            ("EIO=4&sid=a&%73id=b", EngineRefusal::BadRequest),
            ("EIO=4&EIO=4", EngineRefusal::BadRequest),
            ("sid=%ff", EngineRefusal::BadRequest),
        ] {
            assert_eq!(parse(query), Err(refusal), "{query}");
        }
        for (query, refusal) in [
            ("EIO=4", EngineRefusal::UnknownTransport),
            ("EIO=4&transport=websocket", EngineRefusal::UnknownTransport),
            ("transport=polling", EngineRefusal::UnsupportedProtocol),
            ("EIO=4&transport=polling&j=0", EngineRefusal::BadRequest),
        ] {
            assert_eq!(parse(query).unwrap().require_polling(), Err(refusal), "{query}");
        }
        assert_eq!(EngineQuery::parse(None), Ok(EngineQuery::default()));
    }
}
