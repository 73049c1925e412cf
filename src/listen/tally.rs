//! Counting what must not be cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many things of a kind are under way.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicUsize>);

impl Tally {
    /// Counts one more for as long as the guard lives.
    pub fn begin(&self) -> Busy {
        self.0.fetch_add(1, Ordering::SeqCst);
        Busy(self.clone())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts something under way for as long as it lives.
#[derive(Debug)]
pub struct Busy(Tally);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
