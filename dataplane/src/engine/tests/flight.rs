//! What the flight recorder has of drops in whole engines.

use super::*;
use crate::account::{BUCKET, Record};
use std::time::{SystemTime, UNIX_EPOCH};

fn recorded(engine: &Engine, reason: Reason) -> Vec<Record> {
    engine.flight().after(&[], Some(reason), usize::MAX).records
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

#[test]
fn a_received_packet_has_its_outer_header_until_it_is_opened() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    a.send(1, 1);
    let mut wire = Vec::new();
    until("a packet on the wire", || {
        wire.extend(a.sent());
        wire.len() == 1
    });
    let esp = &wire[0][20..];
    // The far end has no policy that lets it in.
    let b = lab(2, || Honest);
    let mut ops = tunnel(1);
    ops.truncate(3);
    let Op::LinkAdd(spec) = &mut ops[0] else { panic!() };
    std::mem::swap(&mut spec.local, &mut spec.remote);
    b.engine.apply(&ops).unwrap();
    let outer = Outer { src: LOCAL.parse().unwrap(), dst: REMOTE.parse().unwrap(), tos: 8, udp: None };
    b.net[0].arrive(outer, esp);
    until("no policy", || dropped(&b.engine, Reason::RxNoPolicy) == 1);
    b.net[0].arrive(outer, esp);
    until("a duplicate", || dropped(&b.engine, Reason::RxReplayDuplicate) == 1);

    let opened = recorded(&b.engine, Reason::RxNoPolicy).remove(0);
    assert_eq!((opened.outer, opened.sa.unwrap().id.spi), (None, Spi(0x1000)));
    assert_eq!(opened.packet[..], testing::udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100)[..]);
    let closed = recorded(&b.engine, Reason::RxReplayDuplicate).remove(0);
    assert_eq!((closed.outer, &closed.packet[..]), (Some(outer), esp));
    assert_eq!(b.engine.device_names()[&closed.device], "vti0");
}

#[test]
fn a_sent_packet_is_recorded_as_it_was_when_it_was_dropped() {
    let a = lab(1, || Honest);
    a.engine.apply(&tunnel(1)).unwrap();
    a.net[0].script([Outcome::QueueFull]);
    a.send(1, 2);
    until("both dropped", || drops(&a.engine).iter().map(|(_, n)| n).sum::<u64>() == 2);
    let sealed = recorded(&a.engine, Reason::TxLowerQueueFull).remove(0);
    assert_eq!((sealed.packet[9], &sealed.packet[20..24]), (50, &0x1000_u32.to_be_bytes()[..]));
    assert_eq!((sealed.sa.unwrap().reqid, sealed.policy.unwrap().spec.dir), (0x1000, Direction::Out));
    let refused = recorded(&a.engine, Reason::TxNoPolicy).remove(0);
    assert_eq!(refused.packet[..], testing::udp4("10.1.0.2", "10.2.1.5", 4000, 5000, 100)[..]);
    assert!(now() - refused.time < 60_000_000_000);
}

#[test]
fn the_history_is_as_exact_as_the_totals() {
    let a = lab(2, || Honest);
    a.engine.apply(&tunnel(2)).unwrap();
    a.send(500, 4);
    until("all read", || tx_in(&a.engine) == 2000);
    until("1000 of them counted", || {
        let history = a.engine.flight().history(now() / BUCKET);
        history.iter().map(|(r, buckets)| (*r, buckets.values().sum())).eq([(Reason::TxNoPolicy, 1000)])
    });
    assert_eq!(dropped(&a.engine, Reason::TxNoPolicy), 1000);
    assert_eq!(recorded(&a.engine, Reason::TxNoPolicy).len(), 16);
}
