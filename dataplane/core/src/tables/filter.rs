//! A set of hashes that says "surely not" from little memory.

use std::sync::Arc;

const PAGES: usize = 64;
const WORDS: usize = 512;

/// One bit a hash, out of 2^21. Cloning shares everything, adding copies one page of 4 KiB.
///
/// Nothing is ever taken out: who removes much makes a new one.
#[derive(Clone)]
pub(super) struct Filter {
    pages: Arc<[Arc<[u64; WORDS]>; PAGES]>,
}

impl Default for Filter {
    fn default() -> Self {
        let empty = Arc::new([0; WORDS]);
        Self { pages: Arc::new(std::array::from_fn(|_| empty.clone())) }
    }
}

impl Filter {
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let (page, word, bit) = place(hash);
        self.pages[page][word] & bit != 0
    }

    pub(super) fn add(&mut self, hash: u64) {
        if !self.may_have(hash) {
            let (page, word, bit) = place(hash);
            Arc::make_mut(&mut Arc::make_mut(&mut self.pages)[page])[word] |= bit;
        }
    }
}

/// Page, word and bit of a hash: not the bits by which [`super::Shards`] finds a shard.
#[inline]
fn place(hash: u64) -> (usize, usize, u64) {
    ((hash >> 15) as usize % PAGES, (hash >> 6) as usize % WORDS, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_denies_what_was_added_and_copies_stay() {
        let hashes: Vec<u64> = (1..5000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let (before, mut filter) = (Filter::default(), Filter::default());
        hashes.iter().for_each(|h| filter.add(*h));
        assert!(hashes.iter().all(|h| filter.may_have(*h) && !before.may_have(*h)));
        let others = (5000..105_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        assert!(others.filter(|h| filter.may_have(*h)).count() < 1000);
    }
}
