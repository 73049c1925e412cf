//! The pages of docs/ say what is there: every key with the default that the program has, every
//! reason and message, links and anchors that lead somewhere, examples that are good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages, by their path from the root.
fn pages() -> BTreeMap<String, String> {
    let mut paths: Vec<String> =
        ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CHANGELOG.md"]
            .map(String::from)
            .into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    assert!(paths.len() > 10, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), read(path))).collect()
}

/// A page's lines outside of fenced blocks, and the blocks: language and text.
fn parts(text: &str) -> (Vec<&str>, Vec<(String, String)>) {
    let (mut lines, mut blocks) = (Vec::new(), Vec::<(String, String)>::new());
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                blocks.push((language.to_owned(), String::new()));
                open = true;
            }
            None if open => {
                let block = &mut blocks.last_mut().unwrap().1;
                block.push_str(line);
                block.push('\n');
            }
            None => lines.push(line),
        }
    }
    assert!(!open, "a block is not closed");
    (lines, blocks)
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    parts(text).0.iter().filter(|line| line.starts_with('#')).map(|line| anchor(line)).collect()
}

/// Cells of the rows of the tables whose head starts with `head`, with the heading above them.
fn rows(text: &str, head: &str) -> Vec<(String, Vec<String>)> {
    let (mut heading, mut inside, mut found) = (String::new(), false, Vec::new());
    for line in parts(text).0 {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
        if line.starts_with(head) {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|---") {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            found.push((heading.clone(), cells.collect()));
        }
    }
    assert!(!found.is_empty(), "no table {head}");
    found
}

/// What stands between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn links_and_anchors_lead_somewhere() {
    let pages = pages();
    let mut count = 0;
    for (page, text) in &pages {
        for line in parts(text).0 {
            for target in line.split("](").skip(1) {
                let target = target.split(')').next().unwrap();
                if target.starts_with("http") {
                    continue;
                }
                let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
                let folder = root().join(page).parent().unwrap().to_owned();
                let path = if file.is_empty() { root().join(page) } else { folder.join(file) };
                assert!(path.exists(), "{page} links to {target}");
                if !fragment.is_empty() {
                    let known = anchors(&fs::read_to_string(&path).unwrap());
                    assert!(known.contains(fragment), "{page} links to {target}: {known:?}");
                }
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
    // Every page is reached from the index.
    let index = &pages["docs/README.md"];
    for page in pages.keys().filter_map(|page| page.strip_prefix("docs/")) {
        assert!(page == "README.md" || index.contains(&format!("]({page})")), "{page}");
    }
}

/// The keys of docs/configuration.md: section (`server`), key, default as TOML.
fn told_keys() -> Vec<(String, String, Option<String>)> {
    let rows = rows(&read("docs/configuration.md"), "| key | default |").into_iter();
    rows.map(|(heading, cells)| {
        let section = heading.trim_matches('`').trim_matches(['[', ']']).to_owned();
        let default = code(&cells[1]).first().map(|text| (*text).to_owned());
        (section, code(&cells[0])[0].to_owned(), default)
    })
    .collect()
}

#[test]
fn every_default_is_the_programs() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(root().join("conf/licences.toml"), folder.path().join("licences.toml")).unwrap();
    let load = |text: &str| {
        let path = folder.path().join("seatgate.toml");
        fs::write(&path, text).unwrap();
        let loaded = seatgate::config::load_with(&path, &seatgate::config::Env::default());
        loaded.unwrap_or_else(|errors| panic!("{errors}\n{text}")).settings
    };
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let mut count = 0;
    for (section, key, default) in told_keys() {
        if let Some(default) = default {
            tables.entry(section).or_default().push_str(&format!("{key} = {default}\n"));
            count += 1;
        }
    }
    let stated: String = tables.iter().map(|(name, text)| format!("[{name}]\n{text}\n")).collect();
    assert!(count > 30, "{count}");
    assert_eq!(format!("{:#?}", load(&stated)), format!("{:#?}", load("")));
}

#[test]
fn every_key_is_told_and_exists() {
    let shipped = read("conf/seatgate.toml");
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in shipped.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
            if section == "tenant.document_server" {
                sections.get_mut("tenant").unwrap().insert("document_server".to_owned());
            }
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_')
            && section != "tenant.document_server"
        {
            sections.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    // Not in this release.
    if shipped.contains("# TLS listeners. Not available in this release") {
        sections.remove("server.tls");
    }
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (section, key, _) in told_keys() {
        told.entry(section).or_default().insert(key);
    }
    assert_eq!(told, sections, "docs/configuration.md beside conf/seatgate.toml");

    // Whatever key the reader asks for by name stands in a page or a shipped file.
    let known = read("docs/configuration.md") + &shipped + &read("conf/licences.toml");
    let mut asked = BTreeSet::new();
    for entry in fs::read_dir(root().join("src/config")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
        for call in [
            "value(\"",
            "read(\"",
            "read_list(\"",
            "boolean(\"",
            "integer(\"",
            "choice(\"",
            "table(\"",
            "tables(\"",
        ] {
            let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            asked.extend(names.map(str::to_owned));
        }
    }
    assert!(asked.len() > 40, "{asked:?}");
    let words: BTreeSet<&str> =
        known.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    let secret: Vec<_> = asked.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(secret.is_empty(), "{secret:?} stand nowhere");
}

#[test]
fn every_reason_and_message_has_an_entry() {
    let page = read("docs/troubleshoot.md");
    let told: BTreeSet<String> =
        rows(&page, "| `reason` |").iter().map(|(_, row)| code(&row[0])[0].to_owned()).collect();
    let source = read("src/admission.rs");
    let labels = source.split("Self::").filter_map(|part| part.split_once("=> \""));
    let mut existing: BTreeSet<String> =
        labels.map(|(_, rest)| rest.split('"').next().unwrap().to_owned()).collect();
    assert!(existing.len() >= 12, "{existing:?}");
    existing.insert("none".to_owned());
    assert_eq!(told, existing, "reasons in docs/troubleshoot.md beside src/admission.rs");

    // A message that no source has any more misleads whoever looks for it.
    let mut sources = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                // Strings go on in the next line after a backslash.
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.split("\\\n").map(str::trim_start).collect::<String>();
                sources.push_str(&lines);
            }
        }
    }
    let messages = rows(&page, "| message |");
    assert!(messages.len() > 15);
    for (_, row) in messages {
        for message in code(&row[0]) {
            assert!(sources.contains(message), "nobody says: {message}");
        }
    }
}

