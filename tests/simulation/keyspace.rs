//! What a Redis keeps in memory, and the commands that the seats use.
//!
//! [`super::likeness`] holds it against a real server. Whatever a server leaves open (the order of a
//! hash, which member of a set) is left to chance here, or is in one order.

use std::collections::{BTreeMap, BTreeSet};

pub type Bytes = Vec<u8>;

/// An answer, as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Bulk(Bytes),
    Status(&'static str),
    Array(Vec<Reply>),
    Error(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Text(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    Set(BTreeSet<Bytes>),
    Sorted(BTreeMap<Bytes, f64>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keyspace {
    keys: BTreeMap<Bytes, Entry>,
    changes: u64,
}

type Outcome = Result<Reply, String>;

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

impl Keyspace {
    pub fn names(&self) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.keys.iter()
    }

    pub fn hash(&self, key: &str) -> Option<&BTreeMap<Bytes, Bytes>> {
        match self.keys.get(key.as_bytes())? {
            Entry::Hash(hash) => Some(hash),
            _ => None,
        }
    }

    pub fn sorted(&self, key: &str) -> Option<&BTreeMap<Bytes, f64>> {
        match self.keys.get(key.as_bytes())? {
            Entry::Sorted(sorted) => Some(sorted),
            _ => None,
        }
    }

    pub fn set(&self, key: &str) -> Option<&BTreeSet<Bytes>> {
        match self.keys.get(key.as_bytes())? {
            Entry::Set(set) => Some(set),
            _ => None,
        }
    }

    /// Carries a command out; `chance` picks below a number.
    pub fn apply(&mut self, command: &[Bytes], chance: impl FnMut(usize) -> usize) -> Reply {
        let name = String::from_utf8_lossy(&command[0]).to_ascii_uppercase();
        let reply = self.carry_out(&name, &command[1..], chance).unwrap_or_else(Reply::Error);
        let changed = match &*name {
            "HSET" | "HINCRBY" | "INCR" | "ZDIFFSTORE" => true,
            "HSETNX" | "HDEL" | "ZADD" | "ZREM" | "SADD" | "SREM" | "DEL" => {
                reply != Reply::Integer(0)
            }
            _ => false,
        };
        self.changes += u64::from(changed);
        reply
    }

    /// Grows with each change, but for new scores of members that were there.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn carry_out(
        &mut self,
        name: &str,
        arguments: &[Bytes],
        mut chance: impl FnMut(usize) -> usize,
    ) -> Outcome {
        let key = arguments.first().ok_or("ERR wrong number of arguments")?;
        let rest = &arguments[1..];
        let counted = |count: usize| Reply::Integer(count as i64);
        Ok(match name {
            "INCR" => {
                let text = match self.keys.get(key) {
                    None => 0,
                    Some(Entry::Text(text)) => integer(text)?,
                    Some(_) => return Err(WRONG_TYPE.to_owned()),
                };
                self.keys.insert(key.clone(), Entry::Text((text + 1).to_string().into()));
                Reply::Integer(text + 1)
            }
            "DEL" => {
                counted(arguments.iter().filter(|key| self.keys.remove(*key).is_some()).count())
            }
            "EXISTS" => {
                counted(arguments.iter().filter(|key| self.keys.contains_key(*key)).count())
            }
            "HSET" => {
                let hash = self.hash_mut(key)?;
                let new = |pair: &&[Bytes]| hash.insert(pair[0].clone(), pair[1].clone()).is_none();
                counted(rest.chunks(2).filter(new).count())
            }
            "HSETNX" => {
                let hash = self.hash_mut(key)?;
                let new = !hash.contains_key(&rest[0]);
                if new {
                    hash.insert(rest[0].clone(), rest[1].clone());
                }
                counted(new.into())
            }
            "HGET" => bulk(self.a_hash(key)?.and_then(|hash| hash.get(&rest[0]).cloned())),
            "HMGET" => {
                let hash = self.a_hash(key)?;
                let of = |field| bulk(hash.and_then(|hash| hash.get(field).cloned()));
                Reply::Array(rest.iter().map(of).collect())
            }
            "HDEL" => {
                let hash = self.hash_mut(key)?;
                let gone = rest.iter().filter(|field| hash.remove(*field).is_some()).count();
                self.tidy(key);
                counted(gone)
            }
            "HINCRBY" => {
                let by = integer(&rest[1])?;
                let hash = self.hash_mut(key)?;
                let value = hash.get(&rest[0]).map_or(Ok(0), |value| integer(value))? + by;
                hash.insert(rest[0].clone(), value.to_string().into());
                Reply::Integer(value)
            }
            "HEXISTS" => {
                counted(self.a_hash(key)?.is_some_and(|h| h.contains_key(&rest[0])).into())
            }
            "HLEN" => counted(self.a_hash(key)?.map_or(0, BTreeMap::len)),
            "HKEYS" => list(self.a_hash(key)?.into_iter().flat_map(|hash| hash.keys().cloned())),
            "HVALS" => list(self.a_hash(key)?.into_iter().flat_map(|hash| hash.values().cloned())),
            "HGETALL" => list(pairs(self.a_hash(key)?.into_iter().flatten())),
            // As long as it is small, a server shows all of it at once.
            "HSCAN" => Reply::Array(vec![
                Reply::Bulk(b"0".to_vec()),
                list(pairs(self.a_hash(key)?.into_iter().flatten())),
            ]),
            "SADD" | "SREM" => {
                let entry = Entry::Set(BTreeSet::new());
                let Entry::Set(set) = self.keys.entry(key.clone()).or_insert(entry) else {
                    return Err(WRONG_TYPE.to_owned());
                };
                let changed = rest.iter().filter(|member| match name {
                    "SADD" => set.insert((*member).clone()),
                    _ => set.remove(*member),
                });
                let changed = changed.count();
                self.tidy(key);
                counted(changed)
            }
            "SISMEMBER" => match self.keys.get(key) {
                None => Reply::Integer(0),
                Some(Entry::Set(set)) => counted(set.contains(&rest[0]).into()),
                Some(_) => return Err(WRONG_TYPE.to_owned()),
            },
            "SRANDMEMBER" => match self.keys.get(key) {
                None => Reply::Nil,
                Some(Entry::Set(set)) => bulk(set.iter().nth(chance(set.len())).cloned()),
                Some(_) => return Err(WRONG_TYPE.to_owned()),
            },
            "ZADD" => self.zadd(key, rest)?,
            "ZREM" => {
                let sorted = self.sorted_mut(key)?;
                let gone = rest.iter().filter(|member| sorted.remove(*member).is_some()).count();
                self.tidy(key);
                counted(gone)
            }
            "ZSCORE" => {
                let score = self.a_sorted(key)?.and_then(|sorted| sorted.get(&rest[0]));
                bulk(score.map(|score| written(*score)))
            }
            "ZCOUNT" => {
                let (from, to) = (Bound::read(&rest[0])?, Bound::read(&rest[1])?);
                let all = self.a_sorted(key)?.into_iter().flatten();
                counted(
                    all.filter(|(_, score)| from.is_below(**score) && to.is_above(**score)).count(),
                )
            }
            "ZRANGE" => self.zrange(key, rest)?,
            "ZDIFFSTORE" => {
                let mut left = self.a_sorted(&rest[1])?.cloned().unwrap_or_default();
                for other in &rest[2..] {
                    for member in self.a_sorted(other)?.into_iter().flatten() {
                        left.remove(member.0);
                    }
                }
                let count = left.len();
                self.keys.insert(key.clone(), Entry::Sorted(left));
                self.tidy(key);
                counted(count)
            }
            "ZSCAN" => {
                let all = self.a_sorted(key)?.into_iter().flatten();
                let all = all.flat_map(|(member, score)| [member.clone(), written(*score)]);
                Reply::Array(vec![Reply::Bulk(b"0".to_vec()), list(all)])
            }
            _ => return Err(format!("ERR unknown command '{name}'")),
        })
    }

    fn zadd(&mut self, key: &Bytes, rest: &[Bytes]) -> Outcome {
        let only_known = rest[0].eq_ignore_ascii_case(b"XX");
        let rest = if only_known { &rest[1..] } else { rest };
        let scores: Result<Vec<f64>, String> = rest.chunks(2).map(|pair| float(&pair[0])).collect();
        let sorted = self.sorted_mut(key)?;
        let mut new = 0;
        for (score, pair) in scores?.into_iter().zip(rest.chunks(2)) {
            if only_known && !sorted.contains_key(&pair[1]) {
                continue;
            }
            new += i64::from(sorted.insert(pair[1].clone(), score).is_none());
        }
        self.tidy(key);
        Ok(Reply::Integer(new))
    }

    fn zrange(&self, key: &Bytes, rest: &[Bytes]) -> Outcome {
        let sorted = self.a_sorted(key)?;
        let mut all: Vec<(f64, &Bytes)> =
            sorted.into_iter().flatten().map(|(member, score)| (*score, member)).collect();
        all.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(other.1)));
        if rest.get(2).is_none() {
            let place = |text: &Bytes| {
                integer(text).map(|at| if at < 0 { at + all.len() as i64 } else { at })
            };
            let (from, to) = (place(&rest[0])?.max(0), place(&rest[1])?);
            let count = usize::try_from(to - from + 1).unwrap_or(0);
            return Ok(list(all.iter().skip(from as usize).take(count).map(|(_, m)| (*m).clone())));
        }
        let (from, to) = (Bound::read(&rest[0])?, Bound::read(&rest[1])?);
        all.retain(|(score, _)| from.is_below(*score) && to.is_above(*score));
        let (skip, take) = match rest.get(3..6) {
            Some([_, skip, take]) => (integer(skip)? as usize, integer(take)? as usize),
            _ => (0, usize::MAX),
        };
        Ok(list(all.into_iter().skip(skip).take(take).map(|(_, member)| member.clone())))
    }

    fn a_hash(&self, key: &[u8]) -> Result<Option<&BTreeMap<Bytes, Bytes>>, String> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Entry::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn a_sorted(&self, key: &[u8]) -> Result<Option<&BTreeMap<Bytes, f64>>, String> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Entry::Sorted(sorted)) => Ok(Some(sorted)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn hash_mut(&mut self, key: &Bytes) -> Result<&mut BTreeMap<Bytes, Bytes>, String> {
        match self.keys.entry(key.clone()).or_insert_with(|| Entry::Hash(BTreeMap::new())) {
            Entry::Hash(hash) => Ok(hash),
            _ => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn sorted_mut(&mut self, key: &Bytes) -> Result<&mut BTreeMap<Bytes, f64>, String> {
        match self.keys.entry(key.clone()).or_insert_with(|| Entry::Sorted(BTreeMap::new())) {
            Entry::Sorted(sorted) => Ok(sorted),
            _ => Err(WRONG_TYPE.to_owned()),
        }
    }

    /// What holds nothing is not there.
    fn tidy(&mut self, key: &Bytes) {
        let empty = match self.keys.get(key) {
            Some(Entry::Hash(hash)) => hash.is_empty(),
            Some(Entry::Set(set)) => set.is_empty(),
            Some(Entry::Sorted(sorted)) => sorted.is_empty(),
            Some(Entry::Text(_)) | None => false,
        };
        if empty {
            self.keys.remove(key);
        }
    }
}

/// An end of a range of scores.
struct Bound {
    score: f64,
    open: bool,
}

impl Bound {
    fn read(text: &[u8]) -> Result<Self, String> {
        let (open, text) = match text {
            [b'(', rest @ ..] => (true, rest),
            text => (false, text),
        };
        Ok(Self { score: float(text)?, open })
    }

    fn is_below(&self, score: f64) -> bool {
        self.score < score || !self.open && self.score == score
    }

    fn is_above(&self, score: f64) -> bool {
        self.score > score || !self.open && self.score == score
    }
}

fn integer(text: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| "ERR value is not an integer or out of range".to_owned())
}

fn float(text: &[u8]) -> Result<f64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| "ERR value is not a valid float".to_owned())
}

fn written(score: f64) -> Bytes {
    score.to_string().into_bytes()
}

fn bulk(text: Option<Bytes>) -> Reply {
    text.map_or(Reply::Nil, Reply::Bulk)
}

fn list(items: impl Iterator<Item = Bytes>) -> Reply {
    Reply::Array(items.map(Reply::Bulk).collect())
}

fn pairs<'a>(fields: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> impl Iterator<Item = Bytes> {
    fields.flat_map(|(field, value)| [field.clone(), value.clone()])
}
