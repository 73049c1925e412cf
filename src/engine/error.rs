//! Why the engine did not do what it was asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why an operation on the engine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is no connection. Nothing was carried out.
    #[error("Redis cannot be reached: {0}")]
    Down(String),
    /// It may or may not have been carried out: the connection broke, or no answer came in time.
    #[error("Redis did not answer: {0}")]
    Unanswered(String),
    #[error("Redis is out of memory; raise its maxmemory, or give it more")]
    Full,
    /// A replica, or a server that lacks its replicas or its disk.
    #[error("Redis takes no writes: {0}")]
    ReadOnly(String),
    #[error("Redis refuses: {0}")]
    Refused(String),
    /// An answer that makes no sense: another program's data, or a bug.
    #[error("Redis answered what cannot be understood: {0}")]
    Answer(String),
}

impl EngineError {
    /// Whether to try again makes sense before anybody mends anything.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Down(_) | Self::Unanswered(_) | Self::ReadOnly(_) => true,
            Self::Full | Self::Refused(_) | Self::Answer(_) => false,
        }
    }

    /// Whether the connection has to be made anew.
    pub(super) fn breaks_link(&self) -> bool {
        match self {
            // A server that was demoted says so on every connection of before.
            Self::Unanswered(_) | Self::ReadOnly(_) => true,
            Self::Down(_) | Self::Full | Self::Refused(_) | Self::Answer(_) => false,
        }
    }
}

impl From<RedisError> for EngineError {
    fn from(error: RedisError) -> Self {
        let told = error.to_string();
        match error.kind() {
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Self::Unanswered(told),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain,
            ) => Self::ReadOnly(told),
            ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::EmptySentinelList => {
                Self::Down(told)
            }
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Answer(told),
            ErrorKind::Extension => match error.code() {
                Some("OOM") => Self::Full,
                Some("NOREPLICAS" | "MISCONF") => Self::ReadOnly(told),
                _ => Self::Refused(told),
            },
            _ => Self::Refused(told),
        }
    }
}

/// Whether connecting failed in a way that waiting does not mend.
pub(super) fn is_final(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::Server(ServerErrorKind::NoPerm) => true,
        _ => {
            let told = error.to_string();
            let signs = ["WRONGPASS", "NOAUTH", CERTIFICATE, ALERT, NO_DATABASE];
            signs.iter().any(|sign| told.contains(sign))
        }
    }
}

/// What the TLS library and the client say; there are no kinds for these.
const CERTIFICATE: &str = "invalid peer certificate";
const ALERT: &str = "received fatal alert";
const NO_DATABASE: &str = "refused to switch database";

/// Why connecting failed, with the mend where the error itself does not say it.
pub(super) fn explain(error: &RedisError) -> String {
    let told = error.to_string();
    if told.contains(CERTIFICATE) {
        return format!("{told}; it is judged by the system's authorities, or by [store] ca_file");
    }
    if told.contains(ALERT) {
        return format!("{told}; what this gateway shows is [store] certificate");
    }
    if told.is_empty() {
        return "it ended the connection; does it speak TLS there?".to_owned();
    }
    if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
        return format!("{told}; docs/cluster.md tells what the user needs");
    }
    told
}
