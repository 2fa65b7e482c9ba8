//! TUN devices: where inner packets come from and go to.

mod create;
#[doc(hidden)]
pub mod fuzzing;
mod info;
mod offload;
mod simple;
#[cfg(test)]
mod tests;
mod vnet;

pub use create::{CreateError, LINK_NONE, LINK_TUNNEL, Options, check_name};
pub use offload::{OffloadQueue, OffloadTun, Offloads};
pub use simple::SimpleTun;

use super::{Burst, Outcome, Pool};
use std::io;
use std::os::fd::BorrowedFd;
use uvti_core::packet::Buf;

/// One queue of a TUN device.
pub trait TunQueue: Send {
    /// Appends what the host sends into the device to `into`, without blocking: at most `max` items, and the rest of a
    /// super-packet that was begun. Nothing to read is an empty burst. An error leaves what was read before it in `into`.
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst>;

    /// Gives packets to the host, in order, and appends one outcome a packet. A backend may change the packets
    /// (headers of coalesced ones); they stay the caller's.
    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>);

    /// Readable while the host has packets for us.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// A device in the host's hands.
pub trait Device: Send + Sync {
    /// Its index in the namespace in which it was created.
    fn ifindex(&self) -> u32;

    /// Lets the device, and the routes through it, vanish with the last handle of it.
    fn destroy(&self) -> io::Result<()>;
}

/// One packet from the device.
#[derive(Debug)]
pub struct FromHost {
    /// The IP packet, or the first part of a truncated one.
    pub buf: Buf,
    /// Whether it can be used.
    pub kind: Kind,
}

/// What came from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet, as it is to be on the wire.
    Packet,
    /// Longer than the buffer: its end is lost, it must not be passed on.
    Truncated,
    /// What the host left to us cannot be done: its instructions do not fit the packet.
    Misfit,
}
