//! Transmit: passes over a burst of inner packets.
//!
//! Dissect all; per packet, in order, what is decided once for its flow, size, lifetime and whether a sequence number
//! is left; reserve exactly the numbers that will be used; seal. Each packet has a verdict; a pass skips what is
//! decided.

use super::transmit::{self, Decision, Refused};
use super::{Drop, transmit::route_key};
use crate::device::Device;
use crate::esp::{Header, Numbers, SealError, peek};
use crate::packet::{Buf, Flow, Inner, NotIp, OuterHeader, UdpPorts, proto, tos};
use crate::reason::Reason;
use crate::tables::{Policy, Snapshot};
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
    group: usize,
}

impl TxSlot {
    /// A packet read from a device, not decided yet.
    pub fn new(buf: Buf) -> Self {
        Self { len: buf.len(), buf, verdict: TxVerdict::Pending, inner: None, group: 0 }
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
        /// MTU of the path, bytes.
        path_mtu: u32,
        /// The SA that sealed it.
        sa: Arc<Sa>,
        /// The policy that asked for it.
        policy: Arc<Policy>,
    },
    /// To the SA's home worker, as it is.
    Hop(u16),
    /// Dropped.
    Drop(Drop),
}

/// The packets of one flow, as long as no SA dies.
struct Group {
    flow: Flow,
    result: Result<Decision, Refused>,
    /// Where its SA is among the lanes, once a packet got that far.
    lane: Option<usize>,
    /// How many SAs had died when this was decided.
    deaths: usize,
}

/// The packets of one SA.
struct Lane {
    sa: Arc<Sa>,
    /// Packets and bytes of the SA, with those of this burst that were let through so far.
    packets: u64,
    bytes: u64,
    /// Sequence numbers that will be used, and how many there are.
    wanted: u64,
    available: u64,
    numbers: Option<Numbers>,
}

/// Carries bursts out of a device. Holds scratch memory only: nothing is remembered from burst to burst.
#[derive(Default)]
pub struct Transmitter {
    groups: Vec<Group>,
    lanes: Vec<Lane>,
    /// SAs that reached a limit in this burst.
    deaths: usize,
}

impl Transmitter {
    /// Gives every packet of `burst` a verdict. `me` is this worker, `now` is in seconds since the Unix epoch.
    pub fn run(&mut self, tables: &Snapshot, device: &Device, burst: &mut [TxSlot], me: u16, now: u64) {
        self.clear();
        burst.iter_mut().for_each(dissect);
        for slot in burst.iter_mut().filter(|s| s.pending()) {
            self.admit(tables, device, slot, me);
        }
        for lane in &mut self.lanes {
            lane.numbers = Some(lane.sa.run.out.reserve(lane.wanted as usize));
        }
        for slot in burst.iter_mut().filter(|s| s.pending()) {
            self.seal(slot, now);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.lanes.clear();
        self.deaths = 0;
    }

    /// Finds the flow among those of the burst, or decides for a new one. Once an SA has died, all is decided anew.
    fn group(&mut self, tables: &Snapshot, device: &Device, flow: &Flow) -> usize {
        let deaths = self.deaths;
        self.groups.iter().rposition(|g| g.flow == *flow && g.deaths == deaths).unwrap_or_else(|| {
            let result = transmit::decide(tables, device, flow);
            self.groups.push(Group { flow: *flow, result, lane: None, deaths });
            self.groups.len() - 1
        })
    }

    /// Everything that is decided before a packet gets its number. An SA that reaches a limit is dead for the next
    /// packet, which may find another one.
    ///
    /// kernel: net/xfrm/xfrm_output.c xfrm_output_one(): a packet without a number is not charged to the SA
    fn admit(&mut self, tables: &Snapshot, device: &Device, slot: &mut TxSlot, me: u16) {
        let Some(inner) = slot.inner else { return };
        slot.group = self.group(tables, device, &inner.flow);
        let group = &mut self.groups[slot.group];
        let decision = match &group.result {
            Ok(decision) => decision,
            Err(Refused { reason, policy, sa }) => {
                let (policy, sa) = (policy.clone(), sa.clone());
                slot.verdict = TxVerdict::Drop(Drop { reason: *reason, sa, policy, mtu: 0 });
                return;
            }
        };
        if decision.sa.home != me {
            slot.verdict = TxVerdict::Hop(decision.sa.home);
        } else if is_own_esp(tables, device, &inner, slot.buf.bytes()) {
            slot.verdict = TxVerdict::Drop(Reason::TxOwnEsp.into());
        } else if slot.len > decision.mtu as usize && inner.df {
            slot.verdict = decision.refuse(Reason::TxTooBig, decision.mtu);
        } else {
            let at = *group.lane.get_or_insert_with(|| lane_of(&mut self.lanes, &decision.sa));
            if let Err(reason) = self.lanes[at].admit(slot.len as u64) {
                self.deaths += usize::from(reason == Reason::TxSaExpired);
                slot.verdict = decision.refuse(reason, 0);
            }
        }
    }

    /// Takes the next number of the packet's SA and builds the outer packet.
    fn seal(&mut self, slot: &mut TxSlot, now: u64) {
        let group = &self.groups[slot.group];
        let (Ok(decision), Some(inner), Some(at)) = (&group.result, slot.inner, group.lane) else { return };
        let lane = &mut self.lanes[at];
        let sealed = match lane.numbers.as_mut().and_then(Iterator::next) {
            Some(seq) => {
                decision.policy.touch(now);
                lane.sa.run.consume(1, slot.len as u64, now);
                encapsulate(decision, &mut slot.buf, &inner, seq)
            }
            None => Err(Reason::TxSeqOverflow),
        };
        slot.verdict = match sealed {
            Ok(()) => TxVerdict::Send {
                path_mtu: decision.route.mtu,
                sa: lane.sa.clone(),
                policy: decision.policy.clone(),
            },
            Err(reason) => decision.refuse(reason, 0),
        };
    }
}

impl Decision {
    fn refuse(&self, reason: Reason, mtu: u32) -> TxVerdict {
        TxVerdict::Drop(Drop { reason, sa: Some(self.sa.clone()), policy: Some(self.policy.clone()), mtu })
    }
}

impl Lane {
    fn new(sa: &Arc<Sa>) -> Self {
        let (used, available) = (sa.run.current(), sa.run.out.available());
        Self { sa: sa.clone(), packets: used.packets, bytes: used.bytes, wanted: 0, available, numbers: None }
    }

