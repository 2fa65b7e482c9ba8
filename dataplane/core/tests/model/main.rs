//! The core against a slow, obvious reference: random configurations and packets, step by step, with the same fates,
//! drops and counters of SAs.
//!
//! `UVTI_MODEL_STEPS` (100 000) says how many steps, `UVTI_MODEL_SEED` where they begin. ESN, modes other than tunnel
//! and transport, and larval states have models of their own beside the code.

mod random;
mod reference;

use random::Random;
use reference::{Arrival, Carried, Fate, Link, Reference, Shape};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use uvti_core::device::{Device, DeviceId};
use uvti_core::esp::{Crypter, Header};
use uvti_core::packet::testing::{set_df, udp4, udp6};
use uvti_core::packet::{Buf, Flow, Incoming, Outer, UdpPorts};
use uvti_core::route::{Route, RouteKey};
use uvti_core::tables::{Context, Op, Snapshot};
use uvti_core::vti::testing::{self, NOW, aes_gcm, tx_burst};
use uvti_core::vti::{Receiver, RxSlot, RxVerdict, Transmitter, TxVerdict};
use uvti_core::xfrm::{Action, Direction, PolicyId, Proto, Spi};

/// The core, with what it needs around.
struct Core {
    tables: Arc<Snapshot>,
    transmitter: Transmitter,
    receiver: Receiver,
    crypter: Crypter,
    drops: BTreeMap<(Option<u32>, &'static str), u64>,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn every_step_is_what_the_reference_says() {
    let (steps, seed) = (setting("UVTI_MODEL_STEPS", 100_000), setting("UVTI_MODEL_SEED", 1));
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0x2545_f491_4f6c_dd1d).max(1));
    let (mut core, mut reference) = (Core::new(), Reference::default());
    for step in 0..steps {
        let told = match random.below(100) {
            0..30 => change(&mut random, &mut core, &mut reference),
            30..65 => send(&mut random, &mut core, &mut reference),
            _ => receive(&mut random, &mut core, &mut reference),
        };
        if let Err(text) = told.and_then(|()| same_counters(&core, &reference)) {
            panic!("seed {seed}, step {step}: {text}");
        }
    }
    let reasons: Vec<&str> = {
        let mut all: Vec<_> = reference.drops.keys().map(|(_, reason)| *reason).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    println!("{} reasons: {}", reasons.len(), reasons.join(" "));
    assert!(steps < 100_000 || reasons.len() >= 35, "the steps do not meet enough: {reasons:?}");
}

/// One transaction.
fn change(random: &mut Random, core: &mut Core, reference: &mut Reference) -> Result<(), String> {
    let kind = random.below(100);
    let (op, want) = match kind {
        0..30 => {
            let spec = random.state();
            let want = reference.add_state(&spec);
            (Op::StateAdd(Box::new(spec)), want)
        }
        30..36 => {
            let spec = random.state();
            let want = reference.update_state(&spec);
            (Op::StateUpdate(Box::new(spec)), want)
        }
        36..44 => {
            let spec = random.state();
            (Op::StateDel(spec.id()), reference.delete_state(&spec))
        }
        44..60 => {
            let spec = random.policy();
            let want = reference.put_policy(&spec, false);
            (Op::PolicyAdd(Box::new(spec)), want)
        }
        60..66 => {
            let spec = random.policy();
            let want = reference.put_policy(&spec, true);
            (Op::PolicyUpdate(Box::new(spec)), want)
        }
        66..76 => {
            let spec = random.policy();
            let (sel, dir, mark) = (spec.sel.clone(), spec.dir, spec.mark);
            (Op::PolicyDel(PolicyId::Selector { sel, dir, mark, if_id: 0 }), reference.delete_policy(&spec))
        }
        76 => {
            reference.states.clear();
            (Op::StateFlush(Proto::Any), true)
        }
        77 => {
            reference.policies.clear();
            (Op::PolicyFlush, true)
        }
        78..80 => {
            let (dir, block) = (random.of(&[Direction::In, Direction::Out]), random.one_in(3));
            reference.blocked[dir as usize] = block;
            (Op::PolicyDefault { dir, action: if block { Action::Block } else { Action::Allow } }, true)
        }
        _ => {
            around(random, core, reference);
            return Ok(());
        }
    };
    let mut tables = Snapshot::clone(&core.tables);
    let got = tables.apply(&op, &mut Context { now: NOW, random: &mut || 1 }).is_ok();
    core.tables = Arc::new(tables);
    if got == want { Ok(()) } else { Err(format!("{op:?} went {got}, not {want}")) }
}

