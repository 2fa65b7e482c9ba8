//! Sequence numbers of sent packets (RFC 4303 §3.3.3).

use crate::xfrm::ReplayCounters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The last sequence number an SA has sent.
///
/// One writer, the SA's home worker; others may read. The count is 64 bits wide whatever goes on the wire, so that
/// an IV made of it never repeats, not even where `oseq-may-wrap` lets the 32 bits on the wire start again.
#[derive(Debug)]
pub struct OutSeq {
    last: AtomicU64,
    /// The last number that may be sent.
    limit: u64,
    /// The last number that may be sent yet: all of them, unless somebody keeps account on a disk.
    granted: AtomicU64,
    esn: bool,
}

impl OutSeq {
    /// Continues after `start.oseq` (and `start.oseq_hi`, with `esn`); the first number of a new SA is 1.
    ///
    /// Without ESN the last number is 2³²−1, or there is none with `may_wrap` (`extra-flag oseq-may-wrap`): after it
    /// the wire shows 0. With ESN it is 2⁶⁴−1, `may_wrap` or not.
    // kernel: net/xfrm/xfrm_replay.c xfrm_replay_overflow_bmp(), xfrm_replay_overflow_esn()
    pub fn new(start: &ReplayCounters, esn: bool, may_wrap: bool) -> Self {
        let hi = if esn { start.oseq_hi } else { 0 };
        let last = u64::from(hi) << 32 | u64::from(start.oseq);
        let limit = if esn || may_wrap { u64::MAX } else { u64::from(u32::MAX) };
        Self { last: AtomicU64::new(last), limit, granted: AtomicU64::new(u64::MAX), esn }
    }

    /// Takes the next numbers, up to `n`: fewer where the count would overflow, and those that could not be had
    /// change nothing. Every number returned is used up, whether a packet leaves with it or not.
    #[inline]
    pub fn reserve(&self, n: usize) -> Numbers {
        let last = self.last();
        let left = self.available().min(n as u64);
        self.last.store(last + left, Relaxed);
        Numbers { last, left }
    }

    /// How many numbers may be sent as things stand.
    #[inline]
    pub fn available(&self) -> u64 {
        self.limit.min(self.granted.load(Relaxed)).saturating_sub(self.last())
    }

    /// Whether numbers are left that were not granted yet.
    pub fn waits(&self) -> bool {
        self.granted.load(Relaxed) < self.limit
    }

    /// Lets numbers up to `end` be sent, and no others until this is called again.
    pub fn grant(&self, end: u64) {
        self.granted.store(end, Relaxed);
    }

    /// Goes on after `last`, if that is further than it is. Only before the first number is sent.
    pub fn resume(&self, last: u64) {
        self.last.store(self.last().max(last).min(self.limit), Relaxed);
    }

    /// The last number that may ever be sent.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The last number sent, 64 bits wide.
    pub fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }

    /// Writes `oseq` and `oseq_hi` as the kernel shows them.
    pub fn snapshot(&self, into: &mut ReplayCounters) {
        let last = self.last();
        into.oseq = last as u32;
        into.oseq_hi = if self.esn { (last >> 32) as u32 } else { 0 };
    }
}

/// Reserved sequence numbers, ascending; `len()` says how many were to be had.
#[derive(Clone, Debug)]
pub struct Numbers {
    last: u64,
    left: u64,
}

impl Iterator for Numbers {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.last += 1;
        Some(self.last)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Numbers {}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(oseq: u32, oseq_hi: u32, esn: bool, may_wrap: bool) -> OutSeq {
        OutSeq::new(&ReplayCounters { oseq, oseq_hi, ..Default::default() }, esn, may_wrap)
    }

    fn wire(numbers: Numbers) -> Vec<u32> {
        numbers.map(|n| n as u32).collect()
    }

    #[test]
    fn counts_from_one() {
        let s = seq(0, 0, false, false);
        assert_eq!(s.reserve(0).len(), 0);
        assert_eq!(s.reserve(2).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(s.reserve(1).collect::<Vec<_>>(), [3]);
    }

    /// Scenario tx_seq_overflow: two of five pass, then none, ever, and the number stands.
    #[test]
    fn stops_at_the_end_of_32_bits() {
        let s = seq(0xffff_fffd, 0, false, false);
        assert_eq!(wire(s.reserve(5)), [0xffff_fffe, 0xffff_ffff]);
        assert_eq!((s.reserve(5).len(), s.available()), (0, 0));
        let mut shown = ReplayCounters::default();
        s.snapshot(&mut shown);
        assert_eq!((shown.oseq, shown.oseq_hi), (0xffff_ffff, 0));
    }

    /// Scenario tx_seq_maywrap. The high half is ours alone: not shown, but it keeps IVs apart.
    #[test]
    fn may_wrap_shows_zero_but_goes_on() {
        let s = seq(0xffff_fffd, 0, false, true);
        let numbers = s.reserve(5);
        assert_eq!(wire(numbers.clone()), [0xffff_fffe, 0xffff_ffff, 0, 1, 2]);
        assert_eq!(numbers.last(), Some(0x1_0000_0002));
        let mut shown = ReplayCounters::default();
        s.snapshot(&mut shown);
        assert_eq!((shown.oseq, shown.oseq_hi), (2, 0));
    }

    /// Scenario tx_seq_esn_wrap.
    #[test]
    fn esn_carries_into_the_high_half() {
        let s = seq(0xffff_fffd, 0, true, false);
        assert_eq!(s.reserve(5).last(), Some(0x1_0000_0002));
        let mut shown = ReplayCounters::default();
        s.snapshot(&mut shown);
        assert_eq!((shown.oseq, shown.oseq_hi), (2, 1));
    }

    #[test]
    fn sends_only_what_was_granted() {
        let s = seq(0, 0, false, false);
        s.resume(5);
        s.resume(2);
        s.grant(7);
        assert_eq!(wire(s.reserve(5)), [6, 7]);
        assert_eq!((s.available(), s.waits()), (0, true));
        s.grant(u64::MAX);
        assert_eq!((wire(s.reserve(1)), s.waits()), (vec![8], false));
    }

    #[test]
    fn resumes_at_the_end_with_nothing_left() {
        let s = seq(0, 0, false, false);
        s.resume(u64::MAX);
        assert_eq!((s.available(), s.last()), (0, u64::from(u32::MAX)));
    }

    /// Scenario tx_seq_esn_overflow; `oseq-may-wrap` does not change it.
    #[test]
    fn stops_at_the_end_of_64_bits() {
        for may_wrap in [false, true] {
            let s = seq(0xffff_fffd, u32::MAX, true, may_wrap);
            assert_eq!(wire(s.reserve(5)), [0xffff_fffe, 0xffff_ffff]);
            assert_eq!(s.reserve(1).len(), 0);
        }
    }
}
