//! The kinds of values that stand as strings in the files: texts, names, durations, sizes, dates.
//!
//! Pure: text to strong types. Each [`Kind`] carries the words for its errors.

use std::time::Duration;

use jiff::Timestamp;

/// A kind of value: how it is parsed, and what to say when it cannot be.
pub(super) struct Kind<T> {
    /// With its article: "a duration".
    pub(super) wanted: &'static str,
    pub(super) mend: &'static str,
    /// The mend where a list of these belongs.
    pub(super) list_mend: &'static str,
    /// Values that may hold a password or token are not repeated in errors.
    pub(super) confidential: bool,
    pub(super) parse: fn(&str) -> Result<T, Fault>,
}

/// Why a text is not of its kind, where that is more than "it is not".
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: Option<&'static str>,
    /// Instead of the kind's own mend.
    pub(super) mend: Option<&'static str>,
}

impl Fault {
    pub(super) const PLAIN: Self = Self { what: None, mend: None };

    pub(super) const fn because(what: &'static str) -> Self {
        Self { what: Some(what), mend: None }
    }

    pub(super) const fn mend(what: &'static str, mend: &'static str) -> Self {
        Self { what: Some(what), mend: Some(mend) }
    }
}

const LIST: &str = "write it in brackets, such as [\"…\"]";

pub(super) const fn kind<T>(
    wanted: &'static str,
    mend: &'static str,
    parse: fn(&str) -> Result<T, Fault>,
) -> Kind<T> {
    Kind { wanted, mend, list_mend: LIST, confidential: false, parse }
}

/// Any text on one line, also an empty one.
pub(super) const TEXT: Kind<String> = kind("a text", "write it in quotes, on one line", |text| {
    if text.chars().any(char::is_control) {
        return Err(Fault::because("has a line break or control character"));
    }
    Ok(text.to_owned())
});

/// A name or identifier: printable, without spaces, at most 128 characters.
pub(super) const IDENTIFIER: Kind<String> =
    kind("an identifier", "write 1 to 128 characters without spaces", |text| {
        let good = |c: char| !c.is_control() && !c.is_whitespace();
        let length = text.chars().count();
        if (1..=128).contains(&length) && text.chars().all(good) {
            Ok(text.to_owned())
        } else {
            Err(Fault::PLAIN)
        }
    });

/// What can be a key or identifier in an HTTP header's value.
pub(super) const HEADER_TEXT: Kind<String> =
    kind("a header value", "write 1 to 256 visible ASCII characters without spaces", |text| {
        if (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(Fault::PLAIN)
        }
    });

/// The same, not to be repeated in errors.
pub(super) const KEY: Kind<String> = Kind { wanted: "a key", confidential: true, ..HEADER_TEXT };

/// A tenant's name.
pub(super) const TENANT_NAME: Kind<String> = kind(
    "a tenant's name",
    "write 1 to 64 letters, digits, \".\", \"-\" or \"_\", beginning with a letter or digit",
    |text| {
        let good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.eq_ignore_ascii_case(crate::tenant::DEFAULT_TENANT) {
            return Err(Fault::mend(
                "is the tenant of all other hosts",
                "choose another name; [licences] default names its licence",
            ));
        }
        let length = text.chars().count();
        let first = text.chars().next().is_some_and(char::is_alphanumeric);
        if first && length <= 64 && text.chars().all(good) {
            Ok(text.to_owned())
        } else {
            Err(Fault::PLAIN)
        }
    },
);

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// "30s", "500ms", "10m", "1h", "1h30m": whole numbers, larger units first.
pub(super) const DURATION: Kind<Duration> = kind(
    "a duration",
    "write it as a string with a unit (ms, s, m, h, d), such as \"30s\"",
    |text| {
        let mut rest = text;
        let mut total: u64 = 0;
        let mut last = u64::MAX;
        while !rest.is_empty() {
            let (number, after) = leading_number(rest).ok_or(Fault::PLAIN)?;
            let unit_length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_length);
            let (_, factor) =
                DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or(Fault::PLAIN)?;
            if *factor >= last {
                return Err(Fault::PLAIN);
            }
            last = *factor;
            total = number
                .checked_mul(*factor)
                .and_then(|part| total.checked_add(part))
                .ok_or(Fault::because("is too long"))?;
            rest = after;
        }
        if text.is_empty() { Err(Fault::PLAIN) } else { Ok(Duration::from_millis(total)) }
    },
);

