//! What is being done, and how long the rest will take.

use std::time::{Duration, Instant};

use crate::options::Options;
use crate::peers::Kind;
use crate::workload::{Measure, Workload};

/// One measurement of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) workload: Workload,
    pub(crate) kind: Kind,
    pub(crate) round: usize,
}

/// All measurements in their order.
pub(crate) struct Plan {
    /// How long each will take, in seconds, as far as one can tell beforehand.
    expected: Vec<f64>,
    begun: usize,
    started: Instant,
    limit: Duration,
    is_cut_short: bool,
}

impl Plan {
    pub(crate) fn new(options: &Options, steps: Vec<Step>) -> Self {
        Self {
            expected: steps.iter().map(|step| expected(*step, options)).collect(),
            begun: 0,
            started: Instant::now(),
            limit: options.time_limit(),
            is_cut_short: false,
        }
    }

    /// Tells that a step begins; `false` if there is no time for it any more.
    pub(crate) fn begin(&mut self, step: Step) -> bool {
        let left: f64 = self.expected.iter().skip(self.begun).sum();
        self.begun += 1;
        if self.started.elapsed() > self.limit {
            self.is_cut_short = true;
            return false;
        }
        let Step { workload, kind, round } = step;
        eprintln!(
            "{:>4}/{}, about {} min {:02} s left: {} through {}, round {}",
            self.begun,
            self.expected.len(),
            left as u64 / 60,
            left as u64 % 60,
            workload.name(),
            kind.name(),
            round + 1
        );
        true
    }

    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }
}

fn expected(step: Step, options: &Options) -> f64 {
    let window = options.window().as_secs_f64();
    match (step.workload, step.workload.measure()) {
        (_, Measure::Latency) => window * 2.0 + 0.3,
        (Workload::Sessions, _) => {
            options.memory_settles().as_secs_f64() + 5.0 + options.sessions() as f64 / 1_000.0
        }
        (Workload::SoakOpens, _) => options.opens() as f64 / 3_500.0,
        (Workload::Growth, _) => f64::from(options.growth()) / 100_000.0,
        _ => window * 1.2 + 0.1,
    }
}
