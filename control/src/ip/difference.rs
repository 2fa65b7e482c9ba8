//! What has to change for the running configuration to become that of a file.

use std::collections::HashMap;
use std::net::IpAddr;
use uvti_core::device::{LinkInfo, LinkKind, LinkSpec};
use uvti_core::tables::Op;
use uvti_core::xfrm::{
    Action, Direction, PolicyId, PolicyInfo, PolicySpec, Proto, SaId, Spi, StateInfo, StateSpec,
};

/// What `wanted` describes when it is applied to empty tables.
#[derive(Debug, Default)]
struct Config {
    links: Vec<LinkSpec>,
    states: Vec<StateSpec>,
    policies: Vec<PolicySpec>,
    /// Changes of what the file did not add: the dataplane will say what is wrong with them.
    stray: Vec<Op>,
}

/// The transaction that makes `running` (links, states and policies, both newest first) what `wanted` describes.
///
/// What is equal stays untouched, with its counters and sequence numbers; what is gone is deleted first, what is
/// new or changed is added in the file's order. A state that differs only in what `ip xfrm state update` can change
/// is updated. Start values of sequence numbers are not compared, nor an MTU or a policy index that the file does
/// not ask for. Policies of one priority are tried in the file's order afterwards. Default policies are the subject
/// of [`defaults`].
pub fn difference(running: (&[LinkInfo], &[StateInfo], &[PolicyInfo]), wanted: &[Op]) -> Vec<Op> {
    let (links, states, policies) = running;
    let config = Config::of(wanted);
    let mut ops = Vec::new();
    let policy_adds = policies_between(policies, config.policies, &mut ops);
    let state_adds = states_between(states, config.states, &mut ops);
    let link_adds = links_between(links, config.links, &mut ops);
    ops.extend(link_adds.into_iter().chain(state_adds).chain(policy_adds).chain(config.stray));
    ops
}

/// The same for default policies, by direction: in, out, fwd. Those that the file does not set are `accept`.
pub fn defaults(running: [Action; 3], wanted: &[Op]) -> Vec<Op> {
    let mut actions = [Action::Allow; 3];
    for op in wanted {
        if let Op::PolicyDefault { dir, action } = op {
            actions[*dir as usize] = *action;
        }
    }
    let changed = Direction::ALL.into_iter().filter(|dir| running[*dir as usize] != actions[*dir as usize]);
    changed.map(|dir| Op::PolicyDefault { dir, action: actions[dir as usize] }).collect()
}

impl Config {
    fn of(ops: &[Op]) -> Self {
        let mut config = Self::default();
        ops.iter().for_each(|op| config.apply(op));
        config
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::LinkAdd(spec) => self.links.push(spec.clone()),
            Op::LinkChange(spec) => match self.links.iter_mut().find(|l| l.name == spec.name) {
                Some(link) => *link = spec.clone(),
                None => self.stray.push(op.clone()),
            },
            Op::LinkDel { name } => self.links.retain(|l| l.name != *name),
            Op::StateAdd(spec) => self.states.push((**spec).clone()),
            Op::StateUpdate(spec) => match self.state(&spec.id()) {
                Some(at) => updated(&mut self.states[at], spec),
                None => self.stray.push(op.clone()),
            },
            Op::StateDel(id) => {
                if let Some(at) = self.state(id) {
                    self.states.remove(at);
                }
            }
            Op::StateFlush(Proto::Any) => self.states.clear(),
            Op::StateFlush(proto) => self.states.retain(|s| s.proto != *proto),
            Op::PolicyAdd(spec) => self.policies.push((**spec).clone()),
            Op::PolicyUpdate(spec) => match self.policies.iter_mut().find(|p| same_policy(p, spec)) {
                Some(policy) => *policy = PolicySpec { index: policy.index, ..(**spec).clone() },
                None => self.policies.push((**spec).clone()),
            },
            Op::PolicyDel(id) => self.policies.retain(|p| !names(id, p)),
            Op::PolicyFlush => self.policies.clear(),
            Op::PolicyDefault { .. } => {}
        }
    }

    /// The state that a command with this ID would be about: the newest that fits.
    fn state(&self, id: &SaId) -> Option<usize> {
        self.states.iter().rposition(|s| key(s) == (id.dst, id.spi, id.proto) && covers(s, id))
    }
}

fn names(id: &PolicyId, p: &PolicySpec) -> bool {
    match id {
        PolicyId::Index { index, dir, mark, if_id } => {
            (p.index, p.dir, p.mark, p.if_id) == (*index, *dir, *mark, *if_id)
        }
        PolicyId::Selector { sel, dir, mark, if_id } => {
            (&p.sel, p.dir, p.mark, p.if_id) == (sel, *dir, *mark, *if_id)
        }
    }
}

