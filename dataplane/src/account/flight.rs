//! The flight recorder of a whole dataplane: the tapes and histories of all workers, for whoever reads.

use super::attribution::Attribution;
use super::history::History;
use super::ledger::Ledger;
use super::recorder::{Record, Tape};
use std::collections::BTreeMap;
use std::sync::Arc;
use uvti_core::reason::Reason;

/// What all workers have recorded of their drops.
#[derive(Debug)]
pub struct FlightRecorder {
    tapes: Vec<Arc<Tape>>,
    histories: Vec<Arc<History>>,
}

/// Records, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// By worker, and oldest first.
    pub records: Vec<Record>,
    /// By worker: the place behind which to go on.
    pub reached: Vec<u64>,
    /// Whether there are more by now.
    pub more: bool,
}

impl FlightRecorder {
    /// Empty, for so many workers; keeps `keep` packets of each reason and worker.
    pub fn new(workers: usize, keep: usize) -> Self {
        Self {
            tapes: (0..workers).map(|i| Arc::new(Tape::new(i as u16, keep))).collect(),
            histories: (0..workers).map(|_| Arc::default()).collect(),
        }
    }

    /// The workers' sides, in their order, each with an attribution of its own.
    pub fn ledgers(&self, attribution: impl Fn() -> Attribution) -> Vec<Ledger> {
        let pairs = self.tapes.iter().zip(&self.histories);
        pairs.map(|(tape, history)| Ledger::new(attribution(), tape.clone(), history.clone())).collect()
    }

    /// At most `most` records behind the places reached before (from the start where there is none): of one reason, or
    /// of all.
    pub fn after(&self, reached: &[u64], reason: Option<Reason>, most: usize) -> Page {
        let mut page = Page::default();
        for (worker, tape) in self.tapes.iter().enumerate() {
            let from = reached.get(worker).copied().unwrap_or(0);
            let room = most - page.records.len().min(most);
            page.reached.push(tape.after(from, reason, room, &mut page.records));
        }
        page.more = page.records.len() >= most;
        page
    }

    /// Packets that were not recorded because somebody was reading at that moment, and at the one before.
    pub fn skipped(&self) -> u64 {
        self.tapes.iter().map(|tape| tape.skipped()).sum()
    }

    /// Packets dropped by the number of the [`BUCKET`](super::BUCKET), in the [`BUCKETS`](super::BUCKETS) up to
    /// `last`, of each reason that has any.
    pub fn history(&self, last: u64) -> Vec<(Reason, BTreeMap<u64, u64>)> {
        let row = |reason: &Reason| {
            let mut buckets = BTreeMap::new();
            self.histories.iter().for_each(|h| h.read(*reason, last, &mut buckets));
            (*reason, buckets)
        };
        Reason::ALL.iter().map(row).filter(|(_, buckets)| !buckets.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::seam::{Account, Dropped};
    use super::*;
    use uvti_core::device::DeviceId;

    #[test]
    fn pages_reach_every_record_of_every_worker_once() {
        let flight = FlightRecorder::new(3, 4);
        for (worker, ledger) in flight.ledgers(|| Attribution::new(8)).iter_mut().enumerate() {
            for reason in [Reason::TxNoSa, Reason::TxTooBig, Reason::RxNoSa] {
                for _ in 0..worker + 3 {
                    let drop = &reason.into();
                    let device = DeviceId::NONE;
                    ledger.dropped(&Dropped { device, drop, packet: b"", packets: 1, outer: None });
                    ledger.burst_done();
                }
            }
        }
        let (mut reached, mut seen) = (Vec::new(), Vec::new());
        loop {
            let page = flight.after(&reached, None, 5);
            assert!(page.records.len() <= 5);
            seen.extend(page.records.iter().map(|r| (r.worker, r.seq)));
            reached = page.reached;
            if !page.more {
                break;
            }
        }
        seen.sort_unstable();
        // Three of each reason by the first worker, four by the others.
        assert_eq!(seen.len(), 9 + 12 + 12);
        seen.dedup();
        assert_eq!(seen.len(), 33);
        assert!(flight.after(&reached, None, 5).records.is_empty());
    }
}
