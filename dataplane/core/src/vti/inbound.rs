//! Receive: passes over a burst of ESP packets.

use super::Drop;
use super::receive::{self, Admitted, Refused};
use crate::device::{Device, DeviceId};
use crate::esp::{NextHeader, OpenError, ReplayError};
use crate::packet::{Buf, Flow, Incoming, Inner, Outer, tos};
use crate::reason::Reason;
use crate::tables::{Policy, Snapshot};
use crate::xfrm::{Mode, Sa, StateFlags};
use std::sync::Arc;

/// One packet of a burst.
#[derive(Debug)]
pub struct RxSlot {
    /// ESP; after [`RxVerdict::Deliver`] the inner packet.
    pub buf: Buf,
    /// The outer header.
    pub outer: Outer,
    /// The device it met, or [`DeviceId::NONE`].
    pub device: DeviceId,
    /// What becomes of it.
    pub verdict: RxVerdict,
}

impl RxSlot {
    /// A packet read from a socket, not decided yet.
    pub fn new(packet: Incoming) -> Self {
        Self { buf: packet.buf, outer: packet.outer, device: DeviceId::NONE, verdict: RxVerdict::Pending }
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
    },
    /// To the SA's home worker, as it is.
    Hop(u16),
    /// Dropped.
    Drop(Drop),
}

/// Takes ESP off bursts. Holds scratch memory only: nothing is remembered from burst to burst.
#[derive(Default)]
pub struct Receiver {
    /// The last flow that passed in this burst: packets of a flow come together.
    passed: Option<(Arc<Sa>, DeviceId, Flow, Arc<Policy>)>,
}

impl Receiver {
    /// Gives every packet of `burst` a verdict. `me` is this worker, `now` is in seconds since the Unix epoch.
    ///
    /// Packets are opened one after the other: whether one is a duplicate depends on those before it.
    pub fn run(&mut self, tables: &Snapshot, burst: &mut [RxSlot], me: u16, now: u64) {
        self.passed = None;
        for slot in burst {
            match receive::admit(tables, &slot.outer, slot.buf.bytes()) {
                Ok(admitted) => {
                    slot.device = admitted.device.id;
                    slot.verdict = match admitted.sa.home == me {
                        true => self.open(tables, slot, &admitted, now),
                        false => RxVerdict::Hop(admitted.sa.home),
                    };
                }
                Err(Refused { reason, device, sa }) => {
                    slot.device = device.map_or(DeviceId::NONE, |d| d.id);
                    slot.verdict = RxVerdict::Drop(Drop { sa, ..reason.into() });
                }
            }
        }
        self.passed = None;
    }

    fn open(&mut self, tables: &Snapshot, slot: &mut RxSlot, admitted: &Admitted, now: u64) -> RxVerdict {
        let (sa, device) = (&admitted.sa, &admitted.device);
        let drop = |reason, policy| RxVerdict::Drop(Drop { reason, sa: Some(sa.clone()), policy, mtu: 0 });
        let next_header = match decrypt(sa, &mut slot.buf, admitted.seq, now) {
            Ok(next_header) => next_header,
            Err(reason) => {
                if let Some(stat) = reason.row().sa {
                    sa.run.count(stat);
                }
                return drop(reason, None);
            }
        };
        let len = slot.buf.len();
        let inner = match inner_packet(sa, &mut slot.buf, &slot.outer, next_header) {
            Ok(inner) => inner,
            Err(reason) => return drop(reason, None),
        };
        match self.check(tables, device, sa, &inner.flow) {
            Ok(policy) => {
                policy.touch(now);
                RxVerdict::Deliver { len, sa: sa.clone() }
            }
            Err((reason, policy)) => drop(reason, policy),
        }
    }

    fn check(
        &mut self,
        tables: &Snapshot,
        device: &Arc<Device>,
        sa: &Arc<Sa>,
        flow: &Flow,
    ) -> Result<Arc<Policy>, (Reason, Option<Arc<Policy>>)> {
        if let Some((passed_sa, passed_device, passed_flow, policy)) = &self.passed
            && Arc::ptr_eq(passed_sa, sa)
            && *passed_device == device.id
            && passed_flow == flow
        {
            return Ok(policy.clone());
        }
        match receive::check_inner(tables, device, sa, flow) {
            Ok(policy) => {
                self.passed = Some((sa.clone(), device.id, *flow, policy.clone()));
                Ok(policy.clone())
            }
            Err((reason, policy)) => Err((reason, policy.cloned())),
        }
    }
}

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
