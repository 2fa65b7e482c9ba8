//! Receive: passes over a burst of ESP packets.

use super::Drop;
use super::memory::Memory;
use super::onward::{Ask, Onwards};
use super::receive::{self, Admitted, Refused};
use super::xfrmi;
use crate::device::{Device, DeviceId};
use crate::esp::{self, NextHeader, OpenError, ReplayError};
use crate::packet::tos::EcnRule;
use crate::packet::{Buf, Flow, Incoming, Inner, Outer, OuterHeader, PerPacket, UdpPorts, hash_ends, tos};
use crate::reason::Reason;
use crate::tables::{Policy, Snapshot};
use crate::xfrm::{Family, Lifetime, Mode, Sa, Spi, StateFlags};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
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
    /// Once it is: what a kernel counts as received, the inner packet with its TFC padding, bytes.
    pub len: usize,
    /// What becomes of it.
    pub verdict: RxVerdict,
}

impl RxSlot {
    /// A packet read from a socket, not decided yet.
    pub fn new(packet: Incoming) -> Self {
        let Incoming { buf, outer } = packet;
        Self { buf, outer, device: DeviceId::NONE, opened: false, len: 0, verdict: RxVerdict::Pending }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub enum RxVerdict {
    /// Not decided yet.
    Pending,
    /// Opened and checked: to be handed to the device.
    Deliver {
        /// The way that it came: [`Receiver::sa`] and [`Receiver::policy`] know it until the next burst.
        way: WayPlace,
    },
    /// To the SA's home worker, as it is.
    Hop(u16),
    /// Dropped.
    Drop(Drop),
}

/// Where a [`Receiver`] keeps what an outer header and an SPI stand for, and by which policy the inner flow passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayPlace {
    known: usize,
    passed: usize,
}

/// What [`receive::admit`] looks at, besides the tables.
#[derive(PartialEq, Eq)]
struct Arrival {
    src: IpAddr,
    dst: IpAddr,
    udp: Option<UdpPorts>,
    spi: Spi,
}

/// In few words, as [`Flow`].
impl Hash for Arrival {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_ends(self.src, self.dst, state);
        let ports = self.udp.map_or(0, |udp| u32::from(udp.src) << 16 | u32::from(udp.dst));
        state.write_u64(u64::from(ports) << 32 | u64::from(self.spi.0));
    }
}

/// What it answered.
struct Known {
    device: Arc<Device>,
    sa: Arc<Sa>,
}

/// What [`receive::check_inner`] looks at, besides the tables.
type Passing = (DeviceId, u64, Flow);

/// Takes ESP off bursts. What it was told by the tables it remembers, as long as they are the same.
#[derive(Default)]
pub struct Receiver {
    tables: Option<Arc<Snapshot>>,
    known: Memory<Arrival, Known>,
    /// None: it needed no policy.
    passed: Memory<Passing, Option<Arc<Policy>>>,
    onwards: Onwards,
}

impl Receiver {
    /// Gives every packet of `burst` a verdict. `me` is this worker, `now` is in seconds since the Unix epoch.
    ///
    /// Packets are opened one after the other: whether one is a duplicate depends on those before it.
    pub fn run(&mut self, tables: &Arc<Snapshot>, burst: &mut [RxSlot], me: u16, now: u64) {
        self.begin(tables);
        for slot in burst {
            match self.admit(tables, slot) {
                Ok((place, seq)) => self.open(tables, slot, (place, seq), me, now),
                Err(refused) => refuse(slot, refused, me, now),
            }
        }
    }

    /// The SA that a packet of the last burst came by.
    pub fn sa(&self, way: WayPlace) -> Option<&Arc<Sa>> {
        self.known.get(way.known).map(|known| &known.sa)
    }

    /// The policy that let a packet of the last burst in.
    pub fn policy(&self, way: WayPlace) -> Option<&Arc<Policy>> {
        self.passed.get(way.passed)?.as_ref()
    }

    /// The drop of a packet of the last burst that was to be delivered, but was not taken.
    pub fn drop_of(&self, way: WayPlace, reason: Reason) -> Drop {
        Drop { reason, sa: self.sa(way).cloned(), policy: self.policy(way).cloned(), mtu: 0 }
    }

    /// The drop of a packet of the last burst that was to be delivered, if the host behind the device would not let it
    /// pass. `ask` asks the host.
    ///
    /// Only to be called if [`concern_host`](crate::tables::Policies::concern_host) says so.
    pub fn host_drops(
        &mut self,
        tables: &Snapshot,
        way: WayPlace,
        packet: &[u8],
        now: u64,
        ask: &mut Ask<'_>,
    ) -> Option<Drop> {
        let Known { device, sa } = self.known.get(way.known)?;
        if device.is_xfrm() {
            // Its packets have come through IPsec still, and their policies were asked with its if_id.
            return None;
        }
        let (reason, policy) = self.onwards.check(tables, device, packet, now, ask).err()?;
        Some(Drop { reason, sa: Some(sa.clone()), policy, mtu: 0 })
    }

