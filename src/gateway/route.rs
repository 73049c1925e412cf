//! Where a request belongs, decided on the normalised path, in this one place.
//!
//! The document server may sit behind a front of its own that decodes, merges and rewrites paths
//! before it looks at them. So a path is read as strictly as any of those readers could: version
//! prefix, virtual path, letter case, doubled slashes, backslashes, dot segments and
//! percent-encoding (several layers deep) are taken away, and whatever is guarded at any of those
//! layers is guarded. The bytes that are forwarded are another matter ([`forward_target`]).

use std::borrow::Cow;

use pingora::http::RequestHeader;

/// What a request is, for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// The document server's command service.
    Command,
    /// The licence validation API.
    Validate,
    /// The co-authoring service: everything under `/doc/`.
    Coauthoring,
    /// `/info` and `/internal` of the document server: operators only.
    Guarded,
    /// Anything else: forwarded.
    Forward,
}

impl Route {
    pub const ALL: [Route; 5] =
        [Self::Command, Self::Validate, Self::Coauthoring, Self::Guarded, Self::Forward];

    /// The `route` label of the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Validate => "validate",
            Self::Coauthoring => "doc",
            Self::Guarded => "blocked",
            Self::Forward => "forward",
        }
    }
}

/// A path that cannot be routed: answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    #[error("the path holds a NUL byte")]
    Nul,
    #[error("the request's target is neither a path nor an http URL")]
    Target,
    #[error("the path is percent-encoded more than {MAX_LAYERS} times over")]
    TooManyLayers,
}

/// The longest path that is routed, in bytes.
pub const MAX_PATH: usize = 32 * 1024;

/// How often a path may be percent-encoded over.
const MAX_LAYERS: usize = 4;

/// The routes of one document server.
#[derive(Clone, Debug)]
pub struct Router {
    /// Lower case, without a trailing slash: `""` or `/docs`.
    path_prefix: String,
    validate: String,
}

impl Router {
    /// `path_prefix` is the virtual path (`""` or `/docs`), `validate` the validation API's path.
    pub fn new(path_prefix: &str, validate: &str) -> Self {
        Self {
            path_prefix: path_prefix.trim_end_matches('/').to_ascii_lowercase(),
            validate: validate.trim_end_matches('/').to_ascii_lowercase(),
        }
    }

    /// Where a request for `path` (no query) belongs.
    ///
    /// # Errors
    /// A path that no reader could agree about.
    pub fn route(&self, path: &[u8]) -> Result<Route, PathError> {
        if path.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let mut layer: Cow<'_, [u8]> = Cow::Borrowed(path);
        let mut found = Route::Forward;
        for _ in 0..=MAX_LAYERS {
            if layer.contains(&0) {
                return Err(PathError::Nul);
            }
            found = stricter(found, self.route_layer(&layer, true));
            if memchr::memmem::find(&layer, b"..").is_some() {
                // Some readers leave dot segments alone.
                found = stricter(found, self.route_layer(&layer, false));
            }
            match decode(&layer) {
                None => return Ok(found),
                Some(decoded) => layer = Cow::Owned(decoded),
            }
        }
        Err(PathError::TooManyLayers)
    }

    /// The route of a path at one layer of encoding.
    fn route_layer(&self, path: &[u8], resolve_dots: bool) -> Route {
        let normal = normalise(path, resolve_dots);
        let mut rest: &str = &normal;
        loop {
            match self.exact(rest) {
                Route::Forward => {}
                found => return found,
            }
            if !self.path_prefix.is_empty()
                && let Some(inner) = rest.strip_prefix(self.path_prefix.as_str())
                && inner.starts_with('/')
            {
                rest = inner;
            } else if let Some(inner) = without_version(rest) {
                rest = inner;
            } else {
                return Route::Forward;
            }
        }
    }

