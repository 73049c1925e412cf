//! Where the log goes and in which form.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Lines that wait for a slow reader of the log; beyond that they are dropped, for a request must
/// never wait for its log line.
const BACKLOG_LINES: usize = 65_536;

/// Starts logging to standard error. The log ends when the guard is dropped.
pub fn init(settings: &Log) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BACKLOG_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(filter_of(&settings.level)));
    let terminal = std::io::stderr().is_terminal();
    let human = match settings.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second logger in one process (a test) is no harm.
    let _ = if human {
        builder.with_ansi(terminal).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
    guard
}

/// Pingora tells of every broken connection; what matters of it is logged here already.
fn filter_of(level: &str) -> String {
    if level.contains("pingora") {
        return level.to_owned();
    }
    format!(
        "{level},pingora=error,pingora_core=error,pingora_proxy=error,pingora_load_balancing=error"
    )
}
