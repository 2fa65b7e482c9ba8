//! TUN devices: where inner packets come from and go to.

mod create;
mod simple;
#[cfg(test)]
mod tests;

pub use create::{CreateError, Options, check_name};
pub use simple::SimpleTun;

use super::{Burst, Outcome, Pool};
use std::io;
use std::os::fd::BorrowedFd;
use uvti_core::packet::Buf;

/// One queue of a TUN device.
pub trait TunQueue: Send {
    /// Appends what the host sends into the device to `into`, at most `max` items, without blocking. Nothing to
    /// read is an empty burst. An error leaves what was read before it in `into`.
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst>;

    /// Gives packets to the host, in order, and appends one outcome a packet. A backend may change the packets
    /// (headers of coalesced ones); they stay the caller's.
    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>);

    /// Readable while the host has packets for us.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// One read from the device.
#[derive(Debug)]
pub struct FromHost {
    /// The IP packet: complete, or a super-packet, or the first part of a truncated one.
    pub buf: Buf,
    /// How it stands for packets on the wire.
    pub kind: Kind,
}

/// What one read stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One packet.
    Packet,
    /// A super-packet to be cut into `count` packets of at most `size` bytes of transport payload each.
    Segments {
        /// Packets on the wire.
        count: u16,
        /// Payload bytes in each but the last.
        size: u16,
    },
    /// One packet, longer than the buffer: its end is lost, it must not be passed on.
    Truncated,
}

impl FromHost {
    /// How many packets on the wire it stands for.
    pub fn wire_packets(&self) -> usize {
        match self.kind {
            Kind::Segments { count, .. } => count.into(),
            Kind::Packet | Kind::Truncated => 1,
        }
    }
}
