//! The reference: xfrm and VTI as lists that are walked from the front. Slow, obvious, and of the core only what a
//! configuration is made of, and the names of the reasons.

use std::collections::BTreeMap;
use std::net::IpAddr;
use uvti_core::packet::Flow;
use uvti_core::reason::Reason;
use uvti_core::xfrm::{
    Action, Direction, Level, Mode, PolicySpec, PortMatch, Proto, SaDirection, Selector, StateSpec,
    StateStats,
};

/// A VTI.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) ifindex: u32,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) key: u32,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) disable_xfrm: bool,
    pub(crate) no_policy: bool,
}

/// A state, and what it has carried.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) spec: StateSpec,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) sent: u64,
    pub(crate) seen: Vec<u64>,
    pub(crate) stats: StateStats,
    dying: bool,
}

/// A packet from the wire, described.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) udp: bool,
    pub(crate) spi: u32,
    pub(crate) seq: u32,
    pub(crate) shape: Shape,
    pub(crate) flow: Flow,
    pub(crate) len: usize,
}

/// What is the matter with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Good,
    /// No room for a sequence number.
    Short,
    /// No room for IV and ICV.
    Truncated,
    BadIcv,
    Dummy,
    /// TCP without an IP header.
    NotTunnelled,
    /// Half an IP header.
    HalfHeader,
    /// IPv4 that is said to be IPv6, or the other way round.
    OtherVersion,
}

/// What became of a packet: what was carried, with the SPI and the policy's priority; or where and why it was dropped.
pub(crate) type Fate = Result<Carried, (Option<u32>, Reason)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Sent before it reached the device.
    pub(crate) routed: bool,
    pub(crate) device: u32,
    pub(crate) spi: u32,
    /// On receive without a policy: `None`.
    pub(crate) priority: Option<u32>,
    pub(crate) len: usize,
}

/// Everything. The newest state and the oldest policy come first in their lists.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) links: Vec<Link>,
    pub(crate) states: Vec<State>,
    pub(crate) policies: Vec<PolicySpec>,
    pub(crate) blocked: [bool; 3],
    /// (source, destination, mark) to (interface, MTU).
    pub(crate) routes: BTreeMap<(IpAddr, IpAddr, u32), (u32, u32)>,
    pub(crate) drops: BTreeMap<(Option<u32>, &'static str), u64>,
}

impl Reference {
    pub(crate) fn add_state(&mut self, spec: &StateSpec) -> bool {
        let new = self.named(spec).is_none();
        if new {
            let (packets, bytes, sent) = (0, 0, spec.replay.oseq.into());
            let state = State {
                spec: spec.clone(),
                packets,
                bytes,
                sent,
                seen: vec![],
                stats: StateStats::default(),
                dying: false,
            };
            self.states.insert(0, state);
        }
        new
    }

    pub(crate) fn update_state(&mut self, spec: &StateSpec) -> bool {
        let Some(at) = self.named(spec) else { return false };
        let old = &mut self.states[at].spec;
        (old.limits, old.sel) = (spec.limits, spec.sel.clone());
        if old.encap.is_some() && spec.encap.is_some() {
            old.encap = spec.encap;
        }
        if spec.output_mark.value != 0 || spec.output_mark.mask != 0 {
            old.output_mark = spec.output_mark;
        }
        true
    }

    pub(crate) fn delete_state(&mut self, spec: &StateSpec) -> bool {
        self.named(spec).map(|at| self.states.remove(at)).is_some()
    }

    fn named(&self, spec: &StateSpec) -> Option<usize> {
        self.received(spec.dst, spec.spi.0, spec.mark.value & spec.mark.mask)
    }

    /// The newest state for what a packet carries.
    fn received(&self, dst: IpAddr, spi: u32, mark: u32) -> Option<usize> {
        self.states.iter().position(|s| {
            s.spec.dst == dst && s.spec.spi.0 == spi && mark & s.spec.mark.mask == s.spec.mark.value
        })
    }

