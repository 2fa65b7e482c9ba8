//! SAs that nearly fit.

use super::{Candidate, near, nearest, policy};
use crate::device::Device;
use crate::esp::OpenError;
use crate::packet::{Buf, Flow, Outer};
use crate::reason::Reason;
use crate::tables::{Policy, Snapshot};
use crate::vti::explain::{Near, SeenSa, command};
use crate::xfrm::{
    Direction, Encap, EncapKind, Family, MAX_REPLAY_WINDOW, Mark, Mode, Sa, SaDirection, Selector, Spi,
    StateFlags, StateSpec, Template,
};
use std::net::{IpAddr, Ipv4Addr};

/// Keys of other SAs that are tried on a packet whose ICV is wrong.
const KEYS_TRIED: usize = 1000;

/// SAs that differ least from what a policy's template asks for; if there are none at all, the one to add.
pub(super) fn for_template(tables: &Snapshot, policy: &Policy, flow: &Flow) -> Vec<Near> {
    let Some(t) = policy.spec.templates.first() else { return Vec::new() };
    let (src, dst) = t.ends(flow);
    let found = nearest(tables.states.iter().filter(|sa| !is_reverse(sa, src, dst)).filter_map(|sa| {
        let (differ, repair) = differences(sa, policy, t, flow);
        Candidate::new(&format!("{} exists, but", name(sa)), &differ, repair)
    }));
    match found.is_empty() {
        true => vec![missing(t, src, dst, flow.family())],
        false => found,
    }
}

/// The SA of the other direction is no near miss: it differs in nothing but its ends.
fn is_reverse(sa: &Sa, src: IpAddr, dst: IpAddr) -> bool {
    src != dst && (sa.spec.src, sa.spec.dst) == (dst, src)
}

fn missing(t: &Template, src: IpAddr, dst: IpAddr, inner: Family) -> Near {
    let text = format!("there is no SA from {src} to {dst}, nor one that is nearly so");
    near(text, vec![command::state_for(t, inner)])
}

fn name(sa: &Sa) -> String {
    format!("SA {} (reqid {})", sa.spec.spi, sa.spec.reqid)
}

/// What of an SA does not fit, and the commands after which it does: a change of the template where the template names
/// another SA, a new SA where the SA itself is wrong.
fn differences(sa: &Sa, policy: &Policy, t: &Template, flow: &Flow) -> (Vec<String>, Vec<String>) {
    let s = &sa.spec;
    let (src, dst) = t.ends(flow);
    let mark = policy.spec.mark.value & policy.spec.mark.mask;
    let (mut differ, mut other_template, mut other_sa) = (Vec::new(), t.clone(), s.clone());
    if s.mode != t.mode {
        differ.push(format!("it is in {} mode, the template wants {}", s.mode.name(), t.mode.name()));
        other_sa.mode = t.mode;
    }
    if s.proto != t.proto {
        differ.push(format!("it is {}, the template wants {}", s.proto.name(), t.proto.name()));
        other_template.proto = s.proto;
    }
    if s.src != src && !s.src.is_unspecified() {
        differ.push(format!("its src is {}, the template wants {src}", s.src));
        other_template.src = s.src;
    }
    if s.dst != dst {
        differ.push(format!("its dst is {}, the template wants {dst}", s.dst));
        other_template.dst = s.dst;
    }
    if s.reqid != t.reqid {
        differ.push(format!("its reqid is {}, the template's is {}", s.reqid, t.reqid));
        other_template.reqid = s.reqid;
    }
    if t.spi.0 != 0 && s.spi != t.spi {
        differ.push(format!("its SPI is {}, the template wants {}", s.spi, t.spi));
        other_template.spi = Spi(0);
    }
    if !s.mark.matches(mark) {
        differ.push(format!("its mark is {:#x}, the policy's is {mark:#x}", s.mark.value));
        other_sa.mark = Mark::default();
    }
    if s.if_id != policy.spec.if_id {
        differ.push(format!("its if_id is {:#x}, the policy's is {:#x}", s.if_id, policy.spec.if_id));
        other_sa.if_id = policy.spec.if_id;
    }
    let mut repaired = sa.selector.clone();
    let in_selector = policy::selector(&sa.selector, "", flow, &mut repaired);
    if !in_selector.is_empty() {
        differ.extend(in_selector);
        other_sa.sel = Some(repaired);
    }
    let dead = !sa.run.alive();
    if dead {
        differ.push(format!("it has expired ({})", SeenSa::of(sa).used()));
    }
    let mut repair = Vec::new();
    if dead {
        repair.push(command::state_add(&other_sa));
    } else if other_sa != *s {
        repair.extend(command::state_replace(s, &other_sa));
    }
    if other_template != *t {
        let templates = vec![other_template];
        repair.push(command::policy("update", &crate::xfrm::PolicySpec { templates, ..policy.spec.clone() }));
    }
    (differ, repair)
}

