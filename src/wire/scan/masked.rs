//! Finds the end of a JSON string while the mask of its frame is still on (RFC 6455, section 5.3).
//!
//! A client's changes are one long string with many escaped quotes. Of each block of it two bitmaps are made,
//! of its quotes and of its backslashes, which costs a fifth of copying it, taking the mask off, and
//! going from one quote to the next.

use wide::u8x16;

use crate::wire::websocket::Mask;

/// Where a string ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StringEnd {
    /// Index of the quote that closes it.
    At(usize),
    /// Behind these bytes, which end within an escape or not.
    Beyond { escaped: bool },
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// The bytes of a vector.
const LANES: usize = 16;

/// Looks for the end of the string that goes on with `bytes`. The first of them stands behind a
/// backslash if it is `escaped`.
pub(super) fn find_end(bytes: &[u8], mask: Mask, mut escaped: bool) -> StringEnd {
    let quote = masked(b'"', mask);
    let backslash = masked(b'\\', mask);
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (number, block) in blocks.iter().enumerate() {
        let backslashes = places(block, backslash);
        let behind_one = backslashes << 1 | u64::from(escaped);
        if backslashes & behind_one != 0 {
            // Backslashes that escape one another are rare.
            match step_through(block, mask, &mut escaped) {
                Some(at) => return StringEnd::At(number * BLOCK + at),
                None => continue,
            }
        }
        let ends = places(block, quote) & !behind_one;
        if ends != 0 {
            return StringEnd::At(number * BLOCK + ends.trailing_zeros() as usize);
        }
        escaped = backslashes >> (BLOCK - 1) != 0;
    }
    match step_through(rest, mask, &mut escaped) {
        Some(at) => StringEnd::At(blocks.len() * BLOCK + at),
        None => StringEnd::Beyond { escaped },
    }
}

/// A vector of a byte as the mask makes it.
fn masked(byte: u8, mask: Mask) -> u8x16 {
    u8x16::new(std::array::from_fn(|lane| byte ^ mask.at(lane)))
}

/// A bit for each byte of the block that is like the vector's.
fn places(block: &[u8; BLOCK], wanted: u8x16) -> u64 {
    let (quarters, _) = block.as_chunks::<LANES>();
    quarters.iter().rev().fold(0, |places, quarter| {
        places << LANES | u64::from(u8x16::new(*quarter).simd_eq(wanted).to_bitmask())
    })
}

/// The same byte by byte; `escaped` becomes what it is behind them.
fn step_through(bytes: &[u8], mask: Mask, escaped: &mut bool) -> Option<usize> {
    bytes.iter().enumerate().position(|(at, byte)| {
        let byte = byte ^ mask.at(at);
        let ends = byte == b'"' && !*escaped;
        *escaped = byte == b'\\' && !*escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::websocket::unmask;

    /// The same, byte by byte and without a mask.
    fn plainly(plain: &[u8], mut escaped: bool) -> StringEnd {
        for (at, byte) in plain.iter().enumerate() {
            match (escaped, byte) {
                (true, _) => escaped = false,
                (false, b'"') => return StringEnd::At(at),
                (false, b'\\') => escaped = true,
                (false, _) => {}
            }
        }
        StringEnd::Beyond { escaped }
    }

    proptest! {
        #[test]
        fn it_is_where_it_is_without_the_mask(
            text in r#"([a-z]{0,90}|(\\"|\\n){0,6}|\\{0,9}|(\\\\){0,40}|\PC{0,9}){0,12}"#,
            key: [u8; 4],
            offset in 0u64..8,
            escaped: bool,
        ) {
            let mut masked = text.clone().into_bytes();
            unmask(&mut masked, key, offset);
            let found = find_end(&masked, Mask::new(key, offset), escaped);
            prop_assert_eq!(found, plainly(text.as_bytes(), escaped));
        }
    }
}
