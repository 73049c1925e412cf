//! Reading files whole, within limits, and finding where they are.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::errors::Problem;

/// Configuration and licence files above this are refused, in bytes.
pub(super) const FILE_LIMIT: u64 = 16 << 20;
/// Secret files above this are refused, in bytes.
pub(super) const SECRET_LIMIT: u64 = 64 << 10;

/// What the configuration takes from the process's environment.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `$STATE_DIRECTORY`, as systemd sets it: folders with colons between them.
    pub state_directory: Option<OsString>,
    /// `$RUNTIME_DIRECTORY`, likewise.
    pub runtime_directory: Option<OsString>,
    /// `$CREDENTIALS_DIRECTORY`: one folder.
    pub credentials_directory: Option<OsString>,
}

/// Where files that are read are sought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folders<'a> {
    /// The configuration file's.
    pub(super) beside: &'a Path,
    /// The service manager's, for secrets that it was given to keep.
    pub(super) credentials: Option<&'a Path>,
}

impl<'a> Folders<'a> {
    /// Only beside the configuration file.
    pub(super) fn beside(folder: &'a Path) -> Self {
        Self { beside: folder, credentials: None }
    }

    /// The file that holds a secret: a credential, if there is one of that name.
    pub(super) fn of_secret(&self, name: &str) -> PathBuf {
        let credential = self.credentials.map(|folder| folder.join(name));
        credential.filter(|path| path.exists()).unwrap_or_else(|| self.beside.join(name))
    }
}

impl Env {
    /// The environment of this process.
    pub fn from_process() -> Self {
        Self {
            state_directory: std::env::var_os("STATE_DIRECTORY"),
            runtime_directory: std::env::var_os("RUNTIME_DIRECTORY"),
            credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY"),
        }
    }

    pub(super) fn state_directory(&self) -> Option<PathBuf> {
        first_folder(self.state_directory.as_ref())
    }

    pub(super) fn credentials_directory(&self) -> Option<&Path> {
        self.credentials_directory.as_deref().map(Path::new).filter(|path| path.is_absolute())
    }

    pub(super) fn runtime_directory(&self) -> Option<PathBuf> {
        first_folder(self.runtime_directory.as_ref())
    }
}

fn first_folder(list: Option<&OsString>) -> Option<PathBuf> {
    std::env::split_paths(list?).find(|path| !path.as_os_str().is_empty())
}

/// Where the configuration is when nobody says: `conf/seatgate.toml`, or
/// `/etc/seatgate/seatgate.toml` where that exists and the working directory has no `conf/`.
pub fn default_path() -> PathBuf {
    choose_path(Path::new(""), Path::new("/etc/seatgate/seatgate.toml"))
}

fn choose_path(working_directory: &Path, system: &Path) -> PathBuf {
    let conf = working_directory.join("conf");
    if !conf.is_dir() && system.exists() {
        return system.to_owned();
    }
    conf.join("seatgate.toml")
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// [`Problem::Unreadable`], if it is not there, not a file, too large, or not UTF-8.
pub(super) fn read_text(path: &Path, limit: u64, mend: &'static str) -> Result<String, Problem> {
    let unreadable =
        |reason: String, mend| Problem::Unreadable { path: path.to_owned(), reason, mend };
    let failed = |error: std::io::Error| unreadable(tell(&error), mend);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(unreadable("it is a folder".to_owned(), "name the file in it"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large; its size need not be believed.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > limit) {
        let reason = format!("it is larger than {}", super::values::tell_size(&limit));
        return Err(unreadable(reason, "name the right file, or make this one smaller"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!("line {line} is not UTF-8"), "save it as UTF-8")
    })
}

/// An I/O error without its number.
fn tell(error: &std::io::Error) -> String {
    let told = error.to_string();
    told.split_once(" (os error").map_or(told.clone(), |(told, _)| told.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_path_prefers_conf_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("here");
        let system = folder.path().join("system.toml");
        let in_conf = here.join("conf").join("seatgate.toml");
        std::fs::create_dir(&here).unwrap();
        assert_eq!(choose_path(&here, &system), in_conf);
        std::fs::write(&system, "").unwrap();
        assert_eq!(choose_path(&here, &system), system);
        std::fs::create_dir(here.join("conf")).unwrap();
        assert_eq!(choose_path(&here, &system), in_conf);
    }

    #[test]
    fn the_first_folder_of_a_list_counts() {
        for (list, expected) in [("/a:/b", Some("/a")), (":/b", Some("/b")), ("", None)] {
            let env = Env { state_directory: Some(list.into()), ..Env::default() };
            assert_eq!(env.state_directory(), expected.map(PathBuf::from), "{list}");
            assert_eq!(env.runtime_directory(), None);
        }
    }
}
