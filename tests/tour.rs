//! The tour of the README, block by block: what is printed there runs, and says what is printed
//! below it. Only ports, paths and the key that is made anew are put in their places.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::gateway::free_address;
use support::wait::eventually;

const BINARY: &str = env!("CARGO_BIN_EXE_seatgate");

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The commands of the tour, each with what it says.
fn tour() -> Vec<(String, Option<String>)> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let section = readme.split("\n## A tour in two minutes\n").nth(1).expect("the tour");
    // What follows needs an editor.
    let section = section.split("\n### What a refused editor sees\n").next().unwrap();
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for block in section.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        match language {
            "sh" => found.push((text.to_owned(), None)),
            "json" | "text" => found.last_mut().unwrap().1 = Some(text.to_owned()),
            other => panic!("what is {other}?"),
        }
    }
    assert!(found.len() >= 10, "{found:?}");
    found
}

/// Without what differs each time: the width of columns, a new licence key, and the line of a key in
/// a file that grows.
fn plain(text: &str) -> String {
    let word = |word: &str| match (word.strip_prefix("LIC-"), word.split_once(".toml:")) {
        (Some(key), _) if key.len() == 34 => "LIC-NEW".to_owned(),
        (_, Some((file, place))) if place.ends_with(":1:") => format!("{file}.toml:LINE:1:"),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_tour_says_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let [public, ops, server]: [SocketAddr; 3] = [(); 3].map(|()| free_address());
    let backup = folder.path().join("backup.db").display().to_string();
    let here = |text: &str| {
        [
            ("127.0.0.1:8080", public.to_string()),
            ("127.0.0.1:9180", ops.to_string()),
            ("0.0.0.0:8080", public.to_string()),
            ("127.0.0.1:80", server.to_string()),
            ("/tmp/seatgate-backup.db", backup.clone()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| {
            // The port of the document server is the beginning of another.
            text.split(from).enumerate().fold(String::new(), |done, (index, piece)| {
                let whole = !piece.starts_with(|next: char| next.is_ascii_digit());
                let between = match (index, whole) {
                    (0, _) => "",
                    (_, true) => to.as_str(),
                    (_, false) => from,
                };
                done + between + piece
            })
        })
    };
    let conf = folder.path().join("conf");
    fs::create_dir(&conf).unwrap();
    for name in ["seatgate.toml", "licences.toml"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
        fs::write(conf.join(name), here(&fs::read_to_string(shipped).unwrap())).unwrap();
    }
    let programs = folder.path().join("target").join("release");
    fs::create_dir_all(&programs).unwrap();
    std::os::unix::fs::symlink(BINARY, programs.join("seatgate")).unwrap();
    let clean = |command: &mut Command| {
        command.current_dir(folder.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
        for name in ["RUST_LOG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
    };
    let mut gateway = Command::new(BINARY);
    clean(&mut gateway);
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let _gateway = Running(gateway.stderr(log).spawn().unwrap());
    eventually("it is ready", async || {
        let answer = support::Call::get("/readyz").try_send(ops).await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;

    let mut path = String::new();
    for (commands, expected) in tour() {
        // What a terminal remembers from one block to the next.
        if let Some(set) = commands.lines().find(|line| line.starts_with("PATH=")) {
            path = format!("{set}\n");
        }
        let run = || {
            let mut shell = Command::new("bash");
            clean(&mut shell);
            let output = shell.arg("-c").arg(format!("{path}{}", here(&commands))).output();
            let output = output.unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            // In a terminal both are seen; where a command has both, the order is as printed.
            plain(&(text(&output.stdout) + &text(&output.stderr)))
        };
        let Some(expected) = expected else {
            run();
            continue;
        };
        let expected = plain(&here(&expected));
        if commands.contains("readyz") || commands.contains("seatgate status") {
            // That the document server is down is known after a while.
            eventually(&expected, async || (run() == expected).then_some(())).await;
        } else {
            assert_eq!(run(), expected, "{commands}");
        }
    }
}
