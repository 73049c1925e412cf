//! Licence keys as keyed hashes: a stolen database does not give them away, and they can still be
//! looked up.
//!
//! HMAC-SHA-256 (RFC 2104) under a secret of the installation, the *pepper*, which is in a file of
//! its own beside the database. A plain hash would do for keys of 120 bits, but operators choose
//! keys too, and those could be guessed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::error::OpenError;
use super::hexadecimal;
use super::usage::Pseudonym;

/// The pepper's length in bytes: that of the hash.
const PEPPER_BYTES: usize = 32;

/// The keyed hash of a licence key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Hashes licence keys under one pepper.
#[derive(Clone)]
pub struct KeyHasher {
    keyed: Hmac<Sha256>,
    pepper: [u8; PEPPER_BYTES],
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl KeyHasher {
    /// A hasher under `pepper`.
    pub fn new(pepper: &[u8; PEPPER_BYTES]) -> Self {
        match Hmac::new_from_slice(pepper) {
            Ok(keyed) => Self { keyed, pepper: *pepper },
            Err(_) => unreachable!("an HMAC takes a key of any length"),
        }
    }

    /// The hash of a licence key.
    pub fn hash(&self, licence_key: &str) -> KeyHash {
        KeyHash(self.finish(b"licence key\0", licence_key.as_bytes()))
    }

    /// What stands for a user id in what is kept about usage.
    pub fn pseudonym(&self, user: &str) -> Pseudonym {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] =
            self.finish(b"user id\0", user.as_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The secret itself, for another store of the same installation. Never log it.
    pub(super) fn pepper(&self) -> &[u8; PEPPER_BYTES] {
        &self.pepper
    }

    /// What a store keeps to tell whether it is opened with the right pepper.
    pub(super) fn check_value(&self) -> [u8; 32] {
        self.finish(b"store\0", b"")
    }

    fn finish(&self, purpose: &[u8], text: &[u8]) -> [u8; 32] {
        let mut keyed = self.keyed.clone();
        keyed.update(purpose);
        keyed.update(text);
        keyed.finalize().into_bytes().into()
    }
}

/// Reads the key file; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<KeyHasher>, OpenError> {
    let failed = |detail: String| OpenError::KeyFile { path: path.to_owned(), detail };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let pepper = hexadecimal::read(text.trim_end())
        .ok_or_else(|| failed("it has not 64 hexadecimal digits".to_owned()))?;
    Ok(Some(KeyHasher::new(&pepper)))
}

/// Makes a key file with a new pepper, for its owner only. It is on disk when this returns.
pub(super) fn create(path: &Path) -> Result<KeyHasher, OpenError> {
    let failed = |detail: String| OpenError::KeyFile { path: path.to_owned(), detail };
    let mut pepper = [0_u8; PEPPER_BYTES];
    getrandom::fill(&mut pepper).map_err(|error| failed(error.to_string()))?;
    let hasher = KeyHasher::new(&pepper);
    write(path, &hasher)?;
    Ok(hasher)
}

/// Writes the key of another store into a key file.
pub(super) fn write(path: &Path, hasher: &KeyHasher) -> Result<(), OpenError> {
    let failed = |detail: String| OpenError::KeyFile { path: path.to_owned(), detail };
    let text = format!("{}\n", hexadecimal::write(hasher.pepper()));
    // Under another name first: a crash must not leave half a pepper.
    let part = path.with_extension("key.part");
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        sync_folder(path)
    })();
    written.map_err(|error: io::Error| failed(error.to_string()))
}

/// Makes the names in the folder of `path` durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_file_reads_back_and_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        assert!(read(&path).unwrap().is_none());
        let made = create(&path).unwrap();
        let found = read(&path).unwrap().unwrap();
        assert_eq!(made.hash("LIC-1"), found.hash("LIC-1"));
        assert_ne!(made.hash("LIC-1"), made.hash("LIC-2"));
        assert_ne!(made.check_value(), made.hash("").0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = create(&folder.path().join("other.key")).unwrap();
        assert_ne!(made.hash("LIC-1"), other.hash("LIC-1"));
        assert_eq!(format!("{:?} {:?}", made, made.hash("x")), "*** ***");
    }

    #[test]
    fn a_key_file_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        for text in ["", "0g", &"0".repeat(63), &"0".repeat(66), &"+1".repeat(32), "ключ"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(OpenError::KeyFile { .. })), "{text}");
        }
    }
}
