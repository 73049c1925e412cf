//! Whether the threads that serve the public still turn.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often each beats.
const BEAT: Duration = Duration::from_millis(250);

/// When each thread last gave its turn to a task that only wants to be called.
#[derive(Debug)]
pub struct Pulse {
    last: Box<[Mutex<Instant>]>,
}

impl Pulse {
    /// The pulse of so many threads, which have all just been alive.
    pub fn new(threads: usize) -> Self {
        let now = Instant::now();
        Self { last: (0..threads).map(|_| Mutex::new(now)).collect() }
    }

    /// For how long the thread that is silent longest was.
    pub fn silence(&self) -> Duration {
        self.last.iter().map(|last| last.lock().elapsed()).max().unwrap_or_default()
    }

    /// Beats for a thread, for ever.
    pub(super) async fn beat(&self, thread: usize) {
        let Some(last) = self.last.get(thread) else { return std::future::pending().await };
        let mut turn = tokio::time::interval(BEAT);
        loop {
            turn.tick().await;
            *last.lock() = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_silent_thread_is_enough() {
        let pulse = Pulse::new(2);
        let noticed = async {
            while pulse.silence() < BEAT * 2 {
                tokio::time::sleep(BEAT / 10).await;
            }
        };
        let both = async { tokio::join!(pulse.beat(0), pulse.beat(1)) };
        tokio::select! {
            () = noticed => panic!("both beat"),
            _ = both => panic!("they stop"),
            () = tokio::time::sleep(BEAT * 4) => {}
        }
        let noticed = async {
            while pulse.silence() < BEAT * 2 {
                tokio::time::sleep(BEAT / 10).await;
            }
        };
        tokio::select! {
            () = noticed => {}
            () = pulse.beat(1) => panic!("it stops"),
            () = tokio::time::sleep(BEAT * 40) => panic!("nobody noticed"),
        }
    }
}
