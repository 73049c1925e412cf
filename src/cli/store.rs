//! `seatgate store …`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use http::Method;

use super::client::{Client, Sent};
use super::output::say;
use super::{Failure, Outcome, Place};
use crate::admin::api::Backup;
use crate::app::{self, Migration, StartError};
use crate::store::migrate::Carried;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a whole and consistent copy of the store while the gateway runs. The gateway writes
    /// it, as its own user; the key file beside the store is to be kept with it.
    Backup {
        /// Where nothing is yet.
        file: PathBuf,
    },
    /// Carry everything from one store to the other, while no gateway runs: licences, apps,
    /// revocations, devices, users, usage, the audit log and the key of the hashes. If it was
    /// interrupted, run it again.
    Migrate {
        #[arg(long, value_enum)]
        from: Backend,
        #[arg(long, value_enum)]
        to: Backend,
        /// Replace a store that is there already. An embedded one is kept as seatgate.db.before
        /// and store.key.before; one in Redis is deleted.
        #[arg(long)]
        replace: bool,
    },
}

/// Where a store is, as `[store]` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    Embedded,
    Redis,
}

pub(super) fn run(command: Command, place: &Place) -> Outcome {
    match command {
        Command::Migrate { from, to, replace } => migrate((from, to), replace, place),
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

fn migrate((from, to): (Backend, Backend), replace: bool, place: &Place) -> Outcome {
    let way = match (from, to) {
        (Backend::Embedded, Backend::Redis) => Migration::ToRedis,
        (Backend::Redis, Backend::Embedded) => Migration::ToEmbedded,
        (Backend::Embedded, Backend::Embedded) | (Backend::Redis, Backend::Redis) => {
            return Err(Failure::usage("a store is not carried to itself"));
        }
    };
    let carried = app::migrate(&place.config(), way, replace).map_err(|error| match error {
        StartError::Config(errors) => Failure::configuration(&errors),
        error => Failure::failed(error),
    })?;
    let Carried { licences, apps, devices, users, entries } = carried;
    say(&format!(
        "{licences} licence(s), {apps} app(s), {devices} device(s), {users} user(s) and {entries} \
         entries of the audit log are carried over"
    ))
}
