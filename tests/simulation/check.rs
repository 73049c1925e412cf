//! What has to hold of the seats that the engine keeps, whatever happened.
//!
//! [`Picture`] reads the engine's memory on its own: which seats are held follows from the owners
//! that live and the facts of their seats, and from nothing else. The counts, indices and answers of
//! the script are held against that.

use std::collections::{BTreeMap, BTreeSet};

use super::keyspace::{Bytes, Entry, Keyspace, Reply};
use super::msgpack::{self, Item};

type Outcome = Result<(), String>;

/// The facts of a seat.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub class: String,
    pub user: String,
    pub session: Option<String>,
    pub kept: Option<f64>,
}

/// A seat in the engine's memory.
#[derive(Clone, Debug)]
pub struct Sat {
    pub owner: String,
    pub seat: String,
    pub facts: Facts,
}

/// What the engine has of a licence.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Instants at which leases end.
    owners: BTreeMap<String, f64>,
    seats: Vec<Sat>,
    /// Class and user of opens under way, with their owner.
    opens: Vec<(String, String)>,
    users: BTreeMap<String, BTreeMap<String, f64>>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn facts(packed: &[u8]) -> Facts {
    let mut facts = Facts::default();
    for (name, item) in msgpack::unpack(packed) {
        match (&*name, item) {
            ("class", Item::Text(class)) => facts.class = text(&class),
            ("user", Item::Text(user)) => facts.user = text(&user),
            ("session", Item::Text(session)) => facts.session = Some(text(&session)),
            ("kept", Item::Number(kept)) => facts.kept = Some(kept),
            _ => {}
        }
    }
    facts
}

impl Picture {
    pub fn of(keys: &Keyspace, prefix: &str) -> Self {
        let mut picture = Self::default();
        let scores = |sorted: &BTreeMap<Bytes, f64>| {
            sorted.iter().map(|(member, score)| (text(member), *score)).collect()
        };
        for (name, entry) in keys.names() {
            let name = text(name);
            let Some(name) = name.strip_prefix(prefix) else { continue };
            match (name.split_once(':'), entry) {
                (None, Entry::Sorted(owners)) if name == "owners" => {
                    picture.owners = scores(owners);
                }
                (Some(("seats", owner)), Entry::Hash(seats)) => {
                    picture.seats.extend(seats.iter().map(|(seat, packed)| Sat {
                        owner: owner.to_owned(),
                        seat: text(seat),
                        facts: facts(packed),
                    }));
                }
                (Some(("opens", owner)), Entry::Hash(opens)) => {
                    let opens = opens.values().map(|open| (owner.to_owned(), text(open)));
                    picture.opens.extend(opens);
                }
                (Some(("users", class)), Entry::Sorted(users)) => {
                    picture.users.insert(class.to_owned(), scores(users));
                }
                _ => {}
            }
        }
        picture
    }

    /// The same with the leases as they are now.
    pub fn with_leases(&self, keys: &Keyspace, prefix: &str) -> Self {
        let owners = keys.sorted(&format!("{prefix}owners")).into_iter().flatten();
        let owners = owners.map(|(owner, lease)| (text(owner), *lease)).collect();
        Self { owners, ..self.clone() }
    }

    /// The seats that are held at this millisecond.
    pub fn held(&self, now: u64) -> impl Iterator<Item = &Sat> {
        let now = now as f64;
        self.seats.iter().filter(move |sat| {
            self.owners.get(&sat.owner).is_some_and(|lease| *lease > now)
                && sat.facts.kept.is_none_or(|kept| kept > now)
        })
    }

    pub fn connections(&self, class: &str, now: u64) -> u64 {
        self.held(now).filter(|sat| sat.facts.class == class).count() as u64
    }

    /// The users who are counted, or have an open under way.
    pub fn users(&self, class: &str, now: u64) -> BTreeSet<&str> {
        let second = (now / 1_000) as f64;
        let counted = self.users.get(class).into_iter().flatten();
        let counted = counted.filter(|(_, until)| **until > second).map(|(user, _)| &**user);
        let lives = |owner: &String| self.owners.get(owner).is_some_and(|l| *l > now as f64);
        let opens = self.opens.iter().filter(|(owner, _)| lives(owner));
        counted.chain(opens.filter_map(|(_, open)| open.strip_prefix(class))).collect()
    }

    pub fn owners(&self) -> impl Iterator<Item = &String> {
        self.owners.keys()
    }
}

/// A call of the script, and what was held before it.
pub struct Asked<'a> {
    arguments: &'a [Bytes],
    pub before: Picture,
    now: u64,
}

