//! What the document server says of itself, out of its own answers to `license` and `version`.

use serde::Deserialize;

use crate::config::BuildFacts;

/// Longest text that is taken over.
const MAX_TEXT_BYTES: usize = 64;

/// `server.*` of the license command, but for the `resultType`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    pub build: BuildFacts,
    pub workers_count: u32,
}

/// The facts in the server's own answer to `{"c":"license"}`; `None` unless each of them is there
/// and of its kind.
pub fn facts_from_license_reply(body: &[u8]) -> Option<ServerFacts> {
    #[derive(Deserialize)]
    struct Reply {
        error: u8,
        server: Server,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Server {
        workers_count: u32,
        package_type: u8,
        build_date: String,
        build_version: String,
        build_number: u64,
    }
    let Reply { error: 0, server } = serde_json::from_slice(body).ok()? else { return None };
    // A date is all digits and `-:.TZ`.
    let is_date = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte))
            && text.parse::<jiff::Timestamp>().is_ok()
    };
    let Server { workers_count, package_type, build_date, build_version, build_number } = server;
    let is_good = build_date.len() <= MAX_TEXT_BYTES
        && is_date(&build_date)
        && is_version(&build_version)
        && package_type <= 2;
    is_good.then_some(ServerFacts {
        build: BuildFacts {
            package_type,
            date: build_date,
            version: build_version,
            number: build_number,
        },
        workers_count,
    })
}

/// Version and build number in the server's answer to `{"c":"version"}`: `9.3.0.138` is `9.3.0` and
/// 138.
pub fn facts_from_version_reply(body: &[u8]) -> Option<(String, u64)> {
    #[derive(Deserialize)]
    struct Reply {
        error: u8,
        version: String,
    }
    let Reply { error: 0, version } = serde_json::from_slice(body).ok()? else { return None };
    let (version, number) = version.rsplit_once('.')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number)?;
    is_version(version).then(|| (version.to_owned(), number))
}

/// Letters, digits, dots and hyphens, a digit first.
fn is_version(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"error":0,"license":{"start_date":"2026-11-01T00:00:00.000Z","end_date":null},"server":{"workersCount":1,"resultType":3,"packageType":0,"buildDate":"2016-06-29T00:00:00.000Z","buildVersion":"4.1.2","buildNumber":37},"quota":{"users":[],"users_view":[]}}"#;

    #[test]
    fn the_server_tells_its_build() {
        let build = BuildFacts {
            package_type: 0,
            date: "2016-06-29T00:00:00.000Z".into(),
            version: "4.1.2".into(),
            number: 37,
        };
        let facts = ServerFacts { build, workers_count: 1 };
        assert_eq!(facts_from_license_reply(REPLY.as_bytes()), Some(facts));
        assert_eq!(
            facts_from_version_reply(br#"{"error":0,"version":"9.3.0.138"}"#),
            Some(("9.3.0".into(), 138))
        );
    }

    #[test]
    fn half_answers_tell_nothing() {
        let long = "1".repeat(65);
        for (from, to) in [
            (r#""error":0"#, r#""error":6"#),
            (r#""workersCount":1,"#, ""),
            (r#""workersCount":1"#, r#""workersCount":-1"#),
            (r#""packageType":0"#, r#""packageType":3"#),
            (r#""2016-06-29T00:00:00.000Z","buildVersion""#, r#"null,"buildVersion""#),
            (r#""2016-06-29T00:00:00.000Z","buildVersion""#, r#""today","buildVersion""#),
            ("4.1.2", ""),
            ("4.1.2", "<b>"),
            ("4.1.2", &long),
            (r#""buildNumber":37"#, r#""buildNumber":"37""#),
            ("]}}", "]}"),
        ] {
            let reply = REPLY.replacen(from, to, 1);
            assert_eq!(facts_from_license_reply(reply.as_bytes()), None, "{reply}");
        }
        for reply in [
            r#"{"error":6}"#,
            r#"{"error":1,"version":"9.3.0.138"}"#,
            r#"{"error":0,"version":"9"}"#,
            r#"{"error":0,"version":"9.3.0."}"#,
            r#"{"error":0,"version":"9.3.0.+1"}"#,
            r#"{"error":0,"version":".1"}"#,
            r#"{"error":0,"version":9.3}"#,
            "[]",
            "",
        ] {
            assert_eq!(facts_from_version_reply(reply.as_bytes()), None, "{reply}");
        }
    }
}
