//! The commands that a near miss prints are commands, and after them the packet passes.

use super::{Query, answer};
use crate::ip::batch;
use crate::service::Running;
use uvti_core::device::LinkInfo;
use uvti_core::packet::Buf;
use uvti_core::packet::testing::udp4;
use uvti_core::tables::{Context, Op, Snapshot};
use uvti_core::vti::explain::Explanation;
use uvti_core::vti::testing::{IN, Lab, NOW, OUT};
use uvti_core::xfrm::{
    Action, Direction, Encap, EncapKind, Family, Mark, Mode, PortMatch, SaDirection, Selector, Spi,
};

/// The key of the laboratory's SAs.
const KEY: &str = "0x000102030405060708090a0b0c0d0e0f10111213";

fn links(lab: &Lab) -> Vec<LinkInfo> {
    let link = |d: &uvti_core::device::Device| LinkInfo {
        spec: d.spec.clone(),
        ifindex: d.ifindex,
        up: d.up,
        mtu: d.mtu,
        txqlen: d.txqlen,
        stats: Default::default(),
    };
    lab.devices.iter().map(link).collect()
}

/// Runs a printed line as a shell and `uvti ip` would.
fn run(tables: &mut Snapshot, lab: &Lab, line: &str) {
    let words = line.strip_prefix("uvti ip ").unwrap_or_else(|| panic!("not ours: {line}"));
    let words = words.replace("$KEY", KEY).replace("$SPI", "0x777");
    let plan =
        batch::plan("pasted", &words, &Running(&links(lab))).unwrap_or_else(|e| panic!("{line}: {e:?}"));
    for op in plan.into_iter().flat_map(|line| match line.kind {
        batch::Kind::Owned(ops) => ops,
        batch::Kind::System(words) => panic!("not ours: {words:?}"),
    }) {
        let Op::LinkChange(spec) = &op else {
            let done = tables.apply(&op, &mut Context { now: NOW, random: &mut || 7 });
            done.unwrap_or_else(|e| panic!("{line}: {e}"));
            continue;
        };
        let device = (**tables.devices.by_name(&spec.name).unwrap()).clone();
        tables.put_device(uvti_core::device::Device { spec: spec.clone(), ..device });
    }
}

/// A case, and what is spoilt in it.
type Case = (&'static str, fn(&mut Lab));

/// The packet does not pass; after the first near miss's commands it does.
fn repairs(what: &str, lab: &Lab, query: impl Fn() -> Query) {
    let mut tables = (*lab.tables()).clone();
    let said: Explanation = answer(&tables, &query()).unwrap();
    assert!(!said.verdict.passes, "{what} passes already");
    let near = said.near.first().unwrap_or_else(|| panic!("{what}: no near miss of {:?}", said.verdict));
    near.repair.iter().for_each(|line| run(&mut tables, lab, line));
    let after = answer(&tables, &query()).unwrap();
    assert!(after.verdict.passes, "{what}: {near:#?} leaves {:?} {:?}", after.verdict, after.near);
}

fn lab(spoil: fn(&mut Lab)) -> Lab {
    let mut lab = Lab::vti();
    // As the grammar has them: of one family.
    lab.policies.iter_mut().for_each(|p| p.sel.family = Some(Family::V4));
    spoil(&mut lab);
    lab
}

fn ends(l: &mut Lab) {
    let far = "198.51.100.3".parse().unwrap();
    let mut other = l.states[OUT].clone();
    (other.dst, other.spi) = (far, Spi(0x103));
    l.states.push(other);
    let mut route = l.routes[0];
    route.0.dst = far;
    l.routes.push(route);
    l.policies[OUT].templates[0].dst = far;
}

#[test]
fn a_packet_leaves_after_the_repair() {
    let cases: &[Case] = &[
        ("mark", |l| l.policies[OUT].mark = Mark::exact(2)),
        ("masked mark", |l| l.policies[OUT].mark = Mark { value: 0x10, mask: 0xf0 }),
        ("port", |l| {
            (l.policies[OUT].sel.proto, l.policies[OUT].sel.dport) = (17, PortMatch::exact(5001));
        }),
        ("protocol", |l| l.policies[OUT].sel.proto = 6),
        ("prefix", |l| l.policies[OUT].sel.dst = "10.77.0.0/16".parse().unwrap()),
        ("family", |l| l.policies[OUT].sel = Selector::any(Family::V6)),
        ("no policy", |l| l.policies.clear()),
        ("block", |l| l.policies[OUT].action = Action::Block),
        ("no template", |l| l.policies[OUT].templates.clear()),
        ("a block before it", |l| {
            let mut block = l.policies[OUT].clone();
            (block.action, block.sel.dst) = (Action::Block, "10.2.0.0/16".parse().unwrap());
            (block.priority, l.policies[OUT].priority) = (5, 10);
            l.policies.push(block);
        }),
        ("a block of priority 0", |l| {
            let mut block = l.policies[OUT].clone();
            (block.action, block.sel.dst) = (Action::Block, "10.2.0.0/16".parse().unwrap());
            l.policies[OUT].priority = 10;
            l.policies.push(block);
        }),
        ("reqid", |l| l.policies[OUT].templates[0].reqid = 9),
        ("spi", |l| l.policies[OUT].templates[0].spi = Spi(0x999)),
        ("endpoints", ends),
        ("SA's mark", |l| l.states[OUT].mark = Mark::exact(2)),
        ("SA's mode", |l| l.states[OUT].mode = Mode::Transport),
        ("SA's selector", |l| {
            l.states[OUT].sel =
                Some(Selector { dst: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) });
        }),
        ("SA's direction", |l| l.states[OUT].dir = Some(SaDirection::In)),
        ("no SA", |l| {
            l.states.remove(OUT);
        }),
        ("transport", |l| {
            l.policies[OUT].templates[0].mode = Mode::Transport;
            let s = &mut l.states[OUT];
            (s.mode, s.src, s.dst) =
                (Mode::Transport, "10.1.0.2".parse().unwrap(), "10.2.0.5".parse().unwrap());
        }),
        ("overflow", |l| l.states[OUT].replay.oseq = u32::MAX),
    ];
    for (what, spoil) in cases {
        let packet = udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100);
        repairs(what, &lab(*spoil), || Query::Transmit { device: "vti0".into(), packet: packet.clone() });
    }
}

