//! For tools that provoke drops: packets past the host's IP stack (man 7 packet), and sockets that are told errors.

use crate::sys;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::UdpSocket;

/// A socket of one interface and EtherType, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens it for the interface of that index.
    pub fn open(index: u32, ethertype: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.bind(&sys::packet::address(index, ethertype)?)?;
        Ok(Self { socket })
    }

    /// Sends the bytes as they are. What the interface does with them shows in its counters only.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes).map(drop)
    }
}

/// Makes a UDP socket take ICMP errors as its own, though it is not connected, and sets the DF bit (`None`: the
/// host's choice) and TOS or traffic class of what it sends.
pub fn report_errors(socket: &UdpSocket, v6: bool, df: Option<bool>, tos: u8) -> io::Result<()> {
    let (level, errors, discover, class) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_RECVERR, libc::IP_MTU_DISCOVER, libc::IP_TOS),
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, libc::IPV6_MTU_DISCOVER, libc::IPV6_TCLASS),
    };
    let mut options = vec![(errors, 1)];
    // The values are one for both families.
    options.extend(df.map(|df| (discover, if df { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT })));
    options.extend((tos != 0).then_some((class, i32::from(tos))));
    options.into_iter().try_for_each(|(name, value)| Ok(sys::sockopt::set(socket, level, name, value)?))
}
