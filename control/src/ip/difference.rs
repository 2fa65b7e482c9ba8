//! What must change for the running configuration to become another one.

use uvti_core::device::{LinkInfo, LinkSpec};
use uvti_core::tables::Op;
use uvti_core::xfrm::{Limits, Mark, PolicyId, PolicyInfo, PolicySpec, ReplayCounters, StateInfo, StateSpec};

/// The running configuration: links, states, policies.
pub type Running<'a> = (&'a [LinkInfo], &'a [StateInfo], &'a [PolicyInfo]);

/// The operations that turn `running` into what `wanted` would make of nothing. What is equal is not touched and keeps
/// its counters and numbers; a state of which only limits, selector, encapsulation or output mark differ is updated.
pub fn difference(running: Running<'_>, wanted: &[Op]) -> Vec<Op> {
    let (links, states, policies) = running;
    let wanted = Wanted::of(wanted);
    let mut ops = Vec::new();

    // What is in the way goes first, so that names, SPIs and selectors are free.
    let keeps_policy = |p: &&PolicyInfo| wanted.policies.iter().any(|w| same_policy(&p.spec, w));
    ops.extend(policies.iter().filter(|p| !keeps_policy(p)).map(|p| Op::PolicyDel(policy_id(&p.spec))));
    let keeps_state =
        |s: &&StateInfo| wanted.states.iter().any(|w| w.id() == s.spec.id() && same_keys(&s.spec, w));
    ops.extend(states.iter().filter(|s| !keeps_state(s)).map(|s| Op::StateDel(s.spec.id())));
    let keeps_link = |l: &&LinkInfo| wanted.links.iter().any(|w| same_link(&l.spec, w));
    ops.extend(links.iter().filter(|l| !keeps_link(l)).map(|l| Op::LinkDel { name: l.spec.name.clone() }));

    for spec in &wanted.links {
        if !links.iter().any(|l| same_link(&l.spec, spec)) {
            ops.push(Op::LinkAdd(LinkSpec::clone(spec)));
        }
    }
    for spec in &wanted.states {
        match states.iter().find(|s| s.spec.id() == spec.id() && same_keys(&s.spec, spec)) {
            None => ops.push(Op::StateAdd(Box::new(StateSpec::clone(spec)))),
            Some(s) if !same_rest(&s.spec, spec) => {
                ops.push(Op::StateUpdate(Box::new(StateSpec::clone(spec))))
            }
            Some(_) => {}
        }
    }
    for spec in &wanted.policies {
        if !policies.iter().any(|p| same_policy(&p.spec, spec)) {
            ops.push(Op::PolicyAdd(Box::new(PolicySpec::clone(spec))));
        }
    }
    ops.extend(wanted.defaults.iter().cloned());
    ops
}

/// What a list of operations leaves behind, started from nothing.
#[derive(Default)]
struct Wanted {
    links: Vec<LinkSpec>,
    states: Vec<StateSpec>,
    policies: Vec<PolicySpec>,
    defaults: Vec<Op>,
}

impl Wanted {
    fn of(ops: &[Op]) -> Self {
        let mut w = Self::default();
        for op in ops {
            match op {
                Op::LinkAdd(spec) => w.links.push(spec.clone()),
                Op::LinkChange(spec) => {
                    if let Some(l) = w.links.iter_mut().find(|l| l.name == spec.name) {
                        *l = spec.clone();
                    }
                }
                Op::LinkDel { name } => w.links.retain(|l| l.name != *name),
                Op::StateAdd(spec) => w.states.push((**spec).clone()),
                Op::StateUpdate(spec) => w.put_state(spec),
                Op::StateDel(id) => w.states.retain(|s| s.id() != *id),
                Op::StateFlush(_) => w.states.clear(),
                Op::PolicyAdd(spec) | Op::PolicyUpdate(spec) => {
                    w.policies.retain(|p| policy_id(p) != policy_id(spec));
                    w.policies.push((**spec).clone());
                }
                Op::PolicyDel(id) => w.policies.retain(|p| policy_id(p) != *id),
                Op::PolicyFlush => w.policies.clear(),
                Op::PolicyDefault { .. } => w.defaults.push(op.clone()),
            }
        }
        w
    }

    fn put_state(&mut self, spec: &StateSpec) {
        match self.states.iter_mut().find(|s| s.id() == spec.id()) {
            Some(s) => {
                s.limits = spec.limits;
                s.sel = spec.sel.clone();
                s.encap = spec.encap.or(s.encap);
            }
            None => self.states.push(spec.clone()),
        }
    }
}

fn policy_id(p: &PolicySpec) -> PolicyId {
    PolicyId::Selector { sel: p.sel.clone(), dir: p.dir, mark: p.mark, if_id: p.if_id }
}

/// Equal but for the index, which a file need not name.
fn same_policy(running: &PolicySpec, wanted: &PolicySpec) -> bool {
    let index = if wanted.index == 0 { running.index } else { wanted.index };
    *running == PolicySpec { index, ..wanted.clone() }
}

/// Equal but for the MTU, which a file need not name and the host may have changed.
fn same_link(running: &LinkSpec, wanted: &LinkSpec) -> bool {
    LinkSpec { mtu: None, ..running.clone() } == LinkSpec { mtu: None, ..wanted.clone() }
}

/// Equal in what an update cannot change; start values of sequence numbers belong to the past.
fn same_keys(running: &StateSpec, wanted: &StateSpec) -> bool {
    let fixed = |s: &StateSpec| StateSpec {
        limits: Limits::NONE,
        sel: None,
        encap: s.encap.map(|e| uvti_core::xfrm::Encap { sport: 0, dport: 0, ..e }),
        output_mark: Mark::default(),
        replay: ReplayCounters::default(),
        ..s.clone()
    };
    fixed(running) == fixed(wanted)
}

fn same_rest(running: &StateSpec, wanted: &StateSpec) -> bool {
    running.limits == wanted.limits
        && running.sel == wanted.sel
        && running.encap == wanted.encap
        && running.output_mark == wanted.output_mark
}
