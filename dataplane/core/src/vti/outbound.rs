//! Transmit: passes over a burst of inner packets.
//!
//! Dissect all; per packet, in order, what is decided once for its flow, size, lifetime and whether a sequence number
//! is left; reserve exactly the numbers that will be used; seal. Each packet has a verdict; a pass skips what is
//! decided.

use super::memory::Memory;
use super::transmit::{self, Decision, Refused};
use super::xfrmi;
use super::{Drop, Stage, transmit::route_key};
use crate::device::{Device, DeviceId};
use crate::esp::{Header, Numbers, SealError, peek};
use crate::packet::{Buf, Flow, Inner, NotIp, PerPacket, proto, tos};
use crate::reason::Reason;
use crate::tables::{Acquire, Policy, Snapshot};
use crate::xfrm::{ExtraFlags, Family, Proto, Sa, StateFlags};
use std::sync::Arc;

/// One packet of a burst.
#[derive(Debug)]
pub struct TxSlot {
    /// The inner packet; after [`TxVerdict::Send`] the outer one.
    pub buf: Buf,
    /// Length of the inner packet, bytes.
    pub len: usize,
    /// What becomes of it.
    pub verdict: TxVerdict,
    inner: Option<Inner>,
    flow: FlowPlace,
}

impl TxSlot {
    /// A packet read from a device, not decided yet.
    pub fn new(buf: Buf) -> Self {
        Self { len: buf.len(), buf, verdict: TxVerdict::Pending, inner: None, flow: FlowPlace(0) }
    }

    /// The dissected packet, as long as it is still the inner one (for an ICMP error).
    pub fn inner(&self) -> Option<&Inner> {
        self.inner.as_ref()
    }

