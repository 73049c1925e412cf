//! The gateway end to end, beside its peers: `cargo bench --bench gateway`.
//!
//! One process starts an upstream, Seatgate and whatever it is compared with, drives each in turn
//! with the same load generator and prints medians, spreads and ratios. Absolute figures depend on
//! the machine; ratios of the same round and CPU time per operation are what to compare.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | the command line |
//! | [`workload`] | the list of workloads |
//! | [`child`] | processes that end with this one |
//! | [`usage`] | CPU time and memory of a process |
//! | [`upstream`], [`polled`] | what stands for the document server |
//! | [`bare`] | a Pingora proxy that does nothing but forward |
//! | [`peers`], [`programs`] | what is measured, and its configuration |
//! | [`ports`] | ports that nobody else is given |
//! | [`prepared`] | licences, users and keys that Seatgate has |
//! | [`frames`], [`socket`] | WebSocket frames and a client of the co-authoring service |
//! | [`requests`] | HTTP requests and answers |
//! | [`load`], [`workloads`] | closed-loop clients, and what they do |
//! | [`paced`] | clients at a fixed rate: latency |
//! | [`sessions`] | idle sessions in growing number, and sessions lost among many |
//! | [`growth`] | what many seats and users cost, without sockets |
//! | [`progress`] | what is being done, and the time left |
//! | [`figures`], [`goals`] | ratios, and what they are to be |
//! | [`report`], [`svg`], [`machine`] | figures to text and plots, and where it was |
//!
//! Exit code 0: all ran, and no peer but the bare one lost a session or a request; 1: anything else.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench reports on its streams")]

mod bare;
#[path = "../../tests/support/build.rs"]
mod build;
mod child;
mod figures;
mod frames;
mod goals;
mod growth;
#[path = "../../tests/support/licence.rs"]
mod licence;
mod load;
mod machine;
mod options;
mod paced;
mod peers;
mod polled;
#[path = "../../tests/support/ports.rs"]
mod ports;
mod prepared;
mod programs;
mod progress;
mod report;
mod requests;
mod sessions;
mod socket;
mod svg;
mod upstream;
mod usage;
mod workload;
mod workloads;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use crate::figures::Figures;
use crate::options::Options;
use crate::peers::{Canned, Kind, Peer, Setting};
use crate::progress::{Plan, Step};
use crate::workload::{Measure, Workload};

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
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            eprintln!("{lost} sessions or requests were lost");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the bench failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for; returns how many sessions and requests were lost.
fn run(options: &Options) -> Result<u64> {
    machine::raise_file_limit();
    let started = Instant::now();
    let upstream = child::Child::start_role("upstream", &[&generator_threads().to_string()])?;
    let mut setting = Setting {
        upstream: Some(upstream.read_address()?),
        document_server: options.document_server,
        threads: machine::cores(),
        ..Setting::default()
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| options.wants(*kind)).collect();
    for kind in kinds.iter().filter(|kind| !kind.is_installed()) {
        eprintln!("{} is not installed, and is left out", kind.name());
    }
    let kinds: Vec<Kind> = kinds.into_iter().filter(|kind| kind.is_installed()).collect();
    let (windowed, own) = plan(options, &kinds);
    let mut plan = Plan::new(options, windowed.iter().chain(&own).copied().collect());
    let mut figures = Figures::default();

    if !windowed.is_empty() {
        let peers = start_peers(&kinds, &mut setting, options)?;
        figures.license_pieces = programs::nginx_pieces(setting.canned.length(Workload::License1k));
        for step in windowed {
            let Some(peer) = peers.iter().find(|peer| peer.kind == step.kind) else { continue };
            if plan.begin(step) {
                let sample = match step.workload.measure() {
                    Measure::Latency => paced::run(step.workload, peer, options)?,
                    Measure::Rate | Measure::Own => {
                        workloads::run(step.workload, peer, &setting.canned, options)?
                    }
                };
                figures.add(step.workload, step.kind, sample);
            }
        }
    }
    // Processes of their own: memory that was touched before would be used again.
    setting.users = 0;
    for step in own {
        if !plan.begin(step) {
            continue;
        }
        match step.workload {
            Workload::Growth => figures.growth = Some(growth::measure(options.growth())?),
            Workload::SoakOpens => {
                let peer = Peer::start(step.kind, &setting)?;
                figures.soaks.insert(step.kind, sessions::soak(&peer, options)?);
            }
            _ => {
                let peer = Peer::start(step.kind, &setting)?;
                let grown = sessions::grow(&peer, options)?;
                figures.sessions.entry(step.kind).or_default().push(grown);
            }
        }
    }
    let text = report::to_markdown(&figures, options, started.elapsed(), plan.is_cut_short());
    println!("{text}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, &text)?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, svg::plots(&figures))?;
    }
    Ok(figures.lost())
}

/// All steps: those that share the peers' processes, and those that have processes of their own.
fn plan(options: &Options, kinds: &[Kind]) -> (Vec<Step>, Vec<Step>) {
    let (mut windowed, mut own) = (Vec::new(), Vec::new());
    for round in 0..options.rounds() {
        for workload in options.workloads().filter(|it| it.measure() != Measure::Own) {
            if workload == Workload::License100k && options.most_users() < 100_000 {
                continue;
            }
            let suitable: Vec<Kind> =
                kinds.iter().copied().filter(|kind| workload.suits(*kind)).collect();
            windowed.extend(rotated(&suitable, round).map(|kind| Step { workload, kind, round }));
        }
    }
    let proxies: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.is_proxy()).collect();
    if options.wants_workload(Workload::Sessions) {
        for round in 0..options.long_rounds() {
            let workload = Workload::Sessions;
            own.extend(rotated(&proxies, round).map(|kind| Step { workload, kind, round }));
        }
    }
    if options.wants_workload(Workload::SoakOpens) {
        let kinds = proxies.iter().filter(|kind| matches!(kind, Kind::Seatgate | Kind::Bare));
        own.extend(kinds.map(|kind| Step { workload: Workload::SoakOpens, kind: *kind, round: 0 }));
    }
    if options.wants_workload(Workload::Growth) && options.wants(Kind::Seatgate) {
        own.push(Step { workload: Workload::Growth, kind: Kind::Seatgate, round: 0 });
    }
    (windowed, own)
}

/// Starts the peers, Seatgate first where others are to answer what it answers.
fn start_peers(kinds: &[Kind], setting: &mut Setting, options: &Options) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    if options.workloads().any(Workload::is_canned) {
        setting.users = options.most_users();
        let seatgate = Peer::start(Kind::Seatgate, setting)?;
        setting.canned = Canned::of(&seatgate, setting.users)?;
        peers.push(seatgate);
    }
    for kind in kinds {
        if peers.iter().all(|peer| peer.kind != *kind) {
            peers.push(Peer::start(*kind, setting)?);
        }
    }
    Ok(peers)
}

/// The same things in a different order each round, so that none always follows the same one.
fn rotated<T: Copy>(things: &[T], round: usize) -> impl Iterator<Item = T> {
    let (before, after) = things.split_at(round % things.len().max(1));
    after.iter().chain(before).copied()
}

/// The load generator and the upstream share the machine with the proxy, which has the larger
/// part of the work.
fn generator_threads() -> usize {
    (machine::cores() / 2).max(1)
}
