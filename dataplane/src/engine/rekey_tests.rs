//! A rekey loses nothing: SAs follow one another under traffic, and every packet arrives, once.

use super::tests::{LOCAL, Lab, REMOTE, check, drops, far_end, lab, sa, tunnel, until};
use crate::worker::tamper::Honest;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use uvti_core::packet::testing;
use uvti_core::tables::Op;
use uvti_core::xfrm::StateSpec;

const REKEYS: u32 = 1000;
/// Packets that may be under way.
const WINDOW: u64 = 256;
/// Where the number of a packet stands: the first bytes behind IP and UDP.
const NUMBER: std::ops::Range<usize> = 28..36;

/// The SA of a generation, each with an SPI of its own and the template's reqid.
fn generation(n: u32) -> StateSpec {
    StateSpec { reqid: 0x1000, ..sa(LOCAL, REMOTE, 0x1000 + n) }
}

/// A sender and a receiver, and the numbered packets between them.
struct Stream {
    from: Lab,
    to: Lab,
    sent: AtomicU64,
    /// All packets below this number have come.
    arrived: AtomicU64,
    stop: AtomicBool,
}

/// Ends the traffic, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Stream {
    fn new(workers: u16) -> Self {
        let (from, to) = (lab(workers, || Honest), lab(workers, || Honest));
        from.engine.apply(&tunnel(1)).unwrap();
        to.engine.apply(&far_end(1)).unwrap();
        Self { from, to, sent: 0.into(), arrived: 0.into(), stop: false.into() }
    }

    /// Keeps the window full, until the end.
    fn send(&self) {
        let tun = self.from.tuns.lock().unwrap()[0].clone();
        let mut packet = testing::udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100);
        while !self.stop.load(Ordering::SeqCst) {
            let sent = self.sent.load(Ordering::SeqCst);
            if sent - self.arrived.load(Ordering::SeqCst) >= WINDOW {
                thread::yield_now();
                continue;
            }
            packet[NUMBER].copy_from_slice(&sent.to_be_bytes());
            // Counted first: what is on its way by the old SA must be among those that a rekey waits for.
            self.sent.store(sent + 1, Ordering::SeqCst);
            tun.host_sends(&packet);
        }
    }

    /// Carries packets to the far end and takes them there, until all have come: each number, once.
    fn carry(&self) {
        let tun = self.to.tuns.lock().unwrap()[0].clone();
        let (mut seen, mut arrived) = (Vec::new(), 0);
        let mut carry = || {
            self.from.sent().iter().for_each(|packet| self.to.arrives(packet));
            for packet in tun.host_receives() {
                let number = u64::from_be_bytes(packet[NUMBER].try_into().unwrap()) as usize;
                seen.resize(seen.len().max(number + 1), false);
                assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
            }
            while seen.get(arrived) == Some(&true) {
                arrived += 1;
            }
            self.arrived.store(arrived as u64, Ordering::SeqCst);
        };
        while !self.stop.load(Ordering::SeqCst) {
            carry();
            thread::yield_now();
        }
        until("every packet", || {
            carry();
            self.arrived.load(Ordering::SeqCst) == self.sent.load(Ordering::SeqCst)
        });
    }

    /// First the receiver knows the new SA, then the sender has it alone; the receiver gives the old one up when nothing
    /// is under way by it.
    fn rekey(&self, n: u32) {
        let (old, new) = (generation(n - 1), generation(n));
        self.to.engine.apply(&[Op::StateAdd(Box::new(new.clone()))]).unwrap();
        self.from.engine.apply(&[Op::StateAdd(Box::new(new)), Op::StateDel(old.id())]).unwrap();
        let before = self.sent.load(Ordering::SeqCst);
        until("what the old SA carried", || self.arrived.load(Ordering::SeqCst) >= before);
        self.to.engine.apply(&[Op::StateDel(old.id())]).unwrap();
    }
}

#[test]
fn no_packet_is_lost_by_a_thousand_rekeys() {
    for workers in [1, 2] {
        let stream = Stream::new(workers);
        thread::scope(|scope| {
            let _stop = Stop(&stream.stop);
            scope.spawn(|| stream.send());
            scope.spawn(|| stream.carry());
            (1..=REKEYS).for_each(|n| stream.rekey(n));
        });
        for end in [&stream.from, &stream.to] {
            assert_eq!(drops(&end.engine), []);
            check(end);
        }
        assert!(stream.sent.load(Ordering::SeqCst) > u64::from(REKEYS));
    }
}
