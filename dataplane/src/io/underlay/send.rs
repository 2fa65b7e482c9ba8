//! Sending: complete IP packets through a raw socket, and what all sending sockets share.

use super::Outgoing;
use crate::io::{Errno, Outcome};
use crate::sys::cmsg::{Control, source_v4, source_v6};
use crate::sys::mmsg::{BATCH, Pieces, Receiver, Sender};
use crate::sys::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::Arc;
use uvti_core::packet::Buf;

/// Send buffer, bytes; what the host does not allow is cut to its limit.
const SEND_BUFFER: usize = 8 << 20;
/// Room for the quoted packets in the error queue.
const QUOTE: usize = 576;
/// kernel: include/uapi/linux/errqueue.h SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
const ORIGIN_ICMP: [u8; 2] = [2, 3];

/// A socket that sends batches of messages.
pub(super) struct SendSocket {
    socket: Arc<Socket>,
    batch: Sender,
    errors: Receiver,
    quotes: Vec<Buf>,
    /// Sends that failed for an earlier packet's ICMP error and were tried again.
    pub(super) async_errors: u64,
}

impl SendSocket {
    pub(super) fn over(socket: Arc<Socket>) -> Self {
        let quotes = (0..8).map(|_| Buf::with_capacity(QUOTE)).collect();
        Self { socket, batch: Sender::new(), errors: Receiver::new(), quotes, async_errors: 0 }
    }

    /// Whether it is this socket.
    pub(super) fn is(&self, socket: &Arc<Socket>) -> bool {
        Arc::ptr_eq(&self.socket, socket)
    }

    /// Sends messages, in order, and appends one outcome each. `prepare` writes control messages and pieces of one, and
    /// says where it goes.
    pub(super) fn send<'p, M: 'p>(
        &mut self,
        mut messages: &'p [M],
        outcomes: &mut Vec<Outcome>,
        mut prepare: impl FnMut(&'p M, &mut Control, &mut Pieces<'_, 'p>) -> SocketAddr,
    ) {
        let mut retried = false;
        while !messages.is_empty() {
            let group = &messages[..messages.len().min(BATCH)];
            let taken = match self.batch.send(self.socket.as_fd(), group, &mut prepare) {
                Ok(taken) if taken > 0 => {
                    outcomes.extend((0..taken).map(|_| Outcome::Sent));
                    taken
                }
                Err(Errno::INTR) => continue,
                // Not about this message: an ICMP error about an earlier one, to any peer, was waiting.
                Err(_) if self.drain_errors() && !retried => {
                    self.async_errors += 1;
                    retried = true;
                    continue;
                }
                // The socket's own buffer is full, for every message of the burst.
                Err(Errno::AGAIN) => {
                    outcomes.extend(messages.iter().map(|_| Outcome::QueueFull));
                    return;
                }
                Err(errno) => {
                    outcomes.push(Outcome::from_errno(errno));
                    1
                }
                Ok(_) => {
                    outcomes.push(Outcome::Failed(Errno::IO));
                    1
                }
            };
            retried = false;
            messages = &messages[taken..];
        }
    }

    /// Empties the error queue; whether an ICMP error was in it. A refused send leaves an entry of local origin.
    fn drain_errors(&mut self) -> bool {
        let mut icmp = false;
        while let Ok(n @ 1..) = self.errors.receive(self.socket.as_fd(), &mut self.quotes, libc::MSG_ERRQUEUE)
        {
            icmp |= (0..n).any(|i| has_icmp_origin(self.errors.datagram(i).control));
        }
        icmp
    }
}

/// A raw socket of one family for packets that bring their own IP header.
pub(super) struct RawSender(SendSocket);

impl RawSender {
    pub(super) fn open_v4() -> io::Result<Self> {
        Self::v4(libc::IPPROTO_RAW)
    }

    /// A socket of `protocol` gets the ICMP errors that quote it. Those of IPPROTO_RAW quote nothing of ours, and
    /// recent kernels deliver none (6.18 does not, measured); older ones let anybody make one up.
    fn v4(protocol: i32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))?;
        socket.set_header_included_v4(true)?;
        // Path MTU is the core's: an ICMP frag-needed that quotes us must not change the host's.
        sockopt::set(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)?;
        // Without it a drop in a lower queue is reported as success. kernel: net/ipv4/raw.c raw_send_hdrinc()
        sockopt::set(&socket, libc::SOL_IP, libc::IP_RECVERR, 1)?;
        Self::new(socket)
    }

    pub(super) fn open_v6() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.set_header_included_v6(true)?;
        sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_INTERFACE)?;
        sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1)?;
        Self::new(socket)
    }

    fn new(socket: Socket) -> io::Result<Self> {
        tune(&socket)?;
        Ok(Self(SendSocket::over(Arc::new(socket))))
    }

    /// Sends packets, all of the socket's family, and appends one outcome each.
    pub(super) fn send(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        self.0.send(packets, outcomes, prepare);
    }

    pub(super) fn async_errors(&self) -> u64 {
        self.0.async_errors
    }
}

