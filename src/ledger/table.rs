//! A string-keyed table without a slow moment: rows in a slab, found by linear hashing.
//!
//! An ordinary hash map moves all its entries when it grows, and cleans all of them up when many
//! were removed: with a million users either is a pause of tens of milliseconds under the lock.
//! Here every insertion splits one chain and nothing else ever moves, a row keeps its number for
//! as long as it exists, and the rows can be walked piece by piece. A row costs itself plus four bytes;
//! the rows of keys that went are kept for keys to come. Knows nothing of seats.

use std::sync::Arc;

/// The number of a row; reused after the row was removed.
pub(super) type Row = u32;

const NONE: Row = Row::MAX;
const SEGMENT: usize = 512;

/// A vector in pieces that never move, so that growing copies nothing.
#[derive(Debug)]
struct Segments<T> {
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Segments<T> {
    const fn new() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }

    fn get(&self, index: Row) -> Option<&T> {
        let index = index as usize;
        self.pieces.get(index / SEGMENT)?.get(index % SEGMENT)
    }

    fn get_mut(&mut self, index: Row) -> Option<&mut T> {
        let index = index as usize;
        self.pieces.get_mut(index / SEGMENT)?.get_mut(index % SEGMENT)
    }

    fn push(&mut self, value: T) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < SEGMENT => piece.push(value),
            // The first piece grows as a vector does: most licences have a handful of users.
            None => self.pieces.push(vec![value]),
            Some(_) => {
                let mut piece = Vec::with_capacity(SEGMENT);
                piece.push(value);
                self.pieces.push(piece);
            }
        }
        self.len += 1;
    }
}

#[derive(Debug)]
struct Entry<V> {
    /// `None`: the row is free.
    key: Option<Arc<str>>,
    hash: u32,
    /// The next row of the chain, or of the free rows.
    next: Row,
    value: V,
}

/// Keys to values. The caller brings the hash of a key, made with a random seed.
#[derive(Debug)]
pub(super) struct Table<V> {
    rows: Segments<Entry<V>>,
    chains: Segments<Row>,
    free: Row,
    len: usize,
}

impl<V: Default> Table<V> {
    pub(super) const fn new() -> Self {
        Self { rows: Segments::new(), chains: Segments::new(), free: NONE, len: 0 }
    }

    /// Keys that are there.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Rows to walk: those in use and free ones between them.
    pub(super) fn rows(&self) -> Row {
        Row::try_from(self.rows.len).unwrap_or(NONE)
    }

    pub(super) fn find(&self, hash: u32, key: &str) -> Option<Row> {
        let mut row = *self.chains.get(self.chain(hash)?)?;
        while let Some(entry) = self.rows.get(row) {
            if entry.hash == hash && entry.key.as_deref() == Some(key) {
                return Some(row);
            }
            row = entry.next;
        }
        None
    }

    pub(super) fn get(&self, row: Row) -> Option<(&Arc<str>, &V)> {
        let entry = self.rows.get(row)?;
        Some((entry.key.as_ref()?, &entry.value))
    }

    pub(super) fn get_mut(&mut self, row: Row) -> Option<&mut V> {
        let entry = self.rows.get_mut(row)?;
        entry.key.is_some().then_some(&mut entry.value)
    }

    /// Adds a key that is not there. `None` only if all the four billion rows are taken.
    pub(super) fn insert(&mut self, hash: u32, key: Arc<str>, value: V) -> Option<Row> {
        self.split();
        let chain = self.chain(hash)?;
        let next = *self.chains.get(chain)?;
        let entry = Entry { key: Some(key), hash, next, value };
        let row = self.free;
        if let Some(free) = self.rows.get_mut(row) {
            self.free = free.next;
            *free = entry;
            *self.chains.get_mut(chain)? = row;
            self.len += 1;
            return Some(row);
        }
        let row = Row::try_from(self.rows.len).ok().filter(|row| *row != NONE)?;
        self.rows.push(entry);
        *self.chains.get_mut(chain)? = row;
        self.len += 1;
        Some(row)
    }

