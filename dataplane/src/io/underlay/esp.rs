//! Receiving ESP (protocol 50), and plain IP-in-IP (protocol 4), by a raw socket.

use super::intake::{Intake, Joins};
use super::{Fault, Received};
use crate::io::{Burst, Pool};
use crate::sys::mmsg::Datagram;
use crate::sys::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use uvti_core::packet::{Buf, Incoming, Outer};

const ESP: i32 = 50;
const IPIP: i32 = 4;
const IPV4_HEADER: usize = 20;

/// A raw socket that receives the ESP packets of one family.
///
/// While it is open, the host does not answer ESP with ICMP protocol-unreachable.
pub(super) struct EspSocket {
    intake: Intake,
    judge: Judge,
}

type Judge = fn(Buf, &Datagram<'_>) -> Received;

impl EspSocket {
    pub(super) fn open_v4() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(ESP)))?;
        // ICMP frag-needed quoting ESP, whatever its SPI, must not lower the host's PMTU for the peer.
        sockopt::set(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)?;
        Ok(Self { intake: Intake::new(socket, false, Joins::Never)?, judge: judge_v4 })
    }

    /// Receives copies of plain IP-in-IP packets.
    pub(super) fn open_ipip() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPIP)))?;
        Ok(Self { intake: Intake::new(socket, false, Joins::Never)?, judge: judge_ipip })
    }

    pub(super) fn open_v6() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(ESP)))?;
        sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_INTERFACE)?;
        sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        Ok(Self { intake: Intake::new(socket, true, Joins::Never)?, judge: judge_v6 })
    }

    pub(super) fn recv(
        &mut self,
        into: &mut Vec<Received>,
        pool: &mut Pool,
        max: usize,
    ) -> io::Result<Burst> {
        self.intake.recv(into, pool, max, self.judge)
    }

    /// What it has in common with other receiving sockets.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }
}

/// An IPv4 raw socket delivers the IP header, in network byte order and unfragmented.
fn judge_v4(mut buf: Buf, _: &Datagram<'_>) -> Received {
    match strip_ipv4(buf.bytes()) {
        Ok((outer, header)) => {
            buf.pull_front(header);
            Received::Packet(Incoming { buf, outer })
        }
        Err(fault) => {
            let from = buf.bytes().get(12..).and_then(|b| b.first_chunk::<4>());
            let from = from.map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)));
            Received::Damaged { buf, from, fault }
        }
    }
}

fn judge_ipip(buf: Buf, datagram: &Datagram<'_>) -> Received {
    match judge_v4(buf, datagram) {
        Received::Packet(packet) => Received::PlainIpip(packet),
        other => other,
    }
}

/// Checks an IPv4 header and reads it; also its length.
pub(super) fn strip_ipv4(packet: &[u8]) -> Result<(Outer, usize), Fault> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(Fault::Header)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER || header_len > packet.len() {
        return Err(Fault::Header);
    }
    if usize::from(u16::from_be_bytes([header[2], header[3]])) != packet.len() {
        return Err(Fault::Length);
    }
    let addr = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Ok((Outer { src: addr(12), dst: addr(16), tos: header[1], udp: None }, header_len))
}

/// An IPv6 raw socket delivers the payload; the header's fields come as control messages.
fn judge_v6(buf: Buf, datagram: &Datagram<'_>) -> Received {
    match outer_v6(datagram) {
        Ok(outer) => Received::Packet(Incoming { buf, outer }),
        Err(from) => Received::Damaged { buf, from, fault: Fault::Unaddressed },
    }
}

/// Reads them; else the sender, if that is known.
pub(super) fn outer_v6(datagram: &Datagram<'_>) -> Result<Outer, Option<IpAddr>> {
    let Some(SocketAddr::V6(from)) = datagram.source else { return Err(None) };
    let src = IpAddr::V6(*from.ip());
    let info = |kind| datagram.control.iter().find(move |c| c.is(libc::SOL_IPV6, kind));
    let dst = info(libc::IPV6_PKTINFO).and_then(|c| c.pktinfo_v6()).ok_or(Some(src))?;
    let tos = info(libc::IPV6_TCLASS).and_then(|c| c.number()).unwrap_or(0) as u8;
    Ok(Outer { src, dst: dst.into(), tos, udp: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(tos: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0x45, tos, 0, 0, 0, 1, 0x40, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        p.extend(payload);
        let len = p.len() as u16;
        p[2..4].copy_from_slice(&len.to_be_bytes());
        p
    }

    #[test]
    fn reads_the_header() {
        let (outer, len) = strip_ipv4(&packet(0xb9, b"payload")).unwrap();
        assert_eq!(len, 20);
        assert_eq!(outer.tos, 0xb9);
        assert_eq!((outer.src, outer.dst), ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()));
    }

    #[test]
    fn names_the_fault() {
        let good = packet(0, &[7; 30]);
        let with = |at: usize, value: u8| {
            let mut p = good.clone();
            p[at] = value;
            strip_ipv4(&p).unwrap_err()
        };
        assert_eq!(with(0, 0x65), Fault::Header, "version 6");
        assert_eq!(with(0, 0x44), Fault::Header, "header of 16 bytes");
        assert_eq!(with(0, 0x4f), Fault::Header, "header longer than the packet");
        assert_eq!(with(3, 49), Fault::Length);
        assert_eq!(strip_ipv4(&good[..19]).unwrap_err(), Fault::Header);
        assert_eq!(strip_ipv4(&good[..20]).unwrap_err(), Fault::Length);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((_, header)) = strip_ipv4(&bytes) {
                prop_assert!(header <= bytes.len());
            }
        }
    }
}
