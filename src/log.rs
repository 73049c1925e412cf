//! Where the log goes and in which form.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat};

/// Lines that wait for a slow reader of the log; beyond that they are dropped, for a request must
/// never wait for its log line.
const BACKLOG_LINES: usize = 65_536;

/// What is logged, as it can be changed while logging.
#[derive(Clone)]
pub struct Filter(Arc<dyn Fn(EnvFilter) + Send + Sync>);

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

impl Filter {
    /// Logs from now on what the settings say; `$RUST_LOG` wins, as at the start.
    pub fn follow(&self, settings: &Log) {
        (self.0)(filter(settings));
    }
}

/// Starts logging to standard error. The log ends when the guard is dropped.
pub fn init(settings: &Log) -> (WorkerGuard, Filter) {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BACKLOG_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let terminal = std::io::stderr().is_terminal();
    let human = match settings.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter(settings)).with_writer(writer);
    // A second logger in one process (a test) is no harm.
    let changes: Arc<dyn Fn(EnvFilter) + Send + Sync> = if human {
        let builder = builder.with_ansi(terminal).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Arc::new(move |filter| drop(handle.reload(filter)))
    } else {
        let builder = builder.json().flatten_event(true).with_current_span(true);
        let builder = builder.with_span_list(false).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Arc::new(move |filter| drop(handle.reload(filter)))
    };
    (guard, Filter(changes))
}

fn filter(settings: &Log) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter_of(&settings.level)))
}

/// Pingora tells of every broken connection; what matters of it is logged here already. What its
/// proxy says of its own accord, and as an error, is only that a client left: for debugging.
fn filter_of(level: &str) -> String {
    let mut words = level.split(',').filter_map(|word| word.parse::<LevelFilter>().ok());
    let general = words.next_back();
    if level.contains("pingora") || general == Some(LevelFilter::OFF) {
        return level.to_owned();
    }
    let proxy = if general >= Some(LevelFilter::DEBUG) { "error" } else { "off" };
    format!(
        "{level},pingora=error,pingora_core=error,pingora_proxy={proxy},pingora_load_balancing=error"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_leave_are_for_debugging() {
        for (level, told) in [
            ("error", Some("pingora_proxy=off")),
            ("info", Some("pingora_proxy=off")),
            ("seatgate=trace", Some("pingora_proxy=off")),
            ("info,seatgate=trace", Some("pingora_proxy=off")),
            ("DEBUG", Some("pingora_proxy=error")),
            ("seatgate=info,trace", Some("pingora_proxy=error")),
            ("off", None),
            ("info,pingora_proxy=warn", None),
        ] {
            let filter = filter_of(level);
            assert!(filter.starts_with(level), "{filter}");
            match told {
                Some(told) => {
                    assert!(filter.contains(told), "{filter}");
                    assert!(filter.contains("pingora_core=error"), "{filter}");
                }
                None => assert_eq!(filter, level),
            }
        }
    }
}
