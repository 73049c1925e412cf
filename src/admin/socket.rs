//! The Unix socket of the administration API.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Its owner and group may use it.
const MODE: u32 = 0o660;

/// Why the socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(
        "{}: another gateway listens there; stop that, or give this one a [server] \
         state_directory or [admin] socket of its own",
        .0.display()
    )]
    InUse(PathBuf),
    #[error("{}: there is a file that is no socket; move it away, or name another in [admin] socket", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot listen on {}: {source}; make a folder there that this user may write to", .path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// The socket, and its name in the file system, which goes with it.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    pub name: SocketName,
}

/// Removed when dropped, unless another took its place.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).map(|found| found.ino());
        if found.ok().is_some_and(|found| Some(found) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl SocketName {
    /// Leaves the file to another process.
    pub fn leave(mut self) {
        self.inode = None;
    }
}

/// The socket that another process listened on at `path`, and passed on.
///
/// # Errors
/// It is not there any more.
pub fn inherit(listener: UnixListener, path: &Path) -> Result<Socket, SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_owned(), source };
    listener.set_nonblocking(true).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    Ok(Socket { listener, name: SocketName { path: path.to_owned(), inode: Some(inode) } })
}

/// Listens on `path`. What a dead process left there is replaced.
///
/// # Errors
/// Somebody listens there, or something else is there, or the folder cannot be written to.
pub fn listen(path: &Path) -> Result<Socket, SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            // Nobody listens: a dead process left it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    crate::store::make_folder(folder).map_err(failed)?;
    // Under another name until its mode is right, so that nobody gets in before; the rename also
    // puts it into the place of what was left there in one step.
    let part = folder.join(format!(".{:x}", std::process::id()));
    let made = (|| {
        let _ = fs::remove_file(&part);
        let listener = UnixListener::bind(&part)?;
        fs::set_permissions(&part, Permissions::from_mode(MODE))?;
        let inode = fs::symlink_metadata(&part)?.ino();
        listener.set_nonblocking(true)?;
        fs::rename(&part, path)?;
        Ok(Socket { listener, name: SocketName { path: path.to_owned(), inode: Some(inode) } })
    })();
    made.map_err(|error| {
        let _ = fs::remove_file(&part);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("admin.sock");
        let socket = listen(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), MODE);
        assert_eq!(mode(path.parent().unwrap()) & 0o007, 0, "strangers look into the folder");
        assert!(matches!(listen(&path), Err(SocketError::InUse(_))));
        let Socket { listener, name } = socket;
        drop(listener);
        let again = listen(&path).unwrap();
        // The old one's name is another's now.
        drop(name);
        assert!(matches!(listen(&path), Err(SocketError::InUse(_))));
        drop(again);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_somebody_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "text").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert!(matches!(
            listen(Path::new("/proc/none/admin.sock")),
            Err(SocketError::Listen { .. })
        ));
    }
}
