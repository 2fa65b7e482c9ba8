//! The engine over devices and a network in memory: conservation and hops.

mod flight;
mod interface;
mod planted;

use super::*;
use crate::io::memory::{MemoryTun, MemoryUnderlay};
use crate::io::tun::{FromHost, Kind};
use crate::io::{Outcome, TunQueue};
use crate::worker::tamper::{Honest, Tamper};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use uvti_core::device::{LinkKind, LinkSpec};
use uvti_core::packet::tos::EcnRule;
use uvti_core::packet::{Buf, Outer, testing};
use uvti_core::reason::{Reason, Way};
use uvti_core::route::{Answer, Route, RouteKey};
use uvti_core::tables::{Errno, Op, Refusal};
use uvti_core::vti::{TxSlot, icmp};
use uvti_core::xfrm::*;

pub(crate) type Tuns = Arc<Mutex<Vec<MemoryTun>>>;

pub(crate) struct MemoryHost {
    pub(crate) tuns: Tuns,
    pub(crate) icmp: Sender<icmp::Message>,
}

struct Nothing;

impl HostDevice for Nothing {
    fn remove(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Host for MemoryHost {
    fn create(&mut self, _spec: &LinkSpec, _mtu: u32, workers: usize) -> Result<Created, Refusal> {
        let tun = MemoryTun::new().map_err(|_| Refusal::errno(Errno::NoBuffers))?;
        let mut tuns = self.tuns.lock().unwrap();
        tuns.push(tun.clone());
        let queues = (0..workers).map(|_| Box::new(tun.clone()) as Box<dyn TunQueue>).collect();
        Ok(Created { ifindex: 100 + tuns.len() as u32, queues, reader: Some(0), device: Box::new(Nothing) })
    }

    fn link(&mut self, _ifindex: u32) -> Option<LinkState> {
        Some(LinkState { name: "vti0".into(), up: true, mtu: 1480, txqlen: 1000 })
    }

    fn set_mtu(&mut self, _ifindex: u32, _mtu: u32) -> Result<(), Refusal> {
        Ok(())
    }

    fn route(&mut self, key: RouteKey) -> (Answer, bool) {
        let away = key.dst.to_string().starts_with("198.51.100.");
        (away.then_some(Route { ifindex: 2, mtu: 1500 }), false)
    }

    fn send_icmp(&mut self, message: &icmp::Message) -> io::Result<()> {
        self.icmp.send(message.clone()).map_err(io::Error::other)
    }

    fn random(&mut self) -> u64 {
        0x5eed_5eed_5eed_5eed
    }
}

/// An engine, its devices and its network.
pub(super) struct Lab {
    pub(super) engine: Arc<Engine>,
    pub(super) tuns: Tuns,
    pub(super) net: Vec<MemoryUnderlay>,
    pub(super) icmp: Receiver<icmp::Message>,
}

pub(super) fn lab<T: Tamper>(workers: u16, tamper: impl Fn() -> T) -> Lab {
    let (tuns, net): (Tuns, Vec<_>) =
        (Tuns::default(), (0..workers).map(|_| MemoryUnderlay::new().unwrap()).collect());
    let (icmp_sender, icmp) = unbounded();
    let host = Box::new(MemoryHost { tuns: tuns.clone(), icmp: icmp_sender });
    let underlays = net.iter().map(|n| Box::new(n.clone()) as Box<dyn Underlay>).collect();
    let config = Config {
        workers,
        keep_devices: false,
        attribution_rows: 8,
        record: 16,
        unmarked: uvti_core::tables::Unmarked::Host,
        ecn: EcnRule::Kernel,
    };
    let engine = Engine::start(config, host, underlays, tamper).unwrap();
    Lab { engine, tuns, net, icmp }
}

pub(crate) const LOCAL: &str = "198.51.100.1";
pub(crate) const REMOTE: &str = "198.51.100.2";

pub(crate) fn link() -> LinkSpec {
    let (local, remote) = (LOCAL.parse().unwrap(), REMOTE.parse().unwrap());
    LinkSpec { local, remote, ikey: 1, okey: 1, ..LinkSpec::new("vti0", LinkKind::Vti) }
}

pub(crate) fn sa(src: &str, dst: &str, spi: u32) -> StateSpec {
    let key = Key::new((0..20).collect());
    let aead = Some(AlgAead { name: "rfc4106(gcm(aes))".into(), key, icv_bits: 128 });
    let algs = Algorithms { aead, ..Algorithms::default() };
    StateSpec {
        reqid: spi,
        replay_window: 64,
        ..StateSpec::tunnel(src.parse().unwrap(), dst.parse().unwrap(), Spi(spi), algs)
    }
}

fn policy(dir: Direction, src: &str, dst: &str, reqid: u32, inner: &str) -> PolicySpec {
    let mut sel = Selector::any(Family::V4);
    match dir {
        Direction::Out => sel.dst = inner.parse().unwrap(),
        _ => sel.src = inner.parse().unwrap(),
    }
    PolicySpec {
        sel,
        dir,
        mark: Mark::exact(1),
        if_id: 0,
        priority: 0,
        action: Action::Allow,
        flags: PolicyFlags::default(),
        index: 0,
        limits: Limits::NONE,
        templates: vec![Template {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: Proto::Esp,
            spi: Spi(0),
            mode: Mode::Tunnel,
            reqid,
            level: Level::Required,
        }],
    }
}

/// A tunnel with `n` SAs each way: SA *i* for the inner net 10.2.*i*.0/24.
pub(crate) fn tunnel(n: u32) -> Vec<Op> {
    let mut ops = vec![Op::LinkAdd(link())];
    for i in 0..n {
        let inner = format!("10.2.{i}.0/24");
        ops.push(Op::StateAdd(Box::new(sa(LOCAL, REMOTE, 0x1000 + i))));
        ops.push(Op::StateAdd(Box::new(sa(REMOTE, LOCAL, 0x1000 + i))));
        ops.push(Op::PolicyAdd(Box::new(policy(Direction::Out, LOCAL, REMOTE, 0x1000 + i, &inner))));
        ops.push(Op::PolicyAdd(Box::new(policy(Direction::In, REMOTE, LOCAL, 0x1000 + i, &inner))));
    }
    ops
}

/// The same tunnel, seen from the other end: what the one sends to 10.2.*i* it receives, by the SA that sent it.
pub(super) fn far_end(n: u32) -> Vec<Op> {
    let mut ops = tunnel(n);
    for op in &mut ops {
        match op {
            Op::LinkAdd(spec) => std::mem::swap(&mut spec.local, &mut spec.remote),
            Op::PolicyAdd(p) if p.dir == Direction::In => {
                let PolicySpec { sel, templates, .. } = &mut **p;
                std::mem::swap(&mut sel.src, &mut sel.dst);
                let t = &mut templates[0];
                std::mem::swap(&mut t.src, &mut t.dst);
            }
            _ => {}
        }
    }
    ops
}

/// Drops, for the message of a failed test.
pub(super) fn drops(engine: &Engine) -> Vec<(Reason, u64)> {
    let all = engine.totals().unwrap().all;
    Reason::ALL.iter().map(|r| (*r, all.dropped(*r))).filter(|(_, n)| *n > 0).collect()
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "timed out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn tx_in(engine: &Engine) -> u64 {
    engine.totals().unwrap().all.of(Way::Tx, crate::account::Count::In)
}

pub(crate) fn dropped(engine: &Engine, reason: Reason) -> u64 {
    engine.totals().unwrap().all.dropped(reason)
}

/// Every packet is somewhere.
pub(super) fn check(lab: &Lab) {
    let identities = lab.engine.check().unwrap();
    assert!(identities.iter().all(|i| i.missing() == 0), "{identities:#?}");
}

impl Lab {
    /// The host sends `n` packets to each of `nets` inner nets.
    pub(super) fn send(&self, n: usize, nets: u32) {
        let tun = self.tuns.lock().unwrap()[0].clone();
        for _ in 0..n {
            for i in 0..nets {
                tun.host_sends(&testing::udp4("10.1.0.2", &format!("10.2.{i}.5"), 4000, 5000, 100));
            }
        }
    }

    /// A packet that the near end sent arrives here.
    pub(super) fn arrives(&self, packet: &[u8]) {
        let outer = Outer { src: LOCAL.parse().unwrap(), dst: REMOTE.parse().unwrap(), tos: 0, udp: None };
        assert_eq!(packet[9], 50);
        self.net[0].arrive(outer, &packet[20..]);
    }

    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        self.net.iter().flat_map(|n| n.sent()).map(|p| p.packet).collect()
    }
}

#[test]
fn packets_cross_two_engines_and_add_up() {
    for workers in [1, 2, 3] {
        let a = lab(workers, || Honest);
        a.engine.apply(&tunnel(4)).unwrap();
        a.send(50, 4);
        let mut wire = Vec::new();
        until("200 packets on the wire", || {
            wire.extend(a.sent());
            wire.len() == 200
        });
        let b = lab(workers, || Honest);
        b.engine.apply(&far_end(4)).unwrap();
        wire.iter().for_each(|packet| b.arrives(packet));
        let mut inner = Vec::new();
        until("200 packets delivered", || {
            inner.extend(b.tuns.lock().unwrap()[0].host_receives());
            assert_eq!(drops(&b.engine), []);
            inner.len() == 200
        });
        assert!(inner.iter().all(|p| p.len() == 100));
        for engine in [&a.engine, &b.engine] {
            let identities = engine.check().unwrap();
            assert!(identities.iter().all(|i| i.missing() == 0), "{identities:#?}");
        }
        let (sent, received) = (a.engine.links().unwrap(), b.engine.links().unwrap());
        assert_eq!((sent[0].stats.tx_packets, sent[0].stats.tx_bytes), (200, 20_000));
        assert_eq!((received[0].stats.rx_packets, received[0].stats.rx_bytes), (200, 20_000));
        // A replay of everything is refused, each packet by reason.
        wire.iter().for_each(|packet| b.arrives(packet));
        until("200 duplicates", || dropped(&b.engine, Reason::RxReplayDuplicate) == 200);
        assert_eq!(b.engine.links().unwrap()[0].stats.rx_errors, 200);
    }
}

#[test]
fn each_sa_leaves_in_order_whoever_reads_it() {
    let a = lab(3, || Honest);
    a.engine.apply(&tunnel(5)).unwrap();
    let mut wire = Vec::new();
    for round in 1..=10 {
        a.send(20, 5);
        until("a round on the wire", || {
            wire.extend(a.net.iter().map(|n| n.sent()));
            wire.iter().flatten().count() == round * 100
        });
    }
    let mut last = std::collections::HashMap::new();
    for packet in wire.iter().flatten() {
        let (spi, seq) = uvti_core::esp::peek(&packet.packet[20..]).unwrap();
        assert_eq!(seq, last.insert(spi, seq).unwrap_or(0) + 1, "SPI {spi}");
    }
    assert_eq!(last.len(), 5);
}

#[test]
fn what_cannot_be_used_of_the_host_is_dropped_by_reason() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    let tun = a.tuns.lock().unwrap()[0].clone();
    let packet = testing::udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100);
    for kind in [Kind::Misfit, Kind::Packet, Kind::Truncated] {
        tun.host_sends_as(&packet, kind);
    }
    until("three packets", || tx_in(&a.engine) == 3);
    until("one sent", || a.sent().len() == 1);
    assert_eq!(drops(&a.engine), [(Reason::TxNoRoom, 1), (Reason::TxBadOffload, 1)]);
    assert!(a.engine.check().unwrap().iter().all(|identity| identity.missing() == 0));
}

