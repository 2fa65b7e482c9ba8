//! From the network to the device.

use super::tamper::Tamper;
use super::{BURST, Worker};
use crate::account::{Account, Count, Dropped};
use crate::io::Outcome;
use crate::io::underlay::{Fault, Received};
use uvti_core::device::{Device, DeviceId};
use uvti_core::packet::{Buf, Incoming, Outer};
use uvti_core::reason::{LinkField, Reason, Way};
use uvti_core::vti::{Drop, RxSlot, RxVerdict, WayPlace, receive};

/// An inner packet that is to be handed to its device.
pub(super) struct Delivery {
    /// What a kernel counts as received, bytes.
    len: usize,
    /// The way that it came.
    way: WayPlace,
}

impl<T: Tamper, A: Account> Worker<T, A> {
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
                    self.refuse(DeviceId::NONE, buf, &damage(fault).into(), None);
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
        let Some(refused) = receive::plain_ipip(self.tables.load(), &packet.outer) else {
            self.scratch.spent.push(packet.buf);
            return false;
        };
        let id = refused.device.map_or(DeviceId::NONE, |d| d.id);
        self.know(id);
        self.books.count(self.counters(id), Way::Rx, Count::In, 1);
        // What it carried: its outer header was no ESP's.
        self.refuse(id, packet.buf, &refused.reason.into(), None);
        true
    }

    /// A burst that another worker read.
    pub(super) fn receive_hopped(&mut self, bufs: &mut Vec<Buf>, outers: Vec<Outer>, now: u64) {
        let packets = bufs.drain(..).zip(outers).map(|(buf, outer)| RxSlot::new(Incoming { buf, outer }));
        self.scratch.rx.extend(packets);
        self.carry_in(Count::HopIn, now);
    }

    /// Looks at the messages if a device is newer than the last look at them: its port was sent before the tables
    /// that name it were published.
    fn know(&mut self, id: DeviceId) {
        if id != DeviceId::NONE && !self.ports.contains_key(&id) {
            self.obey();
        }
    }

    fn carry_in(&mut self, came: Count, now: u64) {
        let mut burst = std::mem::take(&mut self.scratch.rx);
        self.opener.run(self.tables.load(), &mut burst, self.id, now);
        burst.chunk_by(|a, b| a.device == b.device).for_each(|run| self.know(run[0].device));
        let host = self.tables.load().policies.concern_host();
        // Packets of one device come together: counted and written by the run, not one by one.
        let (mut device, mut run) = (DeviceId::NONE, 0);
        for slot in burst.drain(..) {
            if slot.device != device {
                self.books.count(self.counters(device), Way::Rx, came, run);
                self.hand_over(device);
                (device, run) = (slot.device, 0);
            }
            run += 1;
            self.dispose(slot, host, now);
        }
        self.books.count(self.counters(device), Way::Rx, came, run);
        self.hand_over(device);
        self.scratch.rx = burst;
        self.account.burst_done();
    }

    /// `host`: whether there are policies that the host would ask behind the device.
    fn dispose(&mut self, slot: RxSlot, host: bool, now: u64) {
        let len = slot.len;
        match slot.verdict {
            RxVerdict::Deliver { way } => {
                match host.then(|| self.host_drops(way, &slot.buf, now)).flatten() {
                    None => {
                        self.scratch.delivered.push(slot.buf);
                        self.scratch.deliveries.push(Delivery { len, way });
                    }
                    Some(drop) => {
                        // The VTI has received it.
                        self.books.count(self.counters(slot.device), Way::Rx, Count::Bytes, len as u64);
                        self.refuse(slot.device, slot.buf, &drop, None);
                    }
                }
            }
            RxVerdict::Hop(home) if usize::from(home) < self.doors.len() => {
                self.scratch.hops[usize::from(home)].push(slot.buf);
                self.scratch.hop_outers[usize::from(home)].push(slot.outer);
            }
            RxVerdict::Drop(drop) => {
                // Of what was never opened no device has received a byte.
                let mut kind = || self.tables.load().devices.get(slot.device).map(|device| device.spec.kind);
                if len > 0 && drop.reason.row().counted_by(kind()).any(|field| field == LinkField::RxBytes) {
                    // A kernel's device has received it, with its length.
                    self.books.count(self.counters(slot.device), Way::Rx, Count::Bytes, len as u64);
                }
                let outer = (!slot.opened).then_some(&slot.outer);
                self.refuse(slot.device, slot.buf, &drop, outer);
            }
            RxVerdict::Hop(_) | RxVerdict::Pending => {
                self.refuse(slot.device, slot.buf, &Reason::RxWorkerGone.into(), Some(&slot.outer));
            }
        }
    }

    /// The drop of an inner packet that the host would not let pass, if it knew our policies.
    fn host_drops(&mut self, way: WayPlace, packet: &Buf, now: u64) -> Option<Drop> {
        let Self { opener, pathfinder, .. } = self;
        let mut ask = |device: &Device, src, dst| pathfinder.onward(device.ifindex, src, dst);
        opener.host_drops(self.tables.load(), way, packet.bytes(), now, &mut ask)
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
        let (mut packets, mut bytes) = (0, 0);
        let mut delivered = std::mem::take(&mut self.scratch.delivered);
        let mut deliveries = std::mem::take(&mut self.scratch.deliveries);
        for (i, Delivery { len, way }) in deliveries.drain(..).enumerate() {
            let reason = match self.scratch.outcomes.get(i) {
                Some(Outcome::Sent) => {
                    packets += 1;
                    bytes += len as u64;
                    continue;
                }
                Some(Outcome::QueueFull) => Reason::RxDeviceFull,
                _ => Reason::RxDeviceRefused,
            };
            let drop = self.opener.drop_of(way, reason);
            let packet = delivered[i].bytes();
            self.dropped(&Dropped { device: id, drop: &drop, packet, packets: 1, outer: None });
        }
        self.books.count(self.counters(id), Way::Rx, Count::Out, packets);
        self.books.count(self.counters(id), Way::Rx, Count::Bytes, bytes);
        self.scratch.spent.append(&mut delivered);
        self.scratch.delivered = delivered;
        self.scratch.deliveries = deliveries;
    }
}

fn damage(fault: Fault) -> Reason {
    match fault {
        Fault::Truncated => Reason::RxTooLong,
        Fault::Header | Fault::Length | Fault::Unaddressed => Reason::RxOuterHeader,
    }
}