    pub(super) fn remove(&mut self, row: Row) {
        let Some(entry) = self.rows.get(row).filter(|entry| entry.key.is_some()) else { return };
        let next = entry.next;
        let Some(chain) = self.chain(entry.hash) else { return };
        let mut at = self.chains.get(chain).copied().unwrap_or(NONE);
        if at == row {
            if let Some(head) = self.chains.get_mut(chain) {
                *head = next;
            }
        } else {
            while let Some(entry) = self.rows.get_mut(at) {
                if entry.next == row {
                    entry.next = next;
                    break;
                }
                at = entry.next;
            }
        }
        let free = self.free;
        if let Some(entry) = self.rows.get_mut(row) {
            *entry = Entry { key: None, hash: 0, next: free, value: V::default() };
            self.free = row;
            self.len -= 1;
        }
    }

    /// The chain of a hash: as many of its low bits as there are chains, one bit less where the
    /// chain of that number was not split off yet. `None` while there is none.
    fn chain(&self, hash: u32) -> Option<Row> {
        let chains = Row::try_from(self.chains.len).ok().filter(|chains| *chains > 0)?;
        let mask = Row::MAX >> (chains.saturating_sub(1) | 1).leading_zeros();
        let chain = hash & mask;
        Some(if chain < chains { chain } else { hash & (mask >> 1) })
    }

    /// Adds a chain once there are as many keys as chains, and moves into it what belongs there.
    fn split(&mut self) {
        if self.len < self.chains.len {
            return;
        }
        let Ok(added) = Row::try_from(self.chains.len) else { return };
        self.chains.push(NONE);
        let Some(highest) = added.checked_ilog2() else { return };
        let old = added ^ (1 << highest);
        let mut row = self.chains.get(old).copied().unwrap_or(NONE);
        let (mut stays, mut moves) = (NONE, NONE);
        while let Some(hash) = self.rows.get(row).map(|entry| entry.hash) {
            let head = if self.chain(hash) == Some(added) { &mut moves } else { &mut stays };
            let Some(entry) = self.rows.get_mut(row) else { break };
            let next = std::mem::replace(&mut entry.next, *head);
            *head = row;
            row = next;
        }
        for (chain, head) in [(old, stays), (added, moves)] {
            if let Some(slot) = self.chains.get_mut(chain) {
                *slot = head;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few distinct low bits, so that chains are long and splits have something to do.
    fn poor_hash(key: u16) -> u32 {
        u32::from(key % 97).wrapping_mul(0x9E37_79B1)
    }

    proptest! {
        #[test]
        fn behaves_like_a_hash_map(
            steps in prop::collection::vec((any::<bool>(), 0u16..600), 0..3_000),
        ) {
            let mut table = Table::new();
            let mut model = HashMap::new();
            for (number, (insert, key)) in steps.into_iter().enumerate() {
                let name = key.to_string();
                let found = table.find(poor_hash(key), &name);
                prop_assert_eq!(found.and_then(|row| table.get(row)).map(|(_, v)| *v),
                    model.get(&key).copied());
                match (insert, found) {
                    (true, None) => {
                        let row = table.insert(poor_hash(key), name.as_str().into(), number);
                        prop_assert_eq!(row, table.find(poor_hash(key), &name));
                        model.insert(key, number);
                    }
                    (true, Some(row)) => {
                        *table.get_mut(row).unwrap() = number;
                        model.insert(key, number);
                    }
                    (false, Some(row)) => {
                        table.remove(row);
                        model.remove(&key);
                        prop_assert_eq!(table.find(poor_hash(key), &name), None);
                    }
                    (false, None) => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let walked = (0..table.rows()).filter_map(|row| table.get(row)).count();
            prop_assert_eq!(walked, model.len());
        }
    }

    #[test]
    fn rows_are_used_again() {
        let mut table = Table::new();
        for round in 0..3u16 {
            for key in 0..2_000u16 {
                table.insert(u32::from(key), key.to_string().into(), round).unwrap();
            }
            for key in 0..2_000u16 {
                table.remove(table.find(u32::from(key), &key.to_string()).unwrap());
            }
            assert_eq!((table.rows(), table.len()), (2_000, 0));
        }
    }
}
