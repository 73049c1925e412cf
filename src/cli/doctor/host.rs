//! What this host has to offer: folders, files and their modes, disk, open files, ports.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::finding::Finding;
use super::wire::PATIENCE;
use crate::config::{Settings, StoreBackend};

/// Below this much free disk the store is about to stop, or will be soon; bytes.
const DISK_OVER: u64 = 64 << 20;
const DISK_SHORT: u64 = 1 << 30;

/// Fewer open files than this carry nobody; and what the process needs beside connections.
const FILES_LEAST: u64 = 1_024;
const FILES_SPARE: u64 = 1_024;

/// The state directory: is it there, may it be written to, by whom may it be read.
pub(super) fn state_directory(folder: &Path, runs: bool) -> Vec<Finding> {
    const CHECK: &str = "state directory";
    let shown = folder.display();
    let metadata = match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let mend = "move the file away, or name another folder in [server] state_directory";
            return vec![Finding::error(CHECK, format!("{shown} is no folder"), mend)];
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !runs => {
            return vec![unmade(folder)];
        }
        Err(error) => {
            let mend = "make it, or name another in [server] state_directory";
            return vec![Finding::error(CHECK, format!("{shown}: {error}"), mend)];
        }
    };
    let mut found = Vec::new();
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let message = format!("{shown} is open to everybody on this host (mode {mode:04o})");
        found.push(Finding::warning(CHECK, message, format!("chmod 0750 {shown}")));
    }
    let probe = folder.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe));
    match tried {
        Ok(()) => found.push(Finding::ok(CHECK, format!("{shown} can be written to"))),
        // The gateway's user may write to it; this one need not.
        Err(error) if runs && error.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("{shown} is closed to this user; the gateway that runs has it");
            found.push(Finding::ok(CHECK, message));
        }
        Err(error) => {
            let owner = metadata.uid();
            let message =
                format!("{shown} cannot be written to: {error} (its owner is uid {owner})");
            let mend = "give it to the user that the gateway runs as, or run this as that user";
            found.push(Finding::error(CHECK, message, mend));
        }
    }
    found
}

/// A state directory that the gateway would make.
fn unmade(folder: &Path) -> Finding {
    const CHECK: &str = "state directory";
    let shown = folder.display();
    let parent =
        folder.ancestors().skip(1).find(|above| above.as_os_str().is_empty() || above.exists());
    let parent = parent.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = parent.join(format!(".doctor-{}", std::process::id()));
    match fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)) {
        Ok(()) => Finding::ok(CHECK, format!("{shown} is not there yet; the gateway makes it")),
        Err(error) => {
            let message = format!("{shown} is not there, and cannot be made: {error}");
            Finding::error(CHECK, message, "make it, for the user that the gateway runs as")
        }
    }
}

/// Free disk where the store is.
pub(super) fn disk(folder: &Path) -> Vec<Finding> {
    const CHECK: &str = "disk";
    let there = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
    match statvfs(there) {
        Ok(found) => {
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            vec![judge_disk(folder, free)]
        }
        Err(error) => {
            let message = format!("{}: {error}", there.display());
            vec![Finding::warning(CHECK, message, "look for yourself: df -h")]
        }
    }
}

fn judge_disk(folder: &Path, free: u64) -> Finding {
    const CHECK: &str = "disk";
    let message = format!("{} MiB are free where {} is", free >> 20, folder.display());
    let mend = "make room: while the store cannot be written, new users are refused";
    match free {
        ..DISK_OVER => Finding::error(CHECK, message, mend),
        DISK_OVER..DISK_SHORT => Finding::warning(CHECK, message, mend),
        _ => Finding::ok(CHECK, message),
    }
}

/// Who may read what holds secrets.
pub(super) fn secret_files(
    config: &Path,
    files: &[PathBuf],
    settings: Option<&Settings>,
) -> Vec<Finding> {
    const CHECK: &str = "secret files";
    let store = settings.and_then(|settings| match &settings.store.backend {
        StoreBackend::Embedded { path } => Some(path),
        StoreBackend::Redis(_) => None,
    });
    let stored =
        store.into_iter().flat_map(|path| [path.with_file_name("store.key"), path.clone()]);
    let mut found = Vec::new();
    let mut looked_at = 0;
    for path in files.iter().cloned().chain(stored) {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        looked_at += 1;
        let mode = metadata.permissions().mode() & 0o7777;
        let shown = path.display();
        if mode & 0o007 != 0 {
            let message = format!("everybody on this host may read {shown} (mode {mode:04o})");
            found.push(Finding::error(CHECK, message, format!("chmod 0600 {shown}")));
        } else if mode & 0o020 != 0 {
            let message = format!("others than its owner may change {shown} (mode {mode:04o})");
            found.push(Finding::warning(CHECK, message, format!("chmod 0640 {shown}")));
        }
    }
    let states_secrets = settings.is_some_and(|settings| {
        settings.tenants.iter().any(|tenant| tenant.document_server.secrets.inbox.is_some())
    });
    let mode = fs::metadata(config).map_or(0, |metadata| metadata.permissions().mode());
    if states_secrets && files.is_empty() && mode & 0o004 != 0 {
        let shown = config.display();
        let message = format!("everybody on this host may read {shown}, and a secret stands in it");
        let mend = format!("chmod 0640 {shown}, or put the secret into a file: token_secret_file");
        found.push(Finding::warning(CHECK, message, mend));
    }
    if found.is_empty() {
        let message = format!("{looked_at} file(s), none of them open to everybody");
        found.push(Finding::ok(CHECK, message));
    }
    found
}

