//! The counters of a device, by worker and bank.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use uvti_core::reason::{Reason, Way};

/// What is counted besides drops, in packets unless it says bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Count {
    /// Came in: read from the device or assigned to it from the wire.
    In,
    /// Came in from another worker.
    HopIn,
    /// Went out: taken by the network, or by the device.
    Out,
    /// Bytes of those, as a kernel VTI counts them: inner packets.
    Bytes,
    /// Went to another worker.
    HopOut,
    /// From the wire only: read, before it was known which device they are for. On the row of no device.
    Read,
    /// Waits inside the worker at the moment of the flip: no sum but a level.
    Held,
    /// Began to wait for an SA. A kernel VTI has sent it with that.
    Queued,
    /// Went out after it had waited for an SA.
    OutHeld,
    /// Went out by a policy that applied before the device: not counted on it.
    OutUnmarked,
}

const COUNTS: usize = 10;
const WAYS: usize = 2;

/// How many cells a device has.
pub(super) const CELLS: usize = COUNTS * WAYS + Reason::COUNT;

pub(super) const fn cell(way: Way, count: Count) -> usize {
    way as usize * COUNTS + count as usize
}

pub(super) const fn drop_cell(reason: Reason) -> usize {
    COUNTS * WAYS + reason as usize
}

type Bank = [AtomicU64; CELLS];

/// The counters of one device.
#[derive(Debug)]
pub struct DeviceCounters {
    workers: Box<[CachePadded<[Bank; 2]>]>,
}

impl DeviceCounters {
    /// All zero, for so many workers.
    pub fn new(workers: usize) -> Self {
        let bank = || -> Bank { std::array::from_fn(|_| AtomicU64::new(0)) };
        Self { workers: (0..workers).map(|_| CachePadded::new([bank(), bank()])).collect() }
    }

    /// Adds up and zeroes the bank that a worker has left.
    pub(super) fn drain(&self, worker: usize, bank: usize, into: &mut [u64; CELLS]) {
        for way in [Way::Tx, Way::Rx] {
            into[cell(way, Count::Held)] = 0;
        }
        for (total, cell) in into.iter_mut().zip(&self.workers[worker][bank]) {
            *total += cell.load(Relaxed);
            cell.store(0, Relaxed);
        }
    }
}

/// What one worker writes until the next flip.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    /// Number of the worker.
    pub worker: usize,
    /// The open bank.
    pub bank: usize,
}

impl Books {
    /// Counts `n`.
    #[inline]
    pub fn count(self, device: &DeviceCounters, way: Way, count: Count, n: u64) {
        self.add(device, cell(way, count), n);
    }

    /// Counts `n` dropped packets.
    #[inline]
    pub fn drop(self, device: &DeviceCounters, reason: Reason, n: u64) {
        self.add(device, drop_cell(reason), n);
    }

    /// One writer: a load and a store, no read-modify-write.
    #[inline]
    fn add(self, device: &DeviceCounters, index: usize, n: u64) {
        let cell = &device.workers[self.worker][self.bank][index];
        cell.store(cell.load(Relaxed) + n, Relaxed);
    }
}