    fn pending(&self) -> bool {
        matches!(self.verdict, TxVerdict::Pending)
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub enum TxVerdict {
    /// Not decided yet.
    Pending,
    /// Sealed, with an outer header: to be sent, in fragments where it is longer than the path's MTU.
    Send {
        /// What was decided for its flow: [`Transmitter::decision`] knows it until the next burst.
        flow: FlowPlace,
        /// Where its policy applied.
        stage: Stage,
    },
    /// To the SA's home worker, as it is.
    Hop(u16),
    /// Waits, as it is, for the SA that this policy wants.
    Hold(Arc<Policy>, Stage),
    /// Dropped.
    Drop(Drop),
}

/// Where a [`Transmitter`] keeps what it decided for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPlace(usize);

/// What a decision depends on besides the tables.
type FlowKey = (DeviceId, Flow);

/// What was decided for a flow, as long as the tables stay and no SA dies.
struct Fate {
    result: Result<Decision, Refused>,
    /// Whether its SA had reached a soft limit then.
    dying: bool,
    /// Deaths that had been seen when it was decided.
    deaths: u32,
    /// The burst that it was used in last, and where its SA is among the lanes of that burst.
    burst: u64,
    lane: u32,
}

/// A flow that has no lane in this burst.
const NO_LANE: u32 = u32::MAX;

/// The packets of one SA.
struct Lane {
    sa: Arc<Sa>,
    /// Packets and bytes of the SA, with those of this burst that were let through so far.
    packets: u64,
    bytes: u64,
    /// What it had used before this burst.
    before: (u64, u64),
    /// How many sequence numbers there are.
    available: u64,
    numbers: Option<Numbers>,
}

/// Carries bursts out of a device. What it decided for a flow it remembers, as long as the tables are the same.
#[derive(Default)]
pub struct Transmitter {
    tables: Option<Arc<Snapshot>>,
    flows: Memory<FlowKey, Fate>,
    lanes: Vec<Lane>,
    /// Where the lane of an SA may be, by the low bits of its number.
    lane_hints: LaneHints,
    /// SAs that reached a limit.
    deaths: u32,
    acquires: Vec<Acquire>,
}

impl Transmitter {
    /// Gives every packet of `burst` a verdict. `me` is this worker, `now` is in seconds since the Unix epoch.
    pub fn run(&mut self, tables: &Arc<Snapshot>, device: &Device, burst: &mut [TxSlot], me: u16, now: u64) {
        self.begin(tables);
        self.acquires.clear();
        burst.iter_mut().for_each(dissect);
        for slot in burst.iter_mut().filter(|s| s.pending()) {
            self.admit(tables, device, slot, me);
        }
        for lane in &mut self.lanes {
            lane.charge(now);
        }
        for slot in burst.iter_mut().filter(|s| s.pending()) {
            self.seal(slot, now);
        }
        self.lanes.clear();
    }

    /// SAs that the last burst wanted and that nobody was asked for yet, one a policy.
    pub fn acquires(&mut self) -> std::vec::Drain<'_, Acquire> {
        self.acquires.drain(..)
    }

    /// What was decided for a packet of the last burst.
    pub fn decision(&self, flow: FlowPlace) -> Option<&Decision> {
        self.flows.get(flow.0)?.result.as_ref().ok()
    }

    /// The drop of a packet of the last burst that was to be sent, but was not taken.
    pub fn drop_of(&self, flow: FlowPlace, reason: Reason) -> Drop {
        let decision = self.decision(flow);
        let reason = decision.map_or(reason, |d| d.stage.reason(reason));
        let (sa, policy) = (decision.map(|d| d.sa.clone()), decision.map(|d| d.policy.clone()));
        Drop { reason, sa, policy, mtu: 0 }
    }

    /// Forgets what was decided with other tables, and lets go of them.
    pub fn follow(&mut self, tables: &Arc<Snapshot>) {
        if !self.tables.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, tables)) {
            self.flows.clear();
            self.tables = Some(tables.clone());
        }
    }

    fn begin(&mut self, tables: &Arc<Snapshot>) {
        self.follow(tables);
        self.flows.begin();
    }

    /// Finds what was decided for a flow, or decides. Once an SA has died, all is decided anew; that a flow cannot
    /// leave is decided anew each burst.
    #[inline]
    fn fate(&mut self, tables: &Snapshot, device: &Device, flow: &Flow) -> usize {
        let key = (device.id, *flow);
        match self.flows.find(&key) {
            Some(place) if self.flows.get(place).is_some_and(|fate| self.holds(fate)) => place,
            stale => {
                let result = transmit::decide(tables, device, flow);
                if let Err(refused) = &result
                    && let Some(acquire) = transmit::acquire(tables, device, flow, refused)
                    && !self.acquires.iter().any(|a| Arc::ptr_eq(&a.policy, &acquire.policy))
                {
                    self.acquires.push(acquire);
                }
                let dying = result.as_ref().is_ok_and(|decision| decision.sa.run.dying());
                let fate =
                    Fate { result, dying, deaths: self.deaths, burst: self.flows.burst(), lane: NO_LANE };
                self.flows.put(key, fate, stale)
            }
        }
    }

    #[inline]
    fn holds(&self, fate: &Fate) -> bool {
        fate.deaths == self.deaths
            && match &fate.result {
                Ok(decision) => decision.sa.run.alive() && decision.sa.run.dying() == fate.dying,
                Err(_) => fate.burst == self.flows.burst(),
            }
    }

    /// Everything that is decided before a packet gets its number. An SA that reaches a limit is dead for the next
    /// packet, which may find another one.
    ///
    /// kernel: net/xfrm/xfrm_output.c xfrm_output_one(): a packet without a number is not charged to the SA
    fn admit(&mut self, tables: &Snapshot, device: &Device, slot: &mut TxSlot, me: u16) {
        let Some(inner) = slot.inner else { return };
        slot.flow = FlowPlace(self.fate(tables, device, &inner.flow));
        let burst = self.flows.burst();
        let Some(fate) = self.flows.get_mut(slot.flow.0) else { return };
        let decision = match &fate.result {
            Ok(decision) => decision,
            Err(refused) => {
                slot.verdict = match transmit::holder(tables, device, refused) {
                    Some(policy) => TxVerdict::Hold(policy.clone(), Stage::of(refused.reason)),
                    None => TxVerdict::Drop(refused.clone().into()),
                };
                return;
            }
        };
        if decision.sa.home != me {
            slot.verdict = TxVerdict::Hop(decision.sa.home);
        } else if let Err(drop) = check_packet(tables, device, decision, &inner, slot.buf.bytes()) {
            slot.verdict = TxVerdict::Drop(drop);
        } else {
            if fate.burst != burst || fate.lane == NO_LANE {
                fate.burst = burst;
                fate.lane = lane_of(&mut self.lanes, &mut self.lane_hints, burst, &decision.sa);
            }
            let lane = &mut self.lanes[fate.lane as usize];
            // One that is dying goes on with this packet; the next may find a better one.
            decision.sa.wear(lane.packets, lane.bytes);
            if let Err(reason) = lane.admit(slot.len as u64) {
                self.deaths += u32::from(reason == Reason::TxSaExpired);
                slot.verdict = TxVerdict::Drop(decision.refuse(reason, 0));
            }
        }
    }

    /// Takes the next number of the packet's SA and builds the outer packet.
    #[inline]
    fn seal(&mut self, slot: &mut TxSlot, now: u64) {
        let Some(Fate { result: Ok(decision), lane, .. }) = self.flows.get(slot.flow.0) else {
            return;
        };
        let (Some(inner), Some(lane)) = (slot.inner, self.lanes.get_mut(*lane as usize)) else { return };
        let sealed = match lane.numbers.as_mut().and_then(Iterator::next) {
            Some(seq) => {
                decision.policy.touch(now);
                encapsulate(decision, &mut slot.buf, &inner, seq, || lane.sa.run.next_ip_id())
            }
            None => Err(Reason::TxSeqOverflow),
        };
        slot.verdict = match sealed {
            Ok(()) => TxVerdict::Send { flow: slot.flow, stage: decision.stage },
            Err(reason) => TxVerdict::Drop(decision.refuse(reason, 0)),
        };
    }
}

