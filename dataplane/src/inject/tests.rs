//! Each fault makes the counters show what a kernel's showed where the fault was real. The numbers are those of
//! `tests/data/kernel-6.12.jsonl`, by the name of the scenario.

use super::*;
use crate::engine::tests::{LOCAL, MemoryHost, REMOTE, Tuns, dropped, tunnel, until};
use crate::engine::{Config, Engine};
use crate::io::memory::{MemoryTun, MemoryUnderlay, SentPacket};
use crate::worker::tamper::Honest;
use uvti_core::packet::tos::EcnRule;
use uvti_core::packet::{Outer, testing};
use uvti_core::reason::{LinkStats, Mib, Reason};
use uvti_core::xfrm::Direction;

/// An engine with faults, its device and its network.
struct Lab {
    engine: Arc<Engine>,
    injector: Injector,
    tuns: Tuns,
    net: MemoryUnderlay,
}

const OUT: u32 = 0x1000;

fn lab(ops: &[Op]) -> Lab {
    let (tuns, net) = (Tuns::default(), MemoryUnderlay::new().unwrap());
    let mut hooks = Hooks::default();
    let host = hooks.host(Box::new(MemoryHost { tuns: tuns.clone(), icmp: unbounded().0 }));
    let underlays = vec![hooks.underlay(Box::new(net.clone()))];
    let config = Config {
        workers: 1,
        keep_devices: false,
        attribution_rows: 64,
        record: 16,
        unmarked: uvti_core::tables::Unmarked::Host,
        ecn: EcnRule::Kernel,
    };
    let engine = Engine::start(config, host, underlays, || Honest).unwrap();
    engine.apply(ops).unwrap();
    Lab { injector: hooks.injector(engine.clone()), engine, tuns, net }
}

/// The end that sends.
fn sender() -> Lab {
    lab(&tunnel(1))
}

/// The other end of [`sender`]'s tunnel, with a window of 32.
fn receiver() -> Lab {
    let mut ops = tunnel(1);
    for op in &mut ops {
        match op {
            Op::LinkAdd(spec) => std::mem::swap(&mut spec.local, &mut spec.remote),
            Op::StateAdd(spec) => spec.replay_window = 32,
            Op::PolicyAdd(p) if p.dir == Direction::In => {
                std::mem::swap(&mut p.sel.src, &mut p.sel.dst);
                let t = &mut p.templates[0];
                std::mem::swap(&mut t.src, &mut t.dst);
            }
            _ => {}
        }
    }
    lab(&ops)
}

impl Lab {
    fn tun(&self) -> MemoryTun {
        self.tuns.lock().unwrap()[0].clone()
    }

    /// The host sends `n` packets of `size` bytes; waits until each is sent or dropped.
    fn send(&self, n: usize, size: usize) -> Vec<SentPacket> {
        let before = self.seen();
        let mut packet = testing::udp4("10.1.0.2", "10.2.0.5", 4000, 5000, size);
        testing::set_df(&mut packet);
        (0..n).for_each(|_| self.tun().host_sends(&packet));
        until("all sent or dropped", || self.seen() == before + n as u64);
        self.net.sent()
    }

    /// The network delivers `packets`; waits until `n` more are received or dropped.
    fn receive(&self, packets: &[SentPacket], n: usize) {
        let before = self.seen();
        let outer = Outer { src: LOCAL.parse().unwrap(), dst: REMOTE.parse().unwrap(), tos: 0, udp: None };
        packets.iter().for_each(|p| self.net.arrive(outer, &p.packet[20..]));
        until("all received or dropped", || self.seen() >= before + n as u64);
        assert_eq!(self.seen(), before + n as u64);
    }

    fn link(&self) -> LinkStats {
        self.engine.links().unwrap()[0].stats
    }

    fn seen(&self) -> u64 {
        let s = self.link();
        s.tx_packets + s.tx_errors + s.rx_packets + s.rx_errors
    }

