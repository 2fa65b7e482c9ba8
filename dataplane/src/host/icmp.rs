//! Sending ICMP errors to those who sent inner packets.
//!
//! They do not go through the TUN: written into it with one of the host's own addresses as source they would be
//! dropped as martians. A raw socket in the device's namespace lets the host choose the source as a kernel VTI
//! does (the address that faces the sender; the VTI's own for a sender on this host), and a local sender finds the
//! error in its socket's error queue.

use crate::sys::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// kernel: include/uapi/linux/icmp.h ICMP_FILTER, struct icmp_filter: a set bit keeps the type out
const ICMP_FILTER: i32 = 1;
/// kernel: include/uapi/linux/icmpv6.h ICMPV6_FILTER
const ICMPV6_FILTER: i32 = 1;

/// Raw ICMP sockets in the namespace of the thread that opened them.
pub struct IcmpSender {
    v4: Socket,
    /// Absent on a host without IPv6.
    v6: Option<Socket>,
}

impl IcmpSender {
    /// Opens the sockets. `EPERM` without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let v4 = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::ICMPV4))?;
        // Nothing is read from it: let nothing in.
        sockopt::set(&v4, libc::SOL_RAW, ICMP_FILTER, -1)?;
        let v6 = match Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6)) {
            Ok(v6) => {
                sockopt::set_bytes(&v6, libc::SOL_ICMPV6, ICMPV6_FILTER, &[0xff; 32])?;
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6 })
    }

    /// Sends a complete ICMP message (checksum included) to `to`; the host chooses the source address.
    pub fn send_v4(&self, to: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        self.v4.send_to(message, &SocketAddr::new(to.into(), 0).into()).map(drop)
    }

    /// Sends an ICMPv6 message to `to`; the host chooses the source address and computes the checksum. `scope` is
    /// the device's index for a link-local `to`, else 0. `Unsupported` on a host without IPv6.
    pub fn send_v6(&self, to: Ipv6Addr, scope: u32, message: &[u8]) -> io::Result<()> {
        let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        socket.send_to(message, &SocketAddr::from(SocketAddrV6::new(to, 0, 0, scope)).into()).map(drop)
    }
}