/// An outer packet with ESP of the peer.
fn esp(lab: &Lab, src: &str) -> Vec<u8> {
    let peer = lab.peer();
    let esp: Buf = peer.esp(1, &udp4("10.2.0.5", "10.1.0.2", 5000, 4000, 100));
    let mut outer = udp4(src, "198.51.100.1", 0, 0, 20 + esp.len());
    outer[9] = 50;
    outer.truncate(20);
    [&outer[..], esp.bytes()].concat()
}

#[test]
fn a_packet_is_delivered_after_the_repair() {
    let cases: &[Case] = &[
        ("mark", |l| l.policies[IN].mark = Mark::exact(2)),
        ("prefix", |l| l.policies[IN].sel.src = "10.77.0.0/16".parse().unwrap()),
        ("no policy", |l| {
            l.policies.remove(IN);
        }),
        ("block", |l| l.policies[IN].action = Action::Block),
        ("no template", |l| l.policies[IN].templates.clear()),
        ("reqid", |l| l.policies[IN].templates[0].reqid = 9),
        ("source", |l| l.policies[IN].templates[0].src = "198.51.100.3".parse().unwrap()),
        ("no mark", |l| l.policies[IN].mark = Mark::default()),
        ("default", |l| l.block_by_default = vec![Direction::In]),
        ("spi", |l| l.states[IN].spi = Spi(0x999)),
        ("SA's mark", |l| l.states[IN].mark = Mark::exact(2)),
        ("SA's direction", |l| l.states[IN].dir = Some(SaDirection::Out)),
        ("SA's mode", |l| l.states[IN].mode = Mode::Transport),
        ("SA's selector", |l| {
            l.states[IN].sel =
                Some(Selector { src: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) });
        }),
        ("encap", |l| {
            let original = "0.0.0.0".parse().unwrap();
            l.states[IN].encap =
                Some(Encap { kind: EncapKind::EspInUdp, sport: 4500, dport: 4500, original });
        }),
        ("device", |l| l.devices[0].spec.remote = "203.0.113.1".parse().unwrap()),
    ];
    for (what, spoil) in cases {
        let packet = esp(&Lab::vti(), "198.51.100.2");
        repairs(what, &lab(*spoil), || Query::Receive { packet: packet.clone() });
    }
}

#[test]
fn what_cannot_be_explained_says_why() {
    let tables = lab(|_| ()).tables();
    let why = |query: Query| answer(&tables, &query).unwrap_err();
    let packet = udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100);
    assert_eq!(
        why(Query::Transmit { device: "vti7".into(), packet: packet.clone() }),
        "\"vti7\" is no VTI of uvti; there is vti0"
    );
    assert!(why(Query::Receive { packet: packet.clone() }).starts_with("not a whole ESP packet"));
    assert!(why(Query::Captured { device: None, packet }).contains("no --dev"));
    let device = "vti0".to_owned();
    assert!(why(Query::Transmit { device, packet: vec![0; 70_000] }).contains("longer than an IP packet"));
}