impl<'a> Asked<'a> {
    /// Where nobody's lease was renewed for half of one, and an owner asks, the engine was away, and
    /// that time counts for no lease: those seats were held all the time. Nobody could be given any
    /// of them: whoever else had asked first would have ended them.
    pub fn new(arguments: &'a [Bytes], before: Picture, now: u64) -> Self {
        let mut asked = Self { arguments, before, now };
        let looks = matches!(&*arguments[0], b"admit" | b"renew");
        let owners = &asked.before.owners;
        // Its seats are its own until somebody else asks for one, and nobody did.
        if !looks && let Some(until) = asked.before.owners.get(&asked.argument(1)) {
            let until = until.max(now as f64 + 1.0);
            asked.before.owners.insert(asked.argument(1), until);
            return asked;
        }
        if looks && owners.contains_key(&asked.argument(1)) {
            let lease: u64 = asked.argument(2).parse().unwrap();
            let latest = owners.values().copied().fold(0.0, f64::max);
            if latest <= (now + lease / 2) as f64 {
                let away = (now + lease) as f64 - latest;
                asked.before.owners.values_mut().for_each(|until| *until += away);
            }
        }
        asked
    }

    fn admits(&self) -> bool {
        self.arguments[0] == b"admit"
    }

    fn argument(&self, at: usize) -> String {
        text(&self.arguments[at])
    }

    /// Holds the answer, and what is held now, against what was held before.
    pub fn after(&self, after: &Picture, reply: &Reply) -> Outcome {
        if let Reply::Error(error) = reply {
            return Err(format!("the script failed: {error}"));
        }
        for class in ["e", "v"] {
            let count = |of: &Picture| of.connections(class, self.now);
            let users = |of: &Picture| of.users(class, self.now).len() as u64;
            let by_users = self.admits() && self.argument(11) == "1";
            self.may_grow(class, "connections", count(&self.before), count(after), !by_users)?;
            self.may_grow(class, "users", users(&self.before), users(after), by_users)?;
        }
        if self.admits() { self.counts_are_told(reply) } else { Ok(()) }
    }

    /// Only an open that was admitted raises a count, and never over the limit. One that was accepted
    /// after its owner's lease was over, and with it the place of its user, can count the user anew.
    fn may_grow(&self, class: &str, what: &str, before: u64, after: u64, limited: bool) -> Outcome {
        if after <= before {
            return Ok(());
        }
        let told = format!("{what} of {class} went from {before} to {after}");
        let counts = self.argument(0) == "confirm" && self.argument(4) == "1" && what == "users";
        let admits = self.admits() && self.argument(5) == class;
        if !(admits || counts) || after > before + 1 {
            return Err(told);
        }
        let (forced, limit) = if counts {
            (false, self.argument(6))
        } else {
            (self.argument(9) == "1", self.argument(12))
        };
        let limited = limited || counts;
        if limited && !forced && after > limit.parse().unwrap() {
            return Err(format!("{told}, over the limit of {limit}"));
        }
        Ok(())
    }

    /// The answer about an open tells what was really held.
    fn counts_are_told(&self, reply: &Reply) -> Outcome {
        let Reply::Array(parts) = reply else { return Err("no list".to_owned()) };
        let number = |at: usize| match parts.get(at) {
            Some(Reply::Integer(number)) => *number as u64,
            _ => 0,
        };
        let (owner, seat, class) = (self.argument(1), self.argument(4), self.argument(5));
        let known = self.before.held(self.now).any(|sat| sat.owner == owner && sat.seat == seat);
        if known || parts.len() < 6 || self.arguments.get(18).is_some() {
            return Ok(());
        }
        let (taken, users, holds) = (number(1), number(2), number(4));
        let held = self.before.connections(&class, self.now);
        if taken + holds != held {
            return Err(format!("{held} connections were held, {taken} and {holds} are told"));
        }
        let counted = self.before.users(&class, self.now).len() as u64;
        if users != counted && users + 1 != counted {
            return Err(format!("{counted} users were counted, {users} are told"));
        }
        Ok(())
    }
}

/// A user who was counted while the engine was away: nobody else is counted, and nothing else changes.
pub fn counted(user: &str, class: &str, before: &Picture, after: &Picture, now: u64) -> Outcome {
    for of in ["e", "v"] {
        let mut expected = before.users(of, now);
        if of == class {
            expected.insert(user);
        }
        let users = after.users(of, now);
        if !users.is_subset(&expected) || before.connections(of, now) != after.connections(of, now)
        {
            return Err(format!("{user} was counted as {class}, {users:?} of {of} are"));
        }
    }
    Ok(())
}

