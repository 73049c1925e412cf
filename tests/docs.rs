//! The documentation says what is there: both READMEs in step, and every metric, key, file and
//! constant that they and ARCHITECTURE.md name exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fenced blocks: language and text.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                found.push((language.to_owned(), String::new()));
                open = true;
            }
            None if open => {
                let block = &mut found.last_mut().unwrap().1;
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    found
}

/// Levels of the headings outside fenced blocks.
fn headings(text: &str) -> Vec<usize> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            found.push(line.chars().take_while(|letter| *letter == '#').count());
        }
    }
    found
}

/// Rows of all tables: their cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    lines
        .map(|line| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect())
        .collect()
}

/// What stands between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Words of a text that start with `seatgate_`.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_part(letter))
        .filter(|word| word.starts_with("seatgate_") && !word.ends_with('_'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_readmes_are_in_step() {
    let [english, chinese] = READMES.map(read);
    assert_eq!(headings(&english), headings(&chinese), "the levels of the headings");
    let uncommented = |text: &str| {
        let blocks = blocks(text).into_iter();
        blocks.filter(|(language, _)| !language.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(uncommented(&english), uncommented(&chinese), "commands, outputs, examples");
    let named = |text: &str| {
        let cells = rows(text).into_iter().map(|row| code(&row[0]).join(" "));
        cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(named(&english), named(&chinese), "the names in the tables' first columns");
}

#[test]
fn the_two_commands_come_first() {
    for readme in READMES {
        let blocks = blocks(&read(readme));
        let commands: Vec<&str> = blocks.iter().take(2).map(|(_, text)| text.trim()).collect();
        assert!(commands[0].starts_with("./setup && cargo run"), "{readme}: {commands:?}");
        // .ci/run takes its test command from here.
        assert!(commands[1].starts_with("./setup --tests && cargo test"), "{readme}: {commands:?}");
    }
}

#[test]
fn every_metric_is_told_and_exists() {
    let existing: BTreeSet<String> = ["src/ops/metrics.rs", "src/ops/metrics/scraped.rs"]
        .iter()
        .flat_map(|file| metric_names(&read(file)))
        .collect();
    assert!(existing.len() >= 15, "{existing:?}");
    for readme in READMES {
        let text = read(readme);
        let told: BTreeSet<String> = rows(&text)
            .iter()
            .filter_map(|row| code(&row[0]).first().map(|name| (*name).to_owned()))
            .filter(|name| name.starts_with("seatgate_"))
            .collect();
        assert_eq!(told, existing, "{readme}: the table of metrics");
        let unknown: Vec<_> = metric_names(&text).difference(&existing).cloned().collect();
        assert!(unknown.is_empty(), "{readme} names {unknown:?}");
    }
}

/// The sections and keys of the shipped configuration, those that are commented out included.
fn shipped_keys() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in read("conf/seatgate.toml").lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') {
            section = line.to_owned();
            found.entry(section.clone()).or_default();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_')
        {
            found.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    found
}

#[test]
fn every_configuration_key_is_told_and_exists() {
    let mut shipped = shipped_keys();
    // The keys of [document_server] once more.
    assert!(shipped.remove("[tenant.document_server]").is_some());
    for readme in READMES {
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in rows(&read(readme)) {
            if let [section] = code(&row[0])[..]
                && section.starts_with('[')
            {
                let keys = code(&row[1]).into_iter().map(str::to_owned).collect();
                told.insert(section.to_owned(), keys);
            }
        }
        assert_eq!(told, shipped, "{readme} beside conf/seatgate.toml");
    }
}

#[test]
fn the_examples_are_good_configuration() {
    for readme in READMES {
        let folder = tempfile::tempdir().unwrap();
        let mut configurations = Vec::new();
        for (language, text) in blocks(&read(readme)) {
            if language != "toml" {
                continue;
            }
            let name = text.lines().next().and_then(|first| first.strip_prefix("# conf/"));
            let name = name.unwrap_or_else(|| panic!("{readme}: which file is this?\n{text}"));
            let path = folder.path().join(name);
            fs::write(&path, &text).unwrap();
            if name == "seatgate.toml" {
                configurations.push(path);
            }
        }
        assert!(!configurations.is_empty(), "{readme} has an example");
        for path in configurations {
            let loaded = seatgate::config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(loaded.warnings.is_empty(), "{readme}: {:?}", loaded.warnings);
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for page in ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        for target in read(page).split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
            assert!(path.exists(), "{page} links to {target}");
        }
    }
}

#[test]
fn every_bound_of_the_architecture_exists() {
    let mut count = 0;
    for row in rows(&read("ARCHITECTURE.md")) {
        let [_, _, place] = &row[..] else { continue };
        let mut file = String::new();
        for name in code(place) {
            if name.ends_with(".rs") {
                file = read(&format!("src/{name}"));
            } else if name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') {
                assert!(file.contains(&format!("const {name}: ")), "{place}: {name}");
                count += 1;
            }
        }
    }
    assert!(count > 25, "the table of bounds is found: {count}");
}
