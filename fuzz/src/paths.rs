//! Every path that some front between here and the document server might make of one: each step that any
//! of them is known to take, in any order and any number of times.

use std::collections::{HashSet, VecDeque};

/// More readings than this are not followed.
const MOST: usize = 400;

/// The paths that `path` may become.
pub(crate) fn readings(path: &[u8]) -> HashSet<Vec<u8>> {
    let mut found = HashSet::from([path.to_vec()]);
    let mut queue = VecDeque::from([path.to_vec()]);
    while let Some(path) = queue.pop_front() {
        for step in [decode, merge, flip, lower, resolve, stay, strip_prefix, strip_version, cut] {
            if found.len() >= MOST {
                return found;
            }
            if let Some(next) = step(&path)
                && found.insert(next.clone())
            {
                queue.push_back(next);
            }
        }
    }
    found
}

fn decode(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b'%').then(|| percent_encoding::percent_decode(path).collect())
}

/// `//` becomes `/`.
fn merge(path: &[u8]) -> Option<Vec<u8>> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, before| *next == b'/' && *before == b'/');
    Some(merged)
}

/// `\` becomes `/`.
fn flip(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b'\\')
        .then(|| path.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect())
}

fn lower(path: &[u8]) -> Option<Vec<u8>> {
    Some(path.to_ascii_lowercase())
}

/// Every `/x/..` goes.
fn resolve(path: &[u8]) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b".." if kept.len() > 1 => drop(kept.pop()),
            b".." => {}
            name => kept.push(name),
        }
    }
    Some(kept.join(&b'/'))
}

/// Every `/.` goes.
fn stay(path: &[u8]) -> Option<Vec<u8>> {
    let segments: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|segment| *segment != b".").collect();
    Some(segments.join(&b'/'))
}

/// The virtual path of the harness.
fn strip_prefix(path: &[u8]) -> Option<Vec<u8>> {
    path.strip_prefix(b"/docs").filter(|rest| rest.starts_with(b"/")).map(<[u8]>::to_vec)
}

/// `/9.3.0-abc`
fn strip_version(path: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(b"/")?;
    let end = rest.iter().position(|byte| *byte == b'/')?;
    let segment = std::str::from_utf8(&rest[..end]).ok()?;
    let (numbers, word) = segment.split_once('-')?;
    let parts: Vec<&str> = numbers.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (parts.len() == 3 && parts.iter().all(is_number) && is_word).then(|| rest[end..].to_vec())
}

/// What follows a `?` or `#` is none of the path.
fn cut(path: &[u8]) -> Option<Vec<u8>> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'))?;
    Some(path[..end].to_vec())
}
