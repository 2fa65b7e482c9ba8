//! Receive: passes over a burst of ESP packets.

use super::Drop;
use super::receive::{self, Admitted, Refused};
use crate::device::{Device, DeviceId};
use crate::esp::{self, NextHeader, OpenError, ReplayError};
use crate::packet::{Buf, Flow, Incoming, Inner, Outer, tos};
use crate::reason::Reason;
use crate::tables::{Policy, Snapshot};
use crate::xfrm::{Mode, Sa, Spi, StateFlags};
use std::sync::Arc;

/// One packet of a burst.
#[derive(Debug)]
pub struct RxSlot {
    /// ESP; the inner packet once it is `opened`.
    pub buf: Buf,
    /// The outer header.
    pub outer: Outer,
    /// The device it met, or [`DeviceId::NONE`].
    pub device: DeviceId,
    /// Whether ESP was taken off.
    pub opened: bool,
    /// What becomes of it.
    pub verdict: RxVerdict,
}

impl RxSlot {
    /// A packet read from a socket, not decided yet.
    pub fn new(packet: Incoming) -> Self {
        let Incoming { buf, outer } = packet;
        Self { buf, outer, device: DeviceId::NONE, opened: false, verdict: RxVerdict::Pending }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub enum RxVerdict {
    /// Not decided yet.
    Pending,
    /// Opened and checked: to be handed to the device.
    Deliver {
        /// What a kernel counts as received: the inner packet with its TFC padding, bytes.
        len: usize,
        /// The SA that it came by.
        sa: Arc<Sa>,
        /// The policy that let it in.
        policy: Arc<Policy>,
    },
    /// To the SA's home worker, as it is.
    Hop(u16),
    /// Dropped.
    Drop(Drop),
}

/// Takes ESP off bursts. Holds scratch memory only: nothing is remembered from burst to burst.
#[derive(Default)]
pub struct Receiver {
    known: Option<Known>,
}

/// What the tables said about the last packet of this burst: packets of an SA and of a flow come together.
struct Known {
    outer: Outer,
    device: Arc<Device>,
    sa: Arc<Sa>,
    /// The inner flow that passed last, and by which policy.
    passed: Option<(Flow, Arc<Policy>)>,
}

impl Receiver {
    /// Gives every packet of `burst` a verdict. `me` is this worker, `now` is in seconds since the Unix epoch.
    ///
    /// Packets are opened one after the other: whether one is a duplicate depends on those before it.
    pub fn run(&mut self, tables: &Snapshot, burst: &mut [RxSlot], me: u16, now: u64) {
        self.known = None;
        for slot in burst {
            match self.admit(tables, slot) {
                Ok((known, seq)) => {
                    slot.device = known.device.id;
                    slot.verdict = match known.sa.home == me {
                        true => known.open(tables, slot, seq, now),
                        false => RxVerdict::Hop(known.sa.home),
                    };
                }
                Err(Refused { reason, device, sa }) => {
                    slot.device = device.map_or(DeviceId::NONE, |d| d.id);
                    slot.verdict = RxVerdict::Drop(Drop { sa, ..reason.into() });
                }
            }
        }
        self.known = None;
    }

    /// Device, SA and low half of the sequence number: those of the packet before where they must be the same.
    fn admit(&mut self, tables: &Snapshot, slot: &RxSlot) -> Result<(&mut Known, u32), Refused> {
        let (outer, esp) = (&slot.outer, slot.buf.bytes());
        let (known, seq) = match (self.known.take(), esp::peek(esp)) {
            (Some(known), Some((spi, seq))) if known.admits(outer, spi) => (known, seq),
            _ => {
                let Admitted { device, sa, seq } = receive::admit(tables, outer, esp)?;
                (Known { outer: *outer, device, sa, passed: None }, seq)
            }
        };
        Ok((self.known.insert(known), seq))
    }
}

impl Known {
    /// Whether [`receive::admit`] would find the same: it looks at nothing else.
    fn admits(&self, outer: &Outer, spi: Spi) -> bool {
        let same_way = Outer { tos: self.outer.tos, ..*outer } == self.outer;
        same_way && spi == self.sa.spec.spi && self.sa.run.alive()
    }

    fn open(&mut self, tables: &Snapshot, slot: &mut RxSlot, seq: u32, now: u64) -> RxVerdict {
        match self.deliver(tables, slot, seq, now) {
            Ok((len, policy)) => RxVerdict::Deliver { len, sa: self.sa.clone(), policy },
            Err((reason, policy)) => {
                if let Some(stat) = reason.row().sa {
                    self.sa.run.count(stat);
                }
                RxVerdict::Drop(Drop { reason, sa: Some(self.sa.clone()), policy, mtu: 0 })
            }
        }
    }

    /// Makes the inner packet of an ESP packet. Returns its length with TFC padding, bytes, and the policy that lets
    /// it in.
    fn deliver(
        &mut self,
        tables: &Snapshot,
        slot: &mut RxSlot,
        seq: u32,
        now: u64,
    ) -> Result<(usize, Arc<Policy>), Refusal> {
        let without_policy = |reason| (reason, None);
        let next_header = decrypt(&self.sa, &mut slot.buf, seq, now).map_err(without_policy)?;
        slot.opened = true;
        let len = slot.buf.len();
        let inner =
            inner_packet(&self.sa, &mut slot.buf, &slot.outer, next_header).map_err(without_policy)?;
        let policy = self.policy(tables, &inner.flow)?;
        policy.touch(now);
        Ok((len, policy.clone()))
    }

    /// The policy that lets a flow in.
    fn policy(&mut self, tables: &Snapshot, flow: &Flow) -> Result<&Arc<Policy>, Refusal> {
        let passed = match self.passed.take() {
            Some(passed) if passed.0 == *flow => passed,
            _ => {
                let policy = receive::check_inner(tables, &self.device, &self.sa, flow);
                (*flow, policy.map_err(|(reason, policy)| (reason, policy.cloned()))?.clone())
            }
        };
        Ok(&self.passed.insert(passed).1)
    }
}

/// Why an ESP packet that has an SA is not delivered, and the policy that had a part in it.
type Refusal = (Reason, Option<Arc<Policy>>);

/// Window, lifetime, mode, ICV: in the kernel's order. The window moves and the SA is charged once the ICV was right,
/// and before policies are asked. kernel: net/xfrm/xfrm_input.c xfrm_input()
fn decrypt(sa: &Sa, buf: &mut Buf, seq: u32, now: u64) -> Result<NextHeader, Reason> {
    let run = &sa.run;
    let seq = run.window.check(seq).map_err(|e| match e {
        ReplayError::Zero => Reason::RxReplayZero,
        ReplayError::Old => Reason::RxReplayOld,
        ReplayError::Duplicate => Reason::RxReplayDuplicate,
    })?;
    let used = run.current();
    if sa.exhausted(used.packets, used.bytes) {
        run.kill();
        return Err(Reason::RxSaExpired);
    }
    if sa.spec.mode != Mode::Tunnel {
        return Err(Reason::RxNotTunnelMode);
    }
    let seq_hi = sa.spec.flags.has(StateFlags::ESN).then_some((seq >> 32) as u32);
    let next_header = sa.crypter.open(buf, seq_hi).map_err(|e| match e {
        OpenError::Truncated => Reason::RxTruncated,
        OpenError::BadIcv => Reason::RxBadIcv,
        OpenError::BadPadding => Reason::RxBadPadding,
        OpenError::Dummy => Reason::RxDummy,
    })?;
    run.add_lost(run.window.advance(seq));
    run.consume(1, buf.len() as u64, now);
    Ok(next_header)
}

/// The inner packet, freed of TFC padding, with congestion marked.
///
/// kernel: net/xfrm/xfrm_input.c xfrm_inner_mode_input(), xfrm4_remove_tunnel_encap()
fn inner_packet(sa: &Sa, buf: &mut Buf, outer: &Outer, next_header: NextHeader) -> Result<Inner, Reason> {
    let (version, header) = match next_header {
        NextHeader::IPV4 => (4, 20),
        NextHeader::IPV6 => (6, 40),
        _ => return Err(Reason::RxInnerProto),
    };
    if buf.len() < header {
        return Err(Reason::RxInnerShort);
    }
    if buf.bytes()[0] >> 4 != version {
        return Err(Reason::RxInnerVersion);
    }
    let inner = Inner::dissect(buf.bytes()).map_err(|_| Reason::RxInnerShort)?;
    let length = match version {
        4 => usize::from(u16::from_be_bytes([buf.bytes()[2], buf.bytes()[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([buf.bytes()[4], buf.bytes()[5]])),
    };
    if length >= header {
        buf.truncate(length);
    }
    let marked = tos::decap(inner.tos, outer.tos, sa.spec.flags.has(StateFlags::DECAP_DSCP));
    if marked != inner.tos {
        tos::set(buf.bytes_mut(), marked);
    }
    Ok(inner)
}
