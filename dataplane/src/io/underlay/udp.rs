//! Receiving ESP in UDP (RFC 3948).

use super::esp::outer_v6;
use super::intake::{Intake, Joins};
use super::{Fault, Received, UdpPort};
use crate::io::{Burst, Pool};
use crate::sys::mmsg::Datagram;
use crate::sys::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use uvti_core::packet::{Buf, Incoming, Outer, UdpPorts};

/// kernel: include/uapi/linux/udp.h
pub(super) const UDP_GRO: i32 = 104;

/// A UDP port on which ESP arrives.
pub(super) struct UdpSocket {
    intake: Intake,
    port: UdpPort,
}

impl UdpSocket {
    /// Binds `port` on every address. Never shared: a second socket with SO_REUSEADDR would make the first deaf.
    ///
    /// Over IPv6 the host drops what has no UDP checksum (RFC 8200 §8.1), as it does before an IKE daemon's socket.
    pub(super) fn bind(port: UdpPort) -> io::Result<Self> {
        let domain = if port.v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let any = if port.v6 { prepare_v6(&socket)? } else { prepare_v4(&socket)? };
        // Packets that came as one are handed over as one. A kernel before 5.0 cannot.
        let joins = match sockopt::set(&socket, libc::SOL_UDP, UDP_GRO, 1) {
            Ok(()) => Joins::Some,
            Err(_) => Joins::Never,
        };
        socket.bind(&SocketAddr::new(any, port.number).into())?;
        Ok(Self { intake: Intake::new(socket, port.v6, joins)?, port })
    }

    pub(super) fn port(&self) -> UdpPort {
        self.port
    }

    pub(super) fn recv(
        &mut self,
        into: &mut Vec<Received>,
        pool: &mut Pool,
        max: usize,
    ) -> io::Result<Burst> {
        let port = self.port;
        self.intake.recv(into, pool, max, |buf, datagram| judge(buf, datagram, port))
    }

    pub(super) fn socket(&self) -> &Socket {
        self.intake.socket()
    }

    /// What it has in common with other receiving sockets.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }
}

/// Both answer the address to bind.
fn prepare_v4(socket: &Socket) -> io::Result<IpAddr> {
    sockopt::set(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)?;
    sockopt::set(socket, libc::SOL_IP, libc::IP_PKTINFO, 1)?;
    socket.set_recv_tos_v4(true)?;
    Ok(Ipv4Addr::UNSPECIFIED.into())
}

fn prepare_v6(socket: &Socket) -> io::Result<IpAddr> {
    socket.set_only_v6(true)?;
    sockopt::set(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_INTERFACE)?;
    sockopt::set(socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    sockopt::set(socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    Ok(Ipv6Addr::UNSPECIFIED.into())
}

fn judge(buf: Buf, datagram: &Datagram<'_>, port: UdpPort) -> Received {
    let Some(from) = datagram.source else {
        return Received::Damaged { buf, from: None, fault: Fault::Unaddressed };
    };
    let outer = if port.v6 { outer_v6(datagram) } else { outer_v4(datagram, from.ip()) };
    let udp = Some(UdpPorts { src: from.port(), dst: port.number });
    match outer {
        Ok(outer) => Received::Packet(Incoming { buf, outer: Outer { udp, ..outer } }),
        Err(from) => Received::Damaged { buf, from, fault: Fault::Unaddressed },
    }
}

fn outer_v4(datagram: &Datagram<'_>, src: IpAddr) -> Result<Outer, Option<IpAddr>> {
    let info = |kind| datagram.control.iter().find(move |c| c.is(libc::SOL_IP, kind));
    let dst = info(libc::IP_PKTINFO).and_then(|c| c.pktinfo_v4()).ok_or(Some(src))?;
    let tos = info(libc::IP_TOS).and_then(|c| c.number()).unwrap_or(0) as u8;
    Ok(Outer { src, dst: dst.into(), tos, udp: None })
}