    fn xfrm(&self) -> Vec<(&'static str, u64)> {
        let all = self.engine.totals().unwrap().all;
        Mib::ALL.iter().map(|m| (m.name(), all.mib(*m))).filter(|(_, n)| *n > 0).collect()
    }

    fn inject(&self, fault: Fault) {
        self.injector.inject(fault).unwrap();
    }

    fn clear(&self) -> Vec<String> {
        self.injector.clear(None).unwrap()
    }
}

fn remote() -> IpAddr {
    REMOTE.parse().unwrap()
}

/// A fault of what is sent: with it `sent` packets of `size` bytes count so; without it the next is sent.
fn sending(fault: Fault, sent: usize, size: usize, link: LinkStats, xfrm: &[(&str, u64)]) {
    let lab = sender();
    lab.inject(fault.clone());
    lab.send(sent, size);
    assert_eq!((lab.link(), lab.xfrm().as_slice()), (link, xfrm), "{fault}");
    lab.clear();
    assert_eq!(lab.send(1, 100).len(), 1, "{fault}");
    assert_eq!(lab.xfrm().as_slice(), xfrm, "{fault}");
}

const NO_STATES: &[(&str, u64)] = &[("XfrmOutNoStates", 5)];

fn carrier(n: u64) -> LinkStats {
    LinkStats { tx_errors: n, tx_carrier_errors: n, ..LinkStats::default() }
}

#[test]
fn faults_of_tables_and_routes_when_sending() {
    let (dst, spi) = (remote(), Spi(OUT));
    // tx_nosa
    sending(Fault::DropSa { dst, spi }, 5, 100, carrier(5), NO_STATES);
    // tx_sa_transport_tmpl_tunnel
    sending(Fault::WrongMode { dst, spi }, 5, 100, carrier(5), NO_STATES);
    // tx_outer_noroute
    sending(Fault::NoRoute { dev: None }, 5, 100, carrier(5), &[("XfrmOutBundleGenError", 5)]);
    // tx_loop_self
    let loops = LinkStats { tx_errors: 5, collisions: 5, ..LinkStats::default() };
    sending(Fault::LoopRoute { dev: Some("vti0".into()) }, 5, 100, loops, &[]);
    // tx_big_df_fwd: 1470 bytes through 1500; here 1270 through 1300, of which ESP leaves 1246.
    let too_big = LinkStats { tx_errors: 5, ..LinkStats::default() };
    sending(Fault::SmallMtu { mtu: 1300, dev: None }, 5, 1270, too_big, &[]);
}

#[test]
fn an_expired_sa_counts_once_and_is_gone_then() {
    // tx_expire_packets_nokm: three pass, one finds the limit, two find no SA.
    let lab = sender();
    let engine = lab.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    lab.send(3, 100);
    lab.inject(Fault::Expire { dst: remote(), spi: Spi(OUT) });
    lab.send(1, 100);
    until("the SA is out of the tables", || lab.engine.tables().states.len() == 1);
    lab.send(2, 100);
    let link = LinkStats {
        tx_packets: 3,
        tx_bytes: 300,
        tx_errors: 3,
        tx_aborted_errors: 1,
        tx_carrier_errors: 2,
        ..LinkStats::default()
    };
    assert_eq!(lab.link(), link);
    assert_eq!(lab.xfrm(), [("XfrmOutNoStates", 2), ("XfrmOutStateExpired", 1)]);
    assert_eq!(
        lab.clear(),
        ["1 expire 198.51.100.2 0x1000: the SA 198.51.100.1 > 198.51.100.2 SPI 0x1000 is back"]
    );
    // The numbers go on: 4 was never sent, 1 to 3 are not used again.
    let sent = lab.send(1, 100);
    assert_eq!(uvti_core::esp::peek(&sent[0].packet[20..]).unwrap(), (Spi(OUT), 4));
    lab.engine.stop();
    upkeep.join().unwrap();
}

