//! The flight recorder: copies of the last dropped packets of each reason, always on.
//!
//! A worker writes to its own [`Tape`] at most one packet a reason and burst. Memory is bounded: so many packets a
//! reason, each cut at [`SNAP`] bytes. It is taken when a reason drops its first packet, and never again.

use super::attribution::SaName;
use super::seam::Dropped;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use uvti_core::device::DeviceId;
use uvti_core::packet::Outer;
use uvti_core::reason::Reason;
use uvti_core::tables::Policy;

/// Bytes kept of a packet: whole packets of a link of 1500 bytes, and the headers of larger ones.
pub const SNAP: usize = 2048;
/// Packets kept of each reason, unless it is told otherwise.
pub const DEFAULT_RECORDS: usize = 16;

/// A dropped packet, as it is remembered.
#[derive(Clone, Debug)]
pub struct Record {
    /// Place on the tape of its worker, from 1.
    pub seq: u64,
    /// How many packets of this reason this worker had to record, with this one. A gap is records that are gone.
    pub nth: u64,
    /// When, nanoseconds since the Unix epoch: the time of the first drop of its burst.
    pub time: u64,
    /// Who dropped it.
    pub worker: u16,
    /// The device it was for, or [`DeviceId::NONE`].
    pub device: DeviceId,
    /// Why.
    pub reason: Reason,
    /// The SA that had a part in it: its name alone, for a recorded packet must not keep the keys of a deleted SA.
    pub sa: Option<SaName>,
    /// The policy that had a part in it.
    pub policy: Option<Arc<Policy>>,
    /// As in [`Dropped`].
    pub outer: Option<Outer>,
    /// Length of the whole packet, bytes.
    pub len: usize,
    /// The packet, or its first [`SNAP`] bytes.
    pub packet: Contents,
}

/// Bytes of a packet. `Debug` says how many: what is in a packet is for nobody's log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Contents(pub Vec<u8>);

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What one worker has recorded: it writes, anybody may read.
#[derive(Debug)]
pub struct Tape {
    worker: u16,
    keep: usize,
    rings: Mutex<Rings>,
    skipped: AtomicU64,
}

#[derive(Debug)]
struct Rings {
    /// The last [`Record::seq`].
    seq: u64,
    /// By reason.
    rings: [Ring; Reason::COUNT],
}

/// The last packets of one reason.
#[derive(Default)]
struct Ring {
    /// Without their packets, which are in `packets`.
    records: Vec<Record>,
    /// Where the next one goes.
    next: usize,
    /// [`SNAP`] bytes a record.
    packets: Box<[u8]>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("records", &self.records).finish_non_exhaustive()
    }
}

impl Tape {
    /// An empty one that keeps so many packets of each reason.
    pub fn new(worker: u16, keep: usize) -> Self {
        let rings = Rings { seq: 0, rings: std::array::from_fn(|_| Ring::default()) };
        Self { worker, keep, rings: Mutex::new(rings), skipped: AtomicU64::new(0) }
    }

