//! All that a worker of the shipped program keeps of its drops.

use super::attribution::Attribution;
use super::history::{History, Tally};
use super::recorder::{Recorder, Tape};
use super::seam::{Account, Dropped};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The accounts of one worker, told one after the other.
#[derive(Debug)]
pub struct Ledger {
    /// Which SA and which policy the drops were about.
    pub attribution: Attribution,
    recorder: Recorder,
    tally: Tally,
    /// The time of this burst, nanoseconds since the Unix epoch: read once, and only if it has drops.
    now: Option<u64>,
}

impl Ledger {
    /// Writes to these, alone.
    pub fn new(attribution: Attribution, tape: Arc<Tape>, history: Arc<History>) -> Self {
        Self { attribution, recorder: Recorder::new(tape), tally: Tally::new(history), now: None }
    }
}

impl Account for Ledger {
    // Drops are the exception: their code stays out of the worker's loops.
    #[cold]
    #[inline(never)]
    fn dropped(&mut self, dropped: &Dropped<'_>) {
        self.attribution.dropped(dropped);
        let now = *self.now.get_or_insert_with(nanoseconds);
        self.tally.dropped(dropped.drop.reason, dropped.packets, now);
        self.recorder.dropped(dropped, now);
    }

    #[inline]
    fn burst_done(&mut self) {
        self.attribution.burst_done();
        if let Some(now) = self.now.take() {
            self.tally.write(now);
            self.recorder.burst_done();
        }
    }

    fn turn_page(&mut self) {
        self.attribution.turn_page();
        self.recorder.catch_up();
    }
}

fn nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
