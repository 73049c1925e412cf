//! Which tenant a host name belongs to.
//!
//! Pure look-up: exact names first, then the longest `*.suffix`, then the default tenant.

use std::collections::HashMap;
use std::sync::Arc;

/// The name of the tenant that every host belongs to which no other tenant names.
pub const DEFAULT_TENANT: &str = "default";

/// What to do with an open that the licence does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalPolicy {
    /// Tell the editor that access is denied, and close.
    Reject,
    /// Open view-only, with the editor's own notice.
    View,
}

/// Whether refusals are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    Enforce,
    /// Count and log what would be refused; refuse nobody.
    Observe,
}

/// The policy that applies to a tenant's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// A valid licence has no seat left.
    pub over_limit: RefusalPolicy,
    /// The licence is expired, revoked, not yet valid or missing.
    pub licence_invalid: RefusalPolicy,
}

/// Host names to values, as `hosts = ["docs.acme.example", "*.example.com"]` states them.
///
/// Names are compared without letter case and without a trailing dot; a wildcard matches one or
/// more labels, and the longest matching suffix wins.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: HashMap<Box<str>, Arc<T>>,
    wildcard: HashMap<Box<str>, Arc<T>>,
    default: Arc<T>,
}

impl<T> HostMap<T> {
    /// A map in which every host has `default`.
    pub fn new(default: Arc<T>) -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default }
    }

    /// Adds a pattern; returns `false` if it was already there (the first stays).
    pub fn insert(&mut self, pattern: &str, value: Arc<T>) -> bool {
        let pattern = normalise(pattern);
        let (map, key) = match pattern.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcard, suffix),
            None => (&mut self.exact, pattern.as_str()),
        };
        if map.contains_key(key) {
            return false;
        }
        map.insert(key.into(), value);
        true
    }

    /// The value for a `Host` header's value; a port is ignored, as is letter case.
    pub fn get(&self, host: &str) -> &Arc<T> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return &self.default;
        }
        let name = normalise(without_port(host));
        if let Some(found) = self.exact.get(name.as_str()) {
            return found;
        }
        let mut rest = name.as_str();
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(found) = self.wildcard.get(suffix) {
                return found;
            }
            rest = suffix;
        }
        &self.default
    }

    /// The value of hosts that no pattern names.
    pub fn default_value(&self) -> &Arc<T> {
        &self.default
    }
}

fn normalise(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

/// The host of `host[:port]`, IPv6 literals in brackets included.
pub fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_once(']').map_or(host, |(literal, _)| &host[..=literal.len()]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_beats_wildcard_and_the_longest_suffix_wins() {
        let mut map = HostMap::new(Arc::new("default"));
        assert!(map.insert("Docs.Acme.Example", Arc::new("exact")));
        assert!(map.insert("*.acme.example", Arc::new("wide")));
        assert!(map.insert("*.eu.acme.example", Arc::new("narrow")));
        assert!(!map.insert("docs.acme.example.", Arc::new("again")));
        for (host, expected) in [
            ("docs.acme.example", "exact"),
            ("DOCS.ACME.EXAMPLE.:8080", "exact"),
            ("a.acme.example", "wide"),
            ("a.b.acme.example:80", "wide"),
            ("x.eu.acme.example", "narrow"),
            ("acme.example", "default"),
            ("notacme.example", "default"),
            ("[::1]:8080", "default"),
            ("", "default"),
        ] {
            assert_eq!(**map.get(host), expected, "{host}");
        }
    }
}
