//! The network below: where outer packets come from and go to.

mod esp;
pub mod fault;
mod intake;
mod segmented;
mod send;
mod shared;
mod socket;
#[cfg(test)]
mod tests;
mod udp;

pub use segmented::SendPorts;
pub use socket::{PortUse, SocketUnderlay};

use super::{Burst, Outcome, Pool};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use uvti_core::packet::{Buf, Incoming};

/// Carries outer packets.
pub trait Underlay: Send {
    /// Appends what the network has for us to `into`, without blocking: at most `max` items, and the rest of a datagram
    /// that the host joined. Nothing to read is an empty burst.
    fn recv_burst(&mut self, into: &mut Vec<Received>, pool: &mut Pool, max: usize) -> io::Result<Burst>;

    /// Sends packets, in order, and appends one outcome a packet.
    fn send_burst(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>);

    /// Readable while the network has packets for us. They change with the ports bound.
    fn fds(&self) -> Vec<BorrowedFd<'_>>;

    /// Receives ESP in UDP on these ports and no others, on every address. Returns those that it could not open.
    fn set_udp_ports(&mut self, ports: &[UdpPort]) -> Vec<(UdpPort, io::Error)>;

    /// What the sockets lost and repaired since they were opened.
    fn losses(&self) -> Losses;
}

/// A UDP port of one family, on every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpPort {
    /// Over IPv6; else over IPv4.
    pub v6: bool,
    /// Its number.
    pub number: u16,
}

impl UdpPort {
    /// A port over IPv4.
    pub const fn v4(number: u16) -> Self {
        Self { v6: false, number }
    }

    /// A port over IPv6.
    pub const fn v6(number: u16) -> Self {
        Self { v6: true, number }
    }
}

impl std::fmt::Display for UdpPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} over {}", self.number, if self.v6 { "IPv6" } else { "IPv4" })
    }
}

/// A packet to be sent: a complete outer IP packet.
///
/// The device below fills in nothing; what it fragments or refuses is by its MTU alone.
#[derive(Debug)]
pub struct Outgoing {
    /// From the outer IP header on.
    pub buf: Buf,
    /// Mark with which the host looks up the route (a VTI's `fwmark`, an SA's `output-mark`); 0 is none.
    pub mark: u32,
    /// Index of the device to leave by (`dev PHYS`); 0 leaves it to the route.
    pub oif: u32,
}

/// An item received.
#[derive(Debug)]
pub enum Received {
    /// What followed the outer header.
    Packet(Incoming),
    /// A plain IP-in-IP packet, without its outer header. The host has it as well.
    PlainIpip(Incoming),
    /// A packet that cannot be used, for the caller to count.
    Damaged {
        /// As far as it was received, with its outer header if the socket delivers one.
        buf: Buf,
        /// Its sender, if known.
        from: Option<IpAddr>,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// Why a received packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It was longer than the buffer.
    Truncated,
    /// The outer header is not one of IPv4, or is cut.
    Header,
    /// The outer header says another length than what came.
    Length,
    /// The socket did not say from or to where it went.
    Unaddressed,
}

/// What sockets lost and repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets that found a receive buffer full (`SO_RXQ_OVFL`).
    pub receive_overflow: u64,
    /// Sends that failed for an ICMP error about an earlier packet, and were tried again.
    pub async_errors: u64,
}
