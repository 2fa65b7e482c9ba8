//! 100 000 overlapping policies: the look-up for a flow never seen before, and one more policy.
//!
//! The mix is that of the kernel's own test (tools/testing/selftests/net/xfrm_policy.sh) grown large: pairs of hosts,
//! of small nets and of sites that lie in each other, some with a protocol and a port, priorities at random. A flow
//! meets several, and which comes first is asked of a walk through all in order.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use uvti_core::packet::{Flow, proto};
use uvti_core::tables::{Context, Op, Snapshot};
use uvti_core::vti::testing::{NOW, policy};
use uvti_core::xfrm::{Direction, PolicySpec, PortMatch};

const POLICIES: u32 = 100_000;
/// Prefix lengths of source and destination, whether a port is asked for, and the share of policies in percent.
const KINDS: [(u8, u8, bool, u64); 8] = [
    (32, 32, false, 40),
    (30, 29, false, 15),
    (24, 24, true, 15),
    (24, 24, false, 10),
    (24, 23, false, 10),
    (16, 24, true, 4),
    (0, 24, false, 3),
    (24, 0, true, 3),
];
const MARK: u32 = 1;
const PORTS: u64 = 8;

/// xorshift64*: the same policies and flows in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    /// Few bits of each byte are used, so that prefixes hold each other.
    fn address(&mut self) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 | (self.roll(1 << 24) as u32 & 0x000f_3f7f))
    }

    fn net(&mut self, len: u8) -> IpNet {
        Ipv4Net::new(self.address(), len).expect("a length").trunc().into()
    }

    fn policy(&mut self) -> PolicySpec {
        let any = IpAddr::from([198, 51, 100, 1]);
        let mut spec = policy(Direction::Out, MARK, any, any);
        let mut percent = self.roll(100);
        let kind = KINDS.iter().find(|(.., share)| {
            let here = percent < *share;
            percent = percent.saturating_sub(*share);
            here
        });
        let (src, dst, port, _) = *kind.expect("the shares are 100 %");
        (spec.sel.src, spec.sel.dst) = (self.net(src), self.net(dst));
        if port {
            spec.sel.proto = proto::UDP;
            spec.sel.dport = PortMatch::exact(self.roll(PORTS) as u16);
        }
        spec.priority = self.roll(10_000) as u32;
        spec
    }

    fn flow(&mut self) -> Flow {
        let (src, dst) = (self.address().into(), self.address().into());
        Flow { src, dst, proto: proto::UDP, sport: self.roll(60_000) as u16, dport: self.roll(PORTS) as u16 }
    }
}

fn add(tables: &mut Snapshot, spec: PolicySpec) -> bool {
    tables.apply(&Op::PolicyAdd(Box::new(spec)), &mut Context { now: NOW, random: &mut || 4 }).is_ok()
}

fn tables(dice: &mut Dice) -> Snapshot {
    let mut tables = Snapshot::new(1);
    while tables.policies.count(Direction::Out) < POLICIES as usize {
        // One that is there already is refused.
        add(&mut tables, dice.policy());
    }
    tables
}

fn policies(c: &mut Criterion) {
    let mut dice = Dice(0x5eed);
    let tables = tables(&mut dice);
    let flows: Vec<Flow> = (0..1 << 16).map(|_| dice.flow()).collect();
    let in_order = tables.policies.of(Direction::Out);
    let mut met = 0;
    for flow in &flows[..200] {
        let slow = in_order.iter().find(|p| p.spec.sel.matches(flow, "vti0")).map(|p| p.number);
        let fast = tables.policies.lookup(Direction::Out, flow, "vti0", MARK, 0).map(|p| p.number);
        assert_eq!(fast, slow);
        met += in_order.iter().filter(|p| p.spec.sel.matches(flow, "vti0")).count();
    }
    println!("a flow meets {} policies", met / 200);

    let mut group = c.benchmark_group("policies/100k");
    let mut next = flows.iter().cycle();
    group.bench_function("new flow", |b| {
        b.iter(|| {
            let flow = next.next().expect("endless");
            tables.policies.lookup(Direction::Out, black_box(flow), "vti0", MARK, 0).is_some()
        });
    });
    group.bench_function("one more", |b| {
        let fresh =
            || (tables.clone(), PolicySpec { mark: uvti_core::xfrm::Mark::exact(2), ..dice.policy() });
        b.iter_batched(
            fresh,
            |(mut tables, spec)| {
                assert!(add(&mut tables, spec));
                tables
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, policies);
criterion_main!(benches);
