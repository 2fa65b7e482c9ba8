//! Faults planted in a worker: `check` must find each, and name the place.

use super::*;

/// Faults, each planted in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    LosesAfterDecision,
    SkipsASegment,
    CountsTwice,
    LosesAHop,
}

struct Planted {
    mutant: Mutant,
    done: bool,
}

impl Planted {
    fn now(&mut self, mutant: Mutant, can: bool) -> bool {
        let now = self.mutant == mutant && can && !self.done;
        self.done |= now;
        now
    }
}

impl Tamper for Planted {
    fn read(&mut self, items: &mut Vec<FromHost>) {
        if self.now(Mutant::SkipsASegment, !items.is_empty()) {
            items.pop();
        }
    }
    fn decided(&mut self, burst: &mut Vec<TxSlot>) {
        if self.now(Mutant::LosesAfterDecision, !burst.is_empty()) {
            burst.pop();
        }
    }
    fn booked(&mut self, n: u64) -> u64 {
        n + u64::from(self.now(Mutant::CountsTwice, n > 0))
    }
    fn hopping(&mut self, packets: &mut Vec<Buf>) {
        if self.now(Mutant::LosesAHop, !packets.is_empty()) {
            packets.pop();
        }
    }
}

#[test]
fn planted_losses_are_found_and_named() {
    let cases = [
        (Mutant::LosesAfterDecision, "vti0 tx worker", 1),
        (Mutant::SkipsASegment, "vti0 tx worker 0", 1),
        (Mutant::CountsTwice, "vti0 tx worker", -1),
        (Mutant::LosesAHop, "hops tx", 1),
    ];
    for (mutant, place, missing) in cases {
        // Only worker 0 has the fault, or both would.
        let first = std::sync::atomic::AtomicBool::new(true);
        let a = lab(2, || Planted { mutant, done: !first.swap(false, Ordering::Relaxed) });
        a.engine.apply(&tunnel(4)).unwrap();
        a.send(20, 4);
        until("all read", || tx_in(&a.engine) == 80);
        let mut found = Vec::new();
        until("the loss is found", || {
            found = a.engine.check().unwrap().into_iter().filter(|i| i.missing() != 0).collect();
            !found.is_empty()
        });
        assert_eq!(found.len(), 1, "{mutant:?}: {found:#?}");
        assert!(found[0].place.to_string().starts_with(place), "{mutant:?}: {}", found[0].place);
        assert_eq!(found[0].missing(), missing, "{mutant:?}");
    }
}