    /// Lets a packet of `len` bytes through, unless the SA is at a limit or has no number left.
    fn admit(&mut self, len: u64) -> Result<(), Reason> {
        if self.sa.exhausted(self.packets, self.bytes) {
            self.sa.run.kill();
            return Err(Reason::TxSaExpired);
        }
        if self.wanted == self.available {
            return Err(Reason::TxSeqOverflow);
        }
        self.packets += 1;
        self.bytes += len;
        self.wanted += 1;
        Ok(())
    }
}

fn dissect(slot: &mut TxSlot) {
    match Inner::dissect(slot.buf.bytes()) {
        Ok(inner) => slot.inner = Some(inner),
        Err(NotIp::Runt) => slot.verdict = TxVerdict::Drop(Reason::TxRunt.into()),
        Err(NotIp::Version) => slot.verdict = TxVerdict::Drop(Reason::TxNotIp.into()),
    }
}

fn lane_of(lanes: &mut Vec<Lane>, sa: &Arc<Sa>) -> usize {
    let same = |l: &Lane| Arc::ptr_eq(&l.sa.run, &sa.run);
    lanes.iter().position(same).unwrap_or_else(|| {
        lanes.push(Lane::new(sa));
        lanes.len() - 1
    })
}

/// The second net against loops: a packet of this tunnel in this tunnel, which no route look-up foresaw.
fn is_own_esp(tables: &Snapshot, device: &Device, inner: &Inner, packet: &[u8]) -> bool {
    let at = match inner.flow.proto {
        proto::ESP => inner.payload,
        proto::UDP => inner.payload + 8,
        _ => return false,
    };
    let Some((spi, _)) = packet.get(at..).and_then(peek) else { return false };
    let ours = tables.states.any_mark(inner.flow.dst, spi, Proto::Esp);
    let ends = &device.spec;
    ours.is_some_and(|sa| {
        sa.spec.src == inner.flow.src
            && (ends.local.is_unspecified() || ends.local == inner.flow.src)
            && (ends.remote.is_unspecified() || ends.remote == inner.flow.dst)
            && tables.routes.find(&route_key(sa)).is_some()
    })
}

/// ESP and outer header around the packet in `buf`.
///
/// kernel: net/xfrm/xfrm_output.c xfrm4_tunnel_encap_add(), xfrm6_tunnel_encap_add()
fn encapsulate(decision: &Decision, buf: &mut Buf, inner: &Inner, seq: u64) -> Result<(), Reason> {
    let sa = &decision.sa;
    let spec = &sa.spec;
    let next_header = match inner.flow.family() {
        Family::V4 => proto::IPIP,
        Family::V6 => proto::IPV6,
    };
    let header = Header { spi: spec.spi, seq, esn: spec.flags.has(StateFlags::ESN) };
    sa.crypter.seal(buf, header, sa.run.salt ^ seq, next_header, decision.tfc_len as usize).map_err(|e| {
        match e {
            SealError::NoRoom => Reason::TxNoRoom,
            SealError::Cipher => Reason::TxSealFailed,
        }
    })?;
    let copy = tos::Encap {
        dscp: !spec.extra_flags.has(ExtraFlags::DONT_ENCAP_DSCP),
        ecn: !spec.flags.has(StateFlags::NOECN),
    };
    let df = inner.df && !spec.flags.has(StateFlags::NOPMTUDISC);
    let outer = OuterHeader {
        src: spec.src,
        dst: spec.dst,
        tos: tos::encap(inner.tos, copy),
        df,
        id: if df { 0 } else { sa.run.next_ip_id() },
        flow_label: inner.flow_label,
        udp: spec.encap.map(|e| UdpPorts { src: e.sport, dst: e.dport }),
    };
    outer.push(buf).map_err(|_| Reason::TxNoRoom)
}
