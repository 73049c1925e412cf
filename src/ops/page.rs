//! The status page: one document with its style and its script inside, and the policy under which
//! browsers show it.
//!
//! The policy lets nothing in but the page's own style and script, by their hashes, and lets it
//! talk to nobody but this listener. Trusted Types forbid whatever would make markup of a text.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The document; the style and the script go into their places.
const DOCUMENT: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
/// One script, in parts: words, drawing, the page.
const SCRIPTS: [&str; 5] = [
    include_str!("page/words.js"),
    include_str!("page/build.js"),
    include_str!("page/chart.js"),
    include_str!("page/tenants.js"),
    include_str!("page/app.js"),
];

const STYLE_PLACE: &str = "/*style*/";
const SCRIPT_PLACE: &str = "/*script*/";

/// The page as it is served.
pub struct Page {
    pub html: String,
    /// The value of `Content-Security-Policy`.
    pub policy: String,
}

/// The page, made once.
pub static PAGE: LazyLock<Page> = LazyLock::new(|| {
    // In a block: its names are no properties of the window.
    let script = format!("\"use strict\";\n{{\n{}}}\n", SCRIPTS.concat());
    let html = DOCUMENT.replacen(STYLE_PLACE, STYLE, 1).replacen(SCRIPT_PLACE, &script, 1);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(&script),
        hash(STYLE)
    );
    Page { html, policy }
});

/// A source expression for the text of an element (Content Security Policy, `hash-source`).
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_names_nobody_else() {
        let Page { html, policy } = &*PAGE;
        assert!(html.contains(STYLE) && SCRIPTS.iter().all(|script| html.contains(script)));
        for place in [STYLE_PLACE, SCRIPT_PLACE] {
            assert!(!html.contains(place), "{place} is left");
        }
        assert_eq!(html.matches("<script").count(), 1);
        assert_eq!(html.matches("</script").count(), 1, "the script does not end early");
        for part in ["http:", "https:", "//cdn", "@import", "url(", " style=\"", " onclick"] {
            let elsewhere = html.replace("http://www.w3.org/", "");
            assert!(!elsewhere.contains(part), "{part}");
        }
        assert!(!policy.contains("unsafe"));
    }

    /// The words of each language: keys, and the values that are put in.
    fn words() -> Vec<Vec<(String, Vec<String>)>> {
        let text = SCRIPTS[0].split("\n};").next().unwrap();
        let languages = text.split(": {\n").skip(1);
        let word = |entry: &str| {
            let (key, value) = entry.split_once(": \"")?;
            let key = key.rsplit([' ', '\n']).next()?.to_owned();
            let mut values: Vec<String> = value
                .split('{')
                .skip(1)
                .filter_map(|part| part.split_once('}').map(|(name, _)| name.to_owned()))
                .collect();
            values.sort();
            Some((key, values))
        };
        languages.map(|language| language.split("\",").filter_map(word).collect()).collect()
    }

    #[test]
    fn both_languages_say_the_same_things() {
        let [english, chinese] = &words()[..] else { panic!("two languages") };
        assert!(english.len() > 100);
        for ((ours, values), (theirs, others)) in english.iter().zip(chinese) {
            assert_eq!((ours, values), (theirs, others));
            let times = english.iter().filter(|(key, _)| key == ours).count();
            assert_eq!(times, 1, "{ours} is there twice");
        }
        assert_eq!(english.len(), chinese.len());
        for key in DOCUMENT.split("data-word=\"").skip(1) {
            let key = key.split('"').next().unwrap();
            assert!(english.iter().any(|(known, _)| known == key), "{key}");
        }
    }

    #[test]
    fn the_script_makes_no_markup_of_text() {
        for script in SCRIPTS {
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!script.contains(sink), "{sink}");
            }
        }
    }
}
