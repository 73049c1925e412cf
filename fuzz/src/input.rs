//! A fuzzer's bytes, taken apart.

/// Reads from the front; what is missing is zero or empty.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Two bytes, the high one first.
    pub(crate) fn word(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// A byte that counts to seven, and as many that say where to cut.
    pub(crate) fn cuts(&mut self) -> Vec<u8> {
        let count = self.byte() % 8;
        (0..count).map(|_| self.byte()).collect()
    }
}

/// `bytes` in pieces: each cut is a position in units of a 256th of the whole, so that small changes
/// of the input are small changes of the pieces.
pub(crate) fn pieces<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> =
        cuts.iter().map(|cut| (bytes.len() * usize::from(*cut)).div_ceil(256)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let mut start = 0;
    let mut pieces = Vec::with_capacity(ends.len());
    for end in ends {
        pieces.push(&bytes[start..end]);
        start = end;
    }
    pieces
}