/// SAs that differ least from what a received packet names: another mark, another SPI, another destination.
pub(super) fn for_packet(tables: &Snapshot, outer: &Outer, spi: Spi, ikey: u32) -> Vec<Near> {
    let (src, dst) = (outer.src, outer.dst);
    let found = nearest(tables.states.iter().filter(|sa| !is_reverse(sa, src, dst)).filter_map(|sa| {
        let (s, mut other, mut differ) = (&sa.spec, sa.spec.clone(), Vec::new());
        if s.spi != spi {
            differ.push(format!("the packet has spi {spi}"));
            other.spi = spi;
        }
        if s.dst != outer.dst {
            differ.push(format!("it is for {}, the packet goes to {}", s.dst, outer.dst));
            other.dst = outer.dst;
        }
        // The source is not compared when an SA is looked up; here it tells which one was meant.
        if s.src != outer.src {
            differ.push(format!("it is from {}, the packet comes from {}", s.src, outer.src));
            other.src = outer.src;
        }
        if !s.mark.matches(ikey) {
            differ.push(format!("its mark is {:#x}, the device's ikey is {ikey:#x}", s.mark.value));
            other.mark = Mark::default();
        }
        let dead = !sa.run.alive();
        if dead {
            differ.push(format!("it has expired ({})", SeenSa::of(sa).used()));
        }
        let repair = if dead { vec![command::state_add(&other)] } else { command::state_replace(s, &other) };
        Candidate::new(&format!("{} exists, but", name(sa)), &differ, repair)
    }));
    if !found.is_empty() {
        return found;
    }
    let t = Template {
        src,
        dst,
        proto: Default::default(),
        spi,
        mode: Mode::Tunnel,
        reqid: 0,
        level: Default::default(),
    };
    vec![missing(&t, src, dst, Family::of(dst))]
}

fn replaced(sa: &Sa, text: String, change: impl FnOnce(&mut StateSpec)) -> Vec<Near> {
    let mut other = sa.spec.clone();
    change(&mut other);
    vec![near(text, command::state_replace(&sa.spec, &other))]
}

/// An SA of the other direction.
pub(super) fn direction(sa: &Sa, wanted: Direction) -> Vec<Near> {
    let text = format!("{} fits, but it has {}", name(sa), command::direction(sa.spec.dir));
    let dir = if wanted == Direction::In { SaDirection::In } else { SaDirection::Out };
    replaced(sa, text, |s| s.dir = Some(dir))
}

/// An SA that takes nothing away from an xfrm interface.
pub(super) fn transport(sa: &Sa) -> Vec<Near> {
    let text = format!("{} is in transport mode, and an xfrm interface wants a tunnel to send by", name(sa));
    vec![near(text, Vec::new())]
}

/// A policy whose template asks for another mode than a VTI carries.
pub(super) fn not_tunnel(chosen: &Policy, sa: &Sa, device: &Device) -> Vec<Near> {
    let text = format!("{} is in {} mode, and a VTI wants tunnel mode", name(sa), sa.spec.mode.name());
    let (src, dst) = (device.spec.local, device.spec.remote);
    let mut other = StateSpec { mode: Mode::Tunnel, src, dst, ..sa.spec.clone() };
    // Without `sel` a state takes every packet of its family; one in transport mode had its ends for a selector.
    other.sel = other.sel.filter(|sel| *sel != Selector::any(sa.spec.family()));
    let mut repaired = chosen.spec.clone();
    repaired.templates.iter_mut().for_each(|t| (t.mode, t.src, t.dst) = (Mode::Tunnel, src, dst));
    let mut repair = command::state_replace(&sa.spec, &other);
    repair.push(command::policy("update", &repaired));
    vec![near(text, repair)]
}

