//! New licence keys, API keys and licence ids.
//!
//! Keys are written in Crockford's base 32, which has no letters that look like digits. The last
//! character of a licence key is a check: over GF(32) the characters, each times another power of
//! the generator, add up to nothing. One wrong character is always found, and so are any two that
//! changed places.

/// Crockford's base 32.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of a licence key without its prefix and hyphens: 29 of 5 bits (145), and the check.
const LENGTH: usize = 30;

const GROUP: usize = 6;

const PREFIX: &str = "LIC";

/// Characters of an API key: 160 bits.
const API_KEY_LENGTH: usize = 32;

/// Bytes of a licence id, which is written in hexadecimal digits.
const ID_BYTES: usize = 12;

/// The system has no random bytes to give.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

/// A new licence key: `LIC-` and five groups of six characters.
///
/// # Errors
/// [`NoRandomness`].
pub fn licence_key() -> Result<String, NoRandomness> {
    let mut values: Vec<u8> = random_values::<{ LENGTH - 1 }>()?.to_vec();
    values.push(check_value(&values));
    let mut key = String::from(PREFIX);
    for group in values.chunks(GROUP) {
        key.push('-');
        key.extend(group.iter().map(|value| symbol(*value)));
    }
    Ok(key)
}

/// A new API key.
///
/// # Errors
/// [`NoRandomness`].
pub fn api_key() -> Result<String, NoRandomness> {
    let values = random_values::<API_KEY_LENGTH>()?;
    let text: String = values.iter().map(|value| symbol(*value).to_ascii_lowercase()).collect();
    Ok(format!("key_{text}"))
}

/// A new licence id: 24 hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`].
pub fn licence_id() -> Result<String, NoRandomness> {
    let mut bytes = [0_u8; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A new app id.
///
/// # Errors
/// [`NoRandomness`].
pub fn app_id() -> Result<String, NoRandomness> {
    Ok(format!("app_{}", licence_id()?))
}

/// What a text is that may be a licence key of [`licence_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Good,
    /// It has the form of our keys, and its check character does not fit.
    Mistyped,
    /// Another form: operators choose keys, too.
    Other,
}

/// Looks at the form and the check character of a licence key.
pub fn form(key: &str) -> Form {
    let mut groups = key.split('-');
    if groups.next() != Some(PREFIX) {
        return Form::Other;
    }
    let mut values = Vec::with_capacity(LENGTH);
    for group in groups {
        if group.len() != GROUP {
            return Form::Other;
        }
        for byte in group.bytes() {
            // A letter outside of the alphabet is a mistake as well.
            match ALPHABET.iter().position(|known| *known == byte) {
                Some(value) => values.push(u8::try_from(value).unwrap_or(0)),
                None if byte.is_ascii_alphanumeric() => return other_or_mistyped(key),
                None => return Form::Other,
            }
        }
    }
    match values.split_last() {
        Some((check, data)) if values.len() == LENGTH => {
            if *check == check_value(data) {
                Form::Good
            } else {
                Form::Mistyped
            }
        }
        _ => Form::Other,
    }
}

fn other_or_mistyped(key: &str) -> Form {
    if key.len() == PREFIX.len() + LENGTH + LENGTH / GROUP { Form::Mistyped } else { Form::Other }
}

/// The character that makes `Σ value · αⁿ` nothing, by Horner's rule.
fn check_value(data: &[u8]) -> u8 {
    data.iter().fold(0, |sum, value| times_generator(sum ^ value))
}

/// Times α in GF(32), by the primitive polynomial x⁵ + x² + 1.
fn times_generator(value: u8) -> u8 {
    let doubled = value << 1;
    if doubled & 0b10_0000 == 0 { doubled } else { doubled ^ 0b10_0101 }
}

fn symbol(value: u8) -> char {
    ALPHABET.get(usize::from(value & 31)).map_or('0', |byte| char::from(*byte))
}

fn random_values<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut values = [0_u8; N];
    getrandom::fill(&mut values).map_err(NoRandomness)?;
    // A byte's five low bits are as even as its eight.
    for value in &mut values {
        *value &= 31;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_have_their_form() {
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            let key = licence_key().unwrap();
            assert_eq!(key.len(), 3 + 5 * 7, "{key}");
            assert_eq!(form(&key), Form::Good, "{key}");
            assert!(seen.insert(key));
            let id = licence_id().unwrap();
            assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            assert!(api_key().unwrap().len() == 36);
        }
    }

    #[test]
    fn the_generator_runs_through_all_values() {
        let mut value = 1;
        let powers: HashSet<u8> = (0..31)
            .map(|_| {
                value = times_generator(value);
                value
            })
            .collect();
        assert_eq!(powers.len(), 31);
        assert!(!powers.contains(&0));
    }

    #[test]
    fn other_keys_are_not_judged() {
        for key in ["", "LIC", "LIC-ABCDEF-123456-XYZ", "my-key", "LIC-ÄÄÄ-123456"] {
            assert_eq!(form(key), Form::Other, "{key}");
        }
    }

    #[test]
    fn every_single_wrong_character_of_a_key_is_found() {
        let key = licence_key().unwrap();
        for at in (0..key.len()).filter(|at| *at > 3 && (at - 3) % 7 != 0) {
            for wrong in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
                let mut bytes = key.clone().into_bytes();
                if bytes[at] != *wrong {
                    bytes[at] = *wrong;
                    let wrong = String::from_utf8(bytes).unwrap();
                    assert_eq!(form(&wrong), Form::Mistyped, "{wrong}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn one_wrong_character_or_two_swapped_are_found(
            values in prop::collection::vec(0_u8..32, LENGTH - 1),
            at in 0..LENGTH,
            other in 0..LENGTH,
            error in 1_u8..32,
        ) {
            let mut whole = values;
            whole.push(check_value(&whole));
            let good = |values: &[u8]| check_value(&values[..LENGTH - 1]) == values[LENGTH - 1];
            prop_assert!(good(&whole));
            let mut wrong = whole.clone();
            wrong[at] ^= error;
            prop_assert!(!good(&wrong));
            let mut swapped = whole.clone();
            swapped.swap(at, other);
            prop_assert_eq!(good(&swapped), whole[at] == whole[other]);
        }
    }
}
