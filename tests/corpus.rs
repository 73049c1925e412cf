//! Replays the committed corpus through the functions that are fuzzed (see `fuzz/README.md`), so that what
//! fuzzing once taught stays learnt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

#[path = "../fuzz/src/lib.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

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

/// One step of the `connection` target, its arguments with it.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let arguments = prop::collection::vec(any::<u8>(), 0..4);
    let text = prop::sample::select(vec![
        "40{}",
        r#"42["message",{"type":"auth","docid":"d","token":"t","user":{"id":"u0"}}]"#,
        r#"42["message",{"type":"close"}]"#,
        r#"42["message",{"type":"cursor"}]"#,
        "41",
    ]);
    let spoken = (0..3_u8, any::<u8>(), text).prop_map(|(client, cut, text)| {
        let length = text.len().to_be_bytes();
        [&[client << 6 | 2, cut, cut / 3, length[6], length[7]], text.as_bytes()].concat()
    });
    let other = (0..3_u8, 0..14_u8, arguments)
        .prop_map(|(client, kind, arguments)| [&[client << 6 | kind], &arguments[..]].concat());
    let opens = (0..3_u8, any::<[u8; 3]>(), any::<u8>()).prop_map(|(client, open, how)| {
        let [class, user, form] = open;
        vec![client << 6 | 12, client << 6 | 8, class, user, form, client << 6 | 6, how]
    });
    prop_oneof![2 => spoken, 3 => other, 3 => opens]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_steps_of_clients_and_servers_let_an_uncounted_reply_through(
        world in any::<[u8; 2]>(),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        harness::connection(&[&world[..], &steps.concat()].concat());
    }

    #[test]
    fn no_bytes_are_a_finding(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, target) in harness::TARGETS {
            target(&bytes);
        }
    }
}
