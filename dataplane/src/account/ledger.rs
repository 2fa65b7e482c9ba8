//! All that a worker of the shipped program keeps of its drops.

use super::seam::{Account, Dropped};

/// The accounts of one worker, told one after the other.
#[derive(Debug, Default)]
pub struct Ledger {}

impl Account for Ledger {
    #[inline]
    fn dropped(&mut self, _dropped: &Dropped<'_>) {}

    #[inline]
    fn burst_done(&mut self) {}
}
