//! Packets that wait for an SA, and who is asked for it.

use super::tests::{LOCAL, Lab, REMOTE, check, dropped, lab, sa, tunnel, tx_in, until};
use crate::account::Count;
use crate::engine::{Notice, Topics};
use crate::worker::tamper::Honest;
use std::time::Duration;
use uvti_core::packet::Outer;
use uvti_core::packet::testing::{set_df, udp4};
use uvti_core::reason::{LinkStats, Mib, Reason, Way};
use uvti_core::tables::Op;
use uvti_core::xfrm::{Direction, Mark, PolicyId, StateSpec};

/// A tunnel of which the SA for output is not there yet, and packets wait for it.
fn waiting(workers: u16) -> (Lab, StateSpec) {
    let a = lab(workers, || Honest);
    let mut ops = tunnel(1);
    ops.remove(1);
    a.engine.apply(&ops).unwrap();
    a.engine.set_sysctl("net.core.xfrm_larval_drop", "0").unwrap();
    (a, sa(LOCAL, REMOTE, 0x1000))
}

fn stats(a: &Lab) -> LinkStats {
    a.engine.links().unwrap()[0].stats
}

fn of(a: &Lab, count: Count) -> u64 {
    a.engine.totals().unwrap().all.of(Way::Tx, count)
}

fn add(a: &Lab, spec: &StateSpec) {
    a.engine.apply(&[Op::StateAdd(Box::new(spec.clone()))]).unwrap();
}

/// Scenario tx_nosa_larval0_then_sa: counted as sent when they begin to wait, and not again when they are.
#[test]
fn packets_wait_for_their_sa_wherever_it_lives() {
    for workers in [1, 3] {
        let (a, spec) = waiting(workers);
        a.send(5, 1);
        until("five packets wait", || of(&a, Count::Held) == 5);
        check(&a);
        assert_eq!((stats(&a).tx_packets, stats(&a).tx_bytes, a.sent().len()), (5, 500, 0));
        add(&a, &spec);
        let mut wire = Vec::new();
        until("five packets on the wire", || {
            wire.extend(a.sent());
            wire.len() == 5
        });
        until("none waits", || of(&a, Count::OutHeld) == 5);
        check(&a);
        assert_eq!(stats(&a), LinkStats { tx_packets: 5, tx_bytes: 500, ..LinkStats::default() });
        a.send(5, 1);
        until("five more on the wire", || stats(&a).tx_packets == 10);
        assert_eq!((of(&a, Count::Out), of(&a, Count::Held)), (5, 0));
    }
}

/// Scenario tx_nosa_larval0_overflow; the places are free again once the packets have gone.
#[test]
fn a_hundred_and_one_packets_wait_for_a_policy() {
    let (a, spec) = waiting(1);
    a.send(120, 1);
    until("all decided", || dropped(&a.engine, Reason::TxHoldQueueFull) == 19);
    let counted = LinkStats {
        tx_packets: 101,
        tx_bytes: 10_100,
        tx_errors: 19,
        tx_aborted_errors: 19,
        ..LinkStats::default()
    };
    assert_eq!((stats(&a), of(&a, Count::Held)), (counted, 101));
    add(&a, &spec);
    until("all sent", || of(&a, Count::OutHeld) == 101);
    a.engine.apply(&[Op::StateDel(spec.id())]).unwrap();
    a.send(101, 1);
    until("there is room again", || of(&a, Count::Held) == 101);
    assert_eq!(dropped(&a.engine, Reason::TxHoldQueueFull), 19);
    check(&a);
}

