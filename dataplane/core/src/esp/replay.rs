//! The replay window (RFC 4303 §3.4.3 and appendix A).

use crate::xfrm::{MAX_REPLAY_WINDOW, ReplayCounters};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[cfg(test)]
mod tests;

/// Why a sequence number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReplayError {
    /// Number 0, or with ESN one from before it: never sent.
    #[error("sequence number 0 is never sent")]
    Zero,
    /// Left of the window.
    #[error("left of the replay window")]
    Old,
    /// Seen before.
    #[error("seen before")]
    Duplicate,
}

/// The window of one SA: the highest authentic sequence number, and which of those before it were seen.
///
/// One writer, the SA's home worker; others may read at any time, and then see each word whole but not all of them
/// at the same moment. A bit is found at its number modulo the ring's size, a power of two not below the window.
#[derive(Debug)]
pub struct Replay {
    top: AtomicU64,
    ring: Box<[AtomicU64]>,
    window: u64,
    esn: bool,
    /// Numbers up to here were before our time: they are not counted as lost. [`NOTHING_SEEN`] until there is one.
    start: AtomicU64,
}

/// No number can be before this one.
const NOTHING_SEEN: u64 = u64::MAX;

/// Bits in a word of the ring.
const WORD: u64 = u64::BITS as u64;

impl Replay {
    /// A window of `window` numbers (0 is no check at all, more than 4096 is 4096) that continues from `start`.
    pub fn new(window: u32, esn: bool, start: &ReplayCounters) -> Self {
        let window = u64::from(window.min(MAX_REPLAY_WINDOW));
        let words = window.next_power_of_two().div_ceil(WORD);
        let hi = if esn { start.seq_hi } else { 0 };
        let top = u64::from(hi) << 32 | u64::from(start.seq);
        let new = Self {
            top: AtomicU64::new(top),
            ring: (0..words).map(|_| AtomicU64::new(0)).collect(),
            window,
            esn,
            // Of a window that continues another one the start is known; the first number tells it of a new one.
            start: AtomicU64::new(if top == 0 { NOTHING_SEEN } else { top }),
        };
        for distance in 0..new.shown_bits().min(top) {
            let (word, bit) = new.shown_at(top, distance);
            if start.bitmap.get(word).is_some_and(|w| w >> bit & 1 == 1) {
                new.mark(top - distance);
            }
        }
        new
    }

    /// Goes on from `top`, if that is further than it is: of what is at or below it nothing is accepted, for nobody knows
    /// what was seen. Only before the first number is noted.
    pub fn resume(&self, top: u64) {
        let keeps_a_top = self.window > 0 || self.esn;
        if top <= self.top() || !keeps_a_top {
            return;
        }
        self.top.store(top, Relaxed);
        self.start.store(top, Relaxed);
        self.ring.iter().for_each(|word| word.store(u64::MAX, Relaxed));
    }

    /// Whether a packet with this low half may be new, and its whole number, before its ICV is known to be right.
    ///
    /// With ESN a number below the window is taken as one of the next 2³² (the ICV then tells). Where the kernel
    /// guesses a high half of −1, which no peer can have sent, this answers [`ReplayError::Zero`].
    // kernel: net/xfrm/xfrm_replay.c xfrm_replay_check_legacy(), xfrm_replay_check_bmp(), xfrm_replay_check_esn()
    #[inline]
    pub fn check(&self, seq_low: u32) -> Result<u64, ReplayError> {
        let top = self.top.load(Relaxed);
        let seq = if self.esn { self.extend(top, seq_low)? } else { u64::from(seq_low) };
        if self.window == 0 {
            return Ok(seq);
        }
        if seq == 0 {
            return Err(ReplayError::Zero);
        }
        if seq > top {
            return Ok(seq);
        }
        if top - seq >= self.window {
            return Err(ReplayError::Old);
        }
        if self.seen(seq) {
            return Err(ReplayError::Duplicate);
        }
        Ok(seq)
    }

    /// Notes `seq`, as [`Replay::check`] returned it, once the packet has proved authentic. Returns how many
    /// numbers left the window without having been seen.
    // kernel: net/xfrm/xfrm_replay.c xfrm_replay_advance_bmp(), xfrm_replay_advance_esn()
    #[inline]
    pub fn advance(&self, seq: u64) -> u64 {
        let top = self.top.load(Relaxed);
        if self.window == 0 {
            // Without a window the kernel shows no received number; with ESN it is needed to guess the high half.
            if self.esn && seq > top {
                self.top.store(seq, Relaxed);
            }
            return 0;
        }
        if seq <= top {
            if top - seq < self.window {
                self.mark(seq);
            }
            return 0;
        }
        if self.start.load(Relaxed) == NOTHING_SEEN {
            self.start.store(seq - 1, Relaxed);
        }
        if seq == top + 1 {
            return self.advance_by_one(seq);
        }
        let lost = self.unseen_when_top_is(seq, top);
        self.clear(top + 1, seq);
        self.mark(seq);
        self.top.store(seq, Relaxed);
        lost
    }

