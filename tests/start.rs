//! What is in the way of a start, and a clock that is set: each is one clear line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::gateway::{free_address, seatgate};
use support::{Open, Setup, StandIn, eventually};

/// Starts it where it cannot start, and returns its code and what it said.
fn refused(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = seatgate(arguments, folder);
    told(&output)
}

fn told(output: &Output) -> (Option<i32>, String) {
    assert!(output.stdout.is_empty(), "errors go to stderr");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The one line that is the program's last word.
fn last_word<'a>(said: &'a str, parts: &[&str]) -> &'a str {
    let words: Vec<&str> = said.lines().filter(|line| line.starts_with("seatgate: ")).collect();
    let [word] = words[..] else { panic!("one clear line, not: {said}") };
    for part in parts {
        assert!(word.contains(part), "{part} is not in: {word}");
    }
    assert!(!said.contains("panicked"), "{said}");
    word
}

fn write(folder: &Path, setup: &Setup, listen: SocketAddr) -> String {
    setup.write(folder, listen, free_address()).display().to_string()
}

#[test]
fn every_error_of_a_broken_configuration_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::before(free_address())
        .set("server.workers", "many")
        .set("enforcement.mode", "perhaps")
        .set("store.pth", "x");
    let config = write(folder.path(), &setup, free_address());
    let (code, said) = refused(folder.path(), &["--config", &config, "run"]);
    assert_eq!(code, Some(2), "{said}");
    for part in ["[server] workers", "[enforcement] mode", "[store] pth"] {
        let line = said.lines().find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("{part}: {said}"));
        assert!(line.starts_with(&format!("{config}:")), "file and line: {line}");
    }
}

#[test]
fn a_taken_port_is_told_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), &Setup::before(free_address()), address);
    let (code, said) = refused(folder.path(), &["--config", &config]);
    assert_eq!(code, Some(1), "{said}");
    last_word(&said, &[&address.to_string(), "in use", "another program has it", "another port"]);
}

#[test]
fn an_address_of_another_host_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        write(folder.path(), &Setup::before(free_address()), "192.0.2.1:8080".parse().unwrap());
    let (code, said) = refused(folder.path(), &["--config", &config]);
    assert_eq!(code, Some(1), "{said}");
    last_word(&said, &["192.0.2.1:8080", "this host does not have that address"]);
}

#[test]
fn a_state_directory_that_cannot_be_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for state in [file.clone(), file.join("deep")] {
        let state = state.display().to_string();
        let setup = Setup::before(free_address()).set("server.state_directory", state.as_str());
        let config = write(folder.path(), &setup, free_address());
        let (code, said) = refused(folder.path(), &["--config", &config]);
        assert_eq!(code, Some(1), "{said}");
        last_word(&said, &["the store", &state, "make a folder there that this user may write to"]);
    }
}

#[test]
fn a_state_directory_of_somebody_else_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("closed");
    fs::create_dir(&state).unwrap();
    let setup =
        Setup::before(free_address()).set("server.state_directory", state.display().to_string());
    let config = write(folder.path(), &setup, free_address());
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o555)).unwrap();
    let binary = env!("CARGO_BIN_EXE_seatgate");
    // A file mode stops everybody but root.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if is_root {
        let copy = folder.path().join("seatgate");
        fs::copy(binary, &copy).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
        command
    } else {
        Command::new(binary)
    };
    command.env_remove("STATE_DIRECTORY").env_remove("RUNTIME_DIRECTORY");
    let output = command.args(["--config", &config]).output().unwrap();
    let (code, said) = told(&output);
    assert_eq!(code, Some(1), "{said}");
    let state = state.display().to_string();
    last_word(&said, &["Permission denied", &state, "that this user may write to"]);
}

/// libfaketime, which gives a process a clock of its own.
fn fake_clock() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|file| file.exists())
}

#[tokio::test]
async fn a_clock_that_is_set_is_told_and_counted() {
    let Some(library) = fake_clock() else {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "libfaketime is not here");
        println!("skipped: libfaketime is not here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    fs::write(&offset, "+0s\n").unwrap();
    let server = StandIn::start().await;
    let shell = format!(
        "export LD_PRELOAD='{}' FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1",
        library.display(),
        offset.display()
    );
    let gateway = Setup::before(server.addr).shell(&shell).start().await;
    let _editor = gateway.admit(&Open::editor("d", "one")).await;
    let jumps = async |direction: &str| {
        let labels = [("direction", direction)];
        gateway.metrics().await.get("seatgate_clock_jumps_total", &labels)
    };
    assert_eq!((jumps("forward").await, jumps("back").await), (Some(0.0), Some(0.0)));
    for (stated, direction, told) in [
        ("+3d\n", "forward", "the clock was set forward by 7"),
        ("+0s\n", "back", "the clock was set back by 7"),
    ] {
        // Another name first, so that nobody reads half of it.
        let part = folder.path().join("part");
        fs::write(&part, stated).unwrap();
        fs::rename(&part, &offset).unwrap();
        eventually(direction, async || (jumps(direction).await == Some(1.0)).then_some(())).await;
        gateway.await_log(told).await;
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains(told)).count();
        assert_eq!(lines, 1, "{told}: {log}");
    }
    // Whoever works goes on, and others come in.
    let _other = gateway.admit(&Open::editor("d", "two")).await;
    assert_eq!((jumps("forward").await, jumps("back").await), (Some(1.0), Some(1.0)));
}
