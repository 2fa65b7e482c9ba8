use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use uvti_core::device::LinkKind;
use uvti_core::reason::LinkStats;
use uvti_core::tables::{Context, Refusal, Snapshot};
use uvti_core::xfrm::{AlgAead, Algorithms, Family, Key, Limits, Mark, PolicyFlags, Selector};

/// The dataplane's own tables, with links by name.
#[derive(Clone, Default)]
struct Model {
    tables: Snapshot,
    links: BTreeMap<String, LinkSpec>,
}

type Shown = (Vec<LinkInfo>, Vec<StateInfo>, Vec<PolicyInfo>);

impl Model {
    fn apply(&mut self, op: &Op) -> Result<(), Refusal> {
        let no = || Refusal::errno(uvti_core::tables::Errno::Exists);
        match op {
            Op::LinkAdd(spec) => match self.links.insert(spec.name.clone(), spec.clone()) {
                None => Ok(()),
                Some(_) => Err(no()),
            },
            Op::LinkChange(spec) => {
                self.links.insert(spec.name.clone(), spec.clone()).map(drop).ok_or_else(no)
            }
            Op::LinkDel { name } => self.links.remove(name).map(drop).ok_or_else(no),
            _ => {
                let mut next = self.tables.clone();
                next.apply(op, &mut Context { now: 1, random: &mut || 7 })?;
                self.tables = next;
                Ok(())
            }
        }
    }

    /// Applies those of `ops` that are not refused, and returns them.
    fn accept(&mut self, ops: Vec<Op>) -> Vec<Op> {
        ops.into_iter().filter(|op| self.clone().apply(op).is_ok() && self.apply(op).is_ok()).collect()
    }

    fn shown(&self) -> Shown {
        let link = |(n, spec): (usize, &LinkSpec)| LinkInfo {
            spec: spec.clone(),
            ifindex: n as u32,
            up: true,
            mtu: spec.mtu.unwrap_or(1480),
            txqlen: 1000,
            stats: LinkStats::default(),
        };
        (
            self.links.values().enumerate().map(link).collect(),
            self.tables.states.newest_first().into_iter().map(|sa| sa.info()).collect(),
            self.tables.policies.newest_first().into_iter().map(|p| p.info()).collect(),
        )
    }

    fn difference(&self, wanted: &[Op]) -> Vec<Op> {
        let (links, states, policies) = self.shown();
        difference((&links, &states, &policies), wanted)
    }

    /// What must be the same: links, states in any order without their numbers, policies as they are tried.
    fn meaning(&self) -> (Vec<LinkSpec>, Vec<String>, Vec<PolicySpec>) {
        let mut states: Vec<String> = (self.tables.states.newest_first().iter())
            .map(|sa| {
                let sel = Some(sa.spec.selector());
                format!("{:?}", StateSpec { sel, replay: Default::default(), seq: 0, ..sa.spec.clone() })
            })
            .collect();
        states.sort();
        let tried = Direction::ALL.into_iter().flat_map(|dir| self.tables.policies.of(dir));
        let policies = tried.map(|p| PolicySpec { index: 0, ..p.spec.clone() }).collect();
        (self.links.values().cloned().collect(), states, policies)
    }
}

fn gcm(key: u8) -> Algorithms {
    let aead = AlgAead { name: "rfc4106(gcm(aes))".into(), key: Key::new(vec![key; 20]), icv_bits: 128 };
    Algorithms { aead: Some(aead), enc: None, auth: None }
}

fn state(spi: u32, mark: Mark, key: u8) -> StateSpec {
    let spec = StateSpec::tunnel([198, 51, 100, 1].into(), [198, 51, 100, 2].into(), Spi(spi), gcm(key));
    StateSpec { mark, ..spec }
}

fn policy(net: u8, dir: Direction, priority: u32) -> PolicySpec {
    let mut sel = Selector::any(Family::V4);
    sel.dst = format!("10.{net}.0.0/16").parse().unwrap();
    PolicySpec {
        sel,
        dir,
        mark: Mark::default(),
        if_id: 0,
        priority,
        action: Action::Allow,
        flags: PolicyFlags::default(),
        index: 0,
        limits: Limits::NONE,
        templates: Vec::new(),
    }
}

fn link(name: u8, key: u32) -> LinkSpec {
    let (local, remote) = ([198, 51, 100, 1].into(), [198, 51, 100, name].into());
    LinkSpec { local, remote, ikey: key, okey: key, ..LinkSpec::new(format!("vti{name}"), LinkKind::Vti) }
}

fn marks() -> impl Strategy<Value = Mark> {
    prop_oneof![
        Just(Mark::default()),
        Just(Mark::exact(1)),
        Just(Mark { value: 1, mask: 1 }),
        Just(Mark::exact(2)),
    ]
}

fn a_state() -> impl Strategy<Value = StateSpec> {
    (0..3u32, marks(), 0..2u8, 0..3u32, 0..3u64, any::<bool>()).prop_map(
        |(spi, mark, key, reqid, packets, sel)| {
            let mut spec = StateSpec { reqid, ..state(spi, mark, key) };
            spec.limits.hard_packets = u64::MAX - packets;
            spec.sel = sel.then(|| Selector::any(Family::V4));
            spec.replay.oseq = packets as u32;
            spec
        },
    )
}

