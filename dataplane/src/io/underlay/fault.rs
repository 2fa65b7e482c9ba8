//! Faults of the network: an [`Underlay`] around another one that damages what arrives and refuses what leaves.
//!
//! It is put around the real one only where faults may be injected; without it nothing of this is on a packet's way.

use super::{Losses, Outgoing, Received, UdpPort, Underlay};
use crate::io::{Burst, Outcome, Pool};
use crossbeam_channel::Receiver;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use uvti_core::esp;
use uvti_core::packet::{Buf, Incoming};
use uvti_core::xfrm::Spi;

/// What happens to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A received packet has one bit of its last byte, the ICV's, flipped.
    Icv,
    /// A received packet carries sequence number 1, as one that was on its way for very long.
    OldSequence,
    /// A received packet arrives twice.
    Duplicate,
    /// A received packet ends after so many bytes of ESP.
    Truncate(usize),
    /// A packet to be sent finds the queue below full (`ENOBUFS`).
    QueueFull,
}

/// A damage, and how many packets it still meets: by however many workers they are carried.
#[derive(Debug)]
pub struct PacketFault {
    damage: Damage,
    /// Only received packets with this SPI.
    spi: Option<Spi>,
    left: AtomicU64,
}

impl PacketFault {
    /// For the next `n` packets, or the next `n` received ones of that SPI.
    pub fn new(damage: Damage, spi: Option<Spi>, n: u64) -> Self {
        Self { damage, spi, left: AtomicU64::new(n) }
    }

    /// How many packets are still to be met.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Ends it; returns how many packets it has spared.
    pub fn cancel(&self) -> u64 {
        self.left.swap(0, Relaxed)
    }

    /// Takes up to `n` of what is left; returns how many.
    fn take(&self, n: u64) -> u64 {
        let spend = |left: u64| (left > 0).then(|| left - left.min(n));
        self.left.fetch_update(Relaxed, Relaxed, spend).map_or(0, |left| left.min(n))
    }

    fn meets(&self, packet: &Incoming) -> bool {
        let spi = || esp::peek(packet.buf.bytes()).map(|(spi, _)| spi);
        self.damage != Damage::QueueFull && self.spi.is_none_or(|wanted| spi() == Some(wanted))
    }
}

/// An underlay with faults, which come over a channel while it runs.
pub struct FaultyUnderlay {
    inner: Box<dyn Underlay>,
    commands: Receiver<Arc<PacketFault>>,
    armed: Vec<Arc<PacketFault>>,
}

impl FaultyUnderlay {
    /// Around `inner`; faults come by `commands`.
    pub fn new(inner: Box<dyn Underlay>, commands: Receiver<Arc<PacketFault>>) -> Self {
        Self { inner, commands, armed: Vec::new() }
    }

    /// Takes what was commanded, and forgets what is over.
    fn obey(&mut self) {
        self.armed.extend(self.commands.try_iter());
        self.armed.retain(|fault| fault.left() > 0);
    }

    /// Lets each packet behind `from` meet at most one fault: the oldest that wants it.
    fn damage(&self, packets: &mut Vec<Received>, from: usize, pool: &mut Pool, max: usize) {
        let mut at = from;
        while at < packets.len() {
            let room = packets.len() - from < max;
            if let Received::Packet(packet) = &mut packets[at]
                && let Some(fault) = self.armed.iter().find(|f| f.left() > 0 && f.meets(packet))
            {
                match fault.damage {
                    Damage::Duplicate if !room => {}
                    Damage::Duplicate => {
                        if let Some(buf) = pool.take()
                            && let Some(copy) = copy(packet, buf, pool)
                            && fault.take(1) == 1
                        {
                            at += 1;
                            packets.insert(at, Received::Packet(copy));
                        }
                    }
                    damage => {
                        if fault.take(1) == 1 {
                            spoil(&mut packet.buf, damage);
                        }
                    }
                }
            }
            at += 1;
        }
    }
}

/// The same packet once more; the buffer goes back if it does not hold all of it.
fn copy(packet: &Incoming, mut buf: Buf, pool: &mut Pool) -> Option<Incoming> {
    if buf.fill(packet.buf.bytes()) < packet.buf.len() {
        pool.put(buf);
        return None;
    }
    Some(Incoming { buf, outer: packet.outer })
}

fn spoil(buf: &mut Buf, damage: Damage) {
    match damage {
        Damage::Icv => {
            if let Some(last) = buf.bytes_mut().last_mut() {
                *last ^= 1;
            }
        }
        Damage::OldSequence => {
            if let Some(sequence) = buf.bytes_mut().get_mut(4..8) {
                sequence.copy_from_slice(&1u32.to_be_bytes());
            }
        }
        Damage::Truncate(bytes) => buf.set_len(bytes.min(buf.len())),
        Damage::Duplicate | Damage::QueueFull => {}
    }
}

impl Underlay for FaultyUnderlay {
    fn recv_burst(&mut self, into: &mut Vec<Received>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        self.obey();
        let from = into.len();
        let doubled = self.armed.iter().any(|f| f.damage == Damage::Duplicate);
        // What arrives twice needs room for the second; what is not read now is read next.
        let most = if doubled { (max / 2).max(1) } else { max };
        let burst = self.inner.recv_burst(into, pool, most)?;
        self.damage(into, from, pool, max);
        Ok(Burst { received: into.len() - from, ..burst })
    }

