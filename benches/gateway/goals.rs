//! What Seatgate is to reach: ratios to a peer in the same run.

use crate::figures::{Figures, p50, p99, rate};
use crate::peers::Kind;
use crate::workload::Workload;

/// A goal and what was measured.
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    /// What must hold, and what it should be; as ratios unless the name says otherwise.
    pub(crate) floor: f64,
    pub(crate) aim: f64,
    /// Whether less is better.
    pub(crate) is_limit: bool,
    pub(crate) measured: Option<f64>,
}

impl Goal {
    pub(crate) fn verdict(&self) -> &'static str {
        let reaches = |goal: f64| match self.measured {
            Some(measured) if self.is_limit => measured <= goal,
            Some(measured) => measured >= goal,
            None => false,
        };
        match (self.measured, reaches(self.aim), reaches(self.floor)) {
            (None, _, _) => "not measured",
            (_, true, _) => "aim reached",
            (_, _, true) => "floor reached",
            _ => "**missed**",
        }
    }
}

/// The goals, with what was measured.
pub(crate) fn goals(figures: &Figures) -> Vec<Goal> {
    let beside = |workload, to| figures.ratio(workload, Kind::Seatgate, to, rate);
    let nginx = |workload| beside(workload, Kind::Nginx);
    let slower = |workload, of| figures.ratio(workload, Kind::Seatgate, Kind::Nginx, of);
    let at_least =
        |name, floor, aim, measured| Goal { name, floor, aim, is_limit: false, measured };
    let at_most = |name, floor, aim, measured| Goal { name, floor, aim, is_limit: true, measured };
    vec![
        at_least(
            "license command, 1,000 users, to the document server's own",
            20.0,
            100.0,
            beside(Workload::License1k, Kind::DocumentServer),
        ),
        at_least(
            "license command, no users, to nginx `return 200`",
            0.6,
            1.0,
            nginx(Workload::License0),
        ),
        at_least(
            "license command, 1,000 users, to nginx `return 200`",
            0.6,
            1.0,
            nginx(Workload::License1k),
        ),
        at_least(
            "license command, 100,000 users, to nginx with a file",
            0.6,
            1.0,
            nginx(Workload::License100k),
        ),
        at_least(
            "validation of a bound device, to nginx `return 200`",
            0.5,
            0.8,
            nginx(Workload::Validate),
        ),
        at_least("GET 1 KiB, to nginx", 0.45, 0.9, nginx(Workload::Http1k)),
        at_least("GET 64 KiB, to nginx", 0.55, 1.0, nginx(Workload::Http64k)),
        at_least("WebSocket echo, to nginx", 0.85, 1.0, nginx(Workload::WsEcho)),
        at_least("WebSocket echo, to HAProxy", 0.85, 1.0, beside(Workload::WsEcho, Kind::Haproxy)),
        at_least("16 KiB streams up, to nginx", 1.3, 1.5, nginx(Workload::Ws16kUp)),
        at_least("16 KiB streams down, to nginx", 1.3, 1.5, nginx(Workload::Ws16kDown)),
        at_least("open, auth, close, to nginx", 0.85, 1.0, nginx(Workload::WsOpen)),
        at_most(
            "memory of an idle session, to nginx",
            2.5,
            1.0,
            figures.memory_ratio(Kind::Seatgate, Kind::Nginx),
        ),
        at_most("GET at 1,000/s, p99, to nginx", 1.3, 1.0, slower(Workload::HttpPaced, p99)),
        at_most("WebSocket every 10 ms, p99, to nginx", 1.3, 1.0, slower(Workload::WsPaced, p99)),
        at_least(
            "echo inspected, to not inspected",
            0.97,
            1.0,
            figures.ratio_within(Workload::WsEcho, Workload::WsEchoPlain),
        ),
        at_least(
            "16 KiB up inspected, to not inspected",
            0.97,
            1.0,
            figures.ratio_within(Workload::Ws16kUp, Workload::Ws16kUpPlain),
        ),
        at_least(
            "16 KiB down inspected, to not inspected",
            0.97,
            1.0,
            figures.ratio_within(Workload::Ws16kDown, Workload::Ws16kDownPlain),
        ),
        at_most(
            "polling round trip, p50, µs more than direct",
            150.0,
            150.0,
            figures.added(Workload::Polling, Kind::Seatgate, Kind::Direct, p50),
        ),
        at_most(
            "polling round trip, p99, µs more than direct",
            150.0,
            150.0,
            figures.added(Workload::Polling, Kind::Seatgate, Kind::Direct, p99),
        ),
    ]
}
