//! Replays the committed corpus through the functions that are fuzzed (see `fuzz/README.md`), so that what
//! fuzzing once taught stays learnt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

#[path = "../fuzz/src/lib.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_input_is_survived() {
    let mut bad = Vec::new();
    for (name, target) in harness::TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() >= 5, "the corpus of {name} has {} inputs", inputs.len());
        for (path, bytes) in inputs {
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                bad.push(path);
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_target_has_its_program_and_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let stems = entries.map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            stems.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let targets = harness::TARGETS.map(|(name, _)| name.to_owned()).to_vec();
    assert_eq!(names("fuzz/targets"), targets);
    assert_eq!(names("tests/corpus"), targets);
    let size: usize = targets.iter().flat_map(|name| corpus(name)).map(|(_, b)| b.len()).sum();
    assert!(size < 1_000_000, "{size} bytes");
}
