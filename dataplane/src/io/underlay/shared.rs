//! Receiving ESP in UDP on a port that another process (an IKE daemon) holds.
//!
//! A second socket on the port would get nothing, or make the first one deaf. A raw UDP socket gets a copy of what arrives,
//! reassembled; a filter takes what is ESP by RFC 3948 §2: to this port, with an SPI that is not zero. The daemon goes on
//! receiving all of it, IKE by its non-ESP marker among it.

use super::esp::{outer_v6, strip_ipv4};
use super::intake::{Intake, Joins};
use super::{Fault, Received, UdpPort};
use crate::io::{Burst, Pool};
use crate::sys::mmsg::Datagram;
use crate::sys::sockopt;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, Read};
use uvti_core::packet::{Buf, Incoming, Outer, UDP_HEADER, UdpPorts};

/// A raw socket that receives the ESP of one UDP port.
pub(super) struct SharedPort {
    intake: Intake,
    port: UdpPort,
}

impl SharedPort {
    pub(super) fn open(port: UdpPort) -> io::Result<Self> {
        let domain = if port.v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::UDP))?;
        if port.v6 {
            socket.attach_filter(&esp_to_v6(port.number))?;
            prepare_v6(&socket)?;
        } else {
            socket.attach_filter(&esp_to_v4(port.number))?;
            sockopt::set(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)?;
        }
        // What came before the filter was there is anything.
        while (&socket).read(&mut [0]).is_ok() {}
        Ok(Self { intake: Intake::new(socket, port.v6, Joins::Never)?, port })
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
        let v6 = self.port.v6;
        self.intake.recv(
            into,
            pool,
            max,
            |buf, datagram| if v6 { judge_v6(buf, datagram) } else { judge_v4(buf) },
        )
    }

    /// What it has in common with other receiving sockets.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }
}

/// The filter: from the IPv4 header on, UDP's destination port, then the SPI. A look beyond the end refuses the packet, so
/// a keepalive stays the daemon's.
fn esp_to_v4(port: u16) -> [SockFilter; 7] {
    // X: the IP header's length
    let length = SockFilter::new((libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16, 0, 0, 0);
    let [a, b, c, d, e, f] = from_udp(libc::BPF_IND, port);
    [length, a, b, c, d, e, f]
}

/// The same for IPv6, where a raw socket has what follows the header.
fn esp_to_v6(port: u16) -> [SockFilter; 6] {
    from_udp(libc::BPF_ABS, port)
}

/// From the UDP header on, which is at `base`.
fn from_udp(base: u32, port: u16) -> [SockFilter; 6] {
    let op = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    let (jump, refuse) = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0);
    [
        op(libc::BPF_LD | libc::BPF_H | base, 0, 0, 2),
        op(jump, 0, 2, port.into()),
        op(libc::BPF_LD | libc::BPF_W | base, 0, 0, UDP_HEADER as u32),
        op(jump, 0, 1, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ]
}

/// What a raw socket over IPv6 wants besides: addresses and traffic class with each packet; and the UDP checksum, six
/// bytes into the header, looked at before, as it has to be there (RFC 8200 §8.1).
fn prepare_v6(socket: &Socket) -> io::Result<()> {
    const UDP_CHECKSUM_AT: i32 = 6;
    sockopt::set(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_INTERFACE)?;
    sockopt::set(socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    sockopt::set(socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    Ok(sockopt::set(socket, libc::SOL_IPV6, IPV6_CHECKSUM, UDP_CHECKSUM_AT)?)
}

/// kernel: include/uapi/linux/in6.h
const IPV6_CHECKSUM: i32 = 7;

fn judge_v4(buf: Buf) -> Received {
    match strip_ipv4(buf.bytes()) {
        Ok((outer, header)) => take_off_udp(buf, outer, header),
        Err(fault) => Received::Damaged { buf, from: None, fault },
    }
}

fn judge_v6(buf: Buf, datagram: &Datagram<'_>) -> Received {
    match outer_v6(datagram) {
        Ok(outer) => take_off_udp(buf, outer, 0),
        Err(from) => Received::Damaged { buf, from, fault: Fault::Unaddressed },
    }
}

/// Takes an IP header of `header` bytes and UDP's off. What the sender appended behind UDP's length is left out.
fn take_off_udp(mut buf: Buf, mut outer: Outer, header: usize) -> Received {
    let damaged = |buf, fault| Received::Damaged { buf, from: Some(outer.src), fault };
    let Some(udp) = buf.bytes()[header..].first_chunk::<UDP_HEADER>() else {
        return damaged(buf, Fault::Header);
    };
    let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    let (ports, length) = (UdpPorts { src: word(0), dst: word(2) }, usize::from(word(4)));
    if length < UDP_HEADER || header + length > buf.len() {
        return damaged(buf, Fault::Length);
    }
    buf.set_len(header + length);
    buf.pull_front(header + UDP_HEADER);
    outer.udp = Some(ports);
    Received::Packet(Incoming { buf, outer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From 192.0.2.1:1234 to 192.0.2.2:4500; UDP's length is `said` bytes of payload.
    fn packet(payload: &[u8], said: usize) -> Vec<u8> {
        let total = 28 + payload.len() as u8;
        let mut p = vec![0x45, 0xb9, 0, total, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        p.extend([0x04, 0xd2, 0x11, 0x94, 0, 8 + said as u8, 0, 0]);
        p.extend(payload);
        p
    }

    #[test]
    fn headers_are_taken_off() {
        let Received::Packet(Incoming { buf, outer }) = judge_v4(Buf::from_packet(&packet(&[7; 20], 16)))
        else {
            panic!()
        };
        assert_eq!(buf.bytes(), [7; 16]);
        let (src, dst) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert_eq!(outer, Outer { src, dst, tos: 0xb9, udp: Some(UdpPorts { src: 1234, dst: 4500 }) });
    }

    #[test]
    fn a_wrong_length_is_named() {
        let judged = judge_v4(Buf::from_packet(&packet(&[7; 20], 21)));
        assert!(matches!(judged, Received::Damaged { fault: Fault::Length, .. }));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), claims in any::<bool>()) {
            let mut bytes = bytes;
            if claims && bytes.len() >= 20 {
                (bytes[0], bytes[2], bytes[3]) = (0x45, 0, bytes.len() as u8);
            }
            let _ = judge_v4(Buf::from_packet(&bytes));
        }
    }
}
