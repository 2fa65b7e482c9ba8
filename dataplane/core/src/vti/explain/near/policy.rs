//! Policies that nearly match.

use super::{Candidate, MOST, near, nearest};
use crate::device::{Device, PolicyKey};
use crate::packet::{Flow, Outer, proto};
use crate::tables::{Policy, Snapshot};
use crate::vti::explain::{Near, command};
use crate::vti::receive::OUTER_DEV;
use crate::xfrm::{
    Action, Direction, Family, Level, Limits, Mark, Mode, PolicyFlags, PolicySpec, PortMatch, Proto, Sa,
    Selector, Spi, Template,
};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Policies of a direction that differ least from what a flow asks for; if there are none at all, the one to add.
pub(super) fn candidates(tables: &Snapshot, dir: Direction, device: &Device, flow: &Flow) -> Vec<Near> {
    let of_dir = tables.policies.of(dir).into_iter().filter_map(|p| {
        let (differences, repaired) = differences(&p.spec, device, flow);
        let subject = format!("policy {} would match, but", p.spec.index);
        Candidate::new(&subject, &differences, vec![command::policy("update", &repaired)])
    });
    let found = nearest(of_dir);
    if found.is_empty() { vec![missing(tables, dir, device, flow)] } else { found }
}

/// What of a policy does not fit, and the policy in which it does.
fn differences(p: &PolicySpec, device: &Device, flow: &Flow) -> (Vec<String>, PolicySpec) {
    let PolicyKey { dev, mark, if_id } = device.policy_key(p.dir);
    let mut repaired = p.clone();
    let mut differ = Vec::new();
    if !p.mark.matches(mark) {
        let whose = if device.is_xfrm() { "the packet's" } else { "the device's key" };
        differ.push(format!("its mark is {:#x}, {whose} is {mark:#x}", p.mark.value));
        repaired.mark = Mark::exact(mark);
    }
    if p.if_id != if_id {
        differ.push(match device.is_xfrm() {
            true => format!("its if_id is {:#x}, the device's is {if_id:#x}", p.if_id),
            false => format!("its if_id is {:#x}, a VTI has none", p.if_id),
        });
        repaired.if_id = if_id;
    }
    differ.extend(selector(&p.sel, dev, flow, &mut repaired.sel));
    (differ, repaired)
}

/// What of a selector does not fit a flow; `repaired` becomes one that does.
pub(super) fn selector(sel: &Selector, dev: &str, flow: &Flow, repaired: &mut Selector) -> Vec<String> {
    let mut differ = Vec::new();
    if sel.family.is_some_and(|f| f != flow.family()) {
        let name = |f| if f == Family::V4 { "IPv4" } else { "IPv6" };
        let wanted = if flow.family() == Family::V4 { Family::V6 } else { Family::V4 };
        *repaired = Selector { dev: sel.dev.clone(), ..Selector::any(flow.family()) };
        return vec![format!("its selector is for {}, the packet is {}", name(wanted), name(flow.family()))];
    }
    let mut address = |name: &str, net: IpNet, is: IpAddr, to: &mut IpNet| {
        if net.prefix_len() != 0 && !net.contains(&is) {
            differ.push(format!("its selector wants {name} {net}, the packet has {is}"));
            *to = IpNet::new(is, net.prefix_len()).map_or(net, |n| n.trunc());
        }
    };
    address("src", sel.src, flow.src, &mut repaired.src);
    address("dst", sel.dst, flow.dst, &mut repaired.dst);
    if sel.proto != 0 && sel.proto != flow.proto {
        let (wanted, is) = (command::protocol(sel.proto), command::protocol(flow.proto));
        differ.push(format!("its selector wants proto {wanted}, the packet is {is}"));
        repaired.proto = flow.proto;
    }
    let names = match flow.proto {
        proto::ICMP | proto::ICMPV6 | proto::MH => ("type", "code"),
        _ => ("sport", "dport"),
    };
    let mut port = |name: &str, wanted: PortMatch, is: u16, to: &mut PortMatch| {
        if !wanted.matches(is) {
            differ.push(format!("its selector wants {name} {}, the packet has {is}", wanted.value));
            *to = PortMatch::exact(is);
        }
    };
    port(names.0, sel.sport, flow.sport, &mut repaired.sport);
    port(names.1, sel.dport, flow.dport, &mut repaired.dport);
    if let Some(wanted) = sel.dev.as_deref().filter(|d| *d != dev) {
        differ.push(format!("its selector wants dev {wanted}, the device is {dev}"));
        repaired.dev = Some(dev.to_owned()).filter(|d| !d.is_empty());
    }
    differ
}