/// What `ip xfrm state update` changes of a state.
///
/// kernel: net/xfrm/xfrm_state.c xfrm_state_update()
fn updated(state: &mut StateSpec, by: &StateSpec) {
    state.limits = by.limits;
    state.sel = by.sel.clone();
    if state.encap.is_some() && by.encap.is_some() {
        state.encap = by.encap;
    }
    if !by.output_mark.is_unset() {
        state.output_mark = by.output_mark;
    }
    if by.if_id != 0 {
        state.if_id = by.if_id;
    }
}

fn links_between(running: &[LinkInfo], wanted: Vec<LinkSpec>, deletes: &mut Vec<Op>) -> Vec<Op> {
    let mut left: Vec<&LinkInfo> = running.iter().collect();
    let mut adds = Vec::new();
    for spec in wanted {
        match left.iter().position(|link| same_link(link, &spec)) {
            Some(at) => drop(left.remove(at)),
            None => adds.push(Op::LinkAdd(spec)),
        }
    }
    // A device that only changes stays, with its counters, addresses and routes.
    for op in &mut adds {
        if let Op::LinkAdd(spec) = op
            && let Some(at) = left.iter().position(|l| may_become(&l.spec, spec))
        {
            left.remove(at);
            *op = Op::LinkChange(spec.clone());
        }
    }
    deletes.extend(left.into_iter().map(|link| Op::LinkDel { name: link.spec.name.clone() }));
    adds
}

/// Whether a change makes one of the other: the device below an xfrm interface is for life.
fn may_become(link: &LinkSpec, wanted: &LinkSpec) -> bool {
    let below = link.kind != LinkKind::Xfrm || link.dev == wanted.dev;
    link.name == wanted.name && link.kind == wanted.kind && below
}

fn same_link(link: &LinkInfo, wanted: &LinkSpec) -> bool {
    let running = LinkSpec { mtu: wanted.mtu, ..link.spec.clone() };
    running == *wanted && wanted.mtu.is_none_or(|mtu| mtu == link.mtu)
}

type StateKey = (IpAddr, Spi, Proto);

fn key(spec: &StateSpec) -> StateKey {
    (spec.dst, spec.spi, spec.proto)
}

/// Whether a look-up of `id` stops at this state: it goes by the mark's value, and a state without mark fits all.
fn covers(state: &StateSpec, id: &SaId) -> bool {
    state.mark.matches(id.mark.value & id.mark.mask)
}

fn states_between(running: &[StateInfo], wanted: Vec<StateSpec>, deletes: &mut Vec<Op>) -> Vec<Op> {
    let mut groups: HashMap<StateKey, Group> = HashMap::new();
    for (n, state) in running.iter().enumerate() {
        groups.entry(key(&state.spec)).or_default().running.push(n);
    }
    for (n, spec) in wanted.iter().enumerate() {
        groups.entry(key(spec)).or_default().wanted.push(n);
    }
    let mut stays: Vec<bool> = vec![false; running.len()];
    let mut partner: Vec<Option<usize>> = vec![None; wanted.len()];
    for group in groups.values() {
        for (w, r) in group.pairs(running, &wanted) {
            stays[r] = true;
            partner[w] = Some(r);
        }
    }
    // Newest first: then each deletion finds the state that it means, not a newer one that its mark fits too.
    let doomed = running.iter().zip(&stays).filter(|(_, stays)| !**stays);
    deletes.extend(doomed.map(|(state, _)| Op::StateDel(state.spec.id())));
    // Updates before additions: a state that is added would be the newer one that an update finds.
    let (mut changes, mut adds) = (Vec::new(), Vec::new());
    for (spec, partner) in wanted.into_iter().zip(partner) {
        match partner.map(|r| compare(&running[r].spec, &spec)) {
            Some(Likeness::Equal) => {}
            Some(_) => changes.push(Op::StateUpdate(Box::new(spec))),
            None => adds.push(Op::StateAdd(Box::new(spec))),
        }
    }
    changes.append(&mut adds);
    changes
}

/// States of one destination, SPI and protocol: nearly always one of each. They differ in their marks.
#[derive(Default)]
struct Group {
    /// Newest first.
    running: Vec<usize>,
    /// In the file's order.
    wanted: Vec<usize>,
}

impl Group {
    /// Which wanted state is which running one, as (wanted, running). A state stays only if it is in nobody's way:
    /// look-ups go by the value of a mark, and may stop at another state that fits.
    fn pairs(&self, running: &[StateInfo], wanted: &[StateSpec]) -> Vec<(usize, usize)> {
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for &w in &self.wanted {
            let free = |r: &&usize| !pairs.iter().any(|(_, taken)| taken == *r);
            let found = [Likeness::Equal, Likeness::Updatable].into_iter().find_map(|likeness| {
                self.running.iter().filter(free).find(|r| compare(&running[**r].spec, &wanted[w]) == likeness)
            });
            pairs.extend(found.map(|r| (w, *r)));
        }
        while let Some(at) = self.in_the_way(&pairs, running, wanted) {
            pairs.remove(at);
        }
        pairs
    }

