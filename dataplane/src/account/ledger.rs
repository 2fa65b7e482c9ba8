//! All that a worker of the shipped program keeps of its drops.

use super::attribution::Attribution;
use super::seam::{Account, Dropped};

/// The accounts of one worker, told one after the other.
#[derive(Debug)]
pub struct Ledger {
    /// Which SA and which policy the drops were about.
    pub attribution: Attribution,
}

impl Account for Ledger {
    #[inline]
    fn dropped(&mut self, dropped: &Dropped<'_>) {
        self.attribution.dropped(dropped);
    }

    #[inline]
    fn burst_done(&mut self) {
        self.attribution.burst_done();
    }

    fn turn_page(&mut self) {
        self.attribution.turn_page();
    }
}
