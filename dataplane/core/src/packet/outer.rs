//! What is known of a received packet's outer header once the socket has taken it off.

use super::Buf;
use std::net::IpAddr;

/// UDP ports around ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpPorts {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
}

/// The outer header of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outer {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// UDP ports, if ESP came in UDP.
    pub udp: Option<UdpPorts>,
}

/// A received packet: what follows the outer header (ESP, or the UDP payload), and the header's fields.
#[derive(Debug)]
pub struct Incoming {
    /// From the SPI on.
    pub buf: Buf,
    /// The outer header.
    pub outer: Outer,
}
