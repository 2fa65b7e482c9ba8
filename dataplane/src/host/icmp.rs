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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::Netlink;
    use crate::host::netns::Netns;
    use crate::io::tun::{Device, Options, SimpleTun, TunQueue};
    use crate::io::{Errno, Pool};
    use crate::sys::mmsg::Receiver;
    use crate::testing::{require_netns, veth_pair, wait, wait_until_local};
    use std::io::Read;
    use std::net::{IpAddr, UdpSocket};
    use std::os::fd::AsFd;
    use uvti_core::packet::Buf;

    /// An ICMP error of this type and code that quotes `packet`, with the checksum of ICMP (not ICMPv6).
    fn error(kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend(packet);
        let words =
            message.chunks(2).map(|w| u64::from_be_bytes([0, 0, 0, 0, 0, 0, w[0], *w.get(1).unwrap_or(&0)]));
        // One's complement: the remainder by 0xffff, which is the sum with all carries folded in.
        let sum = words.sum::<u64>() % 0xffff;
        message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        message
    }

    /// What a local sender to `dst` finds on its error queue after `answer` was given the packet that it sent into
    /// the device: the errno and who reported it.
    fn local_sender(
        src: IpAddr,
        dst: IpAddr,
        prefix: u8,
        answer: impl Fn(&IcmpSender, &[u8]),
    ) -> (Errno, Vec<u8>) {
        let mut tun = SimpleTun::create("vti0", Options::default()).unwrap();
        let mut netlink = Netlink::open().unwrap();
        for name in ["lo", "vti0"] {
            let index = netlink.link_by_name(name).unwrap().index;
            netlink.set_up(index, true).unwrap();
        }
        netlink.add_address(tun.ifindex(), src, prefix).unwrap();
        wait_until_local(src);
        let socket = UdpSocket::bind((src, 0)).unwrap();
        sockopt::set(&socket, libc::SOL_IP, libc::IP_RECVERR, 1).unwrap();
        if src.is_ipv6() {
            sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1).unwrap();
        }
        socket.send_to(&[1; 64], (dst, 9)).unwrap();
        let (mut got, mut pool) = (Vec::new(), Pool::new(8));
        let is_udp = |p: &[u8]| p[if src.is_ipv4() { 9 } else { 6 }] == 17;
        // A host with an IPv6 address also sends multicast listener reports, at a time of its choice.
        let sent = loop {
            wait(tun.fd());
            tun.recv_burst(&mut got, &mut pool, 1).unwrap();
            match got.pop() {
                Some(item) if is_udp(item.buf.bytes()) => break item.buf,
                _ => {}
            }
        };
        answer(&IcmpSender::open().unwrap(), sent.bytes());
        wait(socket.as_fd());
        let mut queue = Receiver::new();
        assert_eq!(
            queue.receive(socket.as_fd(), &mut [Buf::with_capacity(256)], libc::MSG_ERRQUEUE).unwrap(),
            1
        );
        // struct sock_extended_err (16 bytes), then the offender's address
        let cmsg = queue
            .datagram(0)
            .control
            .iter()
            .find(|c| c.kind == libc::IP_RECVERR || c.kind == libc::IPV6_RECVERR);
        let data = cmsg.unwrap().data.to_vec();
        let errno = i32::from_ne_bytes(*data.first_chunk().unwrap());
        let offender = if src.is_ipv4() { data[20..24].to_vec() } else { data[24..40].to_vec() };
        (Errno::from_raw_os_error(errno), offender)
    }

    #[test]
    fn a_local_sender_is_told_by_the_vtis_address() {
        if !require_netns("a_local_sender_is_told_by_the_vtis_address") {
            return;
        }
        let v4 = || {
            local_sender([10, 1, 0, 1].into(), [10, 1, 0, 2].into(), 24, |icmp, packet| {
                icmp.send_v4([10, 1, 0, 1].into(), &error(3, 1, &packet[..28])).unwrap();
            })
        };
        let (errno, offender) = Netns::new().unwrap().run(v4).unwrap();
        assert_eq!((errno, offender), (Errno::HOSTUNREACH, vec![10, 1, 0, 1]));

        let vti: Ipv6Addr = "2001:db8:1::1".parse().unwrap();
        let peer: Ipv6Addr = "2001:db8:1::2".parse().unwrap();
        let v6 = || {
            local_sender(vti.into(), peer.into(), 64, |icmp, packet| {
                let mut message = error(1, 3, packet);
                message[2..4].fill(0);
                icmp.send_v6(vti, 0, &message).unwrap();
            })
        };
        let (errno, offender) = Netns::new().unwrap().run(v6).unwrap();
        assert_eq!((errno, offender), (Errno::HOSTUNREACH, vti.octets().to_vec()));
    }

    #[test]
    fn a_forwarded_sender_is_told_by_the_address_that_faces_it() {
        if !require_netns("a_forwarded_sender_is_told_by_the_address_that_faces_it") {
            return;
        }
        let (router, client) = veth_pair();
        let witness =
            client.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap()).unwrap();
        let sent = error(3, 1, &[0x45; 28]);
        router
            .run(|| {
                let tun = SimpleTun::create("vti0", Options::default()).unwrap();
                let mut netlink = Netlink::open().unwrap();
                netlink.add_address(tun.ifindex(), [10, 1, 0, 1].into(), 24).unwrap();
                netlink.set_up(tun.ifindex(), true).unwrap();
                IcmpSender::open().unwrap().send_v4([192, 0, 2, 2].into(), &sent).unwrap();
            })
            .unwrap();
        wait(witness.as_fd());
        let mut packet = [0; 256];
        let n = (&witness).read(&mut packet).unwrap();
        assert_eq!((&packet[12..16], &packet[20..n]), (&[192, 0, 2, 1][..], &sent[..]));
    }
}
