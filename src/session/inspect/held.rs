//! Bytes that wait for a decision, bounded for a connection and for the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{HOLD_BUDGET, HOLD_LIMIT, Violation};

/// Withheld bytes, within the bounds of one connection and of the process.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
}

/// What each connection and direction may withhold outside of the budget.
const FREE_BYTES: usize = 64 * 1024;

/// Bytes withheld by all connections.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Held {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that count against the budget of all: what every honest session needs is free, so
    /// that those who hold much cannot drive out those who hold little.
    fn counted(&self) -> usize {
        self.bytes.len().saturating_sub(FREE_BYTES)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Withholds more.
    ///
    /// # Errors
    /// A bound is reached; the session must end.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.bytes.len() + bytes.len() > HOLD_LIMIT {
            return Err(Violation::HeldTooLong);
        }
        let counted = self.counted();
        self.bytes.extend_from_slice(bytes);
        let more = self.counted() - counted;
        if more > 0 && HELD_BYTES.fetch_add(more, Ordering::Relaxed) + more > HOLD_BUDGET {
            return Err(Violation::NoBudget);
        }
        Ok(())
    }

    /// Moves all of it to the end of `to`, and gives its memory back.
    pub(super) fn move_to(&mut self, to: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            return;
        }
        HELD_BYTES.fetch_sub(self.counted(), Ordering::Relaxed);
        if to.is_empty() {
            *to = std::mem::take(&mut self.bytes);
        } else {
            to.append(&mut self.bytes);
            self.bytes = Vec::new();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD_BYTES.fetch_sub(self.counted(), Ordering::Relaxed);
    }
}
