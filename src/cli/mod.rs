//! The command line.
//!
//! | module | what it is |
//! |---|---|
//! | this one | the arguments, exit codes |
//! | `gateway` | `run`, `check`, `version` |
//! | `licence`, `terms`, `signed` | `licence …`: by the gateway that runs, or offline |
//! | `app`, `seats`, `status`, `store` | the rest that asks the gateway that runs |
//! | `doctor` | what is wrong |
//! | `report` | what was used, by tenant and month |
//! | `shell` | completions and manual pages |
//! | `client` | the administration API's client |
//! | `output`, `table` | what people and programs read |
//!
//! Exit codes: 0, 1 for what failed, 2 for bad usage or configuration (INTERFACE.md section 1).

mod app;
mod client;
mod doctor;
mod gateway;
mod licence;
mod output;
mod report;
mod seats;
mod shell;
mod signed;
mod status;
mod store;
mod table;
mod terms;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::VERSION;
use crate::config;

/// The thing asked for failed.
const FAILED: u8 = 1;

/// Bad usage or bad configuration.
const BAD_USAGE: u8 = 2;

/// Why a command ends without success.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The thing asked for failed.
    fn failed(message: impl std::fmt::Display) -> Self {
        Self { code: FAILED, message: format!("seatgate: {message}") }
    }

    /// Bad usage.
    fn usage(message: impl std::fmt::Display) -> Self {
        Self { code: BAD_USAGE, message: format!("seatgate: {message}") }
    }

    /// Bad configuration: the message names files and lines already.
    fn configuration(errors: &config::ConfigErrors) -> Self {
        Self { code: BAD_USAGE, message: errors.to_string() }
    }
}

/// What a command gives.
type Outcome = Result<(), Failure>;

/// A licence-enforcing reverse proxy for document editor servers.
#[derive(Debug, Parser)]
#[command(name = "seatgate", version = VERSION, disable_version_flag = false)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which gateway is meant.
#[derive(Debug, Args)]
struct Place {
    /// The configuration [default: conf/seatgate.toml, or /etc/seatgate/seatgate.toml where that
    /// exists and no conf/ does]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The administration socket [default: as the configuration says]
    #[arg(long, global = true, value_name = "FILE")]
    socket: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(config::default_path)
    }
}

/// How a listing is written.
#[derive(Clone, Copy, Debug, Args)]
struct Format {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run,
    /// Check the configuration, its licences and secrets, and tell every error in it.
    Check,
    /// Have the gateway that runs load its configuration, licences and secrets anew, all or nothing,
    /// and wait for what comes of it.
    Reload,
    /// Have a new process of the installed program take over from the gateway that runs, without losing
    /// an editor or a seat, and wait until it serves.
    Upgrade,
    /// Issue, list and change licences; sign and verify licence files.
    #[command(subcommand)]
    Licence(licence::Command),
    /// Who may call the validation API.
    #[command(subcommand)]
    App(app::Command),
    /// Who holds a seat now.
    #[command(subcommand)]
    Seats(seats::Command),
    /// How the gateway that runs is: tenants, seats, document servers, store.
    Status(status::StatusArguments),
    /// What was used, by tenant and month, and what licence would have been enough.
    Report(Box<report::ReportArguments>),
    /// Look for what is wrong: configuration, licences, tokens, document servers, this host.
    Doctor(doctor::DoctorArguments),
    /// What administrators did, the latest first.
    Audit(status::AuditArguments),
    /// The store of the gateway that runs.
    #[command(subcommand)]
    Store(store::Command),
    /// Write a completion script for a shell to standard output.
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual page to standard output, or all pages into a folder.
    Man {
        /// The folder for seatgate.1 and a page for each subcommand.
        folder: Option<PathBuf>,
    },
    /// Tell the version and the commit it was built from.
    Version {
        #[command(flatten)]
        format: Format,
    },
}

/// Runs the command line of this process; exit codes as the manual says: 0, 1 or 2.
pub fn main() -> ExitCode {
    // clap itself ends the process with 2 on bad usage.
    let Arguments { place, command } = Arguments::parse();
    let outcome = match command.unwrap_or(Command::Run) {
        Command::Run => gateway::run(&place.config()),
        Command::Check => gateway::check(&place.config()),
        Command::Reload => status::reload(&place),
        Command::Upgrade => status::upgrade(&place),
        Command::Licence(command) => licence::run(command, &place),
        Command::App(command) => app::run(command, &place),
        Command::Seats(command) => seats::run(command, &place),
        Command::Status(arguments) => status::run(&arguments, &place),
        Command::Report(arguments) => report::run(&arguments, &place),
        Command::Doctor(arguments) => doctor::run(&arguments, &place),
        Command::Audit(arguments) => status::audit(&arguments, &place),
        Command::Store(command) => store::run(command, &place),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { folder } => shell::man(folder.as_deref()),
        Command::Version { format } => gateway::version(format),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                let _ = writeln!(std::io::stderr(), "{message}");
            }
            ExitCode::from(code)
        }
    }
}
