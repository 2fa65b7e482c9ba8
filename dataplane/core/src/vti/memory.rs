//! What was decided for a key before: a cache that a burst can rely on.

use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hash};

const WAYS: usize = 4;
const SETS: usize = 1024;
const PLACES: usize = WAYS * SETS;

/// Values by key, for a few thousand keys; the rest is forgotten. Nothing that the burst at hand has found or put is
/// forgotten before the next one: its place stays valid.
pub(super) struct Memory<K, V> {
    /// Some bits of the hash of what is at a place; 0 where nothing is to be found.
    tags: Box<[[u32; WAYS]]>,
    /// The sets, and behind them what this burst found no place for.
    entries: Vec<Option<Entry<K, V>>>,
    /// Places that hold something.
    filled: Vec<u32>,
    burst: u64,
    /// Where the last one was: packets of a flow come together.
    last: usize,
    hasher: RandomState,
}

/// Two cache lines, if the value is small enough.
#[repr(align(128))]
struct Entry<K, V> {
    key: K,
    value: V,
    /// The last burst that needed it.
    burst: u64,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self {
            tags: vec![[0; WAYS]; SETS].into(),
            entries: Vec::new(),
            filled: Vec::new(),
            burst: 0,
            last: 0,
            hasher: RandomState::default(),
        }
    }
}

/// The hash of a key.
#[derive(Clone, Copy)]
pub(super) struct Hashed(u64);

impl Hashed {
    #[inline]
    fn set(self) -> usize {
        self.0 as usize % SETS
    }

    #[inline]
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32 | 1
    }
}

impl<K: Hash + Eq, V> Memory<K, V> {
    /// Begins a burst: places of the one before may be used again.
    pub(super) fn begin(&mut self) {
        self.burst += 1;
        self.entries.truncate(PLACES);
    }

    /// The number of the burst at hand.
    #[inline]
    pub(super) fn burst(&self) -> u64 {
        self.burst
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.truncate(PLACES);
        for place in self.filled.drain(..) {
            let place = place as usize;
            self.entries[place] = None;
            self.tags[place / WAYS][place % WAYS] = 0;
        }
    }

    /// The place of a key, if it is there.
    #[inline]
    pub(super) fn find(&mut self, key: &K) -> Option<usize> {
        if self.is_at(self.last, key) {
            return Some(self.last);
        }
        self.search(key).inspect(|place| self.last = *place)
    }

    #[inline]
    fn hash(&self, key: &K) -> Hashed {
        Hashed(self.hasher.hash_one(key))
    }

    #[inline]
    fn search(&mut self, key: &K) -> Option<usize> {
        let hash = self.hash(key);
        // All ways at once: which of them it is cannot be guessed.
        let tags = &self.tags[hash.set()];
        let mut ways: u32 = (0..WAYS).map(|way| u32::from(tags[way] == hash.tag()) << way).sum();
        while ways != 0 {
            let place = hash.set() * WAYS + ways.trailing_zeros() as usize;
            if self.is_at(place, key) {
                return Some(place);
            }
            ways &= ways - 1;
        }
        // Of several the last put is meant.
        (PLACES..self.entries.len()).rev().find(|place| self.is_at(*place, key))
    }

    /// Whether a key is at a place; it is then needed in this burst.
    #[inline]
    fn is_at(&mut self, place: usize, key: &K) -> bool {
        match self.entries.get_mut(place) {
            Some(Some(entry)) if entry.key == *key => {
                entry.burst = self.burst;
                true
            }
            _ => false,
        }
    }

    /// What is at a place found or put in this burst.
    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<&V> {
        self.entries.get(place)?.as_ref().map(|e| &e.value)
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut V> {
        self.entries.get_mut(place)?.as_mut().map(|e| &mut e.value)
    }

    /// Puts a value where the key will be found. What is at `stale` is not found again, but stays until the burst ends.
    pub(super) fn put(&mut self, key: K, value: V, stale: Option<usize>) -> usize {
        let hash = self.hash(&key);
        if self.entries.is_empty() {
            self.entries.resize_with(PLACES, || None);
        }
        if let Some(stale) = stale.filter(|s| *s < PLACES) {
            self.tags[hash.set()][stale % WAYS] = 0;
        }
        let first = hash.set() * WAYS;
        let free = |place: &usize| match &self.entries[*place] {
            Some(entry) => entry.burst != self.burst,
            None => true,
        };
        // Which of the old ones goes is as good as random.
        let turn = (hash.0 >> 20) as usize;
        let entry = Some(Entry { key, value, burst: self.burst });
        self.last = match (0..WAYS).map(|way| first + (way + turn) % WAYS).find(free) {
            Some(place) => {
                if self.entries[place].is_none() {
                    self.filled.push(place as u32);
                }
                self.entries[place] = entry;
                self.tags[hash.set()][place % WAYS] = hash.tag();
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever was put or found in a burst stays at its place until the next; what is found is what was put last.
        #[test]
        fn a_burst_can_rely_on_its_places(bursts in proptest::collection::vec(
            proptest::collection::vec((0u32..20_000, any::<bool>()), 0..64), 0..60))
        {
            let mut memory = Memory::<u32, u64>::default();
            let mut newest = std::collections::HashMap::new();
            let mut counter = 0;
            for burst in bursts {
                memory.begin();
                let mut places = Vec::new();
                for (key, renew) in burst {
                    let found = memory.find(&key).inspect(|place| assert_eq!(memory.get(*place), Some(&newest[&key])));
                    let place = match found.filter(|_| !renew) {
                        Some(place) => place,
                        None => {
                            counter += 1;
                            newest.insert(key, counter);
                            memory.put(key, counter, found)
                        }
                    };
                    prop_assert_eq!(memory.find(&key), Some(place));
                    prop_assert_eq!(memory.search(&key), Some(place));
                    places.push((place, newest[&key]));
                }
                for (place, value) in places {
                    prop_assert_eq!(memory.get(place), Some(&value));
                }
            }
            memory.clear();
            prop_assert!(memory.entries.iter().all(Option::is_none) && memory.tags.iter().all(|t| *t == [0; WAYS]));
        }
    }

    /// Keys of one set, more than it has ways, all needed at once.
    #[test]
    fn a_full_set_overflows_for_a_burst() {
        let mut memory = Memory::<u32, u32>::default();
        let set = |memory: &mut Memory<u32, u32>, key: u32| memory.hash(&key).set();
        let wanted = set(&mut memory, 0);
        let keys: Vec<u32> = (0..).filter(|k| set(&mut memory, *k) == wanted).take(WAYS + 3).collect();
        memory.begin();
        for key in &keys {
            assert_eq!(memory.find(key), None);
            memory.put(*key, *key, None);
        }
        assert!(keys.iter().all(|k| memory.find(k).and_then(|at| memory.get(at).copied()) == Some(*k)));
        memory.begin();
        assert_eq!(keys.iter().filter(|k| memory.find(k).is_some()).count(), WAYS);
    }
}
