//! Holds the arrows of ARCHITECTURE.md against the sources: who may use whom, which crates belong
//! to which rooms, which calls to one place.
//!
//! The tables are read out of ARCHITECTURE.md itself, so that they cannot say one thing and the
//! test another. Code for tests (`#[cfg(test)]`) is not held to them.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "architecture/paths.rs"]
mod paths;
#[path = "architecture/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use paths::Code;
use rules::Rules;

/// All sources below `folder`, by their path from it.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, folder, &mut found);
    found
}

/// `gateway/route.rs` is `["gateway", "route"]`, `lib.rs` the root.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// Everything in `sources` that `rules` forbid, one line each.
fn violations(sources: &BTreeMap<PathBuf, String>, rules: &Rules) -> Vec<String> {
    let codes: Vec<(Vec<String>, &Path, Code)> = sources
        .iter()
        .map(|(file, text)| (module_of(file), file.as_path(), Code::read(text)))
        .collect();
    let test_modules: Vec<Vec<String>> = codes
        .iter()
        .flat_map(|(module, _, code)| {
            code.test_modules
                .iter()
                .map(|name| [module.as_slice(), std::slice::from_ref(name)].concat())
        })
        .collect();
    let mut found = Vec::new();
    for (module, file, code) in &codes {
        if test_modules.iter().any(|test| module.starts_with(test)) {
            continue;
        }
        for (line, what) in rules.judge(module, code) {
            found.push(format!("src/{}:{line}: {what}", file.display()));
        }
    }
    found
}

fn rules() -> Rules {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).unwrap();
    Rules::read(&text)
}

#[test]
fn the_arrows_hold() {
    let sources = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(sources.len() > 40, "the sources are found");
    let found = violations(&sources, &rules());
    assert!(found.is_empty(), "against ARCHITECTURE.md:\n{}", found.join("\n"));
}

#[test]
fn the_table_has_every_room_and_no_other() {
    let rules = rules();
    let sources = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    for file in sources.keys() {
        let module = module_of(file);
        assert!(module.is_empty() || rules.room_of(&module).is_some(), "{module:?} has no room");
    }
    for room in rules.rooms() {
        let exists = sources.keys().any(|file| module_of(file).starts_with(room));
        assert!(exists, "{room:?} stands in the table, but there is no such module");
    }
}

// --- the checker itself -------------------------------------------------------------------------

const SAMPLE_RULES: &str = "
<!-- arrows -->
| room | job | may use |
|---|---|---|
| `clock` | … | – |
| `low` | … | – |
| `mid` | … | `low`, `clock` |
| `mid::door` | … | `low`, `high::Key` |
| `high` | … | `mid`, `low` |
<!-- /arrows -->
<!-- crates -->
| crate | only in |
|---|---|
| `pingora` | `high` |
<!-- /crates -->
<!-- calls -->
| call | only in |
|---|---|
| `Timestamp::now` | `clock` |
<!-- /calls -->
";

/// What the checker says about one file beside an otherwise clean tree.
fn judge(file: &str, text: &str) -> Vec<String> {
    let mut sources = BTreeMap::new();
    sources.insert(PathBuf::from("high/tests.rs"), "use crate::nothing::of::the::kind;".to_owned());
    sources.insert(PathBuf::from("high/mod.rs"), "#[cfg(test)]\nmod tests;\n".to_owned());
    sources.insert(PathBuf::from(file), text.to_owned());
    violations(&sources, &Rules::read(SAMPLE_RULES))
}

#[test]
fn a_clean_file_passes() {
    for (file, text) in [
        ("low.rs", "use std::sync::Arc;\n/// See [`crate::high`].\nfn f() {}"),
        ("low.rs", "// use crate::high;\n/* crate::high::X /* nested */ */ fn f() {}"),
        ("low.rs", "const A: &str = \"crate::high\"; const B: &str = r#\"\"crate::high\"#;"),
        ("low.rs", "fn f<'a>(x: &'a str) -> char { 'x' } // '\nconst C: u8 = b'\\'';"),
        ("low.rs", "#[cfg(test)]\nmod tests { use crate::high::X; fn f() { crate::mid::g() } }"),
        ("low.rs", "#[cfg(test)]\n#[allow(x)]\nfn helper() -> u8 { crate::high::g() }"),
        ("low.rs", "use self::inner::X; use super::low::Y; fn low() { crate::low::f() }"),
        ("mid.rs", "use crate::{clock, low::{A, B}}; fn f() { clock::now(); }"),
        ("mid/door.rs", "use crate::high::Key; use super::helper; use super::super::low::A;"),
        ("high/x.rs", "use pingora::{Error, proxy}; fn f() -> pingora::Result<()> { g() }"),
        ("low.rs", "fn f(x: X) { x.pingora(); my::pingora::g() }"),
        ("clock.rs", "fn now() { jiff::Timestamp::now() }"),
    ] {
        assert_eq!(judge(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn planted_violations_are_found() {
    for (file, text, line, part) in [
        ("low.rs", "use crate::high::X;", 1, "crate::high::X"),
        ("low.rs", "\n\nuse crate::{low::A, high::{self, B}};", 3, "crate::high"),
        ("low.rs", "fn f() {\n    crate::high::g()\n}", 2, "crate::high::g"),
        ("low.rs", "use super::high::X;", 1, "crate::high::X"),
        ("low.rs", "pub(crate) use crate::high;", 1, "crate::high"),
        ("low.rs", "use crate::{\n    mid::A,\n};", 2, "crate::mid::A"),
        ("low.rs", "use crate::*;", 1, "crate::*"),
        ("low.rs", "use crate as all;", 1, "crate"),
        ("low.rs", "macro_rules! m { () => { $crate::high::g() } }", 1, "crate::high::g"),
        ("low.rs", "type T = Vec<crate::high::X>;", 1, "crate::high::X"),
        ("low.rs", "use seatgate::high::X;", 1, "crate::high::X"),
        ("low.rs", "#[cfg(test)]\nmod tests;\nuse crate::high::X;", 3, "crate::high::X"),
        ("low.rs", "#[cfg(not(test))]\nuse crate::high::X;", 2, "crate::high::X"),
        ("mid.rs", "use crate::high::Key;", 1, "crate::high::Key"),
        ("mid/door.rs", "use crate::high::{Key, Lock};", 1, "crate::high::Lock"),
        ("mid/door.rs", "use crate::clock;", 1, "crate::clock"),
        ("mid/x.rs", "use super::super::high::A;", 1, "crate::high::A"),
        ("mid.rs", "use pingora::Error;", 1, "pingora"),
        ("mid.rs", "use ::pingora::Error;", 1, "pingora"),
        ("mid.rs", "fn f() -> pingora::Result<()> {}", 1, "pingora"),
        ("mid.rs", "use {std::fmt, pingora as p};", 1, "pingora"),
        ("mid.rs", "fn f() { Timestamp::now() }", 1, "Timestamp::now"),
        ("mid.rs", "fn f() { g(jiff::Timestamp::now) }", 1, "Timestamp::now"),
        ("unknown.rs", "fn f() {}", 1, "no room"),
        ("low.rs", "mod inner { use super::super::high; }", 1, "inline"),
    ] {
        let found = judge(file, text);
        assert!(!found.is_empty(), "nothing is found in {file}: {text}");
        let place = format!("src/{file}:{line}: ");
        assert!(
            found.iter().any(|found| found.starts_with(&place) && found.contains(part)),
            "{place}…{part}… is not in {found:?}"
        );
    }
}