#[test]
fn validation_reasons_are_told() {
    let page = read("docs/http-api.md");
    let told: BTreeSet<&str> = code(&page).into_iter().collect();
    for label in seatgate::validate::answer::LABELS.iter().filter(|label| **label != "valid") {
        assert!(told.contains(label), "{label}");
    }
}

#[test]
fn the_examples_are_good_configuration() {
    let mut count = 0;
    for (page, text) in pages().iter().filter(|(page, _)| page.starts_with("docs/")) {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(root().join("conf/licences.toml"), folder.path().join("licences.toml")).unwrap();
        let mut configurations = Vec::new();
        for (language, text) in parts(text).1.iter().filter(|(language, _)| language == "toml") {
            let name = text.lines().next().and_then(|first| first.strip_prefix("# "));
            let name = name.filter(|name| name.ends_with(".toml"));
            let name = name.unwrap_or_else(|| panic!("{page}: which {language} is this?\n{text}"));
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            if name == "seatgate.toml" {
                configurations.push(path);
            }
        }
        for path in configurations {
            let loaded = seatgate::config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(loaded.warnings.is_empty(), "{page}: {:?}", loaded.warnings);
            count += 1;
        }
    }
    assert!(count >= 2, "{count}");
}

#[test]
fn yaml_examples_are_yaml() {
    for (page, text) in pages() {
        for (_, block) in parts(&text).1.iter().filter(|(language, _)| language == "yaml") {
            let read: Result<serde_yaml::Value, _> = serde_yaml::from_str(block);
            assert!(read.is_ok_and(|value| value.is_mapping()), "{page}: {block}");
        }
    }
}