/// A duration in the syntax of [`DURATION`], to the millisecond.
pub(super) fn tell_duration(duration: &Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut told = String::new();
    for (unit, factor) in DURATION_UNITS {
        if rest >= factor {
            told.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if told.is_empty() { "0s".to_owned() } else { told }
}

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// "16MiB", "64KiB", "5MB": bytes.
pub(super) const SIZE: Kind<u64> = kind(
    "a size",
    "write it as a string with a unit (B, KiB, MiB, GiB), such as \"16MiB\"",
    |text| {
        let (number, unit) = leading_number(text).ok_or(Fault::PLAIN)?;
        let unit = unit.trim_start_matches(' ');
        let unit = if unit == "KB" { "kB" } else { unit };
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(Fault::PLAIN)?;
        number.checked_mul(*factor).ok_or(Fault::because("is too large"))
    },
);

/// A size in the syntax of [`SIZE`], exactly.
pub(super) fn tell_size(bytes: &u64) -> String {
    for (unit, factor) in SIZE_UNITS.iter().take(3) {
        if *bytes >= *factor && bytes.is_multiple_of(*factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    Some((digits.parse().ok()?, rest))
}

/// An instant as the document server prints it: ISO 8601, UTC, milliseconds.
pub(super) const BUILD_DATE: Kind<String> =
    kind("a date", "write it in quotes, such as \"2026-03-29T00:00:00.000Z\"", |text| {
        text.parse::<Timestamp>().map(|at| format!("{at:.3}")).map_err(|_| Fault::PLAIN)
    });

/// `tracing`'s filter syntax, but that the name of another crate stands with its level.
pub(super) const LOG_FILTER: Kind<String> = kind(
    "a log filter",
    "write a level (error, warn, info, debug, trace, off) or \"info,seatgate=debug\"",
    |text| {
        // The parser panics where a space stands before a longer character. Targets have none.
        if !text.is_ascii() {
            return Err(Fault::PLAIN);
        }
        let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
        // A bare word that is no level is the name of a module to the filter: it would take
        // "verbose", and log nothing.
        let is_directive = |word: &str| {
            word.contains(['=', '['])
                || word == "seatgate"
                || word.contains("::")
                || word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
        };
        if words().next().is_none() {
            return Err(Fault::PLAIN);
        }
        if !words().all(is_directive) {
            return Err(Fault::mend(
                "has a word that is no level",
                "the levels are error, warn, info, debug, trace and off; \
                 write a module with its level, such as \"info,seatgate=debug\"",
            ));
        }
        // To the filter a space is a part of the module's name, which then matches nothing.
        let filter = words().collect::<Vec<_>>().join(",");
        match tracing_subscriber::EnvFilter::builder().parse(&filter) {
            Ok(_) => Ok(filter),
            Err(_) => Err(Fault::PLAIN),
        }
    },
);

/// A value in quotes, for an error: escaped, and cut where it is long.
pub(super) fn echo(text: &str) -> String {
    const MOST: usize = 60;
    let shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    format!("\"{shown}{more}\"")
}

/// `write "a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => format!("write {last}"),
        Some((last, others)) => format!("write {} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The known key that was probably meant.
pub(super) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    // No key of ours is that long, and the comparison is quadratic.
    if key.len() > 64 {
        return None;
    }
    let key = key.to_lowercase().replace('-', "_");
    let score = |known: &str| {
        let near = strsim::normalized_damerau_levenshtein(&key, known);
        let part =
            key.len() >= 4 && known.contains(&key) || known.len() >= 4 && key.contains(known);
        if part { near.max(0.65) } else { near }
    };
    let scored = known.iter().map(|known| (score(known), *known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score >= 0.6).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1d2h3m4s5ms", Some(93_784_005)),
            ("0s", Some(0)),
            ("007s", Some(7_000)),
            ("30", None),
            ("", None),
            ("s", None),
            ("30 s", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1S", None),
            ("30m1h", None),
            ("1s1s", None),
            ("30s ", None),
            ("18446744073709551615d", None),
            ("99999999999999999999s", None),
        ] {
            let parsed = (DURATION.parse)(text).ok();
            assert_eq!(parsed, expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("16MiB", Some(16 << 20)),
            ("64KiB", Some(64 << 10)),
            ("1 GiB", Some(1 << 30)),
            ("5MB", Some(5_000_000)),
            ("5kB", Some(5_000)),
            ("5KB", Some(5_000)),
            ("0B", Some(0)),
            ("16", None),
            ("16M", None),
            ("16mib", None),
            ("-1B", None),
            ("1.5MiB", None),
            ("", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!((SIZE.parse)(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for good in [
            "error",
            "WARN",
            "info",
            "debug",
            "trace",
            "off",
            "seatgate::session=trace",
            "info,seatgate=debug",
            "seatgate=off,warn,",
            "warn,seatgate::gateway",
            "seatgate",
            "info,seatgate[request{path=/x}]=debug",
            "[request]=trace",
        ] {
            assert_eq!((LOG_FILTER.parse)(good), Ok(good.trim_end_matches(',').to_owned()));
        }
        assert_eq!(
            (LOG_FILTER.parse)(" info, seatgate=debug"),
            Ok("info,seatgate=debug".to_owned())
        );
        for bad in [
            "",
            " ",
            ",",
            "inof",
            "warning",
            "verbose",
            "information",
            "notice",
            "none",
            "all",
            "info,verbose",
            "debgu,seatgate=info",
            "seatgate=loud",
            "seatgate=verbose",
            "a=b=c",
            " é=",
        ] {
            assert!((LOG_FILTER.parse)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn suggestions_are_near() {
        let known = ["listen", "read_timeout", "licence", "hosts"];
        for (key, expected) in [
            ("lisen", Some("listen")),
            ("read-timeout", Some("read_timeout")),
            ("timeout", Some("read_timeout")),
            ("license", Some("licence")),
            ("Host", Some("hosts")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(key, &known), expected, "{key}");
        }
        assert_eq!(nearest(&"listen".repeat(1_000_000), &known), None);
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!((DURATION.parse)(&tell_duration(&duration)), Ok(duration));
        }

        #[test]
        fn sizes_round_trip(bytes: u64, shift in 0..64_u32) {
            let bytes = bytes >> shift << (shift % 33);
            prop_assert_eq!((SIZE.parse)(&tell_size(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = (DURATION.parse)(&text);
            let _ = (SIZE.parse)(&text);
            let _ = (BUILD_DATE.parse)(&text);
            let _ = (LOG_FILTER.parse)(&text);
            let _ = (TENANT_NAME.parse)(&text);
            prop_assert!(echo(&text).chars().all(|c| !c.is_control()));
        }
    }
}
