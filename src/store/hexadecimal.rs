//! 32 bytes as 64 hexadecimal digits.

pub(super) fn write(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn read(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    let mut pairs = digits.as_bytes().chunks(2);
    for byte in &mut bytes {
        let pair = std::str::from_utf8(pairs.next()?).ok()?;
        if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(bytes)
}
