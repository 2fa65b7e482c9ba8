//! From the network to the device.

use super::tamper::Tamper;
use super::{BURST, Worker};
use crate::account::Count;
use crate::io::Outcome;
use crate::io::underlay::{Fault, Received};
use uvti_core::device::DeviceId;
use uvti_core::packet::{Buf, Incoming, Outer};
use uvti_core::reason::{Reason, Way};
use uvti_core::vti::{RxSlot, RxVerdict, receive};

impl<T: Tamper> Worker<T> {
    /// Reads a burst from the network and carries it as far as it goes.
    pub(super) fn receive(&mut self, now: u64) {
        let received = &mut self.scratch.received;
        if let Err(error) = self.underlay.recv_burst(received, &mut self.pool, BURST) {
            tracing::warn!(%error, "receiving failed");
        }
        let mut n = self.scratch.received.len() as u64;
        let mut items = std::mem::take(&mut self.scratch.received);
        for item in items.drain(..) {
            match item {
                Received::Packet(packet) => self.scratch.rx.push(RxSlot::new(packet)),
                Received::PlainIpip(packet) => n -= u64::from(!self.refuse_ipip(packet)),
                Received::Damaged { buf, fault, .. } => {
                    self.books.count(&self.nowhere, Way::Rx, Count::In, 1);
                    self.books.drop(&self.nowhere, damage(fault), 1);
                    self.scratch.spent.push(buf);
                }
            }
        }
        self.scratch.received = items;
        self.books.count(&self.nowhere, Way::Rx, Count::Read, n);
        self.carry_in(Count::In, now);
        self.recycle();
    }

    /// Drops a plain IP-in-IP packet, if it is one that a VTI takes; whether it was.
    fn refuse_ipip(&mut self, packet: Incoming) -> bool {
        let refused = receive::plain_ipip(self.tables.load(), &packet.outer);
        self.scratch.spent.push(packet.buf);
        let Some(refused) = refused else { return false };
        let id = refused.device.map_or(DeviceId::NONE, |d| d.id);
        self.books.count(self.counters(id), Way::Rx, Count::In, 1);
        self.drop_packet(id, &refused.reason.into());
        true
    }

    /// A burst that another worker read.
    pub(super) fn receive_hopped(&mut self, bufs: &mut Vec<Buf>, outers: Vec<Outer>, now: u64) {
        let packets = bufs.drain(..).zip(outers).map(|(buf, outer)| RxSlot::new(Incoming { buf, outer }));
        self.scratch.rx.extend(packets);
        self.carry_in(Count::HopIn, now);
    }

    fn carry_in(&mut self, came: Count, now: u64) {
        let mut burst = std::mem::take(&mut self.scratch.rx);
        self.opener.run(self.tables.load(), &mut burst, self.id, now);
        if burst.iter().any(|s| s.device != DeviceId::NONE && !self.ports.contains_key(&s.device)) {
            // Newer than the last look at the messages: the port was sent before the tables were published.
            self.obey();
        }
        // Packets of one device come together: counted and written by the run, not one by one.
        let (mut device, mut run) = (DeviceId::NONE, 0);
        for slot in burst.drain(..) {
            if slot.device != device {
                self.books.count(self.counters(device), Way::Rx, came, run);
                self.hand_over(device);
                (device, run) = (slot.device, 0);
            }
            run += 1;
            self.dispose(slot);
        }
        self.books.count(self.counters(device), Way::Rx, came, run);
        self.hand_over(device);
        self.scratch.rx = burst;
    }

    fn dispose(&mut self, slot: RxSlot) {
        match slot.verdict {
            RxVerdict::Deliver { len, .. } => {
                self.scratch.delivered.push(slot.buf);
                self.scratch.lengths.push(len);
            }
            RxVerdict::Hop(home) if usize::from(home) < self.doors.len() => {
                self.scratch.hops[usize::from(home)].push(slot.buf);
                self.scratch.hop_outers[usize::from(home)].push(slot.outer);
            }
            RxVerdict::Drop(drop) => {
                if drop.reason == Reason::RxInnerVersion {
                    // A kernel VTI has received it, with its length.
                    self.books.count(
                        self.counters(slot.device),
                        Way::Rx,
                        Count::Bytes,
                        slot.buf.len() as u64,
                    );
                }
                self.drop_packet(slot.device, &drop);
                self.scratch.spent.push(slot.buf);
            }
            RxVerdict::Hop(_) | RxVerdict::Pending => {
                self.drop_packet(slot.device, &Reason::RxWorkerGone.into());
                self.scratch.spent.push(slot.buf);
            }
        }
    }

    /// Writes what was gathered for one device, and counts what became of it.
    fn hand_over(&mut self, id: DeviceId) {
        self.send_hops(Way::Rx, id);
        if self.scratch.delivered.is_empty() {
            return;
        }
        let outcomes = &mut self.scratch.outcomes;
        outcomes.clear();
        match self.ports.get_mut(&id) {
            Some(port) => port.queue.send_burst(&mut self.scratch.delivered, outcomes),
            // Deleted since the burst was decided.
            None => outcomes.resize(self.scratch.delivered.len(), Outcome::Failed(crate::io::Errno::NODEV)),
        }
        let counters = self.counters(id);
        let (mut packets, mut bytes) = (0, 0);
        for (outcome, len) in self.scratch.outcomes.iter().zip(&self.scratch.lengths) {
            match outcome {
                Outcome::Sent => {
                    packets += 1;
                    bytes += *len as u64;
                }
                Outcome::QueueFull => self.books.drop(counters, Reason::RxDeviceFull, 1),
                Outcome::TooBig | Outcome::Failed(_) => self.books.drop(counters, Reason::RxDeviceRefused, 1),
            }
        }
        self.books.count(counters, Way::Rx, Count::Out, packets);
        self.books.count(counters, Way::Rx, Count::Bytes, bytes);
        self.scratch.lengths.clear();
        let delivered = &mut self.scratch.delivered;
        self.scratch.spent.append(delivered);
    }
}

fn damage(fault: Fault) -> Reason {
    match fault {
        Fault::Truncated => Reason::RxTooLong,
        Fault::Header | Fault::Length | Fault::Unaddressed => Reason::RxOuterHeader,
    }
}
