//! Which of its two banks a worker writes.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The agreement between one worker and the collector.
///
/// The worker alone writes the open bank. After a flip it never touches the other one again until the next flip, and
/// what it wrote there is visible to the collector.
#[derive(Debug)]
pub struct Flip {
    wanted: AtomicUsize,
    open: AtomicUsize,
}

impl Default for Flip {
    fn default() -> Self {
        Self { wanted: AtomicUsize::new(0), open: AtomicUsize::new(0) }
    }
}

impl Flip {
    /// The worker, between two bursts: the bank that it is to [`open`](Self::open) instead of the one that it writes,
    /// if a flip is asked for. It must not go to sleep then.
    #[inline]
    pub fn asked(&self) -> Option<usize> {
        // Acquire: the collector zeroed that bank before it asked for it.
        let wanted = self.wanted.load(Ordering::Acquire);
        (wanted != self.open.load(Ordering::Relaxed)).then_some(wanted)
    }

    /// The worker: from here on it writes `bank`, for which it was [`asked`](Self::asked), and leaves the other.
    #[inline]
    pub fn open(&self, bank: usize) {
        // Release: what was written to the other bank comes before this.
        self.open.store(bank, Ordering::Release);
    }

    /// The collector: asks for the other bank, unless what it asked for last is not [`done`](Self::done) yet.
    pub fn ask(&self) {
        if let Some(left) = self.done() {
            self.wanted.store(left, Ordering::Release);
        }
    }

    /// The collector: the bank that the worker has left, once it has.
    pub fn done(&self) -> Option<usize> {
        let wanted = self.wanted.load(Ordering::Relaxed);
        (self.open.load(Ordering::Acquire) == wanted).then_some(1 - wanted)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// Every packet counted by the worker is added up exactly once, whatever the interleaving.
    #[test]
    fn nothing_is_lost_or_counted_twice() {
        loom::model(|| {
            let flip = Arc::new(Flip::default());
            let banks = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let worker = {
                let (flip, banks) = (flip.clone(), banks.clone());
                thread::spawn(move || {
                    let mut bank = 0;
                    let mut boundary = || {
                        if let Some(next) = flip.asked() {
                            flip.open(next);
                            bank = next;
                        }
                        bank
                    };
                    for _ in 0..2 {
                        let cell = &banks[boundary()];
                        cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                    boundary();
                })
            };
            let mut total = 0;
            flip.ask();
            // Once, while the worker runs: waiting for it would only add turns of the same.
            if let Some(left) = flip.done() {
                total += banks[left].load(Ordering::Relaxed);
                banks[left].store(0, Ordering::Relaxed);
            }
            worker.join().unwrap();
            total += banks[0].load(Ordering::Relaxed) + banks[1].load(Ordering::Relaxed);
            assert_eq!(total, 2);
        });
    }
}
