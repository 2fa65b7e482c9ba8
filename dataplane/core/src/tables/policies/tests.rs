use super::*;
use crate::xfrm::{Family, PolicyFlags, PortMatch};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::net::IpAddr;

/// Few values, so that policies overlap and flows meet them.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (0u32..4, prop_oneof![Just(0u8), 24..=32u8]).prop_map(|(host, len)| {
        IpNet::new(std::net::Ipv4Addr::from(0x0a01_0000 | host << 6 | host).into(), len).unwrap().trunc()
    });
    let v6 = (0u128..4, prop_oneof![Just(0u8), 60..=64u8, Just(128)]).prop_map(|(host, len)| {
        let address = 0x2001_0db8 << 96 | host << 64 | host;
        IpNet::new(std::net::Ipv6Addr::from(address).into(), len).unwrap().trunc()
    });
    prop_oneof![3 => v4, 1 => v6]
}

fn port() -> impl Strategy<Value = PortMatch> {
    prop_oneof![
        4 => Just(PortMatch::default()),
        2 => (0u16..3).prop_map(PortMatch::exact),
        1 => (0u16..3).prop_map(|value| PortMatch { value, mask: 0xfffe }),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    let families = prop_oneof![3 => Just(Some(Family::V4)), 1 => Just(Some(Family::V6)), 1 => Just(None)];
    let dev = prop_oneof![4 => Just(None), 1 => (0u8..2).prop_map(|n| Some(format!("vti{n}")))];
    (families, net(), net(), 0u8..3, port(), port(), dev).prop_map(
        |(family, src, dst, proto, sport, dport, dev)| Selector {
            family,
            src,
            dst,
            proto,
            sport,
            dport,
            dev,
        },
    )
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    let mark =
        prop_oneof![Just(Mark::default()), (0u32..3).prop_map(Mark::exact), Just(Mark { value: 1, mask: 1 })];
    (selector(), 0usize..3, mark, 0u32..2, 0u32..4).prop_map(|(sel, dir, mark, if_id, priority)| PolicySpec {
        sel,
        dir: Direction::ALL[dir],
        mark,
        if_id,
        priority,
        action: Action::Allow,
        flags: PolicyFlags::default(),
        index: 0,
        limits: Default::default(),
        templates: Vec::new(),
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let v4 = (0u32..4).prop_map(|h| IpAddr::from((0x0a01_0000u32 | h << 6 | h).to_be_bytes()));
    let v6 = (0u128..4).prop_map(|h| IpAddr::from(((0x2001_0db8u128 << 96) | h << 64 | h).to_be_bytes()));
    let ends = prop_oneof![(v4.clone(), v4).boxed(), (v6.clone(), v6).boxed()];
    (ends, 0u8..3, 0u16..3, 0u16..3).prop_map(|((src, dst), proto, sport, dport)| Flow {
        src,
        dst,
        proto,
        sport,
        dport,
    })
}

/// What is done to the tables.
#[derive(Clone, Debug)]
enum Step {
    Put(PolicySpec, bool),
    /// Takes one away: the n-th of those there are.
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (spec(), any::<bool>()).prop_map(|(s, replace)| Step::Put(s, replace)),
        1 => any::<usize>().prop_map(Step::Take),
    ]
}

proptest! {
    /// The classifier finds what trying them all in order finds, whatever was added, replaced and removed.
    #[test]
    fn finds_what_trying_all_in_order_finds(
        steps in proptest::collection::vec(step(), 0..120),
        flows in proptest::collection::vec((flow(), 0u32..3, 0u32..2, 0u8..3), 20),
    ) {
        let mut policies = Policies::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(spec, replace) => _ = policies.insert(&spec, replace, number as u64, 0),
                Step::Take(n) => {
                    let all = policies.newest_first();
                    if !all.is_empty() {
                        let one = all[n % all.len()].clone();
                        policies.remove(&one);
                        prop_assert!(policies.by_index.find(&one.spec.index).is_none());
                    }
                }
            }
        }
        for dir in Direction::ALL {
            let in_order = policies.of(dir);
            prop_assert_eq!(in_order.len(), policies.count(dir));
            for (flow, mark, if_id, dev) in &flows {
                let dev = format!("vti{dev}");
                let slow = in_order.iter().find(|p| {
                    p.spec.mark.matches(*mark) && p.spec.if_id == *if_id && p.spec.sel.matches(flow, &dev)
                });
                let fast = policies.lookup(dir, flow, &dev, *mark, *if_id);
                prop_assert_eq!(fast.map(|p| p.number), slow.map(|p| p.number));
            }
            for policy in in_order {
                let (s, sel) = (&policy.spec, policy.spec.sel.clone());
                let id = PolicyId::Selector { sel, dir, mark: s.mark, if_id: s.if_id };
                prop_assert!(Arc::ptr_eq(policies.named(&id).unwrap(), policy));
                let id = PolicyId::Index { index: s.index, dir, mark: s.mark, if_id: s.if_id };
                prop_assert!(Arc::ptr_eq(policies.named(&id).unwrap(), policy));
            }
        }
    }
}

/// Removing everything leaves nothing behind that a look-up would walk.
#[test]
fn nothing_stays_of_what_is_removed() {
    let mut policies = Policies::default();
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    for number in 0..200 {
        let spec = spec().new_tree(runner).unwrap().current();
        let _ = policies.insert(&spec, true, number, 0);
    }
    for policy in policies.newest_first().into_iter().cloned().collect::<Vec<_>>() {
        policies.remove(&policy);
    }
    for dir in Direction::ALL {
        assert!(policies.by_direction[dir as usize].is_clean());
    }
}