#[test]
fn failed_sends_are_dropped_by_reason_and_the_sender_is_told() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    let refused = Outcome::Failed(crate::io::Errno::PERM);
    a.net[0].script([Outcome::Sent, Outcome::QueueFull, Outcome::TooBig, refused]);
    a.send(5, 1);
    until("five packets", || tx_in(&a.engine) == 5);
    until("two sent", || a.engine.links().unwrap()[0].stats.tx_packets == 3);
    for reason in [Reason::TxLowerQueueFull, Reason::TxLowerTooBig, Reason::TxSendFailed] {
        assert_eq!(dropped(&a.engine, reason), 1, "{reason}");
    }
    // kernel: NET_XMIT_DROP below counts as one packet and one byte sent.
    assert_eq!(a.engine.links().unwrap()[0].stats.tx_bytes, 201);
    // No policy: the sender gets host-unreachable.
    let engine = a.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    a.send(1, 2);
    let message = a.icmp.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((message.bytes[0], message.bytes[1], message.dst), (3, 1, "10.1.0.2".parse().unwrap()));
    a.engine.stop();
    upkeep.join().unwrap();
}

/// SPI, policy index and reason of every row, and how many packets.
fn attributed(engine: &Engine) -> Vec<(Option<u32>, Option<u32>, Reason, u64)> {
    let drops = engine.drops().unwrap();
    for reason in Reason::ALL {
        let dense: u64 = drops.rows.iter().map(|r| r.cells.dropped(*reason)).sum();
        let rows = drops.attributed.iter().filter(|r| r.key.reason == *reason);
        assert_eq!(rows.map(|r| r.packets).sum::<u64>(), dense, "{reason}");
    }
    let row = |r: &AttributedRow| {
        (r.sa.map(|s| s.id.spi.0), r.policy.as_ref().map(|p| p.index), r.key.reason, r.packets)
    };
    let mut rows: Vec<_> = drops.attributed.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn drops_are_attributed_wherever_they_happen() {
    let a = lab(2, || Honest);
    let mut ops = tunnel(2);
    ops.push(Op::PolicyAdd(Box::new(policy(Direction::Out, LOCAL, REMOTE, 77, "10.2.7.0/24"))));
    a.engine.apply(&ops).unwrap();
    let refused = Outcome::Failed(crate::io::Errno::PERM);
    let out = |i: usize| a.engine.tables().policies.of(Direction::Out)[i].spec.index;
    a.net.iter().for_each(|n| n.script([refused; 2]));
    a.send(1, 2);
    until("two refused", || dropped(&a.engine, Reason::TxSendFailed) == 2);
    let tun = a.tuns.lock().unwrap()[0].clone();
    for net in ["10.2.7.1", "10.9.9.9", "10.2.7.1"] {
        tun.host_sends(&testing::udp4("10.1.0.2", net, 1, 2, 100));
    }
    until("three dropped", || tx_in(&a.engine) == 5 && dropped(&a.engine, Reason::TxNoSa) == 2);
    let mut expected = vec![
        (Some(0x1000), Some(out(0)), Reason::TxSendFailed, 1),
        (Some(0x1001), Some(out(1)), Reason::TxSendFailed, 1),
        (None, Some(out(2)), Reason::TxNoSa, 2),
        (None, None, Reason::TxNoPolicy, 1),
    ];
    expected.sort_unstable();
    assert_eq!(attributed(&a.engine), expected);
}

#[test]
fn a_successor_does_not_inherit_drops() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    let spec = sa(LOCAL, REMOTE, 0x1000);
    for life in 1..=3 {
        a.net[0].script([Outcome::QueueFull]);
        a.send(1, 1);
        until("one refused", || dropped(&a.engine, Reason::TxLowerQueueFull) == life);
        a.engine.apply(&[Op::StateDel(spec.id()), Op::StateAdd(Box::new(spec.clone()))]).unwrap();
    }
    let rows = attributed(&a.engine);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|(spi, .., packets)| (*spi, *packets) == (Some(0x1000), 1)), "{rows:?}");
}

