//! Adding up what the workers counted.

use super::attributed::{Attributed, AttributedRow};
use super::attribution::Shelf;
use super::bank::{CELLS, Count, DeviceCounters, cell, drop_cell};
use super::flip::Flip;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uvti_core::device::DeviceId;
use uvti_core::reason::{LinkKind, LinkStats, Mib, Reason, Way};

/// How long a worker may take to come to the end of a burst.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker did not flip its banks: it hangs, or died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} does not answer")]
pub struct Stuck(pub usize);

/// Totals of one device on one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells([u64; CELLS]);

impl Default for Cells {
    fn default() -> Self {
        Self([0; CELLS])
    }
}

impl Cells {
    /// A count.
    pub fn of(&self, way: Way, count: Count) -> u64 {
        self.0[cell(way, count)]
    }

    /// Packets dropped for a reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.0[drop_cell(reason)]
    }

    /// Packets dropped in one direction.
    pub fn drops(&self, way: Way) -> u64 {
        Reason::ALL.iter().filter(|r| r.row().way == way).map(|r| self.dropped(*r)).sum()
    }

    /// Adds another worker's or device's.
    pub fn add(&mut self, other: &Cells) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += b);
    }

    /// What the link counters of a kernel's device of this kind would be; there are none of what met no device.
    pub fn link_stats(&self, kind: Option<LinkKind>) -> LinkStats {
        let mut stats = LinkStats {
            rx_packets: self.of(Way::Rx, Count::Out),
            rx_bytes: self.of(Way::Rx, Count::Bytes),
            tx_packets: self.of(Way::Tx, Count::Out) + self.of(Way::Tx, Count::Queued),
            tx_bytes: self.of(Way::Tx, Count::Bytes),
            ..LinkStats::default()
        };
        for reason in Reason::ALL {
            let (n, row) = (self.dropped(*reason), reason.row());
            row.counted_by(kind).for_each(|field| field.add(&mut stats, n));
        }
        stats
    }

    /// A counter of `/proc/net/xfrm_stat`.
    pub fn mib(&self, mib: Mib) -> u64 {
        Reason::ALL.iter().filter(|r| r.row().mib.contains(&mib)).map(|r| self.dropped(*r)).sum()
    }
}

/// One conservation identity: a device on a worker in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The device; [`DeviceId::NONE`] for packets that met none.
    pub device: DeviceId,
    /// The worker.
    pub worker: usize,
    /// Its totals.
    pub cells: Cells,
}

/// Adds up the banks, and keeps the totals: of devices that are gone, too.
#[derive(Debug)]
pub struct Collector {
    flips: Vec<Arc<Flip>>,
    shelves: Vec<Arc<Shelf>>,
    attributed: Attributed,
    devices: BTreeMap<DeviceId, Arc<DeviceCounters>>,
    totals: BTreeMap<(DeviceId, usize), Cells>,
}

impl Collector {
    /// For workers with these agreements, which leave what they attribute on these shelves; at most so many rows of it
    /// are kept.
    pub fn new(flips: Vec<Arc<Flip>>, shelves: Vec<Arc<Shelf>>, rows: usize) -> Self {
        let attributed = Attributed::new(rows);
        Self { flips, shelves, attributed, devices: BTreeMap::new(), totals: BTreeMap::new() }
    }

    /// A new device's counters, to be handed to the workers.
    pub fn add_device(&mut self, id: DeviceId) -> Arc<DeviceCounters> {
        let counters = Arc::new(DeviceCounters::new(self.flips.len()));
        self.devices.insert(id, counters.clone());
        counters
    }

    /// Flips every worker's banks and adds up what they left. `wake` makes a worker that sleeps come round.
    /// Totals are exact as of each worker's last burst boundary.
    pub fn collect(&mut self, wake: impl Fn(usize)) -> Result<(), Stuck> {
        for (worker, flip) in self.flips.iter().enumerate() {
            flip.ask();
            wake(worker);
        }
        for worker in 0..self.flips.len() {
            let bank = wait_for(&self.flips[worker]).ok_or(Stuck(worker))?;
            for (id, counters) in &self.devices {
                let total = self.totals.entry((*id, worker)).or_default();
                counters.drain(worker, bank, &mut total.0);
            }
            if let Some(shelf) = self.shelves.get(worker) {
                self.attributed.take(&mut shelf.page());
            }
        }
        Ok(())
    }

    /// Totals by device and worker.
    pub fn rows(&self) -> Vec<Row> {
        self.totals
            .iter()
            .map(|((device, worker), cells)| Row { device: *device, worker: *worker, cells: cells.clone() })
            .collect()
    }

    /// Drops by SA and policy: for each device and reason as many as in the totals.
    pub fn attributed(&self) -> Vec<AttributedRow> {
        self.attributed.rows()
    }

    /// Totals of one device over all workers.
    pub fn device(&self, id: DeviceId) -> Cells {
        let mut sum = Cells::default();
        self.totals.iter().filter(|((d, _), _)| *d == id).for_each(|(_, c)| sum.add(c));
        sum
    }

    /// Totals of everything.
    pub fn all(&self) -> Cells {
        let mut sum = Cells::default();
        self.totals.values().for_each(|c| sum.add(c));
        sum
    }
}

/// Bursts are short: spinning a little is shorter than a sleep.
fn wait_for(flip: &Flip) -> Option<usize> {
    let begun = Instant::now();
    loop {
        match flip.done() {
            Some(bank) => return Some(bank),
            None if begun.elapsed() > PATIENCE => return None,
            None => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}