    fn exact(&self, path: &str) -> Route {
        let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
        let below = |root: &str| {
            path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if below("/info") || below("/internal") {
            Route::Guarded
        } else if below("/doc") {
            Route::Coauthoring
        } else if path == "/coauthoring/commandservice.ashx" || path == "/command" {
            Route::Command
        } else if path == self.validate {
            Route::Validate
        } else {
            Route::Forward
        }
    }
}

/// The path of a request's target, without scheme, host and query.
pub fn target_path(request: &RequestHeader) -> &[u8] {
    let target = origin_form(request.raw_path());
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    target.get(..end).unwrap_or_default()
}

/// The query of a request's target, as it is forwarded.
pub fn target_query(request: &RequestHeader) -> Option<&str> {
    let target = origin_form(request.raw_path());
    let start = target.iter().position(|byte| *byte == b'?')?;
    target.get(start + 1..).and_then(|query| std::str::from_utf8(query).ok())
}

/// Checks that a target has a form whose path and query everybody reads alike.
///
/// # Errors
/// It is neither a path, nor an `http` URL, nor `*`; or its query is not text.
pub fn check_target(request: &RequestHeader) -> Result<(), PathError> {
    let target = request.raw_path();
    let is_url = [&b"http://"[..], b"https://"].iter().any(|scheme| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let has_query = origin_form(target).contains(&b'?');
    let known = target.starts_with(b"/") || is_url || target == b"*";
    if known && (!has_query || target_query(request).is_some()) {
        Ok(())
    } else {
        Err(PathError::Target)
    }
}

/// A target without scheme and host: of `http://host/path?query` the document server takes
/// `/path?query`.
fn origin_form(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let Some(scheme) = memchr::memmem::find(target, b"://") else { return target };
    let rest = target.get(scheme + 3..).unwrap_or_default();
    let path = rest.iter().position(|byte| matches!(byte, b'/' | b'\\' | b'?' | b'#'));
    path.and_then(|path| rest.get(path..)).unwrap_or(b"/")
}

/// The target that goes to the document server, unless it is the request's own: in origin form,
/// without the virtual path, and without the version prefix where `strip_version` says so. All
/// other bytes stay as they came.
pub fn forward_target(
    request: &RequestHeader,
    path_prefix: &str,
    strip_version: bool,
) -> Option<Vec<u8>> {
    let raw = request.raw_path();
    let target = origin_form(raw);
    let path = target_path(request);
    let query = target.get(path.len()..).unwrap_or_default();
    let mut rest = path;
    if !path_prefix.is_empty()
        && let Some(inner) = rest.strip_prefix(path_prefix.as_bytes())
        && (inner.is_empty() || inner.starts_with(b"/"))
    {
        rest = inner;
    }
    if strip_version
        && let Ok(text) = std::str::from_utf8(rest)
        && let Some(inner) = without_version(text)
    {
        rest = inner.as_bytes();
    }
    if target.len() == raw.len() && rest.len() == path.len() {
        return None;
    }
    let rest = if rest.is_empty() { b"/" } else { rest };
    Some([rest, query].concat())
}

/// The one of two readings of a path that lets less through; the first where they are equal.
fn stricter(first: Route, second: Route) -> Route {
    let rank = |route| match route {
        Route::Guarded => 3,
        Route::Coauthoring => 2,
        Route::Command | Route::Validate => 1,
        Route::Forward => 0,
    };
    if rank(second) > rank(first) { second } else { first }
}

/// The rest of `/9.3.0-<hash>/…` behind its version segment, if it has one: digits and dots, then
/// `-`, `.` or `|` and a word, as the document server's own front takes it away.
pub fn without_version(path: &str) -> Option<&str> {
    let segment = path.strip_prefix('/')?;
    let (segment, _) = segment.split_once('/')?;
    let numbers = segment.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let version = segment.get(..numbers)?;
    let is_version = version.starts_with(|first: char| first.is_ascii_digit())
        && version.bytes().filter(|byte| *byte == b'.').count() >= 2
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'|'));
    if is_version { path.get(1 + segment.len()..) } else { None }
}

/// One layer of percent-decoding, or `None` if there was nothing to decode.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    match percent_encoding::percent_decode(path).into() {
        Cow::Borrowed(_) => None,
        Cow::Owned(decoded) => Some(decoded),
    }
}

