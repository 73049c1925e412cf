//! The embedded store's files; what it stores is tried by the suite of all backends.

mod files;

use std::path::Path;
use std::sync::Arc;

use super::Embedded;
use crate::store::OpenError;
use crate::store::tests::{change, licence, licences, now};

fn try_open(folder: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(&folder.join("seatgate.db"), Arc::new(|_| {}))
}

/// Opens the store of a folder, waiting for the one that was just dropped.
fn open(folder: &Path) -> Embedded {
    loop {
        match try_open(folder) {
            Ok(store) => return store,
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}
