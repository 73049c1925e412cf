//! The model of the commands against a real Redis: the same commands, the same answers.

use std::collections::BTreeSet;

use redis::Value;

use super::engine::RedisServer;
use super::keyspace::{Bytes, Keyspace, Reply};

/// Commands of a run.
const COMMANDS: usize = 20_000;

/// A command as the script could give it, at few keys and members, so that they meet.
fn command(chance: &mut fastrand::Rng) -> Vec<String> {
    let key = |chance: &mut fastrand::Rng, kind: &str| format!("{kind}{}", chance.u8(0..3));
    let member = |chance: &mut fastrand::Rng| format!("m{}", chance.u8(0..6));
    let score = |chance: &mut fastrand::Rng| match chance.u8(0..4) {
        0 => chance.u64(1_767_225_600_000..1_767_225_600_010).to_string(),
        1 => "1767225600".to_owned(),
        _ => chance.i8(-5..5).to_string(),
    };
    let bound = |chance: &mut fastrand::Rng| match chance.u8(0..5) {
        0 => "-inf".to_owned(),
        1 => "+inf".to_owned(),
        2 => format!("({}", chance.i8(-5..5)),
        _ => chance.i8(-5..5).to_string(),
    };
    // Now and then a key of another kind.
    let odd = chance.u8(0..40) == 0;
    let (h, z, s) = if odd { ("z", "s", "h") } else { ("h", "z", "s") };
    let (hash, sorted, set) = (key(chance, h), key(chance, z), key(chance, s));
    let words: Vec<String> = match chance.u8(0..29) {
        0 | 1 => vec!["HSET".into(), hash, member(chance), chance.i8(..).to_string()],
        2 => {
            let (one, other) = (member(chance), member(chance));
            vec!["HSET".into(), hash, one, "x".into(), other, "1".into()]
        }
        3 => vec!["HGET".into(), hash, member(chance)],
        4 => vec!["HMGET".into(), hash, member(chance), member(chance)],
        5 => vec!["HDEL".into(), hash, member(chance), member(chance)],
        6 => vec!["HINCRBY".into(), hash, member(chance), chance.i8(-2..2).to_string()],
        7 => vec!["HEXISTS".into(), hash, member(chance)],
        8 => vec!["HLEN".into(), hash],
        9 => vec!["HKEYS".into(), hash],
        10 => vec!["HVALS".into(), hash],
        11 => vec!["HGETALL".into(), hash],
        12 => vec!["HSCAN".into(), hash, "0".into(), "COUNT".into(), "200".into()],
        13 | 14 => vec!["ZADD".into(), sorted, score(chance), member(chance)],
        15 => vec!["ZADD".into(), sorted, "XX".into(), score(chance), member(chance)],
        16 => vec!["ZREM".into(), sorted, member(chance)],
        17 => vec!["ZSCORE".into(), sorted, member(chance)],
        18 => vec!["ZCOUNT".into(), sorted, bound(chance), bound(chance)],
        19 => {
            let mut words = vec!["ZRANGE".into(), sorted, bound(chance), bound(chance)];
            words.push("BYSCORE".into());
            if chance.bool() {
                words.extend(["LIMIT".into(), "0".into(), chance.u8(0..4).to_string()]);
            }
            words
        }
        20 => {
            let (from, to) = (chance.i8(-4..4), chance.i8(-4..4));
            vec!["ZRANGE".into(), sorted, from.to_string(), to.to_string()]
        }
        21 => {
            let (one, other) = (key(chance, "z"), key(chance, "z"));
            vec!["ZDIFFSTORE".into(), sorted, "2".into(), one, other]
        }
        22 => vec!["ZSCAN".into(), sorted, "0".into(), "COUNT".into(), "500".into()],
        23 => vec!["SADD".into(), set, member(chance)],
        24 => vec!["SREM".into(), set, member(chance)],
        26 => vec!["SISMEMBER".into(), set, member(chance)],
        25 => vec![if chance.bool() { "EXISTS" } else { "DEL" }.into(), hash],
        27 => vec!["HSETNX".into(), hash, member(chance), chance.i8(..).to_string()],
        _ => vec!["INCR".into(), key(chance, "t")],
    };
    words
}

/// An answer in one form for both; what has no order is sorted.
fn plain(name: &str, reply: Reply) -> Reply {
    match (name, reply) {
        ("HKEYS" | "HVALS", Reply::Array(mut items)) => {
            items.sort_by_key(|item| format!("{item:?}"));
            Reply::Array(items)
        }
        ("HGETALL", Reply::Array(items)) => Reply::Array(in_pairs(items)),
        ("HSCAN" | "ZSCAN", Reply::Array(mut parts)) => {
            if let Some(Reply::Array(items)) = parts.pop() {
                parts.push(Reply::Array(in_pairs(items)));
            }
            Reply::Array(parts)
        }
        (_, Reply::Error(error)) => {
            Reply::Error(error.split(' ').next().unwrap_or_default().to_owned())
        }
        (_, reply) => reply,
    }
}

fn in_pairs(items: Vec<Reply>) -> Vec<Reply> {
    let mut pairs: Vec<&[Reply]> = items.chunks(2).collect();
    pairs.sort_by_key(|pair| format!("{pair:?}"));
    pairs.concat()
}

fn of_server(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Integer(number),
        Value::BulkString(text) => Reply::Bulk(text),
        Value::Array(items) => Reply::Array(items.into_iter().map(of_server).collect()),
        other => panic!("{other:?} is no answer of these commands"),
    }
}

fn ask(connection: &mut redis::Connection, words: &[String]) -> Reply {
    let mut command = redis::cmd(&words[0]);
    command.arg(&words[1..]);
    match command.query::<Value>(connection) {
        Ok(value) => of_server(value),
        Err(error) => Reply::Error(error.code().unwrap_or("ERR").to_owned()),
    }
}

#[test]
fn the_model_answers_as_a_redis_does() {
    let server = RedisServer::start_with(&["--appendonly", "no"]);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut model = Keyspace::default();
    let mut chance = fastrand::Rng::with_seed(1);
    let mut names = BTreeSet::new();
    for number in 0..COMMANDS {
        let words = command(&mut chance);
        let bytes: Vec<Bytes> = words.iter().map(|word| word.clone().into_bytes()).collect();
        let modelled = plain(&words[0], model.apply(&bytes, |_| 0));
        let real = plain(&words[0], ask(&mut connection, &words));
        assert_eq!(modelled, real, "command {number}: {words:?}");
        names.insert(words[0].clone());
    }
    // Only which member is left to chance.
    for key in ["s0", "s1", "s2"] {
        let one = vec!["SRANDMEMBER".to_owned(), key.to_owned()];
        let bytes: Vec<Bytes> = one.iter().map(|word| word.clone().into_bytes()).collect();
        let modelled = model.apply(&bytes, |_| 0);
        let real = ask(&mut connection, &one);
        assert_eq!(modelled == Reply::Nil, real == Reply::Nil);
    }
    assert!(names.len() > 20, "{names:?}");
}