/// Scenario tx_larval0_toobig_then_sa: behind the VTI a packet that is too big is an error of the mode, and the sender
/// is told the size.
#[test]
fn a_packet_that_waited_may_be_too_big() {
    let (a, spec) = waiting(1);
    let mut big = udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 1470);
    set_df(&mut big);
    a.tuns.lock().unwrap()[0].host_sends(&big);
    until("it waits", || of(&a, Count::Held) == 1);
    let engine = a.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    add(&a, &spec);
    let message = a.icmp.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((&message.bytes[..2], &message.bytes[6..8]), (&[3, 4][..], &1446u16.to_be_bytes()[..]));
    until("it is dropped", || dropped(&a.engine, Reason::TxHeldTooBig) == 1);
    assert_eq!(a.engine.totals().unwrap().all.mib(Mib::OutStateModeError), 1);
    assert_eq!(stats(&a), LinkStats { tx_packets: 1, tx_bytes: 1470, ..LinkStats::default() });
    check(&a);
    a.engine.stop();
    upkeep.join().unwrap();
}

#[test]
fn what_waits_goes_with_its_policy_or_device() {
    let (a, _) = waiting(1);
    a.send(5, 1);
    until("five packets wait", || of(&a, Count::Held) == 5);
    let spec = a.engine.tables().policies.newest_first()[1].spec.clone();
    let id = PolicyId::Index { index: spec.index, dir: spec.dir, mark: spec.mark, if_id: 0 };
    a.engine.apply(&[Op::PolicyDel(id)]).unwrap();
    until("dropped at the next look", || dropped(&a.engine, Reason::TxHeldPurged) == 5);
    check(&a);
    a.engine.apply(&[Op::PolicyAdd(Box::new(spec))]).unwrap();
    a.send(5, 1);
    until("five packets wait", || of(&a, Count::Held) == 5);
    a.engine.apply(&[Op::LinkDel { name: "vti0".into() }]).unwrap();
    until("dropped with the device", || dropped(&a.engine, Reason::TxDeviceGone) == 5);
    check(&a);
}

/// The clock is advanced past each look; how long they are is a test of the queue's own.
#[test]
fn what_waits_in_vain_is_dropped() {
    let (a, spec) = waiting(2);
    a.send(5, 1);
    until("five packets wait", || of(&a, Count::Held) == 5);
    let mut looks = 0;
    until("all dropped", || {
        looks += 1;
        a.engine.set_clock_ahead(looks * 103);
        dropped(&a.engine, Reason::TxHeldPurged) == 5
    });
    check(&a);
    assert_eq!((stats(&a).tx_packets, of(&a, Count::Held), a.sent().len()), (5, 0, 0));
    // The policy has room again, and an SA that comes now is for the next packets.
    add(&a, &spec);
    a.send(5, 1);
    until("five on the wire", || of(&a, Count::Out) == 5);
    check(&a);
}

/// Scenario tx_nosa_km: one acquire for five packets; they are dropped all the same.
#[test]
fn a_key_manager_is_asked_once() {
    let a = lab(1, || Honest);
    let mut ops = tunnel(1);
    ops.remove(1);
    a.engine.apply(&ops).unwrap();
    let monitor = a.engine.monitor(Topics::ALL);
    let engine = a.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    a.send(5, 1);
    let Ok(Notice::Acquire { larval, policy }) = monitor.notices.recv_timeout(Duration::from_secs(10)) else {
        panic!("no acquire")
    };
    assert_eq!((larval.spec.reqid, larval.spec.spi.0, larval.spec.seq.to_be()), (0x1000, 0, 1));
    assert_eq!(policy.spec.templates[0].reqid, 0x1000);
    a.send(5, 1);
    until("ten packets", || tx_in(&a.engine) == 10);
    until("all dropped", || dropped(&a.engine, Reason::TxNoSa) == 10);
    assert!(monitor.notices.try_recv().is_err(), "in progress");
    assert_eq!(a.engine.tables().state_infos().len(), 2);
    // A state without the policy's mark would not deliver the one that was asked for.
    add(&a, &StateSpec { mark: policy.spec.mark, ..sa(LOCAL, REMOTE, 0x1000) });
    assert_eq!(a.engine.tables().states.larvals.iter().count(), 0);
    drop(monitor);
    until("nobody listens", || !a.engine.tables().settings.key_manager);
    a.engine.stop();
    upkeep.join().unwrap();
}

