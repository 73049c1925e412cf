//! Where Redis or Valkey is: one URL for one server, for Sentinel, or for Cluster.
//!
//! Pure: text to [`EngineAddress`]. What it holds may be a password, so that no error repeats it.

use percent_encoding::percent_decode_str;

use super::addresses::{is_host, is_port, split_port};
use super::secret::Secret;
use super::settings::{EngineAddress, Topology};
use super::values::{Fault, Kind, kind};

/// The most servers that a URL names.
const MOST_HOSTS: usize = 64;

const MEND: &str = "write it such as \"redis://127.0.0.1:6379/0\"";

/// `redis://[user[:password]@]host[:port][/database]`; `rediss://` for TLS; with `+sentinel`
/// several hosts and `/service[/database]`; with `+cluster` several hosts and no path.
pub(super) const ENGINE_URL: Kind<EngineAddress> =
    Kind { confidential: true, ..kind("a Redis URL", MEND, parse) };

/// Which of the forms a URL has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Sentinel,
    Cluster,
}

fn parse(text: &str) -> Result<EngineAddress, Fault> {
    let (scheme, rest) = text.split_once("://").ok_or(Fault::PLAIN)?;
    let (scheme, form) = match scheme.split_once('+') {
        None => (scheme, Form::Single),
        Some((scheme, "sentinel")) => (scheme, Form::Sentinel),
        Some((scheme, "cluster")) => (scheme, Form::Cluster),
        Some(_) => return Err(Fault::PLAIN),
    };
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err(Fault::PLAIN),
    };
    if rest.contains(['?', '#']) {
        return Err(Fault::mend("has a query", "write what it says as keys of [store]"));
    }
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let (user, password) = read_credentials(credentials)?;
    let hosts = read_hosts(hosts, form)?;
    let (topology, database) = read_path(path, form)?;
    Ok(EngineAddress { topology, hosts, tls, user, password, database })
}

fn read_credentials(text: Option<&str>) -> Result<(Option<String>, Option<Secret>), Fault> {
    let Some(text) = text else { return Ok((None, None)) };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (text, None),
    };
    let user = decode(user)?;
    if password.as_deref() == Some("") {
        return Err(Fault::because("has an empty password"));
    }
    Ok(((!user.is_empty()).then_some(user), password.map(Secret::new)))
}

fn decode(text: &str) -> Result<String, Fault> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| Fault::PLAIN)?;
    if decoded.chars().any(char::is_control) {
        return Err(Fault::because("has a control character"));
    }
    Ok(decoded.into_owned())
}

fn read_hosts(text: &str, form: Form) -> Result<Vec<(String, u16)>, Fault> {
    let default_port = match form {
        Form::Single | Form::Cluster => 6379,
        Form::Sentinel => 26379,
    };
    let mut hosts = Vec::new();
    for part in text.split(',') {
        let (host, port) = split_port(part);
        let port = match port {
            None => default_port,
            Some(port) if is_port(port) => port.parse().map_err(|_| Fault::PLAIN)?,
            Some(_) => return Err(Fault::PLAIN),
        };
        if !is_host(host) || hosts.len() == MOST_HOSTS {
            return Err(Fault::PLAIN);
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        hosts.push((bare.unwrap_or(host).to_owned(), port));
    }
    if form == Form::Single && hosts.len() > 1 {
        return Err(Fault::mend(
            "names several servers",
            "name one, or write redis+sentinel:// or redis+cluster:// in front",
        ));
    }
    Ok(hosts)
}

fn read_path(path: Option<&str>, form: Form) -> Result<(Topology, u16), Fault> {
    let path = path.unwrap_or_default();
    match form {
        Form::Single => Ok((Topology::Single, read_database(path)?)),
        Form::Cluster if path.is_empty() => Ok((Topology::Cluster, 0)),
        Form::Cluster => {
            Err(Fault::mend("names a database, and a cluster has only 0", "remove the path"))
        }
        Form::Sentinel => {
            let (service, database) = path.split_once('/').unwrap_or((path, ""));
            let service = decode(service)?;
            if service.is_empty() {
                return Err(Fault::mend(
                    "does not name the service that the sentinels watch",
                    "write it such as \"redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster\"",
                ));
            }
            Ok((Topology::Sentinel { service }, read_database(database)?))
        }
    }
}

fn read_database(text: &str) -> Result<u16, Fault> {
    match text {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| Fault::because("has a database that does not exist"))
        }
        _ => Err(Fault::because("has a database that is no number")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> Option<String> {
        let EngineAddress { topology, hosts, tls, user, password, database } = parse(text).ok()?;
        let topology = match topology {
            Topology::Single => "single".to_owned(),
            Topology::Sentinel { service } => format!("sentinel {service}"),
            Topology::Cluster => "cluster".to_owned(),
        };
        let hosts: Vec<_> = hosts.iter().map(|(host, port)| format!("{host} {port}")).collect();
        let password = password.as_ref().map_or("-", Secret::expose);
        let user = user.as_deref().unwrap_or("-");
        Some(format!("{topology}; {}; {tls}; {user}; {password}; {database}", hosts.join(", ")))
    }

    #[test]
    fn the_forms_are_read() {
        for (text, expected) in [
            ("redis://127.0.0.1", "single; 127.0.0.1 6379; false; -; -; 0"),
            ("redis://127.0.0.1:6380/", "single; 127.0.0.1 6380; false; -; -; 0"),
            ("rediss://cache.example/15", "single; cache.example 6379; true; -; -; 15"),
            ("redis://:p%40ss@[::1]:1/2", "single; ::1 1; false; -; p@ss; 2"),
            ("redis://gate@host", "single; host 6379; false; gate; -; 0"),
            ("redis://gate:a:b@host", "single; host 6379; false; gate; a:b; 0"),
            ("redis+sentinel://u:p@a,b:7/main/3", "sentinel main; a 26379, b 7; false; u; p; 3"),
            ("rediss+sentinel://a/main", "sentinel main; a 26379; true; -; -; 0"),
            ("rediss+cluster://a,b:7", "cluster; a 6379, b 7; true; -; -; 0"),
        ] {
            assert_eq!(told(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "127.0.0.1:6379",
            "http://host",
            "redis:host",
            "redis://",
            "redis://host:0",
            "redis://host:x",
            "redis://host/x",
            "redis://host/65536",
            "redis://a,b",
            "redis://user:@host",
            "redis://host?db=1",
            "redis+other://host",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a,/main",
            "redis+cluster://a/1",
            "redis://%00@host",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
        assert!(parse(&format!("redis+cluster://{}", ["a"; 65].join(","))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text: String, ascii in "[ -~]{0,40}") {
            for text in [text, format!("redis://{ascii}"), format!("redis+sentinel://{ascii}")] {
                let _ = parse(&text);
            }
        }
    }
}