    /// Adds a policy, or puts it in the place of the one with its selector and mark.
    pub(crate) fn put_policy(&mut self, spec: &PolicySpec, replace: bool) -> bool {
        match self.policies.iter().position(|p| p.dir == spec.dir && p.sel == spec.sel && p.mark == spec.mark)
        {
            Some(at) if replace => self.policies[at] = spec.clone(),
            Some(_) => return false,
            None => self.policies.push(spec.clone()),
        }
        true
    }

    pub(crate) fn delete_policy(&mut self, spec: &PolicySpec) -> bool {
        let before = self.policies.len();
        self.policies.retain(|p| !(p.dir == spec.dir && p.sel == spec.sel && p.mark == spec.mark));
        self.policies.len() < before
    }

    /// The lowest priority, and among equals the oldest.
    fn policy(&self, dir: Direction, flow: &Flow, dev: &str, mark: u32) -> Option<&PolicySpec> {
        let fits = |p: &&PolicySpec| {
            p.dir == dir && mark & p.mark.mask == p.mark.value && selects(&p.sel, flow, dev)
        };
        // The first of several minima.
        self.policies.iter().filter(fits).min_by_key(|p| p.priority)
    }

    /// Sends a packet of `len` bytes.
    pub(crate) fn send(&mut self, link: &Link, flow: &Flow, len: usize, df: bool) -> Fate {
        let fate = self.transmit(link, flow, len, df).map_err(|reason| (Some(link.ifindex), reason));
        self.count(fate)
    }

    /// By a policy without a mark where the host routes the packet, else on the device.
    fn transmit(&mut self, link: &Link, flow: &Flow, len: usize, df: bool) -> Result<Carried, Reason> {
        use Reason::*;
        let routed = self.carry(&Link { key: 0, ..link.clone() }, true, flow, len, df);
        Err(match routed {
            Err(TxXfrmDisabled | TxNoPolicy | TxBypassPolicy | TxNoTransform) => {
                return self.carry(link, false, flow, len, df);
            }
            Ok(carried) => return Ok(carried),
            Err(TxDefaultBlock) => TxUnmarkedDefaultBlock,
            Err(TxPolicyBlock) => TxUnmarkedPolicyBlock,
            Err(TxNoSa) => TxUnmarkedNoSa,
            Err(TxTemplateSpiClash) => TxUnmarkedPolicyError,
            Err(TxWrongDirection) => TxUnmarkedWrongDirection,
            Err(TxNoOuterRoute) => TxUnmarkedNoOuterRoute,
            Err(TxNotTunnelMode) => TxUnmarkedNotTunnelMode,
            Err(TxLoop | TxMutualLoop) => TxUnmarkedLoop,
            Err(TxTooBig) => TxUnmarkedTooBig,
            Err(TxSaExpired) => TxUnmarkedSaExpired,
            Err(TxSeqOverflow) => TxUnmarkedSeqOverflow,
            Err(other) => other,
        })
    }

    /// kernel: net/ipv4/ip_vti.c vti_xmit()
    fn carry(
        &mut self,
        link: &Link,
        routed: bool,
        flow: &Flow,
        len: usize,
        df: bool,
    ) -> Result<Carried, Reason> {
        if !routed && link.local.is_ipv6() && flow.src == link.remote {
            return Err(Reason::TxSourceIsRemote);
        }
        let (at, priority, route) = self.bundle(link, flow)?;
        let spec = &self.states[at].spec;
        if spec.mode != Mode::Tunnel {
            return Err(Reason::TxNotTunnelMode);
        }
        if !routed && spec.dst.is_ipv4() != link.local.is_ipv4() {
            return Err(Reason::TxOuterFamily);
        }
        let wrong = |end: IpAddr, own: IpAddr| !routed && !end.is_unspecified() && end != own;
        if wrong(link.local, spec.src) || wrong(link.remote, spec.dst) {
            return Err(Reason::TxEndpointMismatch);
        }
        let (mut ifindex, mtu) = route.ok_or(Reason::TxNotTunnelMode)?;
        if ifindex == link.ifindex {
            return Err(Reason::TxLoop);
        }
        let mut outer = outer_flow(spec);
        for nested in 0.. {
            let Some(below) = self.links.iter().find(|l| l.ifindex == ifindex) else { break };
            let Ok((next, _, Some((leads_to, _)))) = self.bundle(below, &outer) else { break };
            if leads_to == link.ifindex || nested == 7 {
                return Err(Reason::TxMutualLoop);
            }
            (outer, ifindex) = (outer_flow(&self.states[next].spec), leads_to);
        }
        // Header, SPI and number, IV, ICV; two bytes of trailer in what is padded to four.
        let before = if spec.dst.is_ipv4() { 20 } else { 40 } + if spec.encap.is_some() { 8 } else { 0 };
        let fits = (mtu.saturating_sub(before + 32) / 4 * 4).saturating_sub(2).min(link.mtu);
        if df && len > fits as usize {
            return Err(Reason::TxTooBig);
        }
        let (limits, state) = (spec.limits, &mut self.states[at]);
        state.dying |= state.packets >= limits.soft_packets || state.bytes >= limits.soft_bytes;
        if state.packets >= limits.hard_packets || state.bytes >= limits.hard_bytes {
            self.states.remove(at);
            return Err(Reason::TxSaExpired);
        }
        if state.sent == u32::MAX.into() {
            return Err(Reason::TxSeqOverflow);
        }
        (state.sent, state.packets, state.bytes) =
            (state.sent + 1, state.packets + 1, state.bytes + len as u64);
        let len = before as usize + 32 + (len + 2).next_multiple_of(4);
        Ok(Carried { device: link.ifindex, spi: state.spec.spi.0, priority: Some(priority), routed, len })
    }

