//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::peers::Kind;
use crate::workload::Workload;

/// Measures Seatgate end to end beside its peers.
#[derive(Debug, Parser)]
#[command(name = "gateway")]
pub(crate) struct Options {
    /// A smoke run: one short round of everything.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only this workload; may be repeated.
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<Workload>,

    /// Only this peer; may be repeated.
    #[arg(long, value_name = "PEER")]
    peer: Vec<Kind>,

    /// Interleaved rounds.
    #[arg(long)]
    rounds: Option<usize>,

    /// Measured seconds of each workload, peer and round.
    #[arg(long)]
    seconds: Option<f64>,

    /// The largest number of idle sessions.
    #[arg(long)]
    sessions: Option<usize>,

    /// Sessions that soak-opens opens.
    #[arg(long)]
    opens: Option<u64>,

    /// A document server without tokens whose own license command is measured beside.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) document_server: Option<SocketAddr>,

    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Also write the plots to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Options {
    /// What was asked for, all without a wish.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = Workload> {
        Workload::value_variants()
            .iter()
            .copied()
            .filter(|workload| self.only.is_empty() || self.only.contains(workload))
    }

    pub(crate) fn wants_workload(&self, workload: Workload) -> bool {
        self.workloads().any(|it| it == workload)
    }

    /// Whether a peer is to be measured.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        let is_there = kind != Kind::DocumentServer || self.document_server.is_some();
        is_there && (self.peer.is_empty() || self.peer.contains(&kind))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// Rounds of what takes long.
    pub(crate) fn long_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// How long operations are counted.
    pub(crate) fn window(&self) -> Duration {
        let default = if self.quick { 0.2 } else { 1.0 };
        Duration::from_secs_f64(self.seconds.unwrap_or(default).clamp(0.05, 60.0))
    }

    /// The largest number of idle sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.unwrap_or(if self.quick { 300 } else { 9_000 })
    }

    /// Whether more idle sessions are tried, up to what the machine allows.
    pub(crate) fn is_up_to_the_limit(&self) -> bool {
        !self.quick && self.sessions.is_none()
    }

    /// How long after the last of them closed memory is looked at once more.
    pub(crate) fn memory_settles(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 3 })
    }

    /// How many sessions the soak opens.
    pub(crate) fn opens(&self) -> u64 {
        self.opens.unwrap_or(if self.quick { 1_000 } else { 50_000 })
    }

    /// How long a soak may take; what was not opened by then is not opened.
    pub(crate) fn soak_limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 20 } else { 120 })
    }

    /// The largest number of seats and users in one process.
    pub(crate) fn growth(&self) -> u32 {
        if self.quick { 10_000 } else { 1_000_000 }
    }

    /// The largest list of users that the license command is asked for.
    pub(crate) fn most_users(&self) -> u32 {
        if self.quick { 1_000 } else { 100_000 }
    }

    /// From here on no measurement begins any more.
    pub(crate) fn time_limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 120 } else { 19 * 60 })
    }
}
