//! From the device to the network.

use super::tamper::Tamper;
use super::{BURST, Event, Worker};
use crate::account::Count;
use crate::io::Outcome;
use crate::io::tun::Kind;
use crate::io::underlay::Outgoing;
use uvti_core::device::DeviceId;
use uvti_core::packet::{Buf, IPV4_HEADER, fragment_ipv4};
use uvti_core::reason::{Icmp, Reason, Way};
use uvti_core::vti::{Drop, TxSlot, TxVerdict, icmp};

/// An inner packet that is on its way, in one outer packet or in fragments.
pub(super) struct Sent {
    len: usize,
    /// Pieces handed to the network.
    pieces: usize,
    /// Whether that is all of them: without a buffer for one, the packet counts as not sent.
    whole: bool,
}

impl<T: Tamper> Worker<T> {
    /// Reads a burst from a device and carries it as far as it goes.
    pub(super) fn transmit(&mut self, id: DeviceId, now: u64) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let items = &mut self.scratch.from_host;
        if let Err(error) = port.queue.recv_burst(items, &mut self.pool, BURST) {
            // The device was deleted under us: its descriptor would be ready for ever.
            tracing::warn!(device = id.0, %error, "reading from the device failed, it is no longer served");
            port.reads = false;
            if let Err(error) = self.watch() {
                tracing::error!(%error, "cannot watch the other devices");
            }
        }
        let n = self.scratch.from_host.len() as u64;
        self.books.count(self.counters(id), Way::Tx, Count::In, n);
        self.tamper.read(&mut self.scratch.from_host);
        let mut items = std::mem::take(&mut self.scratch.from_host);
        for item in items.drain(..) {
            match item.kind {
                Kind::Packet => self.scratch.tx.push(TxSlot::new(item.buf)),
                Kind::Truncated => self.refuse(id, item.buf, &Reason::TxNoRoom.into()),
                Kind::Misfit => self.refuse(id, item.buf, &Reason::TxBadOffload.into()),
            }
        }
        self.scratch.from_host = items;
        self.carry_out(id, now);
        self.recycle();
    }

    /// A burst that another worker read.
    pub(super) fn transmit_hopped(&mut self, id: DeviceId, bufs: &mut Vec<Buf>, now: u64) {
        self.books.count(self.counters(id), Way::Tx, Count::HopIn, bufs.len() as u64);
        self.scratch.tx.extend(bufs.drain(..).map(TxSlot::new));
        self.carry_out(id, now);
    }

    fn carry_out(&mut self, id: DeviceId, now: u64) {
        let tables = self.tables.load();
        match tables.devices.get(id) {
            Some(device) => self.transmitter.run(tables, device, &mut self.scratch.tx, self.id, now),
            None => {
                self.scratch
                    .tx
                    .iter_mut()
                    .for_each(|s| s.verdict = TxVerdict::Drop(Reason::TxDeviceGone.into()));
            }
        }
        self.tamper.decided(&mut self.scratch.tx);
        let mut burst = std::mem::take(&mut self.scratch.tx);
        for slot in burst.drain(..) {
            self.act(id, slot);
        }
        self.scratch.tx = burst;
        self.send(id);
        self.send_hops(Way::Tx, id);
    }

    fn act(&mut self, id: DeviceId, slot: TxSlot) {
        let inner = slot.inner().copied();
        match slot.verdict {
            TxVerdict::Send { path_mtu, ref sa } => {
                let mark = sa.spec.output_mark.value & sa.spec.output_mark.mask;
                let (pieces, whole) = self.push_outgoing(slot.buf, path_mtu as usize, mark);
                self.scratch.sent.push(Sent { len: slot.len, pieces, whole });
            }
            TxVerdict::Hop(home) => match self.scratch.hops.get_mut(usize::from(home)) {
                Some(bufs) => bufs.push(slot.buf),
                None => self.refuse(id, slot.buf, &Reason::TxWorkerGone.into()),
            },
            TxVerdict::Drop(ref drop) => {
                if let (kind @ (Icmp::Unreachable | Icmp::TooBig), Some(inner)) =
                    (drop.reason.row().icmp, inner)
                    && let Some(message) = icmp::error(kind, slot.buf.bytes(), &inner, drop.mtu)
                {
                    let _ = self.events.try_send(Event::Icmp(message));
                }
                let drop = drop.clone();
                self.refuse(id, slot.buf, &drop);
            }
            // The transmitter decides everything; a packet that it forgot must not vanish.
            TxVerdict::Pending => self.refuse(id, slot.buf, &Reason::TxSealFailed.into()),
        }
    }

    fn refuse(&mut self, id: DeviceId, buf: Buf, drop: &Drop) {
        self.drop_packet(id, drop);
        self.scratch.spent.push(buf);
    }

    /// Queues an outer packet, in fragments if it is longer than the path's MTU and may be. Returns how many
    /// pieces were queued, and whether none is missing.
    fn push_outgoing(&mut self, buf: Buf, mtu: usize, mark: u32) -> (usize, bool) {
        let may_fragment = buf.bytes().first().is_some_and(|b| b >> 4 == 4) && buf.bytes()[6] & 0x40 == 0;
        if buf.len() <= mtu || !may_fragment {
            self.scratch.outgoing.push(Outgoing { buf, mark, oif: 0 });
            return (1, true);
        }
        let (mut pieces, mut whole) = (0, true);
        let (pool, outgoing) = (&mut self.pool, &mut self.scratch.outgoing);
        fragment_ipv4(buf.bytes(), mtu, |header, payload| {
            let Some(mut piece) = pool.take() else {
                whole = false;
                return;
            };
            pieces += 1;
            let space = piece.space_mut();
            space[..IPV4_HEADER].copy_from_slice(header);
            space[IPV4_HEADER..IPV4_HEADER + payload.len()].copy_from_slice(payload);
            piece.set_len(IPV4_HEADER + payload.len());
            outgoing.push(Outgoing { buf: piece, mark, oif: 0 });
        });
        self.scratch.spent.push(buf);
        (pieces, whole)
    }

    /// Hands everything queued to the network, and counts what became of it.
    fn send(&mut self, id: DeviceId) {
        // Not by what is queued: of a packet no piece may have found a buffer, and it must be counted.
        if self.scratch.sent.is_empty() {
            return;
        }
        let outcomes = &mut self.scratch.outcomes;
        outcomes.clear();
        self.underlay.send_burst(&self.scratch.outgoing, outcomes);
        let mut at = 0;
        let (mut packets, mut bytes) = (0, 0);
        for i in 0..self.scratch.sent.len() {
            let Sent { len, pieces, whole } = self.scratch.sent[i];
            let end = (at + pieces).min(self.scratch.outcomes.len());
            // A packet of which a piece is missing was not sent.
            let failed = self.scratch.outcomes[at..end].iter().find(|o| **o != Outcome::Sent).copied();
            match failed {
                None if whole && end - at == pieces => {
                    packets += 1;
                    bytes += len as u64;
                }
                failed => self.books.drop(self.counters(id), send_failure(failed), 1),
            }
            at = end;
        }
        self.scratch.sent.clear();
        let packets = self.tamper.booked(packets);
        self.books.count(self.counters(id), Way::Tx, Count::Out, packets);
        self.books.count(self.counters(id), Way::Tx, Count::Bytes, bytes);
        let outgoing = &mut self.scratch.outgoing;
        self.scratch.spent.extend(outgoing.drain(..).map(|o| o.buf));
    }
}

fn send_failure(outcome: Option<Outcome>) -> Reason {
    match outcome {
        Some(Outcome::QueueFull) => Reason::TxLowerQueueFull,
        Some(Outcome::TooBig) => Reason::TxLowerTooBig,
        Some(Outcome::Failed(_)) => Reason::TxSendFailed,
        Some(Outcome::Sent) | None => Reason::TxNoRoom,
    }
}
