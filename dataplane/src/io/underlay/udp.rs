//! Receiving ESP in UDP (RFC 3948).

use super::intake::Intake;
use super::{Fault, Received};
use crate::io::{Burst, Pool};
use crate::sys::mmsg::Datagram;
use crate::sys::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use uvti_core::packet::{Buf, Incoming, Outer, UdpPorts};

/// kernel: include/uapi/linux/udp.h
pub(super) const UDP_GRO: i32 = 104;

/// A UDP port on which ESP arrives.
pub(super) struct UdpSocket {
    intake: Intake,
    port: u16,
}

impl UdpSocket {
    /// Binds `port` on every IPv4 address. Never shared: a second socket with SO_REUSEADDR would make the first deaf.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        sockopt::set(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)?;
        sockopt::set(&socket, libc::SOL_IP, libc::IP_PKTINFO, 1)?;
        socket.set_recv_tos_v4(true)?;
        // Packets that came as one are handed over as one. A kernel before 5.0 cannot.
        let _ = sockopt::set(&socket, libc::SOL_UDP, UDP_GRO, 1);
        socket.bind(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port).into())?;
        let port = socket.local_addr()?.as_socket().map_or(port, |addr| addr.port());
        Ok(Self { intake: Intake::new(socket, false)?, port })
    }

    pub(super) fn port(&self) -> u16 {
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

fn judge(buf: Buf, datagram: &Datagram<'_>, port: u16) -> Received {
    let Some(from) = datagram.source else {
        return Received::Damaged { buf, from: None, fault: Fault::Unaddressed };
    };
    let info = |kind| datagram.control.iter().find(move |c| c.is(libc::SOL_IP, kind));
    let Some(dst) = info(libc::IP_PKTINFO).and_then(|c| c.pktinfo_v4()) else {
        return Received::Damaged { buf, from: Some(from.ip()), fault: Fault::Unaddressed };
    };
    let tos = info(libc::IP_TOS).and_then(|c| c.number()).unwrap_or(0) as u8;
    let udp = Some(UdpPorts { src: from.port(), dst: port });
    Received::Packet(Incoming { buf, outer: Outer { src: from.ip(), dst: IpAddr::V4(dst), tos, udp } })
}