/// Devices and routes: the host's changes.
fn around(random: &mut Random, core: &mut Core, reference: &mut Reference) {
    let mut tables = Snapshot::clone(&core.tables);
    if random.one_in(2) {
        let link = random.link();
        reference.links.retain(|l| l.ifindex != link.ifindex);
        if random.one_in(10) {
            tables.remove_device(DeviceId(link.ifindex));
        } else {
            tables.put_device(device(&link));
            reference.links.push(link);
        }
    } else {
        let ((src, dst), mark) = (random.ends(), random.of(&[0, 0, 0, 7]));
        let route =
            Route { ifindex: random.of(&[2, 2, 2, 2, 2, 10, 11]), mtu: random.of(&[1500, 1500, 600]) };
        let gone = random.one_in(10);
        tables.routes.insert(RouteKey { src, dst, mark }, (!gone).then_some(route));
        match gone {
            true => drop(reference.routes.remove(&(src, dst, mark))),
            false => drop(reference.routes.insert((src, dst, mark), (route.ifindex, route.mtu))),
        }
    }
    core.tables = Arc::new(tables);
}

fn device(link: &Link) -> Device {
    let mut device = testing::device(link.name, link.ifindex, link.local, link.remote, link.key);
    (device.mtu, device.up) = (link.mtu, link.up);
    (device.disable_xfrm, device.no_policy) = (link.disable_xfrm, link.no_policy);
    device
}

fn packet(flow: &Flow, len: usize, df: bool) -> Vec<u8> {
    let (src, dst) = (flow.src.to_string(), flow.dst.to_string());
    if flow.src.is_ipv6() {
        return udp6(&src, &dst, flow.sport, flow.dport, len);
    }
    let mut packet = udp4(&src, &dst, flow.sport, flow.dport, len);
    if df {
        set_df(&mut packet);
    }
    packet
}

/// A burst out of one device.
fn send(random: &mut Random, core: &mut Core, reference: &mut Reference) -> Result<(), String> {
    if reference.links.is_empty() {
        return Ok(());
    }
    let link = random.of(&reference.links);
    let burst: Vec<(Flow, usize, bool)> = (0..=random.below(3))
        .map(|_| {
            let mut flow = random.flow();
            if random.one_in(40) {
                flow.src = if flow.src.is_ipv6() { ip6_remote() } else { flow.src };
            }
            let len = random.of(&[60, 100, 552, 553, 1446, 1447, 1500]);
            (flow, len, random.one_in(2))
        })
        .collect();
    let want: Vec<Fate> = burst
        .iter()
        .map(|(flow, len, df)| reference.send(&link, flow, *len, *df || flow.src.is_ipv6()))
        .collect();
    let got = core.send(&link, &burst);
    if got == want { Ok(()) } else { Err(format!("{burst:?} out of {link:?}:\n{got:?}, not\n{want:?}")) }
}

fn ip6_remote() -> IpAddr {
    testing::ip("2001:db8:ff::2")
}

/// A packet from the wire.
fn receive(random: &mut Random, core: &mut Core, reference: &mut Reference) -> Result<(), String> {
    let packet = random.arrival();
    let want = reference.receive(&packet);
    let got = core.receive(&packet);
    if got == want { Ok(()) } else { Err(format!("{packet:?}: {got:?}, not {want:?}")) }
}

impl Core {
    fn new() -> Self {
        Self {
            tables: Arc::new(Snapshot::new(1)),
            transmitter: Transmitter::default(),
            receiver: Receiver::default(),
            crypter: Crypter::new(&aes_gcm()).expect("a cipher"),
            drops: BTreeMap::new(),
        }
    }