impl Decision {
    pub(super) fn refuse(&self, reason: Reason, mtu: u32) -> Drop {
        let reason = self.stage.reason(reason);
        Drop { reason, sa: Some(self.sa.clone()), policy: Some(self.policy.clone()), mtu }
    }
}

impl Lane {
    fn new(sa: &Arc<Sa>) -> Self {
        let (used, available) = (sa.run.current(), sa.run.out.available());
        let before = (used.packets, used.bytes);
        Self { sa: sa.clone(), packets: before.0, bytes: before.1, before, available, numbers: None }
    }

    /// Packets of this burst that were let through.
    fn wanted(&self) -> u64 {
        self.packets - self.before.0
    }

    /// Lets a packet of `len` bytes through, unless the SA is at a limit or has no number left.
    fn admit(&mut self, len: u64) -> Result<(), Reason> {
        let numbers = self.available - self.wanted();
        check_sa(&self.sa, self.packets, self.bytes, numbers).inspect_err(|reason| {
            if *reason == Reason::TxSaExpired {
                self.sa.run.kill();
            }
        })?;
        self.packets += 1;
        self.bytes += len;
        Ok(())
    }

    /// Takes the numbers of all that were let through, and charges the SA with them.
    fn charge(&mut self, now: u64) {
        let run = &self.sa.run;
        self.numbers = Some(run.out.reserve(self.wanted() as usize));
        run.consume(self.wanted(), self.bytes - self.before.1, now);
    }
}

/// For each value of an SA number's low bits: the last burst in which an SA with them got a lane, and which.
struct LaneHints([(u64, u32); 128]);

impl Default for LaneHints {
    fn default() -> Self {
        Self([(0, 0); 128])
    }
}

fn dissect(slot: &mut TxSlot) {
    match check_inner(&slot.buf) {
        Ok(inner) => slot.inner = Some(inner),
        Err(reason) => slot.verdict = TxVerdict::Drop(reason.into()),
    }
}

/// Whether it is an IP packet: by what the host says it is. That its version is another, nobody looks at.
///
/// kernel: net/ipv4/ip_vti.c vti_tunnel_xmit()
pub(super) fn check_inner(packet: &Buf) -> Result<Inner, Reason> {
    let family = packet.protocol.family().ok_or(Reason::TxNotIp)?;
    Inner::read_as(family, packet.bytes()).map_err(|not| match not {
        NotIp::Runt => Reason::TxRunt,
        NotIp::Version => Reason::TxNotIp,
    })
}