    /// Forgets what other tables said, and lets go of them.
    pub fn follow(&mut self, tables: &Arc<Snapshot>) {
        if !self.tables.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, tables)) {
            self.known.clear();
            self.passed.clear();
            self.onwards.clear();
            self.tables = Some(tables.clone());
        }
    }

    fn begin(&mut self, tables: &Arc<Snapshot>) {
        self.follow(tables);
        self.known.begin();
        self.passed.begin();
        self.onwards.begin();
    }

    /// Where device and SA of a packet are known, and the low half of its sequence number.
    #[inline]
    fn admit(&mut self, tables: &Snapshot, slot: &RxSlot) -> Result<(usize, u32), Refused> {
        let (outer, esp) = (&slot.outer, slot.buf.bytes());
        let Some((spi, seq)) = esp::peek(esp) else {
            // Too short for an SPI, which the kernel asks for after other things.
            return Err(receive::admit(tables, outer, esp).err().unwrap_or(Reason::RxShort.into()));
        };
        let arrival = Arrival { src: outer.src, dst: outer.dst, udp: outer.udp, spi };
        match self.known.find(&arrival) {
            Some(place) if self.known.get(place).is_some_and(|known| known.sa.run.alive()) => {
                Ok((place, seq))
            }
            stale => {
                let Admitted { device, sa, .. } = receive::admit(tables, outer, esp)?;
                Ok((self.known.put(arrival, Known { device, sa }, stale), seq))
            }
        }
    }

    #[inline]
    fn open(&mut self, tables: &Snapshot, slot: &mut RxSlot, (place, seq): (usize, u32), me: u16, now: u64) {
        let Some(Known { device, sa }) = self.known.get(place) else { return };
        slot.device = device.id;
        if sa.home != me {
            slot.verdict = RxVerdict::Hop(sa.home);
            return;
        }
        slot.verdict = match deliver(tables, device, sa, &mut self.passed, slot, seq, now) {
            Ok(passed) => RxVerdict::Deliver { way: WayPlace { known: place, passed } },
            Err((reason, policy)) => {
                if let Some(stat) = reason.row().sa {
                    sa.run.count(stat);
                }
                RxVerdict::Drop(Drop { reason, sa: Some(sa.clone()), policy, mtu: 0 })
            }
        };
    }
}

/// Drops a packet that has no device, or no SA. One that has an SA, but no device, is opened by it first.
fn refuse(slot: &mut RxSlot, refused: Refused, me: u16, now: u64) {
    let mut reason = refused.reason;
    if let Some((sa, seq)) = receive::opened_all_the_same(&refused, &slot.outer, slot.buf.bytes()) {
        if sa.home != me {
            slot.verdict = RxVerdict::Hop(sa.home);
            return;
        }
        match decrypt(sa, None, &mut slot.buf, seq, now) {
            Ok(_) => slot.opened = true,
            Err(failed) => {
                reason = failed;
                failed.row().sa.into_iter().for_each(|stat| sa.run.count(stat));
            }
        }
    }
    let Refused { device, sa, .. } = refused;
    slot.device = device.map_or(DeviceId::NONE, |d| d.id);
    slot.verdict = RxVerdict::Drop(Drop { sa, ..reason.into() });
}

/// Makes the inner packet of an ESP packet. Returns where the policy is that let it in.
fn deliver(
    tables: &Snapshot,
    device: &Device,
    sa: &Sa,
    passed: &mut Memory<Passing, Option<Arc<Policy>>>,
    slot: &mut RxSlot,
    seq: u32,
    now: u64,
) -> Result<usize, Refusal> {
    let without_policy = |reason| (reason, None);
    let next_header = decrypt(sa, Some(device), &mut slot.buf, seq, now).map_err(without_policy)?;
    slot.opened = true;
    slot.len = slot.buf.len();
    let next_header = whole(sa, &mut slot.buf, &slot.outer, next_header).map_err(without_policy)?;
    if sa.spec.mode == Mode::Beet {
        slot.len = slot.buf.len();
    }
    let inner = inner_packet(sa, &mut slot.buf, &slot.outer, next_header, tables.settings.ecn)
        .map_err(without_policy)?;
    // kernel: include/net/xfrm.h __xfrm_policy_check2() DST_NOPOLICY
    if xfrmi::needs_no_policy(device, &inner) {
        return Ok(usize::MAX);
    }
    let flow = receive::flow_seen(sa, &inner, slot.buf.bytes());
    let key = (device.id, sa.number, flow);
    let place = match passed.find(&key) {
        Some(place) => place,
        None => {
            let policy = receive::check_inner(tables, device, sa, &flow);
            let policy = policy.map_err(|(reason, policy)| (reason, policy.cloned()))?.cloned();
            passed.put(key, policy, None)
        }
    };
    if let Some(Some(policy)) = passed.get(place) {
        policy.touch(now);
    }
    Ok(place)
}

/// Why an ESP packet that has an SA is not delivered, and the policy that had a part in it.
type Refusal = (Reason, Option<Arc<Policy>>);

