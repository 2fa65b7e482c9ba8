//! Burst history: how many packets each reason dropped in each hundredth of a second, over the last minutes.
//!
//! Totals hide what happens "only occasionally, under high load". Counts here are as exact as the totals, and read
//! without a lock: a bucket is one word, with the time that it is for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use uvti_core::reason::Reason;

/// Length of a bucket, nanoseconds.
pub const BUCKET: u64 = 10_000_000;
/// Buckets remembered: three minutes.
pub const BUCKETS: usize = 3 * 60 * 100;

/// A word is the bucket's number since the Unix epoch, and below it the packets in it: 40 bits are 348 years, and 24 bits
/// more packets than a machine drops in 10 ms.
const COUNT_BITS: u32 = 24;
const MOST: u64 = (1 << COUNT_BITS) - 1;

/// What one worker dropped: it writes, anybody may read.
#[derive(Debug)]
pub struct History {
    /// By reason; memory is taken at a reason's first drop.
    rows: [OnceLock<Box<[AtomicU64]>>; Reason::COUNT],
}

impl Default for History {
    fn default() -> Self {
        Self { rows: [const { OnceLock::new() }; Reason::COUNT] }
    }
}

impl History {
    /// Adds to `into` the packets of a reason, by the number of the bucket, in the [`BUCKETS`] up to `last`.
    pub fn read(&self, reason: Reason, last: u64, into: &mut BTreeMap<u64, u64>) {
        let Some(row) = self.rows[reason as usize].get() else { return };
        let first = (last + 1).saturating_sub(BUCKETS as u64);
        for word in row.iter().map(|cell| cell.load(Relaxed)) {
            let (bucket, n) = (word >> COUNT_BITS, word & MOST);
            if n > 0 && (first..=last).contains(&bucket) {
                *into.entry(bucket).or_default() += n;
            }
        }
    }

    /// One writer: a load and a store.
    fn add(&self, reason: Reason, bucket: u64, n: u64) {
        let row = self.rows[reason as usize]
            .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect());
        let Some(cell) = row.get((bucket % BUCKETS as u64) as usize) else { return };
        let word = cell.load(Relaxed);
        let before = if word >> COUNT_BITS == bucket { word & MOST } else { 0 };
        cell.store(bucket << COUNT_BITS | (before + n).min(MOST), Relaxed);
    }
}

/// The worker's side of its history.
#[derive(Debug)]
pub struct Tally {
    history: Arc<History>,
    /// Packets of one reason that came one after the other: they are added at once.
    run: Option<(Reason, u64)>,
}

impl Tally {
    /// Writes to `history`, alone.
    pub fn new(history: Arc<History>) -> Self {
        Self { history, run: None }
    }

    /// Counts packets dropped at `now`, nanoseconds since the Unix epoch: the same during a burst.
    #[inline]
    pub fn dropped(&mut self, reason: Reason, packets: u64, now: u64) {
        match &mut self.run {
            Some((same, n)) if *same == reason => *n += packets,
            _ => {
                self.write(now);
                self.run = Some((reason, packets));
            }
        }
    }

    /// Writes what was counted.
    #[inline]
    pub fn write(&mut self, now: u64) {
        if let Some((reason, n)) = self.run.take() {
            self.history.add(reason, now / BUCKET, n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000_000_000;

    fn read(history: &History, reason: Reason, now: u64) -> Vec<(u64, u64)> {
        let mut buckets = BTreeMap::new();
        history.read(reason, now / BUCKET, &mut buckets);
        buckets.into_iter().map(|(bucket, n)| (bucket - NOW / BUCKET, n)).collect()
    }

    #[test]
    fn runs_of_a_reason_end_up_in_their_bucket_exactly() {
        let history = Arc::new(History::default());
        let mut tally = Tally::new(history.clone());
        for burst in 0..300 {
            let now = NOW + burst * BUCKET / 100;
            for (reason, n) in [(Reason::TxNoSa, 1), (Reason::TxNoSa, 2), (Reason::TxTooBig, 5)] {
                tally.dropped(reason, n, now);
            }
            tally.dropped(Reason::TxNoSa, 1, now);
            tally.write(now);
        }
        let now = NOW + 3 * BUCKET;
        assert_eq!(read(&history, Reason::TxNoSa, now), [(0, 400), (1, 400), (2, 400)]);
        assert_eq!(read(&history, Reason::TxTooBig, now), [(0, 500), (1, 500), (2, 500)]);
        assert_eq!(read(&history, Reason::TxNoPolicy, now), []);
    }

    #[test]
    fn what_is_older_than_the_window_is_gone_and_its_memory_used_again() {
        let history = Arc::new(History::default());
        let mut tally = Tally::new(history.clone());
        let window = BUCKETS as u64;
        for at in [0, 1, window, 2 * window + 1] {
            tally.dropped(Reason::TxNoSa, at + 1, NOW + at * BUCKET);
            tally.write(NOW + at * BUCKET);
        }
        // The bucket of 1 was taken by 2w + 1; that of 0 by w, which is too old at 2w + 1.
        assert_eq!(
            read(&history, Reason::TxNoSa, NOW + 2 * window * BUCKET + BUCKET),
            [(2 * window + 1, 2 * window + 2)]
        );
        assert_eq!(read(&history, Reason::TxNoSa, NOW + window * BUCKET), [(window, window + 1)]);
    }

    #[test]
    fn workers_add_up() {
        let mut buckets = BTreeMap::new();
        for _ in 0..3 {
            let history = Arc::new(History::default());
            let mut tally = Tally::new(history.clone());
            tally.dropped(Reason::RxNoSa, 2, NOW);
            tally.write(NOW);
            history.read(Reason::RxNoSa, NOW / BUCKET, &mut buckets);
        }
        assert_eq!(buckets.into_values().collect::<Vec<_>>(), [6]);
    }
}
