//! One run of a seed: its time, its last events, and what was found wrong.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Events that are told of a run that failed.
const EVENTS: usize = 400;

pub struct Run {
    started: Instant,
    told: bool,
    events: Mutex<VecDeque<String>>,
    wrong: Mutex<Option<String>>,
    digest: Mutex<DefaultHasher>,
}

impl Run {
    pub fn start(told: bool) -> Self {
        Self {
            started: Instant::now(),
            told,
            events: Mutex::default(),
            wrong: Mutex::default(),
            digest: Mutex::default(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes an event, if anybody wants to read it.
    pub fn log(&self, event: impl FnOnce() -> String) {
        if !self.told {
            return;
        }
        let mut events = self.events.lock();
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(format!("{:>9.3} {}", self.elapsed().as_secs_f64(), event()));
    }

    /// Takes what happened into the sum of the run, by which two runs are told apart.
    pub fn digest(&self, event: impl FnOnce() -> String) {
        let mut digest = self.digest.lock();
        (self.elapsed(), event()).hash(&mut *digest);
    }

    pub fn sum(&self) -> u64 {
        self.digest.lock().finish()
    }

    /// Something is wrong. The first word counts.
    pub fn fail(&self, why: &str) {
        let mut wrong = self.wrong.lock();
        if wrong.is_none() {
            self.log(|| format!("WRONG: {why}"));
            *wrong = Some(format!("at {:.3} s: {why}", self.elapsed().as_secs_f64()));
        }
    }

    pub fn wrong(&self) -> Option<String> {
        self.wrong.lock().clone()
    }

    pub fn events(&self) -> Vec<String> {
        self.events.lock().iter().cloned().collect()
    }
}