/// Why an ICV may be wrong although nobody changed the packet: extended numbers on one side only, or another SA's key.
pub(super) fn bad_icv(tables: &Snapshot, sa: &Sa, bytes: &[u8]) -> Vec<Near> {
    let right = |sa: &Sa, seq_hi| {
        let opened = sa.crypter.open(&mut Buf::from_packet(bytes), seq_hi);
        !matches!(opened, Err(OpenError::BadIcv | OpenError::Truncated))
    };
    let s = &sa.spec;
    let esn = |s: &StateSpec| s.flags.has(StateFlags::ESN).then_some(0);
    if right(sa, if esn(s).is_some() { None } else { Some(0) }) {
        let who = if esn(s).is_some() { "has ESN, the peer has not" } else { "has no ESN, the peer has" };
        return replaced(sa, format!("{} {who}", name(sa)), |s| {
            s.flags.0 ^= StateFlags::ESN;
            s.replay_window = s.replay_window.max(32);
        });
    }
    let others = tables.states.iter().filter(|other| other.spec.dst == s.dst && other.spec.spi != s.spi);
    let owner = others.take(KEYS_TRIED).find(|other| right(other, esn(&other.spec)));
    owner.map_or(Vec::new(), |other| {
        vec![near(format!("the ICV is right with the key of {}", name(other)), Vec::new())]
    })
}

/// A state that is not in tunnel mode.
pub(super) fn mode(sa: &Sa) -> Vec<Near> {
    let text = format!("{} is in {} mode, and a VTI wants tunnel mode", name(sa), sa.spec.mode.name());
    replaced(sa, text, |s| s.mode = Mode::Tunnel)
}

/// ESP bare or in UDP, where the SA wants the other.
pub(super) fn encap(sa: &Sa, outer: &Outer) -> Vec<Near> {
    match outer.udp {
        Some(ports) => {
            let text = format!("{} wants bare ESP, the packet came in UDP", name(sa));
            let original = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let encap = Encap { kind: EncapKind::EspInUdp, sport: ports.src, dport: ports.dst, original };
            replaced(sa, text, |s| s.encap = Some(encap))
        }
        None => {
            let text = format!("{} wants ESP in UDP, the packet came bare", name(sa));
            replaced(sa, text, |s| s.encap = None)
        }
    }
}

/// Where a number stands beside the window.
pub(super) fn replay(sa: &Sa, seq: u32, reason: Reason) -> Vec<Near> {
    let top = sa.run.window.top();
    let window = u64::from(sa.spec.replay_window.min(MAX_REPLAY_WINDOW));
    let bottom = (top + 1).saturating_sub(window).max(1);
    match reason {
        Reason::RxReplayOld => {
            let left = bottom.saturating_sub(u64::from(seq));
            let text = format!("sequence {seq} is {left} left of the window ({bottom} to {top})");
            let wider = (top + 1).saturating_sub(u64::from(seq)).next_power_of_two();
            match u32::try_from(wider).ok().filter(|w| *w <= MAX_REPLAY_WINDOW) {
                Some(wider) => replaced(sa, text, |s| s.replay_window = wider),
                None => vec![near(text, Vec::new())],
            }
        }
        Reason::RxReplayDuplicate => {
            vec![near(format!("sequence {seq} was received before (window {bottom} to {top})"), Vec::new())]
        }
        _ => vec![near(format!("sequence {seq} is never sent: the first is 1"), Vec::new())],
    }
}

/// Nothing left of an SA.
pub(super) fn used_up(sa: &Sa) -> Vec<Near> {
    let seen = SeenSa::of(sa);
    let text = format!("{} is used up: {}, last number sent {}", name(sa), seen.used(), seen.oseq);
    replaced(sa, text, |s| s.replay = Default::default())
}

/// The SA's selector leaves the inner packet out.
pub(super) fn selector(sa: &Sa, flow: &Flow) -> Vec<Near> {
    let mut repaired = sa.selector.clone();
    let differ = policy::selector(&sa.selector, "", flow, &mut repaired);
    let mut other = sa.spec.clone();
    other.sel = Some(repaired);
    let repair = command::state_replace(&sa.spec, &other);
    nearest(Candidate::new(&format!("{} fits, but", name(sa)), &differ, repair).into_iter())
}