    /// State, the policy's priority, and the way to the far end where there is one.
    #[allow(clippy::type_complexity, reason = "three things that have no name of their own")]
    fn bundle(&self, link: &Link, flow: &Flow) -> Result<(usize, u32, Option<(u32, u32)>), Reason> {
        if link.disable_xfrm && flow.src.is_ipv4() {
            return Err(Reason::TxXfrmDisabled);
        }
        let none =
            if self.blocked[Direction::Out as usize] { Reason::TxDefaultBlock } else { Reason::TxNoPolicy };
        let policy = self.policy(Direction::Out, flow, link.name, link.key).ok_or(none)?;
        if policy.action == Action::Block {
            return Err(Reason::TxPolicyBlock);
        }
        let t = policy.templates.first().ok_or(Reason::TxBypassPolicy)?;
        let (src, dst) = match t.mode {
            Mode::Tunnel => (t.src, t.dst),
            _ => (flow.src, flow.dst),
        };
        let mark = policy.mark.value & policy.mark.mask;
        let fits = |s: &State| {
            (s.spec.src, s.spec.dst, s.spec.reqid, s.spec.mode) == (src, dst, t.reqid, t.mode)
                && mark & s.spec.mark.mask == s.spec.mark.value
                && (t.spi.0 == 0 || t.spi == s.spec.spi)
                && selects(&s.spec.selector(), flow, "")
        };
        let fresh = self.states.iter().position(|s| fits(s) && !s.dying);
        let at = match fresh.or_else(|| self.states.iter().position(fits)) {
            Some(at) => at,
            None if t.spi.0 != 0 && self.received(dst, t.spi.0, mark).is_some() => {
                return Err(Reason::TxTemplateSpiClash);
            }
            None if t.level == Level::Use => return Err(Reason::TxNoTransform),
            None => return Err(Reason::TxNoSa),
        };
        let spec = &self.states[at].spec;
        if spec.dir == Some(SaDirection::In) {
            return Err(Reason::TxWrongDirection);
        }
        if spec.mode == Mode::Transport {
            return Ok((at, policy.priority, None));
        }
        let key = (spec.src, spec.dst, spec.output_mark.value & spec.output_mark.mask);
        let route = self.routes.get(&key).ok_or(Reason::TxNoOuterRoute)?;
        Ok((at, policy.priority, Some(*route)))
    }

    /// Receives a packet.
    pub(crate) fn receive(&mut self, packet: &Arrival) -> Fate {
        let fate = match self.tunnel(packet) {
            Some(link) => self.input(&link, packet),
            None => Err((None, self.plain_input(packet))),
        };
        self.count(fate)
    }

