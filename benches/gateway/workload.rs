//! The list of workloads: what each is, who does it, and through which peers.

use clap::ValueEnum;

use crate::peers::Kind;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    #[value(name = "http-1k")]
    Http1k,
    #[value(name = "http-64k")]
    Http64k,
    #[value(name = "upload-1m")]
    Upload1m,
    #[value(name = "license-0")]
    License0,
    #[value(name = "license-1k")]
    License1k,
    #[value(name = "license-100k")]
    License100k,
    Validate,
    WsEcho,
    /// The same through a WebSocket that is none of the co-authoring service's: not inspected.
    WsEchoPlain,
    #[value(name = "ws-16k-up")]
    Ws16kUp,
    #[value(name = "ws-16k-up-plain")]
    Ws16kUpPlain,
    #[value(name = "ws-16k-down")]
    Ws16kDown,
    #[value(name = "ws-16k-down-plain")]
    Ws16kDownPlain,
    EditorMix,
    WsOpen,
    HttpPaced,
    WsPaced,
    Polling,
    /// Idle sessions, more and more of them.
    Sessions,
    SoakOpens,
    /// In one process, without sockets.
    Growth,
}

/// How a workload is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Operations within a time, as many as go.
    Rate,
    /// The time of each operation at a fixed rate.
    Latency,
    /// In a way of its own.
    Own,
}

impl Workload {
    /// The name on the command line and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1k => "http-1k",
            Self::Http64k => "http-64k",
            Self::Upload1m => "upload-1m",
            Self::License0 => "license-0",
            Self::License1k => "license-1k",
            Self::License100k => "license-100k",
            Self::Validate => "validate",
            Self::WsEcho => "ws-echo",
            Self::WsEchoPlain => "ws-echo-plain",
            Self::Ws16kUp => "ws-16k-up",
            Self::Ws16kUpPlain => "ws-16k-up-plain",
            Self::Ws16kDown => "ws-16k-down",
            Self::Ws16kDownPlain => "ws-16k-down-plain",
            Self::EditorMix => "editor-mix",
            Self::WsOpen => "ws-open",
            Self::HttpPaced => "http-paced",
            Self::WsPaced => "ws-paced",
            Self::Polling => "polling",
            Self::Sessions => "sessions",
            Self::SoakOpens => "soak-opens",
            Self::Growth => "growth",
        }
    }

    /// What one operation is, and how many clients do it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Http1k => "GET 1 KiB, 32 keep-alive connections, requests/s",
            Self::Http64k => "GET 64 KiB, 32 keep-alive connections, requests/s",
            Self::Upload1m => "POST 1 MiB, 8 keep-alive connections, requests/s",
            Self::License0 => "the license command, no users, 32 connections, requests/s",
            Self::License1k => "the license command, 1,000 users, 32 connections, requests/s",
            Self::License100k => "the license command, 100,000 users, 4 connections, requests/s",
            Self::Validate => "validation of a bound device, 32 connections, requests/s",
            Self::WsEcho => "200 B echoed on 64 admitted co-authoring sessions, messages/s",
            Self::WsEchoPlain => "the same on 64 WebSockets that are not inspected",
            Self::Ws16kUp => "16 KiB messages to the server on 8 admitted sessions, messages/s",
            Self::Ws16kUpPlain => "the same on 8 WebSockets that are not inspected",
            Self::Ws16kDown => "16 KiB messages to the client on 8 admitted sessions, messages/s",
            Self::Ws16kDownPlain => "the same on 8 WebSockets that are not inspected",
            Self::EditorMix => {
                "8 cursors of 250 B, isSaveLock, saveChanges of 2 KiB, each answered, over and over \
                 on 64 admitted sessions, messages/s"
            }
            Self::WsOpen => "connect, 40, auth, reply, close; 32 at a time, sessions/s",
            Self::HttpPaced => "GET 1 KiB, 1,000/s in all on 10 connections, open loop",
            Self::WsPaced => "200 B echoed on 32 admitted sessions, a message every 10 ms each",
            Self::Polling => {
                "a POST and the parked GET that brings its echo, on 8 sessions, every 20 ms each"
            }
            Self::Sessions => "admitted idle sessions in growing number",
            Self::SoakOpens => "sessions opened and closed, 200 at a time",
            Self::Growth => "cost in one process, without sockets, by number of seats and users",
        }
    }

    pub(crate) fn measure(self) -> Measure {
        match self {
            Self::HttpPaced | Self::WsPaced | Self::Polling => Measure::Latency,
            Self::Sessions | Self::SoakOpens | Self::Growth => Measure::Own,
            _ => Measure::Rate,
        }
    }

    /// How many clients do it at a time.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::Http1k | Self::Http64k | Self::WsOpen | Self::WsPaced => 32,
            Self::License0 | Self::License1k | Self::Validate => 32,
            Self::WsEcho | Self::WsEchoPlain | Self::EditorMix => 64,
            Self::Upload1m | Self::Polling => 8,
            Self::Ws16kUp | Self::Ws16kUpPlain | Self::Ws16kDown | Self::Ws16kDownPlain => 8,
            Self::License100k => 4,
            Self::HttpPaced => 10,
            Self::Sessions | Self::SoakOpens | Self::Growth => 0,
        }
    }

    /// Whether the proxy answers by itself, with the bytes that Seatgate answers.
    pub(crate) fn is_canned(self) -> bool {
        matches!(self, Self::License0 | Self::License1k | Self::License100k | Self::Validate)
    }

    /// Whether a peer can do it.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::License0 | Self::License1k, Kind::DocumentServer) => true,
            (_, Kind::DocumentServer) => false,
            // Its own answers have to fit into one buffer of 16 KiB.
            (Self::License1k | Self::License100k, Kind::Haproxy) => false,
            (workload, Kind::Direct | Kind::Bare) => !workload.is_canned(),
            (_, Kind::Seatgate | Kind::Nginx | Kind::Haproxy) => true,
        }
    }
}