    /// A pair that must be deleted and added again for the others to find what they mean.
    fn in_the_way(
        &self,
        pairs: &[(usize, usize)],
        running: &[StateInfo],
        wanted: &[StateSpec],
    ) -> Option<usize> {
        let covering = |id: SaId, newer_than: usize| {
            pairs.iter().position(|(_, r)| *r < newer_than && covers(&running[*r].spec, &id))
        };
        let leaves = |r: &&usize| !pairs.iter().any(|(_, stays)| stays == *r);
        let deleted = self.running.iter().filter(leaves);
        let added = self.wanted.iter().filter(|w| !pairs.iter().any(|(known, _)| known == *w));
        deleted
            .filter_map(|r| covering(running[*r].spec.id(), *r))
            .chain(
                added
                    .filter(|w| wanted[**w].spi.0 != 0)
                    .filter_map(|w| covering(wanted[*w].id(), usize::MAX)),
            )
            .next()
            .or_else(|| {
                pairs.iter().position(|(w, r)| {
                    compare(&running[*r].spec, &wanted[*w]) == Likeness::Updatable
                        && covering(wanted[*w].id(), *r).is_some()
                })
            })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    Equal,
    Updatable,
    Other,
}

fn compare(running: &StateSpec, wanted: &StateSpec) -> Likeness {
    let mut now = running.clone();
    // Where a state began to count is no part of what it is.
    now.replay = wanted.replay.clone();
    now.seq = wanted.seq;
    if same_state(&now, wanted) {
        return Likeness::Equal;
    }
    updated(&mut now, wanted);
    if same_state(&now, wanted) { Likeness::Updatable } else { Likeness::Other }
}

/// `sel` left out and `sel` for everything are the same.
fn same_state(a: &StateSpec, b: &StateSpec) -> bool {
    a.selector() == b.selector()
        && StateSpec { sel: None, ..a.clone() } == StateSpec { sel: None, ..b.clone() }
}

fn policies_between(running: &[PolicyInfo], wanted: Vec<PolicySpec>, deletes: &mut Vec<Op>) -> Vec<Op> {
    // Among equals the older is tried first: what stays must be what the file begins with.
    type Order<T> = HashMap<(Direction, u32), T>;
    let mut queues: Order<std::collections::VecDeque<usize>> = HashMap::new();
    let mut by_name: HashMap<_, usize> = HashMap::new();
    let name = |p: &PolicySpec| (p.sel.clone(), p.dir, p.mark, p.if_id);
    for (n, spec) in wanted.iter().enumerate() {
        by_name.entry(name(spec)).or_insert(n);
    }
    // Oldest first, those that could stay.
    for (n, policy) in running.iter().enumerate().rev() {
        let same = by_name.get(&name(&policy.spec)).is_some_and(|w| equal_policy(&policy.spec, &wanted[*w]));
        if same {
            queues.entry((policy.spec.dir, policy.spec.priority)).or_default().push_back(n);
        }
    }
    let mut stays = vec![false; running.len()];
    let mut adds = Vec::new();
    for spec in wanted {
        let queue = queues.entry((spec.dir, spec.priority)).or_default();
        match queue.front() {
            Some(&n) if equal_policy(&running[n].spec, &spec) => {
                stays[n] = true;
                queue.pop_front();
            }
            _ => {
                queue.clear();
                adds.push(Op::PolicyAdd(Box::new(spec)));
            }
        }
    }
    let doomed = running.iter().zip(&stays).filter(|(_, stays)| !**stays);
    deletes.extend(doomed.map(|(policy, _)| {
        let spec = &policy.spec;
        Op::PolicyDel(PolicyId::Index {
            index: spec.index,
            dir: spec.dir,
            mark: spec.mark,
            if_id: spec.if_id,
        })
    }));
    adds
}

fn same_policy(a: &PolicySpec, b: &PolicySpec) -> bool {
    a.sel == b.sel && a.dir == b.dir && a.mark == b.mark && a.if_id == b.if_id
}

/// An index of another direction is not granted, so it asks for none.
///
/// kernel: net/xfrm/xfrm_policy.c xfrm_gen_index()
fn equal_policy(running: &PolicySpec, wanted: &PolicySpec) -> bool {
    let asks = wanted.index != 0 && wanted.index & 7 == wanted.dir as u32;
    let index = if asks { running.index } else { wanted.index };
    PolicySpec { index, ..running.clone() } == *wanted
}

#[cfg(test)]
mod tests;