    /// Without a device the host's own ESP takes the packet: an SA that can opens it and is charged, and then no policy
    /// wants it.
    ///
    /// kernel: net/ipv4/esp4.c
    fn plain_input(&mut self, packet: &Arrival) -> Reason {
        if packet.shape == Shape::Short {
            return Reason::RxShort;
        }
        let Some(at) = self.received(packet.dst, packet.spi, 0) else { return Reason::RxNoTunnel };
        let spec = &self.states[at].spec;
        let opens = spec.mode == Mode::Tunnel
            && spec.dir != Some(SaDirection::Out)
            && spec.encap.is_some() == packet.udp;
        match opens.then(|| open(&mut self.states[at], packet)) {
            Some(Err(Reason::RxSaExpired)) => {
                self.states.remove(at);
                Reason::RxSaExpired
            }
            // What is in it nobody looks at.
            None
            | Some(Ok(()) | Err(Reason::RxInnerProto | Reason::RxInnerShort | Reason::RxInnerVersion)) => {
                Reason::RxNoTunnelKnownSa
            }
            Some(Err(reason)) => reason,
        }
    }

    /// The device that names both ends, else the far end alone, else the near one, else none. One that is down is not
    /// there.
    fn tunnel(&self, packet: &Arrival) -> Option<Link> {
        let given = |own: IpAddr, is: IpAddr| own == is || own.is_unspecified();
        let fits = |l: &&Link| {
            l.up && l.local.is_ipv4() == packet.dst.is_ipv4()
                && given(l.local, packet.dst)
                && given(l.remote, packet.src)
        };
        let vague = |l: &&Link| (l.remote.is_unspecified(), l.local.is_unspecified());
        self.links.iter().filter(fits).min_by_key(vague).cloned()
    }

    /// kernel: net/ipv4/ip_vti.c vti_input(), net/xfrm/xfrm_input.c xfrm_input()
    fn input(&mut self, link: &Link, packet: &Arrival) -> Fate {
        let here = |reason| (Some(link.ifindex), reason);
        if !link.no_policy {
            self.outer_policy(packet).map_err(|reason| (None, reason))?;
        }
        if packet.shape == Shape::Short {
            return Err(here(Reason::RxShort));
        }
        let at = self.received(packet.dst, packet.spi, link.key).ok_or(here(Reason::RxNoSa))?;
        let state = &mut self.states[at];
        let spi = state.spec.spi.0;
        match open(state, packet) {
            Ok(()) => {}
            Err(reason) => {
                if reason == Reason::RxSaExpired {
                    self.states.remove(at);
                }
                return Err(here(reason));
            }
        }
        let carried =
            |priority| Carried { device: link.ifindex, spi, priority, routed: false, len: packet.len };
        if link.no_policy {
            return Ok(carried(None));
        }
        let spec = &self.states[at].spec;
        let flow = seen_by(spec, packet);
        if !selects(&spec.selector(), &flow, "") {
            return Err(here(Reason::RxSelectorMismatch));
        }
        let policy = self.policy(Direction::In, &flow, link.name, link.key);
        let policy = policy.ok_or(here(Reason::RxNoPolicy))?;
        if policy.action == Action::Block {
            return Err(here(Reason::RxPolicyBlock));
        }
        let t = policy.templates.first().ok_or(here(Reason::RxTemplateMissing))?;
        let accepted = (t.spi.0 == 0 || t.spi == spec.spi)
            && (t.reqid == 0 || t.reqid == spec.reqid)
            && t.mode == spec.mode
            && (t.src.is_unspecified() || t.src == spec.src)
            && t.proto == Proto::Esp;
        if accepted { Ok(carried(Some(policy.priority))) } else { Err(here(Reason::RxTemplateMismatch)) }
    }

    fn outer_policy(&self, packet: &Arrival) -> Result<(), Reason> {
        let (proto, sport, dport) = if packet.udp { (17, 4500, 4500) } else { (50, 0, 0) };
        let flow = Flow { src: packet.src, dst: packet.dst, proto, sport, dport };
        match self.policy(Direction::In, &flow, "", 0) {
            None if self.blocked[Direction::In as usize] => Err(Reason::RxOuterDefaultBlock),
            None => Ok(()),
            Some(p) if p.action == Action::Block => Err(Reason::RxOuterPolicyBlock),
            Some(p) if p.templates.iter().any(|t| t.level == Level::Required) => {
                Err(Reason::RxOuterPolicyTemplate)
            }
            Some(_) => Ok(()),
        }
    }

