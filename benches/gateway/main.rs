//! The gateway end to end, beside its peers: `cargo bench --bench gateway`.
//!
//! One process starts an upstream, Seatgate and whatever it is compared with, drives each in turn
//! with the same load generator and prints medians, spreads and ratios. Absolute figures depend on
//! the machine; ratios of the same round and CPU time per operation are what to compare.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | the command line |
//! | [`child`] | processes that end with this one |
//! | [`usage`] | CPU time and memory of a process |
//! | [`upstream`] | what stands for the document server |
//! | [`bare`] | a Pingora proxy that does nothing but forward |
//! | [`peers`] | what is measured, and its configuration |
//! | [`frames`], [`socket`] | WebSocket frames and a client of the co-authoring service |
//! | [`load`] | closed-loop clients and the window in which they are counted |
//! | [`workloads`] | what the clients do |
//! | [`sessions`] | memory of idle sessions, and sessions lost among many |
//! | [`report`], [`machine`] | figures to text, and where they were taken |
//!
//! Exit code 0: all ran and no session was lost; 1: a session was lost, or something failed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench reports on its streams")]

mod bare;
mod child;
mod frames;
mod load;
mod machine;
mod options;
mod peers;
mod report;
mod sessions;
mod socket;
mod upstream;
mod usage;
mod workloads;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use crate::options::{Options, Workload};
use crate::peers::{Kind, Peer};
use crate::report::Report;

/// What goes wrong in a bench is told and ends it.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(child::MARK) {
        return child::main(arguments.collect());
    }
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` starts benches without it.
        println!("nothing is measured: start this with `cargo bench --bench gateway`");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the bench failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for; returns whether no session was lost.
fn run(options: &Options) -> Result<bool> {
    machine::raise_file_limit();
    let started = Instant::now();
    let threads = machine::cores();
    let upstream = child::Child::start_role("upstream", &[&generator_threads().to_string()])?;
    let address = upstream.read_address()?;
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| options.wants(*kind) && kind.is_installed()).collect();
    let setting = peers::Setting { upstream: address, threads };
    let mut report = Report::new(options);
    let in_time = || started.elapsed() < options.time_limit();

    let windows: Vec<Workload> = options.workloads().filter(|it| it.is_windowed()).collect();
    if !windows.is_empty() {
        let peers: Vec<Peer> =
            kinds.iter().map(|kind| Peer::start(*kind, setting)).collect::<Result<_>>()?;
        for round in 0..options.rounds() {
            for workload in &windows {
                for peer in rotated(&peers, round) {
                    if in_time() {
                        progress(*workload, peer.kind, round);
                        report.add(*workload, peer.kind, workloads::run(*workload, peer, options)?);
                    }
                }
            }
        }
    }
    if options.workloads().any(|it| it == Workload::IdleMemory) {
        for round in 0..options.memory_rounds() {
            for kind in rotated(&kinds, round).filter(|kind| **kind != Kind::Direct) {
                if in_time() {
                    progress(Workload::IdleMemory, *kind, round);
                    // A process of its own: memory that was touched before would be used again.
                    let peer = Peer::start(*kind, setting)?;
                    report.add_memory(*kind, sessions::idle_memory(&peer, options)?);
                }
            }
        }
    }
    if options.workloads().any(|it| it == Workload::SoakOpens) {
        for kind in kinds.iter().filter(|kind| matches!(kind, Kind::Seatgate | Kind::Bare)) {
            if in_time() {
                progress(Workload::SoakOpens, *kind, 0);
                let peer = Peer::start(*kind, setting)?;
                report.add_soak(*kind, sessions::soak(&peer, options)?);
            }
        }
    }
    if !in_time() {
        report.note_time_limit();
    }
    let text = report.to_markdown(started.elapsed());
    println!("{text}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, &text)?;
    }
    Ok(report.lost_by_seatgate() == 0)
}

/// The same things in a different order each round, so that none always follows the same one.
fn rotated<T>(things: &[T], round: usize) -> impl Iterator<Item = &T> {
    let (before, after) = things.split_at(round % things.len().max(1));
    after.iter().chain(before)
}

/// The load generator and the upstream share the machine with the proxy, which has the larger
/// part of the work.
fn generator_threads() -> usize {
    (machine::cores() / 2).max(1)
}

fn progress(workload: Workload, kind: Kind, round: usize) {
    eprintln!("round {}: {} through {}", round + 1, workload.name(), kind.name());
}
