//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::{self, REVISION, StartError, VERSION};
use crate::config;

/// The thing asked for failed.
const FAILED: u8 = 1;

/// Bad usage or bad configuration.
const BAD_USAGE: u8 = 2;

/// A licence-enforcing reverse proxy for document editor servers.
#[derive(Debug, Parser)]
#[command(name = "seatgate", version = VERSION, disable_version_flag = false)]
struct Arguments {
    /// The configuration [default: conf/seatgate.toml, or /etc/seatgate/seatgate.toml where that
    /// exists and no conf/ does]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run,
    /// Check the configuration, its licences and secrets, and tell every error in it.
    Check,
    /// Tell the version and the commit it was built from.
    Version {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line of this process; exit codes as the manual says: 0, 1 or 2.
pub fn main() -> ExitCode {
    // clap itself ends the process with 2 on bad usage.
    let arguments = Arguments::parse();
    let path = arguments.config.unwrap_or_else(config::default_path);
    let result = match arguments.command.unwrap_or(Command::Run) {
        Command::Run => app::run(&path).map_err(|error| match error {
            StartError::Config(errors) => (BAD_USAGE, errors.to_string()),
            error @ (StartError::Listen { .. }
            | StartError::Runtime(_)
            | StartError::Open(_)
            | StartError::Store(_)
            | StartError::Metrics(_)) => (FAILED, format!("seatgate: {error}")),
        }),
        Command::Check => check(&path),
        Command::Version { json } => version(json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::from(code)
        }
    }
}

fn check(path: &std::path::Path) -> Result<(), (u8, String)> {
    let loaded = config::load(path).map_err(|errors| {
        let count = errors.count();
        let plural = if count == 1 { "error" } else { "errors" };
        (BAD_USAGE, format!("{errors}\n{}: {count} {plural}", path.display()))
    })?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let settings = &loaded.settings;
    say(&format!(
        "{}: ok: {} tenant(s), {} licence(s), {} app(s)",
        path.display(),
        settings.tenants.len(),
        settings.licences.len(),
        settings.apps.len()
    ))
}

fn version(json: bool) -> Result<(), (u8, String)> {
    if json {
        say(&serde_json::json!({ "version": VERSION, "revision": REVISION }).to_string())
    } else {
        say(&format!("seatgate {VERSION} ({REVISION})"))
    }
}

/// Writes a line to standard output.
fn say(line: &str) -> Result<(), (u8, String)> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| (FAILED, format!("seatgate: {error}")))
}