/// Lower case, one slash at a time, no dot segments (or those left in), nothing from `?` or `#` on.
/// Most paths are in that form already and are not copied.
fn normalise(path: &[u8], resolve_dots: bool) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(path)
        && is_normal(path)
    {
        return Cow::Borrowed(text);
    }
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let path = path.get(..end).unwrap_or_default();
    let mut normal = String::with_capacity(path.len() + 1);
    let mut trailing_slash = false;
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        trailing_slash = true;
        match segment {
            b"" | b"." => {}
            b".." if resolve_dots => {
                let parent = normal.rfind('/').unwrap_or(0);
                normal.truncate(parent);
            }
            name => {
                normal.push('/');
                normal.push_str(&String::from_utf8_lossy(name).to_ascii_lowercase());
                trailing_slash = false;
            }
        }
    }
    if trailing_slash {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// Whether [`normalise`] would change nothing: a slash first, none doubled, no segment that starts
/// with a dot, nothing that has another spelling.
fn is_normal(path: &[u8]) -> bool {
    let mut before = None;
    let plain = path.iter().all(|byte| {
        let after_slash = before.replace(*byte) == Some(b'/');
        match byte {
            b'/' | b'.' => !after_slash,
            b'?' | b'#' | b'\\' => false,
            _ => !byte.is_ascii_uppercase(),
        }
    });
    plain && path.first() == Some(&b'/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn router() -> Router {
        Router::new("/docs", "/licences/api/validate")
    }

    #[test]
    fn every_spelling_of_a_guarded_path_is_guarded() {
        for path in [
            "/info",
            "/info/",
            "/info/info.json",
            "/INFO/info.json",
            "//info",
            "/./info",
            "/x/../info",
            "/x/..//info/",
            "/%69nfo",
            "/%2569nfo",
            "/%252569nfo",
            "/x/%2e%2e/info",
            "/x%2f..%2finfo",
            "\\info",
            "/info#x",
            "/info%23",
            "/info%3Fx",
            "/info\\info.json",
            "info",
            "/../../info",
            "/9.3.0-abc/info/info.json",
            "/9.3.0.abc/info",
            "/9.3.0|abc/info",
            "/9.3.0-abc/9.3.0-abc/info",
            "/docs/info",
            "/DOCS/info",
            "/docs/9.3.0-abc/internal/connections/edit",
            "/9.3.0-abc/docs/internal",
            "/internal",
            "/doc/../info",
            "/doc/%2e%2e/info",
            "/doc/x%2f%2e%2e%2f%2e%2e%2finternal",
            "/info/../doc/x",
            "/info/../healthcheck",
        ] {
            assert_eq!(router().route(path.as_bytes()), Ok(Route::Guarded), "{path}");
        }
    }

    #[test]
    fn routes() {
        for (path, expected) in [
            ("/doc/k1/c/", Route::Coauthoring),
            ("/doc/", Route::Coauthoring),
            ("/doc", Route::Coauthoring),
            ("/doc/a/b/c/d", Route::Coauthoring),
            ("/9.3.0-abc/doc/k1/c/", Route::Coauthoring),
            ("/docs/9.3.0-abc/doc/k1/c/", Route::Coauthoring),
            ("/%64oc/k1/c/", Route::Coauthoring),
            ("/docs/k1/c/", Route::Forward),
            ("/document", Route::Forward),
            ("/coauthoring/CommandService.ashx", Route::Command),
            ("/COAUTHORING/commandservice.ASHX/", Route::Command),
            ("/docs/coauthoring/CommandService.ashx", Route::Command),
            ("/9.3.0-abc/command", Route::Command),
            ("/command", Route::Command),
            ("/command/x", Route::Forward),
            ("/licences/api/validate", Route::Validate),
            ("/licences/api/validate/", Route::Validate),
            ("/", Route::Forward),
            ("", Route::Forward),
            ("/web-apps/apps/api/documents/api.js", Route::Forward),
            ("/information", Route::Forward),
            ("/x/info", Route::Forward),
            ("/9.3/info", Route::Forward),
            ("/%", Route::Forward),
            ("/%zz", Route::Forward),
        ] {
            assert_eq!(router().route(path.as_bytes()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_nobody_can_agree_about_is_an_error() {
        assert_eq!(router().route(b"/a%00b"), Err(PathError::Nul));
        assert_eq!(router().route(&[b'a'; MAX_PATH + 1]), Err(PathError::TooLong));
        assert_eq!(router().route(b"/%252525252541"), Err(PathError::TooManyLayers));
    }

    #[test]
    fn targets_lose_what_the_server_does_not_know_and_nothing_else() {
        for (target, prefix, strip, expected) in [
            ("/a/b?c=%2F", "", false, None),
            ("/docs/a?x=/docs/", "/docs", false, Some("/a?x=/docs/")),
            ("/docs", "/docs", false, Some("/")),
            ("/docs?x", "/docs", false, Some("/?x")),
            ("/docsx/a", "/docs", false, None),
            ("/9.3.0-abc/doc/k/c/?EIO=4", "", true, Some("/doc/k/c/?EIO=4")),
            ("/9.3.0-abc/doc/k/c/?EIO=4", "", false, None),
            ("/docs/9.3.0-abc/%20x", "/docs", true, Some("/%20x")),
            ("http://h.example/internal/x?y=1", "", false, Some("/internal/x?y=1")),
        ] {
            let request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            let found = forward_target(&request, prefix, strip);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{target}");
        }
    }

    #[test]
    fn a_whole_url_as_target_is_routed_by_its_path() {
        for target in ["http://h/internal/connections", "HTTP://h/%69nfo", "http://h:80//info"] {
            let request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            assert_eq!(router().route(target_path(&request)), Ok(Route::Guarded), "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_disguise_opens_a_guarded_path(
            upper in any::<u8>(),
            encode in any::<u16>(),
            slashes in 1usize..4,
            dots in 0usize..3,
        ) {
            let mut path = "/".repeat(slashes);
            path.push_str(&"a/../".repeat(dots));
            for (index, letter) in "info".chars().enumerate() {
                let letter =
                    if upper >> index & 1 == 1 { letter.to_ascii_uppercase() } else { letter };
                match encode >> (2 * index) & 3 {
                    0 => path.push(letter),
                    1 => path.push_str(&format!("%{:02x}", letter as u32)),
                    2 => path.push_str(&format!("%25{:02X}", letter as u32)),
                    _ => path.push_str(&format!("%2525{:02X}", letter as u32)),
                }
            }
            prop_assert_eq!(router().route(path.as_bytes()), Ok(Route::Guarded));
        }

        #[test]
        fn what_is_normal_is_what_normalising_leaves_alone(path in "[/.a-zA-Z?\\\\]{0,12}") {
            if is_normal(path.as_bytes()) {
                let forced = normalise(format!("{path}?").as_bytes(), true).into_owned();
                prop_assert_eq!(forced, path);
            }
        }

        #[test]
        fn any_bytes_never_panic(path in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = router().route(&path);
        }
    }
}
