//! Bytes that wait for a decision, bounded for a connection and for the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{HOLD_BUDGET, Violation};

/// Withheld bytes and the text they carry, within the bounds of one connection and of the process.
#[derive(Debug)]
pub(super) struct Held {
    /// The most raw bytes.
    limit: usize,
    bytes: Vec<u8>,
    text: Vec<u8>,
}

/// What each connection and direction may withhold outside of the budget, its text included.
const FREE_BYTES: usize = 128 * 1024;

/// Bytes withheld by all connections, and their texts.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Held {
    /// Nothing yet, and never more than `limit` raw bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new(), text: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that count against the budget of all: what every honest session needs is free, so
    /// that those who hold much cannot drive out those who hold little.
    fn counted(&self) -> usize {
        (self.bytes.len() + self.text.len()).saturating_sub(FREE_BYTES)
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
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(Violation::HeldTooLong { limit: self.limit });
        }
        let counted = self.counted();
        self.bytes.extend_from_slice(bytes);
        self.grow_from(counted)
    }

    /// The unmasked text of the withheld message so far.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Adds to the text.
    ///
    /// # Errors
    /// As for [`Self::extend`].
    pub(super) fn extend_text(&mut self, plain: &[u8]) -> Result<(), Violation> {
        let counted = self.counted();
        self.text.extend_from_slice(plain);
        self.grow_from(counted)
    }

    /// Forgets the text.
    pub(super) fn clear_text(&mut self) {
        let counted = self.counted();
        self.text = Vec::new();
        HELD_BYTES.fetch_sub(counted - self.counted(), Ordering::Relaxed);
    }

    /// Forgets the bytes.
    pub(super) fn clear(&mut self) {
        let counted = self.counted();
        self.bytes = Vec::new();
        HELD_BYTES.fetch_sub(counted - self.counted(), Ordering::Relaxed);
    }

    /// Takes what was added since `counted` out of the budget.
    fn grow_from(&self, counted: usize) -> Result<(), Violation> {
        let more = self.counted() - counted;
        if more > 0 && HELD_BYTES.fetch_add(more, Ordering::Relaxed) + more > HOLD_BUDGET {
            return Err(Violation::NoBudget);
        }
        Ok(())
    }

    /// Moves all bytes to the end of `to`, and gives their memory back.
    pub(super) fn move_to(&mut self, to: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            return;
        }
        if to.is_empty() {
            let counted = self.counted();
            *to = std::mem::take(&mut self.bytes);
            HELD_BYTES.fetch_sub(counted - self.counted(), Ordering::Relaxed);
        } else {
            to.extend_from_slice(&self.bytes);
            self.clear();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD_BYTES.fetch_sub(self.counted(), Ordering::Relaxed);
    }
}