fn a_policy() -> impl Strategy<Value = PolicySpec> {
    (0..4u8, 0..3usize, 0..2u32, any::<bool>(), prop_oneof![4 => Just(0), 1 => 0..40u32]).prop_map(
        |(net, dir, priority, block, index)| PolicySpec {
            action: if block { Action::Block } else { Action::Allow },
            index,
            ..policy(net, Direction::ALL[dir], priority)
        },
    )
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => a_state().prop_map(|s| Op::StateAdd(Box::new(s))),
        2 => a_state().prop_map(|s| Op::StateUpdate(Box::new(s))),
        1 => a_state().prop_map(|s| Op::StateDel(s.id())),
        6 => a_policy().prop_map(|p| Op::PolicyAdd(Box::new(p))),
        2 => a_policy().prop_map(|p| Op::PolicyUpdate(Box::new(p))),
        1 => a_policy().prop_map(|p| Op::PolicyDel(PolicyId::Selector {
            sel: p.sel, dir: p.dir, mark: p.mark, if_id: p.if_id
        })),
        3 => (0..4u8, 0..2u32).prop_map(|(n, key)| Op::LinkAdd(link(n, key))),
        1 => (0..4u8, 0..2u32).prop_map(|(n, key)| Op::LinkChange(link(n, key))),
        1 => (0..4u8).prop_map(|n| Op::LinkDel { name: format!("vti{n}") }),
        1 => Just(Op::PolicyFlush),
        1 => Just(Op::StateFlush(Proto::Esp)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn applying_the_difference_gives_what_is_wanted_and_then_nothing_is_left(
        before in proptest::collection::vec(an_op(), 0..25),
        file in proptest::collection::vec(an_op(), 0..25),
    ) {
        let mut running = Model::default();
        running.accept(before);
        let mut fresh = Model::default();
        let file = fresh.accept(file);
        for op in running.difference(&file) {
            prop_assert!(running.apply(&op).is_ok(), "refused: {op:?}");
        }
        prop_assert_eq!(running.meaning(), fresh.meaning());
        let again = running.difference(&file);
        // An index that was taken when it was asked for is asked for again.
        let asks = |op: &Op| matches!(op, Op::PolicyAdd(p) | Op::PolicyUpdate(p) if p.index != 0);
        if !file.iter().any(asks) {
            prop_assert!(again.is_empty(), "{again:?}");
        }
    }

    #[test]
    fn the_difference_of_equals_is_empty(file in proptest::collection::vec(an_op(), 0..25)) {
        let mut running = Model::default();
        let file: Vec<Op> = running.accept(file);
        if !file.iter().any(|op| matches!(op, Op::PolicyAdd(p) | Op::PolicyUpdate(p) if p.index != 0)) {
            prop_assert_eq!(running.difference(&file), vec![]);
        }
    }
}

#[test]
fn limits_and_selector_are_updated_in_place_and_a_new_key_is_a_new_state() {
    let mut running = Model::default();
    let old = state(7, Mark::default(), 1);
    running.accept(vec![Op::StateAdd(Box::new(old.clone()))]);
    let mut limited = old.clone();
    limited.limits.hard_packets = 5;
    let update = Op::StateUpdate(Box::new(limited.clone()));
    assert_eq!(running.difference(&[Op::StateAdd(Box::new(limited))]), [update]);
    let rekeyed = Op::StateAdd(Box::new(state(7, Mark::default(), 2)));
    assert_eq!(running.difference(std::slice::from_ref(&rekeyed)), [Op::StateDel(old.id()), rekeyed]);
    let started = StateSpec { seq: 3, ..old };
    assert_eq!(running.difference(&[Op::StateAdd(Box::new(started))]), []);
}

#[test]
fn a_policy_in_the_middle_of_its_priority_moves_those_behind_it() {
    let add = |p: PolicySpec| Op::PolicyAdd(Box::new(p));
    let [a, b, c] = [1, 2, 3].map(|net| policy(net, Direction::Out, 0));
    let other = policy(9, Direction::Out, 1);
    let mut running = Model::default();
    running.accept(vec![add(a.clone()), add(c.clone()), add(other.clone())]);
    let file = [add(a), add(b.clone()), add(c.clone()), add(other)];
    let ops = running.difference(&file);
    assert_eq!(ops.len(), 3);
    assert!(matches!(&ops[0], Op::PolicyDel(PolicyId::Index { index: 9, .. })), "{ops:?}");
    assert_eq!(ops[1..], [add(b), add(c)]);
}

#[test]
fn an_mtu_that_is_not_asked_for_is_not_compared() {
    let mut running = Model::default();
    running.accept(vec![Op::LinkAdd(LinkSpec { mtu: Some(1400), ..link(1, 1) })]);
    assert_eq!(running.difference(&[Op::LinkAdd(link(1, 1))]), []);
    assert_eq!(running.difference(&[Op::LinkAdd(LinkSpec { mtu: Some(1400), ..link(1, 1) })]), []);
    let other = LinkSpec { mtu: Some(1300), ..link(1, 1) };
    let changed = running.difference(&[Op::LinkAdd(other.clone())]);
    assert_eq!(changed, [Op::LinkChange(other)], "the device stays");
}

#[test]
fn defaults_fall_back_to_accept() {
    let block = Op::PolicyDefault { dir: Direction::Fwd, action: Action::Block };
    let accept = Op::PolicyDefault { dir: Direction::Out, action: Action::Allow };
    let running = [Action::Allow, Action::Block, Action::Allow];
    assert_eq!(defaults(running, std::slice::from_ref(&block)), [accept, block]);
    assert_eq!(defaults([Action::Allow; 3], &[]), []);
}
