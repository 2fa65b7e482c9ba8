//! From the device to the network.

use super::tamper::Tamper;
use super::{BURST, Event, Worker, report};
use crate::account::{Account, Count, Dropped};
use crate::io::Outcome;
use crate::io::tun::Kind;
use crate::io::underlay::Outgoing;
use uvti_core::device::DeviceId;
use uvti_core::packet::{Buf, fragment};
use uvti_core::reason::{Icmp, Reason, Way};
use uvti_core::vti::held::when_held;
use uvti_core::vti::{Drop, FlowPlace, Stage, TxSlot, TxVerdict, icmp};

/// An inner packet that is on its way, in one outer packet or in fragments.
pub(super) struct Sent {
    len: usize,
    /// What was decided for it.
    flow: FlowPlace,
    stage: Stage,
    /// Pieces handed to the network.
    pieces: usize,
    /// Whether that is all of them: without a buffer for one, the packet counts as not sent.
    whole: bool,
}

impl<T: Tamper, A: Account> Worker<T, A> {
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
                Kind::Truncated => self.refuse(id, item.buf, &Reason::TxNoRoom.into(), None),
                Kind::Misfit => self.refuse(id, item.buf, &Reason::TxBadOffload.into(), None),
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

    pub(super) fn carry_out(&mut self, id: DeviceId, now: u64) {
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
        for acquire in self.transmitter.acquires() {
            report(&self.events, &self.gauges, Event::Acquire(acquire));
        }
        self.tamper.decided(&mut self.scratch.tx);
        let mut burst = std::mem::take(&mut self.scratch.tx);
        burst.iter_mut().for_each(|slot| self.act(id, slot));
        burst.clear();
        self.scratch.tx = burst;
        self.told.clear();
        self.send(id);
        self.send_hops(Way::Tx, id);
        self.account.burst_done();
    }

    fn act(&mut self, id: DeviceId, slot: &mut TxSlot) {
        if self.releasing
            && let TxVerdict::Drop(drop) = &mut slot.verdict
        {
            drop.reason = when_held(drop.reason);
        }
        if let TxVerdict::Drop(drop) = &slot.verdict {
            self.tell_sender(slot, drop);
        }
        let buf = std::mem::take(&mut slot.buf);
        match &slot.verdict {
            TxVerdict::Send { flow, stage } => match self.transmitter.decision(*flow) {
                Some(decision) => {
                    let (mtu, mark) = (decision.route.mtu as usize, decision.mark());
                    let (pieces, whole) = self.push_outgoing(buf, mtu, mark);
                    self.scratch.sent.push(Sent { len: slot.len, flow: *flow, stage: *stage, pieces, whole });
                }
                None => self.refuse(id, buf, &Reason::TxSealFailed.into(), None),
            },
            TxVerdict::Hop(home) => match self.scratch.hops.get_mut(usize::from(*home)) {
                Some(bufs) => bufs.push(buf),
                None => self.refuse(id, buf, &Reason::TxWorkerGone.into(), None),
            },
            TxVerdict::Hold(policy, stage) => self.hold_packet(id, buf, policy, *stage),
            TxVerdict::Drop(drop) => self.refuse(id, buf, drop, None),
            // The transmitter decides everything; a packet that it forgot must not vanish.
            TxVerdict::Pending => self.refuse(id, buf, &Reason::TxSealFailed.into(), None),
        }
    }

    /// Has an ICMP error sent about a dropped packet, where a kernel VTI would.
    fn tell_sender(&mut self, slot: &TxSlot, drop: &Drop) {
        let (kind, Some(inner)) = (drop.reason.row().icmp, slot.inner()) else { return };
        let wanted = match kind {
            Icmp::Silent => false,
            Icmp::Unreachable => self.told.one_more(inner.flow.src),
            Icmp::TooBig | Icmp::TooBigForIpv6 => true,
        };
        if !wanted {
            return;
        }
        if self.events.is_full() {
            // It would be made for nothing.
            return self.gauges.events.drops.add(1);
        }
        if let Some(message) = icmp::error(kind, slot.buf.bytes(), inner, drop.mtu) {
            self.report(Event::Icmp(message));
        }
    }

    /// Queues an outer packet, in fragments if it is longer than the path's MTU and may be. Returns how many
    /// pieces were queued, and whether none is missing.
    fn push_outgoing(&mut self, buf: Buf, mtu: usize, mark: u32) -> (usize, bool) {
        let (mut pieces, mut whole) = (0, true);
        let (pool, outgoing) = (&mut self.pool, &mut self.scratch.outgoing);
        let cut = fragment(buf.bytes(), mtu, |header, payload| {
            let Some(mut piece) = pool.take() else {
                whole = false;
                return;
            };
            pieces += 1;
            let space = piece.space_mut();
            space[..header.len()].copy_from_slice(header);
            space[header.len()..header.len() + payload.len()].copy_from_slice(payload);
            piece.set_len(header.len() + payload.len());
            outgoing.push(Outgoing { buf: piece, mark, oif: 0 });
        });
        if !cut {
            outgoing.push(Outgoing { buf, mark, oif: 0 });
            return (1, true);
        }
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
        let (mut packets, mut bytes, mut unmarked) = (0, 0, 0);
        let mut sent = std::mem::take(&mut self.scratch.sent);
        let mut outgoing = std::mem::take(&mut self.scratch.outgoing);
        for Sent { len, flow, stage, pieces, whole } in sent.drain(..) {
            let end = (at + pieces).min(self.scratch.outcomes.len());
            // A packet of which a piece is missing was not sent.
            let failed = self.scratch.outcomes[at..end].iter().find(|o| **o != Outcome::Sent).copied();
            match failed {
                None if whole && end - at == pieces && stage == Stage::Host => unmarked += 1,
                None if whole && end - at == pieces => {
                    packets += 1;
                    bytes += len as u64;
                }
                failed => {
                    let mut reason = send_failure(failed);
                    if self.releasing {
                        reason = when_held(reason);
                    }
                    let drop = self.transmitter.drop_of(flow, reason);
                    let packet = outgoing[at..end].first().map_or(&[][..], |o| o.buf.bytes());
                    self.dropped(&Dropped { device: id, drop: &drop, packet, packets: 1, outer: None });
                }
            }
            at = end;
        }
        self.scratch.sent = sent;
        let packets = self.tamper.booked(packets);
        if self.releasing {
            // A kernel VTI counted them when they began to wait.
            self.books.count(self.counters(id), Way::Tx, Count::OutHeld, packets + unmarked);
        } else {
            self.books.count(self.counters(id), Way::Tx, Count::Out, packets);
            self.books.count(self.counters(id), Way::Tx, Count::Bytes, bytes);
            self.books.count(self.counters(id), Way::Tx, Count::OutUnmarked, unmarked);
        }
        self.scratch.spent.extend(outgoing.drain(..).map(|o| o.buf));
        self.scratch.outgoing = outgoing;
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