    fn count(&mut self, fate: Fate) -> Fate {
        if let Err((device, reason)) = fate {
            *self.drops.entry((device, reason.row().name)).or_default() += 1;
        }
        fate
    }
}

/// Everything between the state's look-up and the policies.
fn open(state: &mut State, packet: &Arrival) -> Result<(), Reason> {
    let spec = &state.spec;
    if spec.dir == Some(SaDirection::Out) {
        return Err(Reason::RxWrongDirection);
    }
    if spec.encap.is_some() != packet.udp {
        return Err(Reason::RxEncapMismatch);
    }
    let (seq, window) = (u64::from(packet.seq), u64::from(spec.replay_window));
    let top = state.seen.iter().copied().max().unwrap_or(0);
    if window > 0 {
        if seq == 0 {
            return Err(Reason::RxReplayZero);
        }
        if seq + window <= top {
            state.stats.replay_window += 1;
            return Err(Reason::RxReplayOld);
        }
        if state.seen.contains(&seq) {
            state.stats.replay += 1;
            return Err(Reason::RxReplayDuplicate);
        }
    }
    if state.packets >= spec.limits.hard_packets || state.bytes >= spec.limits.hard_bytes {
        return Err(Reason::RxSaExpired);
    }
    state.dying |= state.packets >= spec.limits.soft_packets || state.bytes >= spec.limits.soft_bytes;
    if spec.mode != Mode::Tunnel {
        return Err(Reason::RxNotTunnelMode);
    }
    match packet.shape {
        Shape::Truncated => return Err(Reason::RxTruncated),
        Shape::BadIcv => {
            state.stats.integrity_failed += 1;
            return Err(Reason::RxBadIcv);
        }
        Shape::Dummy => return Err(Reason::RxDummy),
        _ => {}
    }
    if window > 0 {
        state.seen.push(seq);
    }
    (state.packets, state.bytes) = (state.packets + 1, state.bytes + packet.len as u64);
    match packet.shape {
        Shape::NotTunnelled => Err(Reason::RxInnerProto),
        Shape::HalfHeader => Err(Reason::RxInnerShort),
        Shape::OtherVersion => Err(Reason::RxInnerVersion),
        _ => Ok(()),
    }
}

/// An SA whose selector has a family reads what it carried as a packet of that family. Addresses and ports of one that is
/// none are such as no selector here names.
fn seen_by(spec: &StateSpec, packet: &Arrival) -> Flow {
    let wants_v4 = spec.selector().family.map(|f| f == uvti_core::xfrm::Family::V4);
    let is_v4 = packet.flow.dst.is_ipv4();
    let nowhere: IpAddr = match wants_v4 {
        Some(true) if !is_v4 => [0; 4].into(),
        Some(false) if is_v4 && packet.len >= 40 => [0; 16].into(),
        _ => return packet.flow,
    };
    Flow { src: nowhere, dst: nowhere, proto: 255, sport: 0, dport: 0 }
}

fn selects(sel: &Selector, flow: &Flow, dev: &str) -> bool {
    let within = |net: ipnet::IpNet, a: IpAddr| net.prefix_len() == 0 || net.contains(&a);
    let port = |m: PortMatch, p: u16| p & m.mask == m.value & m.mask;
    sel.family.is_none_or(|f| (f == uvti_core::xfrm::Family::V4) == flow.dst.is_ipv4())
        && within(sel.src, flow.src)
        && within(sel.dst, flow.dst)
        && (sel.proto == 0 || sel.proto == flow.proto)
        && port(sel.sport, flow.sport)
        && port(sel.dport, flow.dport)
        && sel.dev.as_ref().is_none_or(|d| d == dev)
}

fn outer_flow(spec: &StateSpec) -> Flow {
    let (proto, sport, dport) = spec.encap.map_or((50, 0, 0), |e| (17, e.sport, e.dport));
    Flow { src: spec.src, dst: spec.dst, proto, sport, dport }
}