    /// The common case of [`Replay::advance`]: the next number. One leaves the window, and the ring's bit of one long
    /// gone is the new one's.
    #[inline]
    fn advance_by_one(&self, seq: u64) -> u64 {
        let leaves = seq.wrapping_sub(self.window);
        let lost = seq > self.window && leaves > self.start.load(Relaxed) && !self.seen(leaves);
        self.mark(seq);
        self.top.store(seq, Relaxed);
        u64::from(lost)
    }

    /// The highest authentic number so far.
    pub fn top(&self) -> u64 {
        self.top.load(Relaxed)
    }

    /// Writes `seq`, `seq_hi` and the bitmap as the kernel shows them.
    pub fn snapshot(&self, into: &mut ReplayCounters) {
        let top = self.top();
        let shown = self.shown_bits();
        into.seq = top as u32;
        into.seq_hi = (top >> 32) as u32;
        into.bitmap = vec![0; shown.div_ceil(32) as usize];
        for distance in (0..shown.min(top)).filter(|d| self.seen(top - d)) {
            let (word, bit) = self.shown_at(top, distance);
            into.bitmap[word] |= 1 << bit;
        }
    }

    /// The whole number behind a low half: the one in the window or above it (RFC 4303 appendix A2.2), or without a
    /// window the one nearest to the top.
    #[inline]
    fn extend(&self, top: u64, low: u32) -> Result<u64, ReplayError> {
        let behind = if self.window == 0 { 1 << 31 } else { self.window - 1 };
        // The number in [bottom, bottom + 2^32) with this low half, modulo 2^64.
        let bottom = top.wrapping_sub(behind);
        let seq = bottom.wrapping_add(u64::from(low.wrapping_sub(bottom as u32)));
        match (top < behind, seq >= bottom) {
            (true, true) => Err(ReplayError::Zero),
            (false, false) => Err(ReplayError::Old),
            _ => Ok(seq),
        }
    }

    /// Numbers that leave the window unseen when `seq` follows `top`.
    #[inline]
    fn unseen_when_top_is(&self, seq: u64, top: u64) -> u64 {
        let last_out = seq.saturating_sub(self.window);
        let first = top.saturating_sub(self.window - 1).max(self.start.load(Relaxed).saturating_add(1));
        if last_out < first {
            return 0;
        }
        let mut seen = 0;
        self.words(first, last_out.min(top), |word, mask| {
            seen += u64::from((word.load(Relaxed) & mask).count_ones());
        });
        last_out - first + 1 - seen
    }

    /// Forgets the numbers `first..=last`, which follow the top. A jump over the whole window forgets all.
    #[inline]
    fn clear(&self, first: u64, last: u64) {
        let last =
            if last - first >= self.window - 1 { first.saturating_add(self.ring_bits() - 1) } else { last };
        self.words(first, last, |word, mask| word.store(word.load(Relaxed) & !mask, Relaxed));
    }

    /// The words that hold the numbers `first..=last`, at most a ring full, with the mask of those numbers.
    #[inline]
    fn words(&self, first: u64, last: u64, mut each: impl FnMut(&AtomicU64, u64)) {
        let mut next = Some(first);
        while let Some(n) = next.filter(|n| *n <= last) {
            let bit = n % WORD;
            let count = (WORD - bit).min((last - n).saturating_add(1));
            each(self.word(n), (u64::MAX >> (WORD - count)) << bit);
            next = n.checked_add(count);
        }
    }

    #[inline]
    fn word(&self, seq: u64) -> &AtomicU64 {
        &self.ring[(seq / WORD) as usize & (self.ring.len() - 1)]
    }

    #[inline]
    fn seen(&self, seq: u64) -> bool {
        self.word(seq).load(Relaxed) >> (seq % WORD) & 1 == 1
    }

    #[inline]
    fn mark(&self, seq: u64) {
        let word = self.word(seq);
        word.store(word.load(Relaxed) | 1 << (seq % WORD), Relaxed);
    }

    fn ring_bits(&self) -> u64 {
        self.ring.len() as u64 * WORD
    }

    /// Whether the kernel keeps this window in the one word of `struct xfrm_replay_state`.
    fn is_legacy(&self) -> bool {
        !self.esn && self.window <= 32
    }

    /// How many numbers, from the top down, the kernel's bitmap shows. A legacy word has 32 whatever the window.
    fn shown_bits(&self) -> u64 {
        if self.is_legacy() { 32 } else { self.window }
    }

    /// Word and bit at which the kernel shows the number `distance` below `top`.
    ///
    /// kernel: include/uapi/linux/xfrm.h struct xfrm_replay_state, struct xfrm_replay_state_esn
    fn shown_at(&self, top: u64, distance: u64) -> (usize, u32) {
        if self.is_legacy() {
            return (0, distance as u32);
        }
        let newest = u64::from((top as u32).wrapping_sub(1)) % self.window;
        let bit = (newest + self.window - distance) % self.window;
        ((bit / 32) as usize, (bit % 32) as u32)
    }
}
