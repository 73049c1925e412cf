//! `seatgate store …`.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;

use super::client::{Client, Sent};
use super::output::say;
use super::{Failure, Outcome, Place};
use crate::admin::api::Backup;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a whole and consistent copy of the store while the gateway runs. The gateway writes
    /// it, as its own user; the key file beside the store is to be kept with it.
    Backup {
        /// Where nothing is yet.
        file: PathBuf,
    },
}

pub(super) fn run(command: Command, place: &Place) -> Outcome {
    match command {
        Command::Backup { file } => {
            let file = std::path::absolute(&file).map_err(Failure::usage)?;
            let Some(file) = file.to_str() else {
                return Err(Failure::usage("the path is not UTF-8"));
            };
            let sent = Sent::json(&Backup { file: file.to_owned() })?;
            let done: Backup = Client::new(place)?.call(Method::POST, "/v1/store/backup", sent)?;
            say(&format!("{} is written", done.file))
        }
    }
}