    /// Packets that were not recorded because somebody was reading at that moment, and at the one before.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    /// Appends to `into`, oldest first, at most `most` records behind `seq`: of one reason, or of all. Returns the
    /// place behind which to go on.
    pub fn after(&self, seq: u64, reason: Option<Reason>, most: usize, into: &mut Vec<Record>) -> u64 {
        let (mut places, end) = self.lock().places(seq, reason);
        places.sort_unstable();
        let more = places.len() > most;
        places.truncate(most);
        let reached = if more { places.last().map_or(seq, |(seq, ..)| *seq) } else { end };
        // A lock a packet, so that the worker seldom meets it.
        into.extend(places.into_iter().filter_map(|place| self.lock().record(place)));
        reached
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        // Nothing under the lock is half done when it panics.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `lock`, unless somebody has it.
    fn free(&self) -> Option<MutexGuard<'_, Rings>> {
        match self.rings.try_lock() {
            Ok(rings) => Some(rings),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Where a record is: its place on the tape, its reason, its place in the ring.
type Place = (u64, Reason, usize);

impl Rings {
    fn push(&mut self, keep: usize, record: Record, packet: &[u8]) {
        self.seq += 1;
        let ring = &mut self.rings[record.reason as usize];
        ring.push(keep, Record { seq: self.seq, ..record }, packet);
    }

    fn places(&self, after: u64, reason: Option<Reason>) -> (Vec<Place>, u64) {
        let wanted = Reason::ALL.iter().filter(|r| reason.is_none_or(|wanted| wanted == **r));
        let places = wanted.flat_map(|r| {
            let records = self.rings[*r as usize].records.iter().enumerate();
            records.filter(|(_, record)| record.seq > after).map(|(i, record)| (record.seq, *r, i))
        });
        (places.collect(), self.seq)
    }

    /// The record at a place, unless it was overwritten since.
    fn record(&self, (seq, reason, i): Place) -> Option<Record> {
        let ring = &self.rings[reason as usize];
        let record = ring.records.get(i).filter(|r| r.seq == seq)?;
        let packet = ring.packets[i * SNAP..][..record.len.min(SNAP)].to_vec();
        Some(Record { packet: Contents(packet), ..record.clone() })
    }
}

impl Ring {
    fn push(&mut self, keep: usize, record: Record, packet: &[u8]) {
        if self.packets.is_empty() {
            // Zeroed by the allocator: pages that no packet reaches are never touched.
            self.packets = vec![0; keep * SNAP].into();
            self.records.reserve_exact(keep);
        }
        let kept = packet.len().min(SNAP);
        self.packets[self.next * SNAP..][..kept].copy_from_slice(&packet[..kept]);
        match self.records.get_mut(self.next) {
            Some(old) => *old = record,
            None => self.records.push(record),
        }
        self.next = (self.next + 1) % keep;
    }
}

/// The worker's side of its tape.
#[derive(Debug)]
pub struct Recorder {
    tape: Arc<Tape>,
    /// The first record that met a reader: the worker does not wait, and comes back with it.
    late: Late,
    /// By reason: packets recorded or skipped.
    wanted: Box<[u64; Reason::COUNT]>,
    /// A bit for each reason that this burst has recorded.
    burst: u128,
}

/// Room for one record and its packet.
#[derive(Debug, Default)]
struct Late {
    record: Option<Record>,
    packet: Contents,
}

const _: () = assert!(Reason::COUNT <= u128::BITS as usize, "a bit a reason");

impl Recorder {
    /// Writes to `tape`, alone.
    pub fn new(tape: Arc<Tape>) -> Self {
        let late =
            Late { record: None, packet: Contents(Vec::with_capacity(if tape.keep > 0 { SNAP } else { 0 })) };
        Self { tape, late, wanted: Box::new([0; Reason::COUNT]), burst: 0 }
    }

    /// Records a packet that was dropped at `now` (nanoseconds since the Unix epoch), if it is the first of its reason
    /// in this burst.
    #[inline]
    pub fn dropped(&mut self, dropped: &Dropped<'_>, now: u64) {
        let bit = 1 << dropped.drop.reason as u8;
        if self.burst & bit == 0 && self.tape.keep > 0 {
            self.burst |= bit;
            self.record(dropped, now);
        }
    }

    /// What comes next is another burst.
    #[inline]
    pub fn burst_done(&mut self) {
        self.burst = 0;
    }

    /// Writes down what had to wait for a reader, if none is in the way now.
    pub fn catch_up(&mut self) {
        if self.late.record.is_some()
            && let Some(mut rings) = self.tape.free()
        {
            self.late.write(&mut rings, self.tape.keep);
        }
    }

    fn record(&mut self, dropped: &Dropped<'_>, now: u64) {
        let (tape, drop) = (&*self.tape, dropped.drop);
        let nth = &mut self.wanted[drop.reason as usize];
        *nth += 1;
        let record = Record {
            seq: 0,
            nth: *nth,
            time: now,
            worker: tape.worker,
            device: dropped.device,
            reason: drop.reason,
            sa: drop.sa.as_deref().map(SaName::from),
            policy: drop.policy.clone(),
            outer: dropped.outer.copied(),
            len: dropped.packet.len(),
            packet: Contents::default(),
        };
        match tape.free() {
            Some(mut rings) => {
                self.late.write(&mut rings, tape.keep);
                rings.push(tape.keep, record, dropped.packet);
            }
            None if self.late.record.is_none() => self.late.keep(record, dropped.packet),
            None => tape.skipped.store(tape.skipped.load(Relaxed) + 1, Relaxed),
        }
    }
}

impl Late {
    fn keep(&mut self, record: Record, packet: &[u8]) {
        self.record = Some(record);
        self.packet.0.clear();
        self.packet.0.extend_from_slice(&packet[..packet.len().min(SNAP)]);
    }

    fn write(&mut self, rings: &mut Rings, keep: usize) {
        if let Some(record) = self.record.take() {
            rings.push(keep, record, &self.packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uvti_core::vti::Drop;

    const KEEP: usize = 16;

    fn recorder() -> (Arc<Tape>, Recorder) {
        let tape = Arc::new(Tape::new(3, KEEP));
        (tape.clone(), Recorder::new(tape))
    }

    fn drop_one(recorder: &mut Recorder, reason: Reason, packet: &[u8], now: u64) {
        let dropped = Dropped { device: DeviceId(7), drop: &reason.into(), packet, packets: 1, outer: None };
        recorder.dropped(&dropped, now);
    }

    fn all(tape: &Tape) -> Vec<Record> {
        let mut records = Vec::new();
        tape.after(0, None, usize::MAX, &mut records);
        records
    }

    #[test]
    fn a_packet_is_kept_with_all_that_is_known_of_it() {
        let (tape, mut recorder) = recorder();
        drop_one(&mut recorder, Reason::TxNoSa, b"packet", 1_234_567_890);
        let records = all(&tape);
        let [r] = &records[..] else { panic!("{records:?}") };
        assert_eq!((r.time, r.worker, r.device, r.reason), (1_234_567_890, 3, DeviceId(7), Reason::TxNoSa));
        assert_eq!((&r.packet[..], r.len, r.seq, r.nth), (&b"packet"[..], 6, 1, 1));
        let bytes = format!("{:?}", b"packet");
        assert!(!format!("{r:?} {tape:?}").contains(bytes.trim_matches(['[', ']'])), "no contents in logs");
    }

    #[test]
    fn a_flood_keeps_the_last_of_each_reason_in_the_memory_of_the_first() {
        let (tape, mut recorder) = recorder();
        drop_one(&mut recorder, Reason::RxNoSa, b"rare", 1);
        let packet = [0x45; 9000];
        let mut memory = None;
        for i in 1..=100_000_u64 {
            recorder.burst_done();
            drop_one(&mut recorder, Reason::TxNoSa, &packet[..usize::try_from(i % 9000).unwrap()], i);
            let rings = tape.lock();
            let ring = &rings.rings[Reason::TxNoSa as usize];
            let now = (ring.packets.as_ptr(), ring.packets.len(), ring.records.capacity());
            assert_eq!(*memory.get_or_insert(now), now);
        }
        assert_eq!(memory.unwrap().1, KEEP * SNAP);
        let records = all(&tape);
        let times: Vec<u64> = records.iter().map(|r| r.time).collect();
        let last = 100_000 - KEEP as u64 + 1..=100_000;
        assert_eq!(times, std::iter::once(1).chain(last).collect::<Vec<_>>());
        assert!(records.iter().all(|r| r.packet.len() == r.len.min(SNAP)));
        assert_eq!(records[1].nth, 100_000 - KEEP as u64 + 1, "the gap says how many are gone");
    }

    #[test]
    fn a_burst_has_one_of_each_reason() {
        let (tape, mut recorder) = recorder();
        for burst in 0..2 {
            for reason in [Reason::TxNoSa, Reason::TxTooBig, Reason::TxNoSa] {
                drop_one(&mut recorder, reason, b"", burst);
            }
            recorder.burst_done();
        }
        let seen: Vec<_> = all(&tape).iter().map(|r| (r.time, r.reason)).collect();
        let both = |burst| [(burst, Reason::TxNoSa), (burst, Reason::TxTooBig)];
        assert_eq!(seen, [both(0), both(1)].concat());
    }

    #[test]
    fn a_reader_comes_back_for_what_is_new_of_its_reason() {
        let (tape, mut recorder) = recorder();
        for i in 1..=10 {
            let reason = if i % 2 == 0 { Reason::TxNoSa } else { Reason::TxTooBig };
            drop_one(&mut recorder, reason, b"", i);
            recorder.burst_done();
        }
        let mut got = Vec::new();
        let reached = tape.after(0, Some(Reason::TxNoSa), 3, &mut got);
        assert_eq!((got.iter().map(|r| r.time).collect::<Vec<_>>(), reached), (vec![2, 4, 6], 6));
        got.clear();
        let reached = tape.after(reached, Some(Reason::TxNoSa), 3, &mut got);
        assert_eq!((got.iter().map(|r| r.time).collect::<Vec<_>>(), reached), (vec![8, 10], 10));
        assert_eq!(tape.after(reached, None, 3, &mut got), 10);
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn a_worker_does_not_wait_for_a_reader_but_comes_back_with_one_and_counts_the_rest() {
        let (tape, mut recorder) = recorder();
        let reading = tape.lock();
        for i in 1..=3_u8 {
            drop_one(&mut recorder, Reason::TxNoSa, &[i; 9000], i.into());
            recorder.burst_done();
            recorder.catch_up();
        }
        drop(reading);
        assert_eq!(tape.skipped(), 2);
        let seen = || -> Vec<_> { all(&tape).iter().map(|r| (r.time, r.nth, r.seq, r.packet[0])).collect() };
        assert_eq!(seen(), []);
        recorder.catch_up();
        assert_eq!(seen(), [(1, 1, 1, 1)]);
        recorder.catch_up();
        drop_one(&mut recorder, Reason::TxNoSa, &[4], 4);
        assert_eq!(seen(), [(1, 1, 1, 1), (4, 4, 2, 4)]);
        assert_eq!(tape.skipped(), 2);
    }

    #[test]
    fn the_next_drop_writes_down_the_one_that_waited() {
        let (tape, mut recorder) = recorder();
        let reading = tape.lock();
        drop_one(&mut recorder, Reason::TxNoSa, &[1; 9000], 1);
        recorder.burst_done();
        drop(reading);
        drop_one(&mut recorder, Reason::TxTooBig, &[2], 2);
        let seen: Vec<_> = all(&tape).iter().map(|r| (r.time, r.seq, r.packet.len())).collect();
        assert_eq!((seen, tape.skipped()), (vec![(1, 1, SNAP), (2, 2, 1)], 0));
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_to_be_kept() {
        let tape = Arc::new(Tape::new(0, 0));
        drop_one(&mut Recorder::new(tape.clone()), Reason::TxNoSa, b"", 1);
        assert!(all(&tape).is_empty());
    }

    #[test]
    fn the_names_of_sa_and_policy_outlive_them() {
        let lab = uvti_core::vti::testing::Lab::vti();
        let sa = lab.tables().states.newest_first()[0].clone();
        let policy = lab.tables().policies.of(uvti_core::xfrm::Direction::Out)[0].clone();
        let held = Arc::strong_count(&sa);
        let drop =
            Drop { reason: Reason::TxNoSa, sa: Some(sa.clone()), policy: Some(policy.clone()), mtu: 0 };
        let (tape, mut recorder) = recorder();
        let dropped = Dropped { device: DeviceId(7), drop: &drop, packet: b"", packets: 1, outer: None };
        recorder.dropped(&dropped, 1);
        std::mem::drop(drop);
        assert_eq!(Arc::strong_count(&sa), held, "its keys are not kept");
        let record = all(&tape).remove(0);
        assert_eq!(record.sa, Some(SaName::from(&*sa)));
        assert_eq!(record.policy.unwrap().spec, policy.spec);
    }
}
