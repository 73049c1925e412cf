//! The sockets that this process listens on: opened, or taken over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::StartError;
use crate::admin::{self, Socket};
use crate::config::Settings;
use crate::handover::Passed;
use crate::handover::taking::Taking;
use crate::listen::{self, ListenError};

/// All of them, and what can be passed on of them.
pub(super) struct Sockets {
    pub(super) public: Vec<TcpListener>,
    pub(super) public_over_tls: Vec<TcpListener>,
    pub(super) operations: Vec<TcpListener>,
    pub(super) files: Vec<(Passed, OwnedFd)>,
}

impl Sockets {
    /// Opens what `taking` does not have.
    ///
    /// # Errors
    /// A place is taken, or nobody may listen there.
    pub(super) fn open(
        settings: &Settings,
        mut taking: Option<&mut Taking>,
    ) -> Result<Self, StartError> {
        let mut files = Vec::new();
        let mut listen = |addresses: &[SocketAddr]| {
            let open = |address: &SocketAddr| {
                let inherited = taking.as_mut().and_then(|taking| taking.listener(*address));
                let listener = match inherited {
                    Some(listener) => listener,
                    None => listen::bind(*address)?,
                };
                let failed = |source| ListenError { address: *address, source };
                listener.set_nonblocking(true).map_err(failed)?;
                let copy = listener.try_clone().map_err(failed)?;
                files.push((Passed::Listener(*address), copy.into()));
                Ok(listener)
            };
            addresses.iter().map(open).collect::<Result<Vec<_>, ListenError>>()
        };
        let public = listen(&settings.server.listen)?;
        let over_tls = settings.server.tls.as_ref();
        let public_over_tls = listen(over_tls.map_or(&[][..], |tls| &tls.listen))?;
        let operations = listen(&[settings.ops.listen])?;
        Ok(Self { public, public_over_tls, operations, files })
    }
}

/// The socket of the administration API, and what can be passed on of it. Opened after the store,
/// whose errors say more of a folder that cannot be used, or is another gateway's.
///
/// # Errors
/// Somebody listens there, or the folder cannot be written to.
pub(super) fn open_administration(
    settings: &Settings,
    taking: Option<&mut Taking>,
) -> Result<(Socket, (Passed, OwnedFd)), StartError> {
    let administration = match taking.and_then(Taking::administration) {
        Some(listener) => admin::inherit(listener, &settings.admin.socket)?,
        None => admin::listen(&settings.admin.socket)?,
    };
    let copy = administration.listener.try_clone()?;
    Ok((administration, (Passed::Administration, copy.into())))
}