/// Enlarges the send buffer. The receive buffer stays as it is: the error queue is charged to it.
pub(super) fn tune(socket: &Socket) -> io::Result<()> {
    let force = (SEND_BUFFER / 2) as i32;
    if sockopt::set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, force).is_err() {
        socket.set_send_buffer_size(SEND_BUFFER / 2)?;
    }
    Ok(())
}

/// Whether these control messages hold a `struct sock_extended_err` whose origin (its fifth byte) is ICMP.
fn has_icmp_origin(control: &Control) -> bool {
    control
        .iter()
        .filter(|c| c.is(libc::SOL_IP, libc::IP_RECVERR) || c.is(libc::SOL_IPV6, libc::IPV6_RECVERR))
        .any(|c| c.data.get(4).is_some_and(|origin| ORIGIN_ICMP.contains(origin)))
}

/// Where a packet goes by its own header, and what the host's routing must know besides: with IP_HDRINCL it does
/// not look at the source address in the packet, and `ip rule from …` would not see it.
fn prepare<'p>(packet: &'p Outgoing, control: &mut Control, pieces: &mut Pieces<'_, 'p>) -> SocketAddr {
    let bytes = packet.buf.bytes();
    pieces.push(bytes);
    if packet.mark != 0 {
        control.push(libc::SOL_SOCKET, libc::SO_MARK, &packet.mark.to_ne_bytes());
    }
    match addresses(bytes) {
        Some((IpAddr::V4(src), dst)) => {
            control.push(libc::SOL_IP, libc::IP_PKTINFO, &source_v4(src, packet.oif));
            SocketAddr::new(dst, 0)
        }
        Some((IpAddr::V6(src), IpAddr::V6(dst))) => {
            control.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &source_v6(src, packet.oif));
            SocketAddrV6::new(dst, 0, 0, packet.oif).into()
        }
        _ => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    }
}

/// Source and destination in the IP header; `None` if there is none.
pub(super) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let addr = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|a| Ipv4Addr::from(*a).into());
            Some((addr(12)?, addr(16)?))
        }
        6 => {
            let addr = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|a| Ipv6Addr::from(*a).into());
            Some((addr(8)?, addr(24)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::icmp::IcmpSender;
    use crate::testing::{require_netns, veth_pair, wait};

    /// IPv4 header of a packet from 192.0.2.1.
    fn header(protocol: u8, dst: [u8; 4], len: u8) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, len, 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1];
        header.extend(dst);
        header
    }

    #[test]
    fn an_error_about_another_peer_costs_no_packet() {
        if !require_netns("an_error_about_another_peer_costs_no_packet") {
            return;
        }
        let (a, b) = veth_pair();
        let mut sender = a.run(|| RawSender::v4(50).unwrap()).unwrap();
        // Holds protocol 50, so that the host answers nothing by itself.
        let _receiver = b.run(|| RawSender::v4(50).unwrap()).unwrap();
        // Host unreachable, about another peer's packet of the socket's protocol.
        let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
        error.extend(header(50, [198, 51, 100, 1], 28));
        error.extend([0; 8]);
        let sum: u32 = error.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        error[2..4].copy_from_slice(&checksum.to_be_bytes());
        b.run(|| IcmpSender::open().unwrap().send_v4([192, 0, 2, 1].into(), &error).unwrap()).unwrap();
        wait(sender.0.socket.as_fd());

        let mut packet = header(50, [192, 0, 2, 2], 40);
        packet.resize(40, 0);
        let packets = [0, 1, 2].map(|_| Outgoing { buf: Buf::from_packet(&packet), mark: 0, oif: 0 });
        let mut outcomes = Vec::new();
        sender.send(&packets, &mut outcomes);
        assert_eq!(outcomes, [Outcome::Sent; 3]);
        assert_eq!(sender.async_errors(), 1);
        assert!(!sender.0.drain_errors(), "the queue is empty");
    }

    #[test]
    fn addresses_need_a_whole_header() {
        let v4 = header(50, [192, 0, 2, 2], 20);
        assert_eq!(addresses(&v4), Some(([192, 0, 2, 1].into(), [192, 0, 2, 2].into())));
        assert_eq!(addresses(&v4[..19]), None);
        assert_eq!(addresses(&[0x60; 39]), None);
        assert!(addresses(&[0x60; 40]).is_some_and(|(src, _)| src.is_ipv6()));
        assert_eq!(addresses(&[]), None);
    }
}
