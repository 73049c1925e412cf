//! The container image and the compose example, as far as they can be judged without running them:
//! what they copy is there, what they start is a command of the program, and what they configure
//! is good configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use support::gateway::seatgate;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The instructions of the Dockerfile, with their continuation lines; comments left out.
fn instructions() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in read("packaging/Dockerfile").lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (body, more) = text.strip_suffix('\\').map_or((text, false), |body| (body, true));
        if goes_on {
            let last = &mut found.last_mut().unwrap().1;
            last.push(' ');
            last.push_str(body.trim());
        } else {
            let (name, rest) = body.split_once(' ').unwrap();
            found.push((name.to_owned(), rest.trim().to_owned()));
        }
        goes_on = more;
    }
    found
}

fn arguments(list: &str) -> Vec<String> {
    serde_json::from_str(list.split_once("CMD ").map_or(list, |(_, list)| list)).unwrap()
}

#[test]
fn the_image_starts_what_the_program_knows() {
    let folder = tempfile::tempdir().unwrap();
    let all = instructions();
    let last = |name: &str| {
        let found = all.iter().rev().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    };
    let entry = arguments(&last("ENTRYPOINT"));
    let command = arguments(&last("CMD"));
    let health = arguments(&last("HEALTHCHECK"));
    assert_eq!(command, ["run"]);
    for words in [[entry.clone(), command].concat(), health] {
        assert_eq!(words[0], "/usr/bin/seatgate");
        let mut asked: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        asked.push("--help");
        let output = seatgate(&asked, folder.path());
        assert!(output.status.success(), "{words:?}");
    }
    let user = last("USER");
    assert!(user.starts_with(|first: char| ('1'..='9').contains(&first)), "not root: {user}");
    let stages: Vec<_> = all.iter().filter(|(name, _)| name == "FROM").collect();
    assert_eq!(stages.len(), 2, "the compiler stays behind");
    for (_, image) in stages {
        assert!(image.contains(':') && !image.contains(":latest"), "a version is named: {image}");
    }
    let minimum = read("Cargo.toml");
    let minimum = minimum.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let minimum = minimum.unwrap().trim_matches('"');
    assert!(all[0].1.contains(&format!("rust:{minimum}-")), "the compiler is the oldest that does");
}

#[test]
fn the_image_copies_what_is_there_and_opens_the_operations_port() {
    let all = instructions();
    let build = all.iter().map(|(_, text)| text).find(|text| text.contains("cargo build")).unwrap();
    let mut copied = 0;
    for word in build.split(' ').filter(|word| word.starts_with("conf/")) {
        assert!(root().join(word).is_file(), "{word}");
        copied += 1;
    }
    assert_eq!(copied, 2);
    assert!(build.contains(r#"s/^listen = "127\.0\.0\.1:9180"/listen = "0.0.0.0:9180"/"#));
    let conf = read("conf/seatgate.toml");
    assert!(conf.lines().any(|line| line == "listen = \"127.0.0.1:9180\""), "what sed looks for");
    for (name, text) in all.iter().filter(|(name, _)| name == "EXPOSE") {
        assert_eq!(text, "8080 9180", "{name}");
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    let Some(map) = value.as_mapping() else { return BTreeSet::new() };
    map.keys().map(|key| key.as_str().unwrap().to_owned()).collect()
}

fn items(value: &Value) -> Vec<Value> {
    value.as_sequence().cloned().unwrap_or_default()
}

#[test]
fn the_compose_example_hangs_together() {
    let compose: Value = serde_yaml::from_str(&read("packaging/compose.yaml")).unwrap();
    let known = ["name", "services", "networks", "volumes", "secrets", "configs"];
    assert_eq!(keys(&compose), known.map(str::to_owned).into());
    let services = compose["services"].as_mapping().unwrap();
    for (name, service) in services {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let used = |list: &str, key: &str| -> BTreeSet<String> {
            let named = |item: &Value| if item.is_string() { text(item) } else { text(&item[key]) };
            items(&service[list]).iter().map(named).collect()
        };
        for list in ["networks", "secrets", "configs"] {
            let missing: Vec<_> =
                used(list, "source").difference(&keys(&compose[list])).cloned().collect();
            assert!(missing.is_empty(), "{name:?} uses {list} {missing:?}");
        }
        for volume in items(&service["volumes"]).iter().map(text) {
            let volume = volume.split(':').next().unwrap().to_owned();
            assert!(keys(&compose["volumes"]).contains(&volume), "{volume}");
        }
        for other in items(&service["depends_on"]).iter().map(text) {
            assert!(services.contains_key(other.as_str()), "{other}");
        }
    }
    // Nobody gets past the gateway.
    assert!(compose["services"]["document-server"].get("ports").is_none());
    let file = compose["services"]["seatgate"]["build"]["dockerfile"].as_str().unwrap();
    assert!(root().join(file).is_file());

    // Its configuration is good, with the files where they would be.
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name).display().to_string();
    fs::write(here("jwt"), "a secret").unwrap();
    fs::copy(root().join("conf/licences.toml"), here("licences.toml")).unwrap();
    let content = compose["configs"]["seatgate"]["content"].as_str().unwrap();
    let content = content
        .replace("/run/secrets/jwt", &here("jwt"))
        .replace("/etc/seatgate/licences.toml", &here("licences.toml"));
    let path = here("seatgate.toml");
    fs::write(&path, content).unwrap();
    let loaded =
        seatgate::config::load(Path::new(&path)).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let server = &loaded.settings.document_server.addresses[0];
    let host = server.split(':').next().unwrap();
    assert!(services.contains_key(host), "{server} is a service");
}
