//! What the engine's user must be allowed: no more than what is used. docs/cluster.md states the
//! same, and a test holds the two and the sources together.

use std::sync::LazyLock;

use super::keys;
use crate::engine::{Arguments, Engine, EngineError, Script};

static ALLOWED: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/allowed.lua")));

/// Commands without which the gateway does not work, those of its scripts among them.
pub const NEEDED: [&str; 40] = [
    "del",
    "eval",
    "evalsha",
    "exists",
    "get",
    "hdel",
    "hexists",
    "hget",
    "hgetall",
    "hincrby",
    "hkeys",
    "hlen",
    "hmget",
    "hscan",
    "hset",
    "hsetnx",
    "hvals",
    "incr",
    "llen",
    "lrange",
    "ping",
    "publish",
    "rpush",
    "sadd",
    "sismember",
    "srandmember",
    "srem",
    "subscribe",
    "time",
    "unlink",
    "zadd",
    "zcard",
    "zcount",
    "zdiffstore",
    "zrange",
    "zrem",
    "zremrangebyrank",
    "zscan",
    "zscore",
    "cluster|slots",
];

/// Commands without which it sees less: settings that lose data, and a master that was demoted.
pub const HELPFUL: [&str; 3] = ["info", "config|get", "role"];

/// What the keys and channels begin with.
pub const PREFIX: &str = "seatgate:";

/// The needed commands that the user of the connection may not give, on a key or channel of ours.
///
/// # Errors
/// The engine's, such as that it may not even be asked.
pub async fn denied(engine: &Engine) -> Result<Vec<&'static str>, EngineError> {
    let key = keys::home("meta");
    let channel = format!("{PREFIX}changes");
    let mut arguments = Arguments::new();
    for name in NEEDED {
        let words = match name {
            "cluster|slots" => vec!["cluster", "slots"],
            "eval" | "evalsha" => vec![name, "return 1", "1", &key],
            "ping" | "time" => vec![name],
            // Each further argument would be a key.
            "del" | "exists" | "unlink" => vec![name, &key],
            "publish" => vec![name, &channel, ""],
            "subscribe" => vec![name, &channel],
            // As many arguments as any of them wants.
            "zdiffstore" => vec![name, &key, "1", &key],
            _ => vec![name, &key, "1", "1"],
        };
        arguments.push(serde_json::json!(words).to_string());
    }
    let places: Vec<usize> = engine.call(&ALLOWED, &[key], &arguments).await?;
    Ok(places.into_iter().filter_map(|place| NEEDED.get(place.checked_sub(1)?).copied()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The first word of each call of a command in the sources: `cmd("X"`, `call('X'`.
    fn called(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                called(&path, found);
            } else if (name.ends_with(".rs") && !name.contains("tests")) || name.ends_with(".lua") {
                let text = std::fs::read_to_string(&path).unwrap();
                for opening in ["cmd(\"", "call('"] {
                    for rest in text.split(opening).skip(1) {
                        let word: String =
                            rest.chars().take_while(|letter| letter.is_ascii_uppercase()).collect();
                        if word.len() > 1 {
                            found.insert(word.to_lowercase());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_called_is_what_is_listed() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = BTreeSet::from(["subscribe".to_owned()]);
        for room in ["cluster", "engine", "store/redis"] {
            called(&sources.join(room), &mut found);
        }
        // The client asks for the slots of a cluster by itself.
        let listed = NEEDED.iter().chain(&HELPFUL).filter(|name| **name != "cluster|slots");
        let listed: BTreeSet<String> =
            listed.map(|name| name.split('|').next().unwrap().to_owned()).collect();
        // EVAL is chosen by the script's length of life: see `engine::script`.
        assert_eq!(found, listed);
    }

    #[test]
    fn the_documentation_lists_the_same() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, rules) = page.split_once("ACL SETUSER gate ").unwrap();
        let (rules, _) = rules.split_once("```").unwrap();
        let stated: BTreeSet<&str> =
            rules.split_whitespace().filter_map(|rule| rule.strip_prefix('+')).collect();
        assert_eq!(stated, NEEDED.into_iter().chain(HELPFUL).collect());
        assert!(rules.contains(&format!("~{PREFIX}* &{PREFIX}* -@all")));
    }
}