/// Window, lifetime, mode, ICV: in the kernel's order. The window moves and the SA is charged once the ICV was right,
/// and before policies are asked. kernel: net/xfrm/xfrm_input.c xfrm_input()
fn decrypt(
    sa: &Sa,
    device: Option<&Device>,
    buf: &mut Buf,
    seq: u32,
    now: u64,
) -> Result<NextHeader, Reason> {
    let run = &sa.run;
    let seq = check_window(sa, seq)?;
    // kernel: net/xfrm/xfrm_state.c xfrm_state_check_expire(): used, whatever becomes of the packet
    run.touch(now);
    let used = run.current();
    let checked = check_use(sa, device, &used);
    match checked {
        Err(Reason::RxSaExpired) => run.kill(),
        _ => _ = sa.wear(used.packets, used.bytes),
    }
    checked?;
    let next_header = open(sa, buf, seq)?;
    run.add_lost(run.window.advance(seq));
    run.consume(1, buf.len() as u64, now);
    Ok(next_header)
}

/// Whether the SA takes a packet with this low half of a number, before it is decrypted; the whole number.
pub(super) fn check_sa(sa: &Sa, device: Option<&Device>, seq: u32) -> Result<u64, Reason> {
    let seq = check_window(sa, seq)?;
    check_use(sa, device, &sa.run.current())?;
    Ok(seq)
}

fn check_window(sa: &Sa, seq: u32) -> Result<u64, Reason> {
    sa.run.window.check(seq).map_err(|e| match e {
        ReplayError::Zero => Reason::RxReplayZero,
        ReplayError::Old => Reason::RxReplayOld,
        ReplayError::Duplicate => Reason::RxReplayDuplicate,
    })
}

fn check_use(sa: &Sa, device: Option<&Device>, used: &Lifetime) -> Result<(), Reason> {
    if sa.exhausted(used.packets, used.bytes) {
        return Err(Reason::RxSaExpired);
    }
    match sa.spec.mode {
        Mode::Tunnel | Mode::Beet => Ok(()),
        Mode::Transport if device.is_some_and(Device::is_xfrm) => Ok(()),
        _ => Err(Reason::RxNotTunnelMode),
    }
}

/// Takes ESP off the packet in `buf`, whose whole number is `seq`.
pub(super) fn open(sa: &Sa, buf: &mut Buf, seq: u64) -> Result<NextHeader, Reason> {
    let seq_hi = sa.spec.flags.has(StateFlags::ESN).then_some((seq >> 32) as u32);
    sa.crypter.open(buf, seq_hi).map_err(|e| match e {
        OpenError::Truncated => Reason::RxTruncated,
        OpenError::BadIcv => Reason::RxBadIcv,
        OpenError::BadPadding => Reason::RxBadPadding,
        OpenError::Dummy => Reason::RxDummy,
    })
}

/// Puts the IP header in front of what ESP carried, in modes in which it is not in there.
pub(super) fn whole(sa: &Sa, buf: &mut Buf, outer: &Outer, upper: NextHeader) -> Result<NextHeader, Reason> {
    match sa.spec.mode {
        Mode::Beet => put_header(sa, buf, outer, upper),
        Mode::Transport => xfrmi::put_header(buf, outer, upper),
        _ => Ok(upper),
    }
}

/// In beet mode the inner header stayed at home: it is made of the SA's selector and the outer header.
///
/// kernel: net/xfrm/xfrm_input.c xfrm4_remove_beet_encap(), xfrm6_remove_beet_encap()
fn put_header(sa: &Sa, buf: &mut Buf, outer: &Outer, upper: NextHeader) -> Result<NextHeader, Reason> {
    /// The pseudo header for IPv4 options, which only a kernel's peer would send.
    const PSEUDO: u8 = 94;
    let sel = &sa.selector;
    let (src, dst) = (sel.src.addr(), sel.dst.addr());
    if sel.family != Some(Family::of(dst)) || upper.0 == PSEUDO {
        return Err(Reason::RxInnerProto);
    }
    let header = OuterHeader::around(src, dst, upper.0).map_err(|_| Reason::RxInnerProto)?;
    header
        .push(buf, PerPacket { tos: outer.tos, ..PerPacket::default() })
        .map_err(|_| Reason::RxInnerShort)?;
    Ok(if dst.is_ipv4() { NextHeader::IPV4 } else { NextHeader::IPV6 })
}

/// The inner packet, freed of TFC padding, with congestion marked.
///
/// kernel: net/xfrm/xfrm_input.c xfrm_inner_mode_input(), xfrm4_remove_tunnel_encap()
pub(super) fn inner_packet(
    sa: &Sa,
    buf: &mut Buf,
    outer: &Outer,
    next_header: NextHeader,
    rule: EcnRule,
) -> Result<Inner, Reason> {
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
    let flags = sa.spec.flags;
    let copy =
        tos::Decap { dscp: flags.has(StateFlags::DECAP_DSCP), ecn: !flags.has(StateFlags::NOECN), rule };
    let marked = tos::decap(inner.tos, outer.tos, copy).map_err(|_| Reason::RxCongested)?;
    if marked != inner.tos {
        tos::set(buf.bytes_mut(), marked);
    }
    Ok(inner)
}