#[test]
fn a_full_queue_is_no_error_of_the_link() {
    // tx_lower_qdisc_drop: a packet that the queue below drops counts as one packet of one byte.
    let lab = sender();
    lab.inject(Fault::FullQueue { n: 10 });
    assert_eq!(lab.send(20, 100).len(), 10);
    let link = LinkStats { tx_packets: 20, tx_bytes: 1010, ..LinkStats::default() };
    assert_eq!((lab.link(), lab.xfrm()), (link, vec![]));
    assert!(lab.injector.list().is_empty(), "it has met all its packets");
}

#[test]
fn time_that_passes_ends_an_sa_without_an_expiry() {
    // tx_expire_time: two before, three after.
    let mut ops = tunnel(1);
    let Op::StateAdd(out) = &mut ops[1] else { panic!() };
    out.limits.hard_add_seconds = 3600;
    let lab = lab(&ops);
    let engine = lab.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    lab.send(2, 100);
    lab.inject(Fault::Clock { seconds: 1800 });
    lab.inject(Fault::Clock { seconds: 1801 });
    until("the SA is out of the tables", || lab.engine.tables().states.len() == 1);
    lab.send(3, 100);
    let link = LinkStats { tx_packets: 2, tx_bytes: 200, ..carrier(3) };
    assert_eq!((lab.link(), lab.xfrm()), (link, vec![("XfrmOutNoStates", 3)]));
    lab.clear();
    lab.engine.apply(&[ops[1].clone()]).unwrap();
    assert_eq!(lab.send(1, 100).len(), 1, "by the host's clock it is young");
    lab.engine.stop();
    upkeep.join().unwrap();
}

/// What a kernel counts for `good` packets of 100 bytes and `bad` ones.
fn received(good: u64, bad: u64) -> LinkStats {
    LinkStats {
        rx_packets: good,
        rx_bytes: 100 * good,
        rx_errors: bad,
        rx_dropped: bad,
        ..LinkStats::default()
    }
}

/// A fault of what arrives: five packets count so; without it a later one is received.
fn receiving(fault: Fault, bad: u64, xfrm: &[(&str, u64)]) {
    let (from, to) = (sender(), receiver());
    let wire = from.send(6, 100);
    to.inject(fault.clone());
    to.receive(&wire[..5], 5);
    assert_eq!((to.link(), to.xfrm().as_slice()), (received(5 - bad, bad), xfrm), "{fault}");
    to.clear();
    to.receive(&wire[5..], 1);
    assert_eq!((to.link(), to.xfrm().as_slice()), (received(6 - bad, bad), xfrm), "{fault}");
}

#[test]
fn faults_of_packets_and_tables_when_receiving() {
    let (dst, spi) = (remote(), Spi(OUT));
    // rx_unknown_spi
    receiving(Fault::DropSa { dst, spi }, 5, &[("XfrmInNoStates", 5)]);
    // rx_sa_transport
    receiving(Fault::WrongMode { dst, spi }, 5, &[("XfrmInStateModeError", 5)]);
    // rx_expire_packets: one finds the limit, the others no SA.
    let expired = &[("XfrmInNoStates", 4), ("XfrmInStateExpired", 1)];
    receiving(Fault::Expire { dst, spi }, 5, expired);
    // rx_bad_icv
    let all = Some(spi);
    receiving(Fault::Icv { n: 9, spi: all }, 5, &[("XfrmInStateProtoError", 5)]);
    receiving(Fault::Icv { n: 2, spi: None }, 2, &[("XfrmInStateProtoError", 2)]);
    receiving(Fault::Icv { n: 2, spi: Some(Spi(7)) }, 0, &[]);
    // rx_trunc_24, rx_trunc_8, rx_trunc_4
    for (bytes, mib) in [(24, "XfrmInStateProtoError"), (8, "XfrmInStateProtoError"), (4, "XfrmInHdrError")] {
        receiving(Fault::Truncate { n: 5, spi: None, bytes }, 5, &[(mib, 5)]);
    }
}

