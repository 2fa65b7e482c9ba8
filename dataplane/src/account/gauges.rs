//! What a worker tells of the queues it fills: the fullest they were, and what found no room.

use crate::io::underlay::Losses;
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread writes and anybody reads.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.set(self.get() + n);
    }

    /// Makes it `n`, if it was less.
    pub fn raise(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    /// Makes it `n`.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The marks of one queue.
#[derive(Debug, Default)]
pub struct Marks {
    /// The most that waited in it.
    pub high: Gauge,
    /// What did not get in.
    pub drops: Gauge,
}

/// One worker's. Unlike counters they have no banks: none of them is part of a sum.
#[derive(Debug)]
pub struct Gauges {
    /// Bursts for each other worker.
    pub hops: Box<[CachePadded<Marks>]>,
    /// Buffers on their way back to each other worker, by the burst.
    pub returns: Box<[CachePadded<Marks>]>,
    /// Bursts that wait in this worker for room in another's queue.
    pub held: Marks,
    /// How many wait now.
    pub held_now: Gauge,
    /// ICMP errors and expiries for the upkeep thread.
    pub events: Marks,
    /// Packets that found a socket's buffer full.
    pub receive_overflow: Gauge,
    /// Sends that were tried again after an ICMP error about an earlier one.
    pub async_errors: Gauge,
}

impl Gauges {
    /// Of a worker among so many.
    pub fn new(workers: usize) -> Self {
        let marks = || (0..workers).map(|_| CachePadded::default()).collect();
        Self {
            hops: marks(),
            returns: marks(),
            held: Marks::default(),
            held_now: Gauge::default(),
            events: Marks::default(),
            receive_overflow: Gauge::default(),
            async_errors: Gauge::default(),
        }
    }

    /// What the sockets say.
    pub fn note(&self, losses: Losses) {
        let Losses { receive_overflow, async_errors } = losses;
        self.receive_overflow.set(receive_overflow);
        self.async_errors.set(async_errors);
    }
}
