//! The folder for what is written: store, keys, sockets.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a folder that strangers cannot look into, and those around it; one that is there stays
/// as it is.
///
/// # Errors
/// It is not there, and cannot be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(path)
}