/// Scenario tx_expire_soft: one notice, and the SA goes on.
#[test]
fn a_soft_limit_is_told_once() {
    let a = lab(1, || Honest);
    let mut ops = tunnel(1);
    let Op::StateAdd(out) = &mut ops[1] else { panic!() };
    out.limits.soft_packets = 2;
    a.engine.apply(&ops).unwrap();
    let monitor = a.engine.monitor(Topics::ALL);
    let engine = a.engine.clone();
    let upkeep = std::thread::spawn(move || engine.upkeep(|| false));
    a.send(5, 1);
    let Ok(Notice::Expired { state, hard: false }) = monitor.notices.recv_timeout(Duration::from_secs(10))
    else {
        panic!("no notice")
    };
    assert_eq!(state.spec.spi.0, 0x1000);
    until("five sent", || stats(&a).tx_packets == 5);
    a.engine.stop();
    upkeep.join().unwrap();
    assert!(monitor.notices.try_recv().is_err());
}

/// Scenario rx_ipip_plain, and the same from somebody else, which is not ours to count.
#[test]
fn plain_ipip_from_the_far_end_is_counted() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    let outer =
        |src: &str| Outer { src: src.parse().unwrap(), dst: LOCAL.parse().unwrap(), tos: 0, udp: None };
    let inner = udp4("10.2.0.5", "10.1.0.2", 4000, 5000, 100);
    a.net[0].arrive_ipip(outer("198.51.100.9"), &inner);
    (0..3).for_each(|_| a.net[0].arrive_ipip(outer(REMOTE), &inner));
    until("three", || dropped(&a.engine, Reason::RxPlainIpip) == 3);
    let counted = LinkStats { rx_errors: 3, rx_dropped: 3, ..LinkStats::default() };
    assert_eq!((stats(&a), a.engine.totals().unwrap().all.mib(Mib::InNoStates)), (counted, 3));
    check(&a);
}

/// A tunnel whose output policy has no mark.
fn unmarked() -> Vec<Op> {
    let mut ops = tunnel(1);
    for op in &mut ops {
        if let Op::PolicyAdd(policy) = op
            && policy.dir == Direction::Out
        {
            policy.mark = Mark::default();
        }
    }
    ops
}

/// Scenario tx_key1_pol_unmarked: on the wire, and nothing on the device; every packet is accounted for.
#[test]
fn what_an_unmarked_policy_encrypts_is_counted_apart() {
    for workers in [1, 3] {
        let a = lab(workers, || Honest);
        a.engine.apply(&unmarked()).unwrap();
        a.send(5, 1);
        until("five packets have left", || of(&a, Count::OutUnmarked) == 5);
        check(&a);
        assert_eq!((stats(&a), a.sent().len()), (LinkStats::default(), 5));
        assert_eq!(of(&a, Count::Out), 0);
    }
}

/// Scenario tx_unmarked_larval0: while it waits, too.
#[test]
fn what_waits_for_an_unmarked_policys_sa_is_not_counted_on_the_device() {
    for workers in [1, 3] {
        let a = lab(workers, || Honest);
        let mut ops = unmarked();
        ops.remove(1);
        a.engine.apply(&ops).unwrap();
        a.engine.set_sysctl("net.core.xfrm_larval_drop", "0").unwrap();
        a.send(5, 1);
        until("five packets wait", || of(&a, Count::Held) == 5);
        check(&a);
        add(&a, &sa(LOCAL, REMOTE, 0x1000));
        until("none waits", || of(&a, Count::OutHeld) == 5);
        check(&a);
        assert_eq!((stats(&a), a.sent().len()), (LinkStats::default(), 5));
    }
}
