//! Where a request belongs, decided on the normalised path, in this one place.
//!
//! The document server may sit behind a front of its own that decodes, merges and rewrites paths
//! before it looks at them. So a path is read as strictly as any of those readers could: version
//! prefix, virtual path, letter case, doubled slashes, backslashes, dot segments and
//! percent-encoding (several layers deep) are taken away, and whatever is guarded in any reading of a
//! path is guarded: readers do not agree about the order in which they decode and resolve. The bytes that are forwarded are another matter ([`forward_target`]).

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
    #[error("the path's dot segments can be read in more than {MAX_READINGS} ways")]
    TooManyReadings,
}

/// The longest path that is routed, in bytes.
pub const MAX_PATH: usize = 32 * 1024;

/// How often a path may be percent-encoded over.
const MAX_LAYERS: usize = 4;

/// The longest path with `..` segments that is routed, in bytes: browsers resolve them.
const MAX_DOTTED: usize = 4 * 1024;

/// In how many ways the dot segments of a path may be read.
const MAX_READINGS: usize = 64;

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
        let found = self.route_reading(path)?;
        if !path.contains(&b'%') && !has_dots(path) {
            return Ok(found);
        }
        self.route_readings(path, found)
    }

    /// Goes through everything that readers may make of a path by decoding it and resolving its dot
    /// segments, in whatever order they do so.
    fn route_readings(&self, path: &[u8], mut found: Route) -> Result<Route, PathError> {
        let mut readings = vec![(path.to_vec(), 0)];
        let mut at = 0;
        while let Some((reading, layer)) = readings.get(at).cloned() {
            at += 1;
            found = stricter(found, self.route_reading(&reading)?);
            let mut more = Vec::new();
            if let Some(decoded) = decode(&reading) {
                if layer == MAX_LAYERS {
                    return Err(PathError::TooManyLayers);
                }
                more.push((decoded, layer + 1));
            }
            if has_dots(&reading) {
                if reading.len() > MAX_DOTTED {
                    return Err(PathError::TooLong);
                }
                // Merged by one reader, a backslash made a slash by the next.
                more.push((merge(&reading), layer));
                more.extend(DotReading::ALL.map(|how| (resolve(&reading, how), layer)));
            }
            for reading in more {
                if readings.iter().all(|known| known.0 != reading.0) {
                    readings.push(reading);
                }
            }
            if readings.len() > MAX_READINGS {
                return Err(PathError::TooManyReadings);
            }
        }
        Ok(found)
    }

    /// The route of one reading of a path, whose dot segments stay.
    fn route_reading(&self, path: &[u8]) -> Result<Route, PathError> {
        if path.contains(&0) {
            return Err(PathError::Nul);
        }
        let normal = normalise(path);
        Ok(self.route_normal(&normal))
    }

    fn route_normal(&self, normal: &str) -> Route {
        let mut rest = normal;
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

/// Whether every reader reads a guarded path alike: what an operator may reach is what it says, and
/// not a session that has another spelling.
pub fn is_plain(path: &[u8]) -> bool {
    !path.iter().any(|byte| matches!(byte, b'%' | b'\\')) && !has_dots(path)
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
    let origin_form = origin_form(target);
    let has_query = origin_form.contains(&b'?');
    // Behind the host nothing but a path or a query: `http://host\path` is no URL.
    let is_url = is_url && matches!(origin_form.first(), Some(b'/' | b'?'));
    let known = target.starts_with(b"/") || is_url || target == b"*";
    // No target has a fragment; to whom looks for one, what follows is no part of path or query.
    let known = known && !target.contains(&b'#');
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

/// Lower case, one slash at a time, no `.` segments, nothing from `?` or `#` on. Most paths are in that form
/// already and are not copied.
fn normalise(path: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(path)
        && is_normal(path)
    {
        return Cow::Borrowed(text);
    }
    let mut normal = String::with_capacity(path.len() + 1);
    let mut trailing_slash = false;
    for segment in before_query(path).split(|byte| matches!(byte, b'/' | b'\\')) {
        trailing_slash = true;
        match segment {
            b"" | b"." => {}
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

/// What readers that resolve `..` do not agree about.
#[derive(Clone, Copy, Debug)]
struct DotReading {
    /// A `?` or `#` that was percent-encoded ends the path.
    ends_at_query: bool,
    /// A backslash parts segments.
    backslash: bool,
    /// Doubled slashes are one, before `..` is looked at.
    merges: bool,
}

impl DotReading {
    const ALL: [Self; 8] = {
        const fn reading(bits: u8) -> DotReading {
            DotReading {
                ends_at_query: bits & 1 != 0,
                backslash: bits & 2 != 0,
                merges: bits & 4 != 0,
            }
        }
        [
            reading(0),
            reading(1),
            reading(2),
            reading(3),
            reading(4),
            reading(5),
            reading(6),
            reading(7),
        ]
    };
}

/// Takes `.` and `..` segments out.
fn resolve(path: &[u8], how: DotReading) -> Vec<u8> {
    let path = if how.ends_at_query { before_query(path) } else { path };
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/' || (how.backslash && *byte == b'\\')) {
        match segment {
            b"." => {}
            b"" if how.merges => {}
            b".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut resolved = Vec::with_capacity(path.len() + 1);
    if kept.first().is_none_or(|first| !first.is_empty()) {
        resolved.push(b'/');
    }
    resolved.extend(kept.join(&b'/'));
    resolved
}

/// Makes doubled slashes one.
fn merge(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, before| *next == b'/' && *before == b'/');
    merged
}

/// Whether some reader could find a `..` segment.
fn has_dots(path: &[u8]) -> bool {
    memchr::memmem::find(path, b"..").is_some()
        && path.split(|byte| matches!(byte, b'/' | b'\\' | b'?' | b'#')).any(|part| part == b"..")
}

/// A path up to its first `?` or `#`.
fn before_query(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    path.get(..end).unwrap_or_default()
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
mod tests;