/// No policy at all: the one that the device wants.
fn missing(tables: &Snapshot, dir: Direction, device: &Device, flow: &Flow) -> Near {
    let family = device.family().unwrap_or(flow.family());
    let spec = wanted(tables, dir, device, Selector::any(family));
    let text = format!("there is no policy with dir {}", dir.name());
    near(text, vec![command::policy("add", &spec)])
}

/// The policy that a device wants, with the reqid of an SA between its ends; those of an xfrm interface are its SAs'.
fn wanted(tables: &Snapshot, dir: Direction, device: &Device, sel: Selector) -> PolicySpec {
    let PolicyKey { mark, if_id, .. } = device.policy_key(dir);
    let (local, remote) = (device.spec.local, device.spec.remote);
    let ends = if dir == Direction::Out { (local, remote) } else { (remote, local) };
    let sa = tables.states.iter().find(|sa| match device.is_xfrm() {
        true => sa.spec.if_id == if_id && tables.is_for_us(sa.spec.dst) == (dir != Direction::Out),
        false => (sa.spec.src, sa.spec.dst) == ends,
    });
    let (src, dst) = sa.map_or(ends, |sa| (sa.spec.src, sa.spec.dst));
    let reqid = sa.map_or(0, |sa| sa.spec.reqid);
    let template = Template {
        src,
        dst,
        proto: Proto::Esp,
        spi: Spi(0),
        mode: Mode::Tunnel,
        reqid,
        level: Level::Required,
    };
    let mark = if device.is_xfrm() { Mark::default() } else { Mark::exact(mark) };
    let action = Action::Allow;
    let (flags, limits) = (PolicyFlags::default(), Limits::NONE);
    PolicySpec {
        sel,
        dir,
        mark,
        if_id,
        priority: 0,
        action,
        flags,
        index: 0,
        limits,
        templates: vec![template],
    }
}

/// A policy that lets nothing through as it should: how it would, and who stands behind it.
pub(super) fn instead(tables: &Snapshot, policy: &Policy, device: &Device, flow: &Flow) -> Vec<Near> {
    let dir = policy.spec.dir;
    let behind = tables.policies.of(dir).into_iter().filter(|p| {
        let fits = differences(&p.spec, device, flow).0.is_empty();
        let lets = p.spec.action == Action::Allow && !p.spec.templates.is_empty();
        fits && lets && p.number != policy.number
    });
    let mut found: Vec<Near> = behind.take(MOST).map(|p| first(p, policy)).collect();
    let mut repaired = wanted(tables, dir, device, policy.spec.sel.clone());
    (repaired.mark, repaired.priority) = (policy.spec.mark, policy.spec.priority);
    let what = if policy.spec.action == Action::Block { "blocks" } else { "has no template" };
    let text = format!("policy {} matches, but it {what}", policy.spec.index);
    found.push(near(text, vec![command::policy("update", &repaired)]));
    found
}

/// How the policy that would do comes before the one that was chosen.
fn first(behind: &Arc<Policy>, chosen: &Policy) -> Near {
    let text = format!(
        "policy {} (priority {}) would let it through, but policy {} (priority {}) comes first",
        behind.spec.index, behind.spec.priority, chosen.spec.index, chosen.spec.priority
    );
    let repair = match chosen.spec.priority.checked_sub(1) {
        Some(priority) => command::policy("update", &PolicySpec { priority, ..behind.spec.clone() }),
        None => command::policy("delete", &chosen.spec),
    };
    near(text, vec![repair])
}

