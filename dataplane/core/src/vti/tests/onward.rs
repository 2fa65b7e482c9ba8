//! What the host behind a VTI asks policies. The names are those of scenarios recorded from a kernel.

use crate::packet::testing::udp4;
use crate::route::Onward;
use crate::vti::testing::{IN, KEY, Lab, NOW, ip, policy};
use crate::vti::{Receiver, RxVerdict};
use crate::xfrm::{Action, Direction, Family, Level, Mark, PolicySpec, Selector};
use std::net::IpAddr;

/// 10.9.0.0/24 is this host's, 10.1.0.0/16 is behind `lan`, and there is nothing else.
pub(super) fn way(dst: IpAddr) -> Onward {
    match dst {
        IpAddr::V4(a) if a.octets()[..3] == [10, 9, 0] => Onward::Local("lo".to_owned()),
        IpAddr::V4(a) if a.octets()[..2] == [10, 1] => Onward::Forward("lan".to_owned()),
        _ => Onward::Dropped,
    }
}

/// A policy without mark that matches inner packets alone.
fn unmarked(dir: Direction, action: Action) -> PolicySpec {
    let mut spec = policy(dir, 0, ip("198.51.100.2"), ip("198.51.100.1"));
    spec.sel = Selector { src: "10.2.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) };
    (spec.mark, spec.action) = (Mark::default(), action);
    if action == Action::Block {
        spec.templates.clear();
    }
    spec
}

/// What becomes of a packet to `dst`, and how often the host was asked for five of them.
fn fate(lab: &Lab, dst: &str) -> (String, u32) {
    let (tables, peer) = (lab.tables(), lab.peer());
    let inner = udp4("10.2.0.5", dst, 4000, 5000, 100);
    let mut burst: Vec<_> = (1..=5).map(|seq| peer.slot(seq, &inner)).collect();
    let (mut receiver, mut asked) = (Receiver::default(), 0);
    receiver.run(&tables, &mut burst, 0, NOW);
    let mut ask = |_: &crate::device::Device, _, dst| {
        asked += 1;
        way(dst)
    };
    let mut fates = Vec::new();
    for slot in &burst {
        let RxVerdict::Deliver { way } = slot.verdict else { panic!("{:?}", slot.verdict) };
        let concerned = tables.policies.concern_host();
        let drop =
            concerned.then(|| receiver.host_drops(&tables, way, slot.buf.bytes(), NOW, &mut ask)).flatten();
        let default = drop.as_ref().is_some_and(|drop| drop.reason.row().name.ends_with("default_block"));
        assert!(drop.as_ref().is_none_or(|drop| drop.sa.is_some() && drop.policy.is_some() != default));
        fates.push(drop.map_or("passes".to_owned(), |drop| drop.reason.to_string()));
    }
    fates.dedup();
    (fates.join(" "), asked)
}

pub(super) type Spoil = fn(&mut Lab);

#[rustfmt::skip]
pub(super) const CASES: &[(&str, Spoil, &str, &str)] = &[
    ("rx_fwd_pol_block", |l| l.policies.push(unmarked(Direction::Fwd, Action::Block)), "10.1.0.2", "rx_forward_policy_block"),
    ("rx_fwd_pol_tmpl", |l| l.policies.push(unmarked(Direction::Fwd, Action::Allow)), "10.1.0.2", "rx_forward_policy_template"),
    ("rx_fwd_pol_tmpl_use", |l| { let mut p = unmarked(Direction::Fwd, Action::Allow); p.templates[0].level = Level::Use; l.policies.push(p) },
        "10.1.0.2", "passes"),
    ("rx_fwd_pol_allow", |l| { let mut p = unmarked(Direction::Fwd, Action::Allow); p.templates.clear(); l.policies.push(p) },
        "10.1.0.2", "passes"),
    ("rx_fwd_pol_dev vti0", |l| { let mut p = unmarked(Direction::Fwd, Action::Block); p.sel.dev = Some("vti0".into()); l.policies.push(p) },
        "10.1.0.2", "passes"),
    ("rx_fwd_pol_dev lan", |l| { let mut p = unmarked(Direction::Fwd, Action::Block); p.sel.dev = Some("lan".into()); l.policies.push(p) },
        "10.1.0.2", "rx_forward_policy_block"),
    ("rx_fwd_default_block", |l| l.block_by_default.push(Direction::Fwd), "10.1.0.2", "rx_forward_default_block"),
    ("rx_fwd_default_block_pol", |l| {
        let mut p = unmarked(Direction::Fwd, Action::Allow); p.templates.clear();
        l.policies.push(p); l.block_by_default.push(Direction::Fwd) }, "10.1.0.2", "passes"),
    ("rx_fwd_disable_policy", |l| { l.devices[0].disable_policy[0] = true; l.policies.push(unmarked(Direction::Fwd, Action::Block)) },
        "10.1.0.2", "passes"),
    ("rx_fwd_disable_policy of the other family",
        |l| { l.devices[0].disable_policy[1] = true; l.policies.push(unmarked(Direction::Fwd, Action::Block)) },
        "10.1.0.2", "rx_forward_policy_block"),
    ("rx_fwd_local", |l| l.policies.push(unmarked(Direction::Fwd, Action::Block)), "10.9.0.1", "passes"),
    ("rx_fwd_no_route", |l| l.policies.push(unmarked(Direction::Fwd, Action::Block)), "172.16.5.5", "passes"),
    ("rx_local_pol_tmpl", |l| l.policies.push(unmarked(Direction::In, Action::Allow)), "10.9.0.1", "rx_local_policy_template"),
    ("rx_local_pol_tmpl_fwd", |l| l.policies.push(unmarked(Direction::In, Action::Allow)), "10.1.0.2", "passes"),
    ("rx_local_pol_block", |l| {
        // Behind the VTI's own policy, which a packet with its key finds first.
        l.policies.push(PolicySpec { priority: 9, ..unmarked(Direction::In, Action::Block) }) }, "10.9.0.1", "rx_local_policy_block"),
    ("rx_local_default_block", |l| {
        let mut p = unmarked(Direction::In, Action::Allow);
        p.templates.clear();
        p.sel = Selector { proto: 50, ..Selector::any(Family::V4) };
        l.policies.push(p); l.block_by_default.push(Direction::In) }, "10.9.0.1", "rx_local_default_block"),
];

#[test]
fn the_host_asks_as_a_kernel_does() {
    for (name, spoil, dst, expected) in CASES {
        let mut lab = Lab::vti();
        spoil(&mut lab);
        assert_eq!(fate(&lab, dst), ((*expected).to_owned(), 1), "{name}");
    }
}

/// Policies with marks are not about a packet that has none: nobody is asked.
#[test]
fn without_such_policies_nothing_is_asked() {
    let mut lab = Lab::vti();
    assert_eq!(fate(&lab, "10.1.0.2"), ("passes".to_owned(), 0));
    let mut marked = unmarked(Direction::Fwd, Action::Block);
    marked.mark = Mark::exact(KEY);
    lab.policies.push(marked);
    assert_eq!(fate(&lab, "10.1.0.2"), ("passes".to_owned(), 0));
    assert_eq!(lab.policies[IN].mark, Mark::exact(KEY));
}

/// Whether policies are about the host is counted along, as they come, are replaced and go.
#[test]
fn a_policy_that_goes_concerns_nobody() {
    use crate::tables::{Context, Op};
    use crate::xfrm::PolicyId;
    let mut tables = Lab::vti().tables().as_ref().clone();
    let mut apply = |op| {
        tables.apply(&op, &mut Context { now: NOW, random: &mut || 1 }).unwrap();
        tables.policies.concern_host()
    };
    let spec = unmarked(Direction::Fwd, Action::Block);
    let id = PolicyId::Selector { sel: spec.sel.clone(), dir: spec.dir, mark: spec.mark, if_id: 0 };
    assert!(apply(Op::PolicyAdd(Box::new(spec.clone()))));
    assert!(apply(Op::PolicyUpdate(Box::new(spec.clone()))));
    assert!(!apply(Op::PolicyDel(id)));
    assert!(apply(Op::PolicyAdd(Box::new(spec))));
    assert!(!apply(Op::PolicyFlush));
}