#[test]
fn every_queue_has_a_name_and_tells_its_marks() {
    let a = lab(2, || Honest);
    a.engine.apply(&tunnel(8)).unwrap();
    a.send(40, 8);
    until("all sent", || a.engine.links().unwrap()[0].stats.tx_packets == 320);
    let queues = a.engine.queues().unwrap();
    let names: Vec<_> = queues.iter().map(|q| q.name.as_str()).collect();
    let of = |i: u8| {
        ["to worker N", "held by worker N for others", "buffers back to worker N", "control of worker N"]
            .map(|name| name.replace('N', &i.to_string()))
    };
    let mut expected: Vec<String> =
        ["vti0 from the host", "vti0 to the host", "sockets of worker 0", "sockets of worker 1"]
            .map(String::from)
            .into();
    expected.extend(of(0).into_iter().chain(of(1)));
    expected.push("ICMP errors and expiries".into());
    assert_eq!(names, expected);
    let queue = |name: &str| queues.iter().find(|q| q.name == name).unwrap();
    // Of eight SAs some are at home at the second worker, and only the first one reads.
    assert!(queue("to worker 1").high_water > Some(0), "{queues:#?}");
    assert_eq!(queue("to worker 0").high_water, Some(0));
    assert_eq!(queue("to worker 1").depth, Some(0));
    assert!(queues.iter().all(|q| q.drops == 0), "{queues:#?}");
}

