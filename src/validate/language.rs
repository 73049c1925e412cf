//! Which language a client reads: `Accept-Language` (RFC 9110 section 12.5.4).

use crate::config::Language;

const LANGUAGES: [(Language, &str); 2] = [(Language::Zh, "zh"), (Language::En, "en")];

/// The best quality, in thousandths.
const BEST: u16 = 1000;

/// The language for a client that accepts `accepted`; `configured` where it does not say, or
/// says `*`, or wants none that we have.
pub fn negotiate(accepted: Option<&str>, configured: Language) -> Language {
    let ranges = accepted.unwrap_or_default().split(',').enumerate();
    let ranges: Vec<_> = ranges.filter_map(|(place, range)| Some((place, read(range)?))).collect();
    let wish = |language: Language| {
        let tag = LANGUAGES.iter().find(|(known, _)| *known == language).map(|(_, tag)| *tag);
        let named = ranges.iter().filter(|(_, (range, _))| {
            tag.is_some_and(|tag| {
                let primary = range.split('-').next().unwrap_or_default();
                primary.eq_ignore_ascii_case(tag)
            })
        });
        // `zh-TW;q=0.5, zh` is somebody who reads Chinese.
        let named = named.max_by_key(|(place, (_, quality))| (*quality, usize::MAX - place));
        named.or_else(|| ranges.iter().find(|(_, (range, _))| *range == "*"))
    };
    let other = match configured {
        Language::Zh => Language::En,
        Language::En => Language::Zh,
    };
    let rank = |language| wish(language).map(|(place, (_, quality))| (*quality, *place));
    match (rank(configured), rank(other)) {
        (Some((0, _)), None) => other,
        (None | Some((0, _)), Some((quality, _))) if quality > 0 => other,
        (Some((mine, at)), Some((theirs, before)))
            if theirs > mine || (theirs == mine && theirs > 0 && before < at) =>
        {
            other
        }
        (None | Some(_), None | Some(_)) => configured,
    }
}

/// A range and its quality; `None` for what is neither.
fn read(range: &str) -> Option<(&str, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    let mut quality = BEST;
    for part in parts {
        let (name, value) = part.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("q") {
            quality = read_quality(value.trim())?;
        }
    }
    Some((tag, quality))
}

/// `0`, `1`, `0.5`, `0.123`, `1.000`: at most three digits behind the point.
fn read_quality(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || part.len() > 3 || !digits(part) {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    let quality = if whole == "1" { BEST + part } else { part };
    (quality <= BEST).then_some(quality)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_get_what_they_read() {
        use Language::{En, Zh};
        for (accepted, when_zh, when_en) in [
            ("", Zh, En),
            ("*", Zh, En),
            ("en", En, En),
            ("zh", Zh, Zh),
            ("zh-CN,zh;q=0.9,en;q=0.8", Zh, Zh),
            ("en-US,en;q=0.9,zh-CN;q=0.8", En, En),
            ("EN-gb", En, En),
            ("zh-Hans-CN", Zh, Zh),
            ("de", Zh, En),
            ("de, en;q=0.1", En, En),
            ("de, *;q=0.1", Zh, En),
            ("en;q=0.5, zh;q=0.6", Zh, Zh),
            ("en;q=0.5, zh;q=0.50", En, En),
            ("zh;q=0.5, en;q=0.5", Zh, Zh),
            ("en;q=0.5, *", Zh, Zh),
            ("en, *;q=0.5", En, En),
            ("zh;q=0", En, En),
            ("en;q=0", Zh, Zh),
            ("zh;q=0, en;q=0", Zh, En),
            ("zh;q=0, *", En, En),
            ("*;q=0", Zh, En),
            ("en;q=2", Zh, En),
            ("en;q=0.1234", Zh, En),
            ("en;q=x, zh;q=0.1", Zh, Zh),
            ("enx, zhx", Zh, En),
            (";;;,,=,q=1", Zh, En),
            ("en ; q = 0.5 , zh ; q=0.4", En, En),
        ] {
            for (configured, expected) in [(Zh, when_zh), (En, when_en)] {
                assert_eq!(negotiate(Some(accepted), configured), expected, "{accepted}");
            }
        }
        assert_eq!(negotiate(None, En), En);
    }

    proptest! {
        #[test]
        fn any_header_is_read(text in any::<String>(), ascii in "[a-z*;=,0-9. q-]{0,60}") {
            for text in [text, ascii] {
                negotiate(Some(&text), Language::Zh);
            }
        }
    }
}
