//! The program with a fault planted in its first worker: `UVTI_MUTANT` says which. `uvti check` must find and
//! name a loss, `uvti compare` a changed order of checks.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use uvti_core::packet::Buf;
use uvti_core::reason::Reason;
use uvti_core::vti::{TxSlot, TxVerdict};
use uvti_dataplane::io::tun::FromHost;
use uvti_dataplane::worker::tamper::Tamper;

/// Does its damage once in the life of the process.
struct Planted(String);

static DONE: AtomicBool = AtomicBool::new(false);

impl Planted {
    fn now(&self, fault: &str, can: bool) -> bool {
        self.0 == fault && can && !DONE.swap(true, Ordering::Relaxed)
    }
}

impl Tamper for Planted {
    fn read(&mut self, items: &mut Vec<FromHost>) {
        if self.now("skip-a-segment", !items.is_empty()) {
            items.pop();
        }
    }

    fn decided(&mut self, burst: &mut Vec<TxSlot>) {
        if self.now("lose-after-decision", !burst.is_empty()) {
            burst.pop();
        }
        if self.0 == "number-before-size" {
            burst.iter_mut().for_each(number_before_size);
        }
    }

    fn booked(&mut self, n: u64) -> u64 {
        n + u64::from(self.now("count-twice", n > 0))
    }

    fn hopping(&mut self, packets: &mut Vec<Buf>) {
        if self.now("lose-a-hop", !packets.is_empty()) {
            packets.pop();
        }
    }
}

/// The two checks in the wrong order. Order shows only where both fail: then the second one's reason is given.
fn number_before_size(slot: &mut TxSlot) {
    if let TxVerdict::Drop(drop) = &mut slot.verdict
        && drop.reason == Reason::TxTooBig
        && drop.sa.as_ref().is_some_and(|sa| sa.run.out.available() == 0)
    {
        drop.reason = Reason::TxSeqOverflow;
    }
}

fn main() -> ExitCode {
    uvti::main_with(|| Planted(std::env::var("UVTI_MUTANT").unwrap_or_default()))
}