/// The counts and indices are those of the seats.
pub fn sound(keys: &Keyspace, prefix: &str, picture: &Picture) -> Outcome {
    let name = |key: &str| format!("{prefix}{key}");
    let dead: BTreeSet<String> =
        keys.set(&name("dead")).into_iter().flatten().map(|owner| text(owner)).collect();
    if let Some(both) = picture.owners.keys().find(|owner| dead.contains(*owner)) {
        return Err(format!("owner {both} is alive and dead"));
    }
    let of_nobody = |owner: &String| !picture.owners.contains_key(owner) && !dead.contains(owner);
    if let Some(sat) = picture.seats.iter().find(|sat| of_nobody(&sat.owner)) {
        return Err(format!("seat {} is of nobody", sat.seat));
    }
    let living = || picture.seats.iter().filter(|sat| picture.owners.contains_key(&sat.owner));

    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let mut graces: BTreeMap<String, BTreeMap<Bytes, f64>> = BTreeMap::new();
    let mut sessions: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for Sat { owner, seat, facts } in living() {
        let class = &facts.class;
        let member = format!("{owner} {seat}").into_bytes();
        // A number within its owner; what two gateways compare without telling all of them.
        let number = seat.parse::<i64>().unwrap() & i64::from(u32::MAX);
        if number > 0 {
            *counts.entry(format!("{owner}:sum")).or_default() += number;
        }
        if let Some(kept) = facts.kept {
            for key in [format!("grace:{class}"), format!("grace:{class}:{owner}")] {
                graces.entry(key).or_default().insert(member.clone(), kept);
            }
        } else {
            *counts.entry(class.clone()).or_default() += 1;
            *counts.entry(format!("{owner}:{class}")).or_default() += 1;
        }
        if let Some(session) = &facts.session {
            let key = format!("{} {}{session}", facts.user.len(), facts.user).into_bytes();
            if sessions.insert(key, member).is_some() {
                return Err(format!("session {session} of {} has two seats", facts.user));
            }
        }
    }
    let count = |value: &Bytes| text(value).parse::<i64>().unwrap();
    let told: BTreeMap<String, i64> = keys
        .hash(&name("count"))
        .into_iter()
        .flatten()
        .map(|(field, value)| (text(field), count(value)))
        .filter(|(_, value)| *value != 0)
        .collect();
    if told != counts {
        return Err(format!("the counts are {told:?}, the seats {counts:?}"));
    }
    let told: BTreeMap<String, BTreeMap<Bytes, f64>> = keys
        .names()
        .filter_map(|(key, entry)| match (text(key).strip_prefix(prefix), entry) {
            (Some(key), Entry::Sorted(sorted)) if key.starts_with("grace:") => {
                Some((key.to_owned(), sorted.clone()))
            }
            _ => None,
        })
        .collect();
    if told != graces {
        return Err(format!("the graces are {told:?}, the seats' {graces:?}"));
    }
    let of_dead =
        |place: &Bytes| text(place).split_once(' ').is_some_and(|(owner, _)| dead.contains(owner));
    let mut told = keys.hash(&name("sessions")).cloned().unwrap_or_default();
    told.retain(|key, place| sessions.contains_key(key) || !of_dead(place));
    if told != sessions {
        return Err(format!("the sessions are {told:?}, the seats' {sessions:?}"));
    }
    holds(keys, prefix, picture)
}

/// The opens under way are those that hold their users.
fn holds(keys: &Keyspace, prefix: &str, picture: &Picture) -> Outcome {
    let mut opens: BTreeMap<&str, i64> = BTreeMap::new();
    for (owner, open) in &picture.opens {
        if !picture.owners.contains_key(owner) {
            return Err(format!("owner {owner} is dead and has the open of {open}"));
        }
        *opens.entry(open).or_default() += 1;
    }
    for class in ["e", "v"] {
        let held = opens.iter().filter_map(|(o, count)| Some((o.strip_prefix(class)?, *count)));
        let held: BTreeMap<Bytes, i64> = held.map(|(user, n)| (user.into(), n)).collect();
        let told = keys.hash(&format!("{prefix}holds:{class}"));
        let told: BTreeMap<Bytes, i64> = told
            .into_iter()
            .flatten()
            .map(|(user, count)| (user.clone(), text(count).parse().unwrap()))
            .collect();
        let reserve = keys.sorted(&format!("{prefix}reserve:{class}"));
        let reserve: Vec<&Bytes> = reserve.into_iter().flatten().map(|(user, _)| user).collect();
        if told != held || reserve != held.keys().collect::<Vec<_>>() {
            return Err(format!("holds are {told:?}, in reserve {reserve:?}, opens are {held:?}"));
        }
    }
    Ok(())
}

/// What is left when nobody holds anything: the owners, and the users who stay counted.
pub fn empty(keys: &Keyspace, prefix: &str) -> Outcome {
    for (name, entry) in keys.names() {
        let name = text(name);
        let Some(key) = name.strip_prefix(prefix) else { continue };
        let stays = match (key, entry) {
            ("count", Entry::Hash(counts)) => counts.values().all(|count| count == b"0"),
            ("owners" | "meta" | "terms", _) => true,
            _ => key.starts_with("user"),
        };
        if !stays {
            return Err(format!("{name} is left over: {entry:?}"));
        }
    }
    Ok(())
}