    fn send_burst(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        self.obey();
        let full = self.armed.iter().filter(|f| f.damage == Damage::QueueFull);
        let refused = full.fold(0, |n, fault| n + fault.take(packets.len() as u64 - n));
        outcomes.extend((0..refused).map(|_| Outcome::QueueFull));
        let rest = &packets[refused as usize..];
        if !rest.is_empty() {
            self.inner.send_burst(rest, outcomes);
        }
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.inner.fds()
    }

    fn set_udp_ports(&mut self, ports: &[UdpPort]) -> Vec<(UdpPort, io::Error)> {
        self.inner.set_udp_ports(ports)
    }

    fn losses(&self) -> Losses {
        self.inner.losses()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::MemoryUnderlay;
    use crossbeam_channel::{Sender, unbounded};
    use uvti_core::packet::Outer;

    fn underlay() -> (MemoryUnderlay, FaultyUnderlay, Sender<Arc<PacketFault>>) {
        let (sender, commands) = unbounded();
        let net = MemoryUnderlay::new().unwrap();
        (net.clone(), FaultyUnderlay::new(Box::new(net), commands), sender)
    }

    /// An ESP packet: SPI, sequence number, 24 bytes more.
    fn arrive(net: &MemoryUnderlay, spi: u8, seq: u8) {
        let outer = Outer { src: [198, 51, 100, 2].into(), dst: [198, 51, 100, 1].into(), tos: 0, udp: None };
        net.arrive(outer, &[&[0, 0, 0, spi, 0, 0, 0, seq][..], &[7; 24]].concat());
    }

    /// What is received at most `max` at a time, as SPI, sequence number, length and last byte.
    fn received(underlay: &mut FaultyUnderlay, max: usize) -> Vec<(u8, u8, usize, u8)> {
        let (mut all, mut pool) = (Vec::new(), Pool::with_capacity(64, 100));
        loop {
            let before = all.len();
            let burst = underlay.recv_burst(&mut all, &mut pool, max).unwrap();
            assert_eq!(burst.received, all.len() - before);
            assert!(burst.received <= max);
            if burst.received == 0 {
                break;
            }
        }
        let shown = |r: &Received| match r {
            Received::Packet(p) => {
                let b = p.buf.bytes();
                (b[3], b[7], b.len(), b[b.len() - 1])
            }
            other => panic!("{other:?}"),
        };
        all.iter().map(shown).collect()
    }

    #[test]
    fn so_many_packets_are_damaged_and_the_next_are_not() {
        let (net, mut underlay, arm) = underlay();
        let cases = [
            (Damage::Icv, (5, 9, 32, 6)),
            (Damage::OldSequence, (5, 1, 32, 7)),
            (Damage::Truncate(12), (5, 9, 12, 7)),
            (Damage::Truncate(99), (5, 9, 32, 7)),
        ];
        for (damage, wanted) in cases {
            arm.send(Arc::new(PacketFault::new(damage, None, 2))).unwrap();
            (0..3).for_each(|_| arrive(&net, 5, 9));
            assert_eq!(received(&mut underlay, 64), [wanted, wanted, (5, 9, 32, 7)], "{damage:?}");
        }
    }

    #[test]
    fn a_duplicate_follows_its_packet_and_a_burst_stays_in_its_bounds() {
        for max in [1, 2, 3, 64] {
            let (net, mut underlay, arm) = underlay();
            let fault = Arc::new(PacketFault::new(Damage::Duplicate, None, 2));
            arm.send(fault.clone()).unwrap();
            (1..=4).for_each(|seq| arrive(&net, 5, seq));
            let sequence: Vec<u8> = received(&mut underlay, max).iter().map(|p| p.1).collect();
            // A burst of one has no room for a second.
            let wanted: &[u8] = if max == 1 { &[1, 2, 3, 4] } else { &[1, 1, 2, 2, 3, 4] };
            assert_eq!((sequence.as_slice(), fault.left()), (wanted, if max == 1 { 2 } else { 0 }), "{max}");
        }
    }

    #[test]
    fn a_fault_of_one_spi_and_a_cancelled_one_leave_the_others_alone() {
        let (net, mut underlay, arm) = underlay();
        let (one, other) = (
            Arc::new(PacketFault::new(Damage::Icv, Some(Spi(6)), 9)),
            Arc::new(PacketFault::new(Damage::Icv, None, 9)),
        );
        assert_eq!(other.cancel(), 9);
        arm.send(one.clone()).unwrap();
        arm.send(other).unwrap();
        for spi in [5, 6, 7] {
            arrive(&net, spi, 1);
        }
        let last: Vec<u8> = received(&mut underlay, 64).iter().map(|p| p.3).collect();
        assert_eq!((last, one.left()), (vec![7, 6, 7], 8));
    }

    #[test]
    fn a_full_queue_refuses_so_many_by_whatever_bursts() {
        let (net, mut underlay, arm) = underlay();
        arm.send(Arc::new(PacketFault::new(Damage::QueueFull, None, 3))).unwrap();
        let packets = |n: usize| -> Vec<Outgoing> {
            (0..n).map(|_| Outgoing { buf: Buf::from_packet(&[0x45; 20]), mark: 0, oif: 0 }).collect()
        };
        let mut outcomes = Vec::new();
        underlay.send_burst(&packets(2), &mut outcomes);
        underlay.send_burst(&packets(3), &mut outcomes);
        let (full, sent) = (Outcome::QueueFull, Outcome::Sent);
        assert_eq!(outcomes, [full, full, full, sent, sent]);
        assert_eq!(net.sent().len(), 2);
    }
}
