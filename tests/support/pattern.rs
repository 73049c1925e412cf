//! A long, cheap and position-dependent body, so that streams of any size can be checked without
//! being kept or hashed.

use std::sync::LazyLock;

use bytes::Bytes;

/// A prime, so that the pattern never lines up with buffers.
const PERIOD: usize = 65_521;

static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 1u32;
    (0..PERIOD)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect::<Vec<u8>>()
        .into()
});

/// The next piece of the pattern at `offset`, at most `limit` bytes long.
pub fn piece(offset: u64, limit: u64) -> Bytes {
    let start = (offset % PERIOD as u64) as usize;
    let length = (PERIOD - start).min(usize::try_from(limit).unwrap_or(usize::MAX));
    BLOCK.slice(start..start + length)
}

/// The first `length` bytes of the pattern.
pub fn bytes(length: usize) -> Vec<u8> {
    BLOCK.iter().copied().cycle().take(length).collect()
}

/// Checks pieces of any size against the pattern.
#[derive(Debug)]
pub struct Checker {
    pub length: u64,
    pub matches: bool,
}

impl Default for Checker {
    fn default() -> Self {
        Self { length: 0, matches: true }
    }
}

impl Checker {
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() && self.matches {
            let expected = piece(self.length, data.len() as u64);
            let (head, tail) = data.split_at(expected.len());
            self.matches = head == &expected[..];
            self.length += head.len() as u64;
            data = tail;
        }
        self.length += data.len() as u64;
    }
}
