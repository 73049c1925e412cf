//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::peers::Kind;

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

    /// Idle sessions whose memory is measured.
    #[arg(long)]
    sessions: Option<usize>,

    /// Sessions that soak-opens opens.
    #[arg(long)]
    opens: Option<u64>,

    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    #[value(name = "http-1k")]
    Http1k,
    #[value(name = "http-64k")]
    Http64k,
    WsEcho,
    /// The same through a WebSocket that is none of the co-authoring service's.
    WsPlain,
    #[value(name = "ws-16k-up")]
    Ws16kUp,
    #[value(name = "ws-16k-down")]
    Ws16kDown,
    WsOpen,
    IdleMemory,
    SoakOpens,
}

impl Workload {
    /// The name on the command line and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1k => "http-1k",
            Self::Http64k => "http-64k",
            Self::WsEcho => "ws-echo",
            Self::WsPlain => "ws-plain",
            Self::Ws16kUp => "ws-16k-up",
            Self::Ws16kDown => "ws-16k-down",
            Self::WsOpen => "ws-open",
            Self::IdleMemory => "idle-memory",
            Self::SoakOpens => "soak-opens",
        }
    }

    /// What one operation is, and how many clients do it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Http1k => "GET 1 KiB, 32 keep-alive connections, requests/s",
            Self::Http64k => "GET 64 KiB, 32 keep-alive connections, requests/s",
            Self::WsEcho => "200 B echoed on 64 admitted co-authoring sessions, messages/s",
            Self::WsPlain => "200 B echoed on 64 WebSockets that are none, messages/s",
            Self::Ws16kUp => "16 KiB messages to the server on 8 admitted sessions, messages/s",
            Self::Ws16kDown => "16 KiB messages to the client on 8 admitted sessions, messages/s",
            Self::WsOpen => "connect, 40, auth, reply, close; 32 at a time, sessions/s",
            Self::IdleMemory => "admitted idle sessions, resident memory of the proxy",
            Self::SoakOpens => "sessions opened and closed, 200 at a time",
        }
    }

    /// Whether it is measured as operations within a time.
    pub(crate) fn is_windowed(self) -> bool {
        !matches!(self, Self::IdleMemory | Self::SoakOpens)
    }
}

impl Options {
    /// What was asked for, all without a wish.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = Workload> {
        Workload::value_variants()
            .iter()
            .copied()
            .filter(|workload| self.only.is_empty() || self.only.contains(workload))
    }

    /// Whether a peer is to be measured.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        self.peer.is_empty() || self.peer.contains(&kind)
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    pub(crate) fn memory_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// How long operations are counted.
    pub(crate) fn window(&self) -> Duration {
        let default = if self.quick { 0.4 } else { 2.0 };
        Duration::from_secs_f64(self.seconds.unwrap_or(default).clamp(0.05, 60.0))
    }

    /// How many sessions idle.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.unwrap_or(if self.quick { 400 } else { 4_000 })
    }

    /// How long after the last of them closed memory is looked at once more.
    pub(crate) fn memory_settles(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 3 })
    }

    /// How many sessions the soak opens.
    pub(crate) fn opens(&self) -> u64 {
        self.opens.unwrap_or(if self.quick { 2_000 } else { 100_000 })
    }

    /// How long a soak may take; what was not opened by then is not opened.
    pub(crate) fn soak_limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 20 } else { 180 })
    }

    /// From here on no measurement begins any more.
    pub(crate) fn time_limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 45 } else { 10 * 60 })
    }
}
