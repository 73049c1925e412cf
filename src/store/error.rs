//! Why a store cannot be opened, or an operation failed.

use std::path::PathBuf;

/// Why the store cannot be opened. Whatever is in its way is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {source}; make a folder there that this user may write to", .path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error(
        "{} is in use by another process; stop that, or give this one a state_directory of its own",
        .path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "{} is not a Seatgate store; move it away, or name another file in [store] path",
        .path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} was written by a newer Seatgate (schema {found}, this one knows up to {known}); run \
         that version, or restore a backup from before",
        .path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} is damaged: {detail}; restore a backup, nothing was changed in it", .path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("the key file {} cannot be used: {detail}; restore it from a backup", .path.display())]
    KeyFile { path: PathBuf, detail: String },
    #[error(
        "the key file {} is missing, and no licence key can be looked up without it; restore it \
         from a backup",
        .path.display()
    )]
    KeyMissing { path: PathBuf },
    #[error(
        "the key file {} belongs to another store; restore the right one from a backup",
        .path.display()
    )]
    KeyWrong { path: PathBuf },
    #[error("the store in Redis at {address} cannot be opened: {detail}")]
    Engine { address: String, detail: String },
    #[error(
        "the store in Redis at {address} was written by a newer Seatgate (schema {found}, this one \
         knows up to {known}); run that version"
    )]
    NewerEngine { address: String, found: i64, known: i64 },
    #[error(
        "the store in Redis at {address} was made with a key file, and no licence key can be looked \
         up without it; copy it from another gateway, and name it in [store] key_file"
    )]
    KeyElsewhere { address: String },
    #[error(
        "the store in Redis at {address} is only partly filled: a migration was interrupted; run \
         seatgate store migrate again"
    )]
    Unfinished { address: String },
    #[error(
        "there is a store already, {what}; migrate to another, or have it replaced with --replace"
    )]
    Occupied { what: String },
    #[error("{} cannot be opened: {detail}", .path.display())]
    Database { path: PathBuf, detail: String },
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store's disk is full")]
    Full,
    #[error("the store cannot be written to")]
    ReadOnly,
    #[error("the store cannot be read or written: {0}")]
    Io(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("the store did not answer in time")]
    Timeout,
    #[error("the store is closed")]
    Closed,
    #[error("the store failed: {0}")]
    Internal(String),
    #[error("{0} is not in the store")]
    NotFound(String),
    #[error("{0} is in the store already")]
    Exists(String),
    #[error("{id} belongs to {file}:{line}; change it there")]
    Declared { id: String, file: String, line: u64 },
    #[error(
        "{id} was stated by the signed file {file}, and only another signed file changes it; take \
         it out of {other}"
    )]
    Signed { id: String, file: String, other: String },
    #[error("the key of the licence {licence} belongs to the licence {holder}; choose another key")]
    KeyTaken { licence: String, holder: String },
    #[error(
        "the key of the licence {licence} belongs to the licence {holder}, which is revoked; \
         choose another key, or reinstate {holder} first"
    )]
    KeyRevoked { licence: String, holder: String },
    #[error(
        "a store in Redis is backed up with Redis itself: copy its append-only file or a dump \
         (BGSAVE), or write an embedded store with seatgate store migrate"
    )]
    BackupElsewhere,
    #[error("the store to migrate to is not empty; name one that is")]
    NotEmpty,
    #[error("{}: {detail}", .path.display())]
    Target { path: PathBuf, detail: String },
}

impl StoreError {
    /// Whether the store itself failed, rather than what was asked of it.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Full
            | Self::ReadOnly
            | Self::Io(_)
            | Self::Damaged(_)
            | Self::Timeout
            | Self::Closed
            | Self::Internal(_) => true,
            Self::NotFound(_)
            | Self::Exists(_)
            | Self::Declared { .. }
            | Self::Signed { .. }
            | Self::KeyTaken { .. }
            | Self::KeyRevoked { .. }
            | Self::BackupElsewhere
            | Self::NotEmpty
            | Self::Target { .. } => false,
        }
    }
}