/// How many files the gateway may open: its own limit if it runs, else this process's.
pub(super) fn open_files(gateway: Option<i32>, settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "open files";
    let (whose, path) = match gateway {
        Some(pid) => ("the gateway that runs", format!("/proc/{pid}/limits")),
        None => ("a program started from here", "/proc/self/limits".to_owned()),
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let mend = "look for yourself: ulimit -n, or LimitNOFILE= of the unit";
            return vec![Finding::warning(CHECK, format!("{path}: {error}"), mend)];
        }
    };
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next()).map(str::to_owned);
    let limit = match limit.as_deref() {
        Some("unlimited") => u64::MAX,
        Some(number) => number.parse().unwrap_or(0),
        None => 0,
    };
    let licences = settings.licences.iter().map(|declared| {
        let quota = &declared.licence.quota;
        [quota.connections, quota.connections_view, quota.users_count, quota.users_view_count]
            .map(u64::from)
            .iter()
            .sum::<u64>()
    });
    // A connection to the browser and one to the document server.
    let needed = licences.sum::<u64>().saturating_mul(2).saturating_add(FILES_SPARE);
    vec![judge_files(whose, limit, needed)]
}

fn judge_files(whose: &str, limit: u64, needed: u64) -> Finding {
    const CHECK: &str = "open files";
    let told = if limit == u64::MAX { "any number of".to_owned() } else { limit.to_string() };
    let message = format!("{whose} may open {told} files; the licences ask for some {needed}");
    let mend = "raise it: LimitNOFILE=262144 in the unit, or ulimit -n 262144";
    if limit < FILES_LEAST {
        Finding::error(CHECK, message, mend)
    } else if limit < needed {
        Finding::warning(CHECK, message, mend)
    } else {
        Finding::ok(CHECK, message)
    }
}

/// Whether the listeners' ports are free, or held by the gateway that runs.
pub(super) fn ports(settings: &Settings, runs: bool) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let tls = settings.server.tls.iter().flat_map(|tls| &tls.listen);
    let all = settings.server.listen.iter().chain(tls).chain([&settings.ops.listen]);
    let mut found = Vec::new();
    for address in all {
        if runs {
            match TcpStream::connect_timeout(&reachable(*address), PATIENCE) {
                Ok(_) => found.push(Finding::ok(CHECK, format!("{address} accepts connections"))),
                Err(error) => {
                    let message =
                        format!("the gateway runs, but {address} does not answer: {error}");
                    let mend = "restart it: listeners change only at a restart";
                    found.push(Finding::error(CHECK, message, mend));
                }
            }
            continue;
        }
        match TcpListener::bind(address) {
            Ok(_) => found.push(Finding::ok(CHECK, format!("{address} is free"))),
            Err(error) => {
                let mend = match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another program has it: stop that, or choose another port"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "ports below 1024 need CAP_NET_BIND_SERVICE; the packaged unit grants it"
                    }
                    _ => "choose an address that this host has",
                };
                found.push(Finding::error(CHECK, format!("{address}: {error}"), mend));
            }
        }
    }
    found
}

/// An address that can be connected to: an unspecified one is this host.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if reachable.ip().is_unspecified() {
        reachable.set_ip(match reachable.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reachable
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_and_a_short_one_a_warning() {
        for (free, level) in [
            (0, Level::Error),
            (DISK_OVER - 1, Level::Error),
            (DISK_OVER, Level::Warning),
            (DISK_SHORT, Level::Ok),
        ] {
            let found = judge_disk(Path::new("/var/lib/seatgate"), free);
            assert_eq!((found.level, found.mend.is_some()), (level, level != Level::Ok), "{free}");
        }
        // A file system without any room at all.
        assert_eq!(disk(Path::new("/proc/seatgate"))[0].level, Level::Error);
    }

    #[test]
    fn open_files_are_held_against_the_licences() {
        for (limit, needed, level) in [
            (1_023, 10, Level::Error),
            (1_024, 3_024, Level::Warning),
            (262_144, 3_024, Level::Ok),
            (u64::MAX, u64::MAX, Level::Ok),
        ] {
            assert_eq!(judge_files("x", limit, needed).level, level, "{limit}");
        }
    }
}