/// What forbids one packet of a flow that may pass: that it is this tunnel's own, or its size.
pub(super) fn check_packet(
    tables: &Snapshot,
    device: &Device,
    decision: &Decision,
    inner: &Inner,
    packet: &[u8],
) -> Result<(), Drop> {
    if is_own_esp(tables, device, inner, packet) {
        return Err(decision.stage.reason(Reason::TxOwnEsp).into());
    }
    if packet.len() > decision.mtu as usize && inner.df {
        let reason = if device.is_xfrm() { xfrmi::too_big(inner, packet.len()) } else { Reason::TxTooBig };
        return Err(decision.refuse(reason, decision.mtu));
    }
    Ok(())
}

/// Whether an SA that has carried so much, and has so many numbers left, may carry one packet more.
pub(super) fn check_sa(sa: &Sa, packets: u64, bytes: u64, numbers: u64) -> Result<(), Reason> {
    if sa.exhausted(packets, bytes) {
        return Err(Reason::TxSaExpired);
    }
    if numbers == 0 {
        return Err(if sa.run.out.waits() { Reason::TxSeqNotReserved } else { Reason::TxSeqOverflow });
    }
    Ok(())
}

/// The lane of an SA in this burst.
fn lane_of(lanes: &mut Vec<Lane>, hints: &mut LaneHints, burst: u64, sa: &Arc<Sa>) -> u32 {
    let hint = &mut hints.0[sa.number as usize % 128];
    if hint.0 == burst {
        // Mostly it is the one hinted at; else two SAs share their low bits.
        let same = |at: &u32| lanes[*at as usize].sa.number == sa.number;
        if let Some(at) = [hint.1].into_iter().chain(0..lanes.len() as u32).find(same) {
            return at;
        }
    }
    lanes.push(Lane::new(sa));
    let at = lanes.len() as u32 - 1;
    *hint = (burst, at);
    at
}

/// The second net against loops: a packet of this tunnel in this tunnel, which no route look-up foresaw.
fn is_own_esp(tables: &Snapshot, device: &Device, inner: &Inner, packet: &[u8]) -> bool {
    let at = match inner.flow.proto {
        proto::ESP => inner.payload,
        proto::UDP => inner.payload + 8,
        _ => return false,
    };
    let (ends, flow) = (&device.spec, &inner.flow);
    let between_ends = (ends.local.is_unspecified() || ends.local == flow.src)
        && (ends.remote.is_unspecified() || ends.remote == flow.dst);
    if !between_ends {
        return false;
    }
    let Some((spi, _)) = packet.get(at..).and_then(peek) else { return false };
    let ours = tables.states.any_mark(flow.dst, spi, Proto::Esp);
    ours.is_some_and(|sa| {
        // Of an xfrm interface, which has no ends, by its if_id.
        let this = !device.is_xfrm() || sa.spec.if_id == device.spec.if_id;
        this && sa.spec.src == flow.src && tables.routes.find(&route_key(sa)).is_some()
    })
}

/// ESP and outer header around the packet in `buf`.
///
/// kernel: net/xfrm/xfrm_output.c xfrm4_tunnel_encap_add(), xfrm6_tunnel_encap_add()
pub(super) fn encapsulate(
    decision: &Decision,
    buf: &mut Buf,
    inner: &Inner,
    seq: u64,
    next_id: impl FnOnce() -> u16,
) -> Result<(), Reason> {
    let sa = &decision.sa;
    let spec = &sa.spec;
    let next_header = match inner.flow.family() {
        Family::V4 => proto::IPIP,
        Family::V6 => proto::IPV6,
    };
    let header = Header { spi: spec.spi, seq, esn: spec.flags.has(StateFlags::ESN) };
    sa.crypter.seal(buf, header, sa.run.salt() ^ seq, next_header, decision.tfc_len as usize).map_err(
        |e| match e {
            SealError::NoRoom => Reason::TxNoRoom,
            SealError::Cipher => Reason::TxSealFailed,
        },
    )?;
    let copy = tos::Encap {
        dscp: !spec.extra_flags.has(ExtraFlags::DONT_ENCAP_DSCP),
        ecn: !spec.flags.has(StateFlags::NOECN),
        rule: decision.ecn,
    };
    let df = inner.df && !spec.flags.has(StateFlags::NOPMTUDISC);
    let packet = PerPacket {
        tos: tos::encap(inner.tos, copy),
        df,
        id: if df { 0 } else { next_id() },
        flow_label: inner.flow_label,
    };
    sa.header.push(buf, packet).map_err(|_| Reason::TxNoRoom)
}