#[test]
fn a_duplicate_and_an_old_number_are_replays() {
    let (from, to) = (sender(), receiver());
    let wire = from.send(42, 100);
    // rx_replay: 1, 1, 1; here each of two twice.
    to.inject(Fault::Duplicate { n: 2, spi: None });
    to.receive(&wire[..2], 4);
    assert_eq!((to.link(), to.xfrm()), (received(2, 2), vec![("XfrmInStateSeqError", 2)]));
    assert_eq!(dropped(&to.engine, Reason::RxReplayDuplicate), 2);
    to.receive(&wire[2..40], 38);
    // rx_replay_old: left of the window.
    to.inject(Fault::OldSequence { n: 2, spi: None });
    to.receive(&wire[40..], 2);
    assert_eq!((to.link(), to.xfrm()), (received(40, 4), vec![("XfrmInStateSeqError", 4)]));
    assert_eq!(dropped(&to.engine, Reason::RxReplayOld), 2);
}

#[test]
fn an_sa_put_back_goes_on_with_its_numbers_and_its_window() {
    let (from, to) = (sender(), receiver());
    let mut wire = from.send(3, 100);
    to.receive(&wire, 3);
    for (lab, fault) in [
        (&from, Fault::DropSa { dst: remote(), spi: Spi(OUT) }),
        (&to, Fault::WrongMode { dst: remote(), spi: Spi(OUT) }),
    ] {
        lab.inject(fault);
        lab.clear();
    }
    wire.extend(from.send(1, 100));
    to.receive(&wire, 4);
    assert_eq!((to.link(), to.xfrm()), (received(4, 3), vec![("XfrmInStateSeqError", 3)]));
}

#[test]
fn what_somebody_else_has_changed_is_left_alone() {
    let lab = sender();
    let (dst, spi) = (remote(), Spi(OUT));
    lab.inject(Fault::DropSa { dst, spi });
    lab.engine.apply(&tunnel(1)[1..2]).unwrap();
    let left = "the SA 198.51.100.1 > 198.51.100.2 SPI 0x1000 was changed since, and is left alone";
    assert_eq!(lab.clear(), [format!("1 drop-sa 198.51.100.2 0x1000: {left}")]);
    lab.inject(Fault::WrongMode { dst, spi });
    let id = lab.engine.tables().states.any_mark(dst, spi, uvti_core::xfrm::Proto::Esp).unwrap().spec.id();
    lab.engine.apply(&[Op::StateDel(id)]).unwrap();
    assert_eq!(lab.clear(), [format!("2 wrong-mode 198.51.100.2 0x1000: {left}")]);
    assert_eq!(lab.engine.tables().states.len(), 1);
}

#[test]
fn faults_are_listed_and_cleared_by_number_and_wrong_ones_are_refused() {
    let lab = sender();
    lab.inject(Fault::NoRoute { dev: None });
    lab.inject(Fault::Icv { n: 7, spi: Some(Spi(OUT)) });
    let shown: Vec<String> =
        lab.injector.list().iter().map(|i| format!("{} {}: {}", i.number, i.fault, i.effect)).collect();
    assert_eq!(shown, ["1 no-route: until cleared", "2 icv 7 --spi 0x1000: the next 7 packets"]);
    assert_eq!(lab.injector.clear(Some(1)).unwrap(), ["1 no-route: the host's routes hold again"]);
    assert!(matches!(lab.injector.clear(Some(1)), Err(InjectError::NoSuchFault(1))));
    assert_eq!(lab.clear(), ["2 icv 7 --spi 0x1000: 7 packets are spared"]);
    assert!(lab.clear().is_empty());
    let none = lab.injector.inject(Fault::DropSa { dst: remote(), spi: Spi(1) });
    assert!(matches!(none, Err(InjectError::NoSa { .. })));
    let none = lab.injector.inject(Fault::NoRoute { dev: Some("vti9".into()) });
    assert!(matches!(none, Err(InjectError::NoDevice(Some(_)))));
}