    fn send(&mut self, link: &Link, burst: &[(Flow, usize, bool)]) -> Vec<Fate> {
        let packets: Vec<Vec<u8>> = burst.iter().map(|(flow, len, df)| packet(flow, *len, *df)).collect();
        let mut slots = tx_burst(&packets);
        let device = self.tables.devices.by_ifindex(link.ifindex).expect("the device").clone();
        self.transmitter.run(&self.tables, &device, &mut slots, 0, NOW);
        let fate = |slot: &uvti_core::vti::TxSlot| match &slot.verdict {
            TxVerdict::Send { flow, stage } => {
                let decision = self.transmitter.decision(*flow).expect("what was decided");
                let (spi, priority) = (decision.sa.spec.spi.0, Some(decision.policy.spec.priority));
                let routed = *stage == uvti_core::vti::Stage::Host;
                Ok(Carried { device: link.ifindex, spi, priority, routed, len: slot.buf.len() })
            }
            TxVerdict::Drop(drop) => Err((Some(link.ifindex), drop.reason)),
            other => panic!("{other:?}"),
        };
        let fates: Vec<Fate> = slots.iter().map(fate).collect();
        fates.into_iter().map(|fate| self.count(fate)).collect()
    }

    fn receive(&mut self, packet: &Arrival) -> Fate {
        let udp = packet.udp.then_some(UdpPorts { src: 4500, dst: 4500 });
        let outer = Outer { src: packet.src, dst: packet.dst, tos: 0, udp };
        let mut slots = [RxSlot::new(Incoming { buf: self.esp(packet), outer })];
        self.receiver.run(&self.tables, &mut slots, 0, NOW);
        let device = slots[0].device;
        let fate = match &slots[0].verdict {
            RxVerdict::Deliver { way } => {
                let spi = self.receiver.sa(*way).expect("its SA").spec.spi.0;
                let priority = self.receiver.policy(*way).map(|p| p.spec.priority);
                Ok(Carried { device: device.0, spi, priority, routed: false, len: slots[0].len })
            }
            RxVerdict::Drop(drop) => Err(((device != DeviceId::NONE).then_some(device.0), drop.reason)),
            other => panic!("{other:?}"),
        };
        self.count(fate)
    }

    /// ESP of the given shape.
    fn esp(&self, p: &Arrival) -> Buf {
        let v4 = p.flow.src.is_ipv4();
        let inner = match p.shape {
            Shape::Dummy | Shape::HalfHeader => vec![0x45; p.len],
            _ => packet(&p.flow, p.len, false),
        };
        let next_header = match p.shape {
            Shape::Dummy => 59,
            Shape::NotTunnelled => 6,
            Shape::OtherVersion => {
                if v4 {
                    41
                } else {
                    4
                }
            }
            _ => {
                if v4 {
                    4
                } else {
                    41
                }
            }
        };
        let mut buf = Buf::from_packet(&inner);
        let header = Header { spi: Spi(p.spi), seq: p.seq.into(), esn: false };
        self.crypter.seal(&mut buf, header, p.seq.into(), next_header, 0).expect("room for ESP");
        match p.shape {
            Shape::Short => buf.truncate(7),
            Shape::Truncated => buf.truncate(20),
            Shape::BadIcv => *buf.bytes_mut().last_mut().expect("an ICV") ^= 1,
            _ => {}
        }
        buf
    }

    fn count(&mut self, fate: Fate) -> Fate {
        if let Err((device, reason)) = fate {
            *self.drops.entry((device, reason.row().name)).or_default() += 1;
        }
        fate
    }
}

/// The same states, with the same counters and numbers; the same policies; the same drops.
fn same_counters(core: &Core, reference: &Reference) -> Result<(), String> {
    if core.drops != reference.drops {
        return Err(format!("{:?}, not {:?}", core.drops, reference.drops));
    }
    let got = core.tables.states.newest_first();
    if got.len() != reference.states.len() {
        return Err(format!("{} states, not {}", got.len(), reference.states.len()));
    }
    for (sa, state) in got.into_iter().zip(&reference.states) {
        let (info, top) = (sa.info(), state.seen.iter().max().copied().unwrap_or(0));
        let numbers =
            (info.current.packets, info.current.bytes, info.replay.oseq.into(), info.replay.seq.into());
        if numbers != (state.packets, state.bytes, state.sent, top) || info.stats != state.stats {
            return Err(format!("{info:?}, not {state:?}"));
        }
        if info.spec != state.spec {
            return Err(format!("{:?}, not {:?}", info.spec, state.spec));
        }
    }
    let count = |dir| core.tables.policies.count(dir);
    match count(Direction::In) + count(Direction::Out) == reference.policies.len() {
        true => Ok(()),
        false => Err("another number of policies".to_owned()),
    }
}