#[test]
fn events_that_nobody_takes_are_counted_where_they_had_no_room() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    let tun = a.tuns.lock().unwrap()[0].clone();
    // Nobody runs the upkeep; each sender is told.
    for i in 0..EVENTS + 10 {
        let sender = format!("10.1.{}.{}", i / 250, 1 + i % 250);
        tun.host_sends(&testing::udp4(&sender, "10.9.9.9", 1, 2, 100));
    }
    until("all dropped", || dropped(&a.engine, Reason::TxNoPolicy) == EVENTS as u64 + 10);
    let queues = a.engine.queues().unwrap();
    let events = queues.last().unwrap();
    let marks = (events.depth, events.high_water, events.capacity, events.drops);
    assert_eq!(marks, (Some(1024), Some(1024), Some(1024), 10));
}

#[test]
fn an_sa_that_is_used_up_is_gone() {
    let a = lab(1, || Honest);
    let mut ops = tunnel(1);
    let Op::StateAdd(out) = &mut ops[1] else { panic!() };
    out.limits.hard_packets = 3;
    a.engine.apply(&ops).unwrap();
    let engine = a.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    a.send(6, 1);
    until("six packets", || tx_in(&a.engine) == 6);
    until("one expired, two without an SA", || dropped(&a.engine, Reason::TxNoSa) == 2);
    assert_eq!(dropped(&a.engine, Reason::TxSaExpired), 1);
    until("the SA is out of the tables", || a.engine.tables().states.len() == 1);
    a.engine.stop();
    upkeep.join().unwrap();
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let a = lab(1, || Honest);
    let mut ops = tunnel(1);
    ops.push(ops[1].clone());
    let (index, refusal) = a.engine.apply(&ops).unwrap_err();
    assert_eq!((index, refusal), (5, Refusal::errno(Errno::Exists)));
    assert!(a.engine.links().unwrap().is_empty());
    assert!(a.engine.tables().states.is_empty());
    a.engine.apply(&ops[..5]).unwrap();
    a.engine.apply(&[Op::LinkDel { name: "vti0".into() }]).unwrap();
    assert!(a.engine.links().unwrap().is_empty());
}

#[test]
fn honest_workers_pass_the_check_under_load() {
    let a = lab(2, || Honest);
    a.engine.apply(&tunnel(4)).unwrap();
    for _ in 0..20 {
        a.send(10, 5);
        let identities = a.engine.check().unwrap();
        assert!(identities.iter().all(|i| i.missing() == 0), "{identities:#?}");
    }
    until("all read", || tx_in(&a.engine) == 1000);
    assert_eq!(dropped(&a.engine, Reason::TxNoPolicy), 200);
}
