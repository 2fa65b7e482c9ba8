//! Planted faults, for tests that must see `uvti check` fail.

use crate::io::tun::FromHost;
use uvti_core::packet::Buf;
use uvti_core::vti::TxSlot;

/// What a test build may do to packets behind the accounts' back. The shipped program runs [`Honest`].
pub trait Tamper: Send + 'static {
    /// What was read from a device, already counted.
    fn read(&mut self, _items: &mut Vec<FromHost>) {}
    /// A decided burst, before it is acted on.
    fn decided(&mut self, _burst: &mut Vec<TxSlot>) {}
    /// How many packets a count of `n` sent ones is booked as.
    fn booked(&mut self, n: u64) -> u64 {
        n
    }
    /// Packets that go to another worker, already counted.
    fn hopping(&mut self, _packets: &mut Vec<Buf>) {}
}

/// Does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest;

impl Tamper for Honest {}
