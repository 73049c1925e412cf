//! A thin layer over a parsed TOML file that remembers where everything stands.
//!
//! A [`Table`] hands out values by key, reports what has the wrong type, and when it is finished
//! reports the keys that nobody asked for. Reading goes on after an error with the default in the
//! bad value's place, so that one pass finds everything. It knows nothing of what the keys mean.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::Problem;
use super::settings::{Place, SignedBy};
use super::source::Document;
use super::values::{Kind, echo, nearest, one_of};

/// A table, or the absence of one: then every key of it is absent.
pub(super) struct Table<'a> {
    document: &'a Document<'a>,
    entries: Option<&'a DeTable<'a>>,
    offset: usize,
    /// What stands before a key when it is told: `[server] `.
    prefix: String,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn root(document: &'a Document<'a>, entries: &'a DeTable<'a>) -> Self {
        Self {
            document,
            entries: Some(entries),
            offset: 0,
            prefix: String::new(),
            known: Vec::new(),
        }
    }

    /// The value of a key, which is known from now on.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let raw = self.entries?.get(key)?;
        Some(Value { document: self.document, key: format!("{}{key}", self.prefix), raw })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// A string of some kind.
    pub(super) fn read<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        self.value(key)?.read(kind)
    }

    /// An array of strings of some kind.
    pub(super) fn read_list<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<Vec<T>> {
        let items = self.value(key)?.items(kind.list_mend)?;
        Some(items.iter().filter_map(|item| item.read(kind)).collect())
    }

    /// A string of some kind whose value lies in a range.
    pub(super) fn read_within<T: PartialOrd>(
        &mut self,
        key: &'static str,
        kind: &Kind<T>,
        range: RangeInclusive<T>,
        tell: fn(&T) -> String,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = value.read(kind)?;
        if range.contains(&read) {
            return Some(read);
        }
        let what = format!("{} is out of range", tell(&read));
        let mend = format!("write {} to {}", tell(range.start()), tell(range.end()));
        value.invalid(what, mend);
        None
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        match value.raw.get_ref() {
            DeValue::Boolean(read) => Some(*read),
            _ => value.wrong_type("true or false", "write it without quotes"),
        }
    }

    /// A whole number in a range.
    pub(super) fn integer<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + TryFrom<i128> + Into<u64>,
    {
        let value = self.value(key)?;
        let DeValue::Integer(raw) = value.raw.get_ref() else {
            return value.wrong_type("a whole number", "write it in digits, without quotes");
        };
        let (least, most) = ((*range.start()).into(), (*range.end()).into());
        let read = i128::from_str_radix(raw.as_str(), raw.radix()).ok();
        let within = read.filter(|read| (i128::from(least)..=i128::from(most)).contains(read));
        if let Some(read) = within.and_then(|read| T::try_from(read).ok()) {
            return Some(read);
        }
        let what = format!("{} is out of range", echo(&raw.to_string()).trim_matches('"'));
        value.invalid(what, format!("write {least} to {most}"));
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let value = self.value(key)?;
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let Some(text) = value.raw.get_ref().as_str() else {
            return value.wrong_type("a word", "write it in quotes");
        };
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            value.invalid(format!("{} is not known here", echo(text)), one_of(&names));
        }
        found.map(|(_, read)| *read)
    }

    /// A sub-table; where it is absent, one without keys.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'a> {
        let prefix = if self.prefix.is_empty() {
            format!("[{key}] ")
        } else if let Some(outer) = self.prefix.strip_suffix("] ") {
            format!("{outer}.{key}] ")
        } else {
            format!("{}{key}.", self.prefix)
        };
        let (mut entries, mut offset) = (None, self.offset);
        if let Some(value) = self.value(key) {
            offset = value.raw.span().start;
            entries = value.raw.get_ref().as_table();
            if entries.is_none() {
                value.wrong_type::<()>(
                    "a table",
                    "write its name in brackets on a line of its own, and its keys below it",
                );
            }
        }
        Table { document: self.document, entries, offset, prefix, known: Vec::new() }
    }

    /// The tables of `[[key]]`, in the order of the file.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        const WANTED: &str = "a list of tables";
        const MEND: &str = "write its name in double brackets, [[…]], once for each";
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.raw.get_ref().as_array() else {
            value.wrong_type::<()>(WANTED, MEND);
            return Vec::new();
        };
        let outer = self.prefix.strip_prefix('[').and_then(|outer| outer.strip_suffix("] "));
        let head = outer.map_or(key.to_owned(), |outer| format!("{outer}.{key}"));
        let mut tables = Vec::new();
        for (item, number) in array.iter().zip(1_usize..) {
            let Some(entries) = item.get_ref().as_table() else {
                value.wrong_type::<()>(WANTED, MEND);
                return tables;
            };
            tables.push(Table {
                document: self.document,
                entries: Some(entries),
                offset: item.span().start,
                prefix: format!("[[{head}]] #{number} "),
                known: Vec::new(),
            });
        }
        tables
    }

    /// Reports a key that has to be there and is not.
    pub(super) fn missing(&self, key: &str, mend: &'static str) {
        // A file with a syntax error may have the key in the part that could not be read.
        if self.document.is_whole() {
            self.fail_at(key, Problem::Missing { mend });
        }
    }

    /// Reports a problem at the table's head.
    pub(super) fn fail(&self, problem: Problem) {
        let key = self.prefix.trim_end_matches(['.', ' ']).to_owned();
        self.document.fail(self.offset, key, problem);
    }

    fn fail_at(&self, key: &str, problem: Problem) {
        self.document.fail(self.offset, format!("{}{key}", self.prefix), problem);
    }

    pub(super) fn warn(&self, key: &str, message: String) {
        let key = format!("{}{key}", self.prefix);
        self.document.warn(self.place(), key, message);
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> Place {
        self.document.place(self.offset)
    }

    /// Who signed the file that the table stands in.
    pub(super) fn signed(&self) -> Option<&'a SignedBy> {
        self.document.signed()
    }

    /// The folder that files to be read are relative to.
    pub(super) fn folder(&self) -> &'a Path {
        self.document.folders().beside
    }

    /// The file that a secret is read from.
    pub(super) fn secret_path(&self, name: &str) -> PathBuf {
        self.document.folders().of_secret(name)
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries.into_iter().flat_map(|entries| entries.iter()) {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                let shown = if name.len() <= 60 && !name.is_empty() && name.chars().all(bare) {
                    name.to_owned()
                } else {
                    echo(name)
                };
                self.document.fail(
                    key.span().start,
                    format!("{}{shown}", self.prefix),
                    Problem::UnknownKey {
                        suggestion: nearest(name, &self.known),
                        known: self.known.clone(),
                    },
                );
            }
        }
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Value<'a> {
    document: &'a Document<'a>,
    key: String,
    raw: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    /// A string of some kind.
    pub(super) fn read<T>(&self, kind: &Kind<T>) -> Option<T> {
        let Some(text) = self.raw.get_ref().as_str() else {
            return self.wrong_type(kind.wanted, kind.mend);
        };
        match (kind.parse)(text) {
            Ok(read) => Some(read),
            Err(fault) => {
                // Where there is an @ there may be a password before it.
                let hidden = kind.confidential || text.contains('@');
                let subject = if hidden { "the value".to_owned() } else { echo(text) };
                let what = match fault.what {
                    Some(what) => format!("{subject} {what}"),
                    None => format!("{subject} is not {}", kind.wanted),
                };
                self.invalid(what, fault.mend.unwrap_or(kind.mend).to_owned());
                None
            }
        }
    }

    pub(super) fn raw(&self) -> &'a DeValue<'a> {
        self.raw.get_ref()
    }

    /// The items of an array.
    pub(super) fn items(&self, mend: &'static str) -> Option<Vec<Value<'a>>> {
        let Some(array) = self.raw.get_ref().as_array() else {
            return self.wrong_type("a list", mend);
        };
        let items = array.iter();
        Some(items.map(|raw| Value { raw, key: self.key.clone(), ..*self }).collect())
    }

    /// Reports a type that does not fit; `None` always.
    pub(super) fn wrong_type<T>(&self, wanted: &'static str, mend: &'static str) -> Option<T> {
        let found = match self.raw.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "a true or false",
            DeValue::Datetime(_) => "a date-time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fail(Problem::WrongType { wanted, found, mend });
        None
    }

    pub(super) fn invalid(&self, what: impl Into<String>, mend: impl Into<String>) {
        self.fail(Problem::Invalid { what: what.into(), mend: mend.into() });
    }

    pub(super) fn fail(&self, problem: Problem) {
        self.document.fail(self.raw.span().start, self.key.clone(), problem);
    }

    pub(super) fn warn(&self, message: impl Into<String>) {
        self.document.warn(self.place(), self.key.clone(), message.into());
    }

    pub(super) fn place(&self) -> Place {
        self.document.place(self.raw.span().start)
    }

    /// The key with its table, as errors tell it.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// Names that may appear once only, with the place of each.
#[derive(Default)]
pub(super) struct Once(HashMap<String, Place>);

impl Once {
    /// Takes `name`, or reports `what` at `value` as being there twice, and returns `false`.
    pub(super) fn take(
        &mut self,
        name: &str,
        value: &Value<'_>,
        what: impl Into<String>,
        mend: &'static str,
    ) -> bool {
        if let Some(first) = self.0.get(name).cloned() {
            value.fail(Problem::Twice { what: what.into(), first, mend });
            return false;
        }
        self.0.insert(name.to_owned(), value.place());
        true
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
