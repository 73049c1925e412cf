//! Bytes that wait for a decision, bounded for a connection and for the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{HOLD_BUDGET, HOLD_LIMIT, Violation};

/// Withheld bytes, within the bounds of one connection and of the process.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
}

/// Bytes withheld by all connections.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Held {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
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
        let before = HELD_BYTES.fetch_add(bytes.len(), Ordering::Relaxed);
        // Counted first, so that the drop that follows a refusal takes off what was put on.
        self.bytes.extend_from_slice(bytes);
        if before + bytes.len() > HOLD_BUDGET {
            return Err(Violation::NoBudget);
        }
        Ok(())
    }

    /// Moves all of it to the end of `to`, and gives its memory back.
    pub(super) fn move_to(&mut self, to: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            return;
        }
        HELD_BYTES.fetch_sub(self.bytes.len(), Ordering::Relaxed);
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
        HELD_BYTES.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