/// The SA is not between the device's ends.
pub(super) fn endpoints(tables: &Snapshot, policy: &Policy, sa: &Sa, device: &Device) -> Vec<Near> {
    let (s, ends) = (&sa.spec, &device.spec);
    let text = format!(
        "SA {} goes from {} to {}, the device from {} to {}",
        s.spi, s.src, s.dst, ends.local, ends.remote
    );
    let mut repaired = policy.spec.clone();
    for t in &mut repaired.templates {
        (t.src, t.dst) = (ends.local, ends.remote);
        if let Some(sa) =
            tables.states.iter().find(|sa| sa.spec.src == ends.local && sa.spec.dst == ends.remote)
        {
            t.reqid = sa.spec.reqid;
        }
    }
    vec![near(text, vec![command::policy("update", &repaired)])]
}

/// The input policy's template does not accept the SA.
pub(super) fn template(policy: &Policy, sa: &Sa) -> Vec<Near> {
    let (s, mut repaired) = (&sa.spec, policy.spec.clone());
    let Some(t) = repaired.templates.first_mut() else { return Vec::new() };
    let mut differ = Vec::new();
    if t.proto != s.proto && t.proto != Proto::Any {
        differ.push(format!("its template wants proto {}, the SA is {}", t.proto.name(), s.proto.name()));
        t.proto = s.proto;
    }
    if t.spi.0 != 0 && t.spi != s.spi {
        differ.push(format!("its template wants spi {}, the SA has {}", t.spi, s.spi));
        t.spi = Spi(0);
    }
    if t.reqid != 0 && t.reqid != s.reqid {
        differ.push(format!("its template wants reqid {}, the SA has {}", t.reqid, s.reqid));
        t.reqid = s.reqid;
    }
    if t.mode != s.mode {
        differ.push(format!("its template wants mode {}, the SA has {}", t.mode.name(), s.mode.name()));
        t.mode = s.mode;
    }
    if !t.src.is_unspecified() && t.src != s.src {
        differ.push(format!("its template wants src {}, the SA has {}", t.src, s.src));
        (t.src, t.dst) = (s.src, s.dst);
    }
    let subject = format!("policy {} matches, but", policy.spec.index);
    let repair = vec![command::policy("update", &repaired)];
    nearest(Candidate::new(&subject, &differ, repair).into_iter())
}

/// The policy without mark that meets the outer packet.
pub(in crate::vti::explain) fn outer_policy<'a>(
    tables: &'a Snapshot,
    outer: &Outer,
) -> Option<&'a Arc<Policy>> {
    let (proto, sport, dport) = match outer.udp {
        Some(ports) => (proto::UDP, ports.src, ports.dst),
        None => (proto::ESP, 0, 0),
    };
    let flow = Flow { src: outer.src, dst: outer.dst, proto, sport, dport };
    tables.policies.lookup(Direction::In, &flow, OUTER_DEV, 0, 0)
}

/// An input policy without mark ends the tunnel: it is to have the device's key.
pub(super) fn unmarked(tables: &Snapshot, outer: &Outer) -> Vec<Near> {
    let (Some(policy), Some(device)) =
        (outer_policy(tables, outer), tables.devices.tunnel(outer.dst, outer.src))
    else {
        return Vec::new();
    };
    let text = format!(
        "policy {} has no mark, so that it meets the outer packet; the device's key is {:#x}",
        policy.spec.index, device.spec.ikey
    );
    let marked = PolicySpec { mark: Mark::exact(device.spec.ikey), ..policy.spec.clone() };
    vec![near(text, vec![command::policy("delete", &policy.spec), command::policy("update", &marked)])]
}

/// What no policy matches is blocked.
pub(super) fn default_block(dir: Direction) -> Vec<Near> {
    let text = format!("the default policy for {} is block", dir.name());
    vec![near(text, vec![format!("uvti ip xfrm policy setdefault {} accept", dir.name())])]
}
