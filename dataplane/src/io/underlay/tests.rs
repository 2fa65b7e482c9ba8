//! Two namespaces joined by a veth pair, an underlay in each.

use super::*;
use crate::host::netlink::{Netlink, RouteError};
use crate::host::netns::Netns;
use crate::io::tun::{Device, Options, SimpleTun, TunQueue};
use crate::io::{Errno, Pool};
use crate::testing::{require_netns, veth_pair, wait};
use netlink_sys::{
    Socket as NetlinkSocket,
    protocols::{NETLINK_ROUTE, NETLINK_XFRM},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr};
use uvti_core::packet::{Incoming, Outer, OuterHeader, PerPacket, UdpPorts};

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const DF: u16 = 0x4000;

fn open(netns: &Netns, esp: bool) -> SocketUnderlay {
    netns.run(|| SocketUnderlay::open(esp).unwrap()).unwrap()
}

/// An IPv4 packet. The host computes the checksum of the header.
fn ipv4(dst: Ipv4Addr, protocol: u8, tos: u8, payload: &[u8]) -> Outgoing {
    let mut p = vec![0x45, tos, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    p.extend(A.octets());
    p.extend(dst.octets());
    p.extend(payload);
    let len = p.len() as u16;
    p[2..4].copy_from_slice(&len.to_be_bytes());
    p[6..8].copy_from_slice(&DF.to_be_bytes());
    Outgoing { buf: Buf::from_packet(&p), mark: 0, oif: 0 }
}

fn ipv6(payload: &[u8]) -> Outgoing {
    let mut p = vec![0x6b, 0x90, 0, 0, 0, payload.len() as u8, 50, 64];
    p.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    p.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    p.extend(payload);
    Outgoing { buf: Buf::from_packet(&p), mark: 0, oif: 0 }
}

fn send(underlay: &mut SocketUnderlay, packets: &[Outgoing]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    underlay.send_burst(packets, &mut outcomes);
    outcomes
}

/// Receives until `n` items are there, waiting on the socket at `fd`.
fn receive(underlay: &mut SocketUnderlay, fd: usize, n: usize) -> Vec<Received> {
    let (mut got, mut pool) = (Vec::new(), Pool::new(n + 1));
    while got.len() < n {
        wait(underlay.fds()[fd]);
        underlay.recv_burst(&mut got, &mut pool, n + 1).unwrap();
    }
    assert_eq!(got.len(), n);
    got
}

fn packet(received: Received) -> Incoming {
    match received {
        Received::Packet(incoming) => incoming,
        damaged => panic!("{damaged:?}"),
    }
}

#[test]
fn esp_crosses() {
    if !require_netns("esp_crosses") {
        return;
    }
    let (a, b) = veth_pair();
    let (mut a, mut b) = (open(&a, true), open(&b, true));
    // More than one system call takes.
    let packets: Vec<_> = (0..100u8).map(|i| ipv4(B, 50, 0xb9, &[i; 40])).collect();
    assert_eq!(send(&mut a, &packets), vec![Outcome::Sent; 100]);
    for (i, item) in receive(&mut b, 0, 100).into_iter().enumerate() {
        let Incoming { buf, outer } = packet(item);
        assert_eq!(buf.bytes(), [i as u8; 40], "in order");
        assert_eq!(outer, Outer { src: A.into(), dst: B.into(), tos: 0xb9, udp: None });
    }
    assert_eq!(send(&mut a, &[ipv6(&[7; 40])]), [Outcome::Sent]);
    let Incoming { buf, outer } = packet(receive(&mut b, 1, 1).remove(0));
    assert_eq!(buf.bytes(), [7; 40]);
    let [src, dst] = [1, 2].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into());
    assert_eq!(outer, Outer { src, dst, tos: 0xb9, udp: None });
    assert_eq!((a.losses(), b.losses()), (Losses::default(), Losses::default()));
}

/// Copies of it, told apart from ESP; it is the third socket.
#[test]
fn plain_ipip_crosses() {
    if !require_netns("plain_ipip_crosses") {
        return;
    }
    let (a, b) = veth_pair();
    let (mut a, mut b) = (open(&a, false), open(&b, true));
    assert_eq!(send(&mut a, &[ipv4(B, 4, 0, &[7; 40])]), [Outcome::Sent]);
    let Some(Received::PlainIpip(Incoming { buf, outer })) = receive(&mut b, 2, 1).pop() else { panic!() };
    assert_eq!((buf.bytes(), outer.src, outer.dst), (&[7; 40][..], IpAddr::V4(A), IpAddr::V4(B)));
}

#[test]
fn the_header_leaves_as_it_was_made() {
    if !require_netns("the_header_leaves_as_it_was_made") {
        return;
    }
    let (a, b) = veth_pair();
    let mut a = open(&a, false);
    let witness = b.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap()).unwrap();
    send(&mut a, &[ipv4(B, 50, 0xb9, &[1; 16])]);
    wait(std::os::fd::AsFd::as_fd(&witness));
    let mut header = [0; 100];
    let n = std::io::Read::read(&mut &witness, &mut header).unwrap();
    assert_eq!(n, 36);
    assert_eq!(header[..10], [0x45, 0xb9, 0, 36, 0, 0, 0x40, 0, 64, 50], "DF with identification 0 stays");
}

#[test]
fn esp_in_udp_crosses() {
    if !require_netns("esp_in_udp_crosses") {
        return;
    }
    let (a, b) = veth_pair();
    let mut a = open(&a, false);
    b.run(|| {
        let mut b = SocketUnderlay::open(false).unwrap();
        b.bind_udp(UdpPort::v4(4500)).unwrap();
        b.bind_udp(UdpPort::v4(4500)).unwrap();
        assert_eq!(b.udp_ports().collect::<Vec<_>>(), [UdpPort::v4(4500)]);
        // Ports 1234 and 4500, length 12, no checksum (RFC 3948 §2.1), a payload as short as can be of interest.
        let udp = [0x04, 0xd2, 0x11, 0x94, 0, 12, 0, 0, 0xde, 0xad, 0xbe, 0xef];
        assert_eq!(send(&mut a, &[ipv4(B, 17, 3, &udp)]), [Outcome::Sent]);
        let Incoming { buf, outer } = packet(receive(&mut b, 0, 1).remove(0));
        assert_eq!(buf.bytes(), [0xde, 0xad, 0xbe, 0xef]);
        let udp = Some(UdpPorts { src: 1234, dst: 4500 });
        assert_eq!(outer, Outer { src: A.into(), dst: B.into(), tos: 3, udp });

        let mut other = SocketUnderlay::open(false).unwrap();
        assert_eq!(other.bind_udp(UdpPort::v4(4500)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(b.unbind_udp(UdpPort::v4(4500)) && !b.unbind_udp(UdpPort::v4(4500)));
        other.bind_udp(UdpPort::v4(4500)).unwrap();
    })
    .unwrap();
}

/// ESP in UDP over IPv6 from port 1234 to 4500, with a checksum or, as it may not be, without.
fn esp_in_udp_v6(payload: &[u8], with_checksum: bool) -> Outgoing {
    let [src, dst] = [1, 2].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into());
    let mut buf = Buf::from_packet(payload);
    let udp = Some(UdpPorts { src: 1234, dst: 4500 });
    let header = PerPacket { tos: 0xb9, df: true, id: 0, flow_label: 0 };
    OuterHeader::new(src, dst, udp).unwrap().push(&mut buf, header).unwrap();
    if !with_checksum {
        buf.bytes_mut()[46..48].fill(0);
    }
    Outgoing { buf, mark: 0, oif: 0 }
}

#[test]
fn esp_in_udp_crosses_ipv6() {
    if !require_netns("esp_in_udp_crosses_ipv6") {
        return;
    }
    let (a, b) = veth_pair();
    let mut a = open(&a, false);
    let [src, dst] = [1, 2].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into());
    let outer = Outer { src, dst, tos: 0xb9, udp: Some(UdpPorts { src: 1234, dst: 4500 }) };
    b.run(|| {
        let mut own = SocketUnderlay::open(false).unwrap();
        own.bind_udp(UdpPort::v6(4500)).unwrap();
        // The same number over IPv4 is another port.
        own.bind_udp(UdpPort::v4(4500)).unwrap();
        let mut shared = SocketUnderlay::open(false).unwrap();
        assert_eq!(shared.bind_udp(UdpPort::v6(4500)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        shared.share_udp(UdpPort::v6(4500)).unwrap();
        // What is no ESP, or has no checksum, a sharer does not get; without a checksum nobody does.
        let packets = [
            esp_in_udp_v6(&[9; 20], false),
            esp_in_udp_v6(&[0, 0, 0, 0, 1, 2, 3, 4], true),
            esp_in_udp_v6(&[0xff], true),
            esp_in_udp_v6(&[7; 21], true),
        ];
        assert_eq!(send(&mut a, &packets), [Outcome::Sent; 4]);
        let sent: [&[u8]; 3] = [&[0, 0, 0, 0, 1, 2, 3, 4], &[0xff], &[7; 21]];
        for (underlay, expected) in [(&mut own, &sent[..]), (&mut shared, &sent[2..])] {
            let got: Vec<_> = receive(underlay, 0, expected.len()).into_iter().map(packet).collect();
            assert!(got.iter().all(|incoming| incoming.outer == outer));
            assert!(got.iter().map(|incoming| incoming.buf.bytes()).eq(expected.iter().copied()));
        }
    })
    .unwrap();
}

/// ESP in UDP from port 4500 to 4500, without a checksum.
fn esp_in_udp(dst: Ipv4Addr, tos: u8, payload: &[u8]) -> Outgoing {
    let mut udp = vec![0x11, 0x94, 0x11, 0x94];
    udp.extend((payload.len() as u16 + 8).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    ipv4(dst, 17, tos, &udp)
}

#[test]
fn segments_cross_as_single_packets_do() {
    if !require_netns("segments_cross_as_single_packets_do") {
        return;
    }
    let (a, b) = veth_pair();
    let ports = SendPorts::default();
    let open_fast = || SocketUnderlay::open(false).unwrap().segmented(ports.clone());
    // Another worker's: it sends from the port that the first one bound.
    let (mut receiver, mut sender) = a.run(|| (open_fast(), open_fast())).unwrap();
    a.run(|| receiver.bind_udp(UdpPort::v4(4500)).unwrap()).unwrap();
    let witness = b.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap()).unwrap();
    let mut b = b
        .run(|| {
            let mut b = SocketUnderlay::open(false).unwrap();
            b.bind_udp(UdpPort::v4(4500)).unwrap();
            b
        })
        .unwrap();
    // 100 of one length (more than a message holds), then other lengths, TOS, and one without DF, by another way.
    let mut packets: Vec<_> = (0..100u8).map(|i| esp_in_udp(B, 0, &[i; 200])).collect();
    packets.extend([esp_in_udp(B, 0, &[100; 90]), esp_in_udp(B, 0xb9, &[101; 90])]);
    let mut fragmentable = esp_in_udp(B, 0xb9, &[102; 90]);
    fragmentable.buf.bytes_mut()[6] = 0;
    packets.push(fragmentable);
    assert_eq!(send(&mut sender, &packets), vec![Outcome::Sent; 103]);

    for (i, item) in receive(&mut b, 0, 103).into_iter().enumerate() {
        let Incoming { buf, outer } = packet(item);
        assert_eq!(buf.bytes(), vec![i as u8; if i < 100 { 200 } else { 90 }], "in order");
        let udp = Some(UdpPorts { src: 4500, dst: 4500 });
        assert_eq!(outer, Outer { src: A.into(), dst: B.into(), tos: if i < 101 { 0 } else { 0xb9 }, udp });
    }
    wait(std::os::fd::AsFd::as_fd(&witness));
    let mut header = vec![0; 65_536];
    let n = std::io::Read::read(&mut &witness, &mut header).unwrap();
    assert_eq!(n, 28 + 64 * 200, "one message");
    assert_eq!(
        (&header[6..10], &header[12..16]),
        (&[0x40, 0, 64, 17][..], &A.octets()[..]),
        "DF, TTL, source"
    );
    assert_eq!((sender.losses(), b.losses()), (Losses::default(), Losses::default()));
    // The port still belongs to the receiver alone.
    let mut back = esp_in_udp(A, 0, &[7; 20]);
    let (ends, from) = (back.buf.bytes_mut(), B.octets());
    ends[12..16].copy_from_slice(&from);
    assert_eq!(send(&mut b, &[back]), [Outcome::Sent]);
    assert_eq!(packet(receive(&mut receiver, 0, 1).remove(0)).buf.bytes(), [7; 20]);
}

#[test]
fn of_segments_that_do_not_fit_each_is_told() {
    if !require_netns("of_segments_that_do_not_fit_each_is_told") {
        return;
    }
    let (a, _b) = veth_pair();
    a.run(|| {
        let mut a = SocketUnderlay::open(false).unwrap().segmented(SendPorts::default());
        a.bind_udp(UdpPort::v4(4500)).unwrap();
        let nowhere = Ipv4Addr::new(198, 51, 100, 1);
        let packets = [
            esp_in_udp(B, 0, &[0; 1473]),
            esp_in_udp(B, 0, &[0; 1473]),
            esp_in_udp(B, 0, &[0; 20]),
            esp_in_udp(nowhere, 0, &[0; 20]),
            esp_in_udp(nowhere, 0, &[0; 20]),
            esp_in_udp(B, 0, &[0; 1472]),
            esp_in_udp(B, 0, &[0; 1472]),
        ];
        let (big, lost, sent) = (Outcome::TooBig, Outcome::Failed(Errno::NETUNREACH), Outcome::Sent);
        assert_eq!(send(&mut a, &packets), [big, big, sent, lost, lost, sent, sent]);
    })
    .unwrap();
}

#[test]
fn a_failure_is_about_its_packet_alone() {
    if !require_netns("a_failure_is_about_its_packet_alone") {
        return;
    }
    let (a, b) = veth_pair();
    let (mut a, mut b) = (open(&a, false), open(&b, true));
    let good = |i: u8| ipv4(B, 50, 0, &[i; 32]);
    let packets = [
        good(0),
        ipv4(B, 50, 0, &[0; 1481]),
        good(1),
        good(2),
        ipv4(Ipv4Addr::new(198, 51, 100, 1), 50, 0, &[0; 32]),
        good(3),
        Outgoing { buf: Buf::from_packet(&[0; 40]), mark: 0, oif: 0 },
        good(4),
        Outgoing { oif: 9999, ..good(9) },
        ipv4(B, 50, 0, &[5; 1480]),
    ];
    let outcomes = send(&mut a, &packets);
    let sent = Outcome::Sent;
    assert_eq!(outcomes.len(), packets.len());
    assert_eq!(outcomes[..4], [sent, Outcome::TooBig, sent, sent]);
    assert_eq!(outcomes[4..6], [Outcome::Failed(Errno::NETUNREACH), sent]);
    assert_eq!(outcomes[6..8], [Outcome::Failed(Errno::AFNOSUPPORT), sent]);
    assert!(matches!(outcomes[8], Outcome::Failed(_)), "a device that the host does not have");
    assert_eq!(outcomes[9], sent);
    let arrived: Vec<u8> =
        receive(&mut b, 0, 6).into_iter().map(|item| packet(item).buf.bytes()[0]).collect();
    assert_eq!(arrived, [0, 1, 2, 3, 4, 5]);
    assert_eq!(a.losses().async_errors, 0);
}

#[test]
fn a_full_lower_queue_is_told() {
    if !require_netns("a_full_lower_queue_is_told") {
        return;
    }
    Netns::new()
        .unwrap()
        .run(|| {
            let mut tun = SimpleTun::create("low0", Options { txqlen: 10, ..Options::default() }).unwrap();
            let mut netlink = Netlink::open().unwrap();
            netlink.add_address(tun.ifindex(), A.into(), 24).unwrap();
            netlink.set_up(tun.ifindex(), true).unwrap();
            without_queue(tun.ifindex());
            let mut underlay = SocketUnderlay::open(false).unwrap();
            let packets: Vec<_> = (0..20_000).map(|_| ipv4(B, 50, 0, &[0; 32])).collect();
            let outcomes = send(&mut underlay, &packets);
            let sent = outcomes.iter().filter(|o| **o == Outcome::Sent).count();
            let full = outcomes.iter().filter(|o| **o == Outcome::QueueFull).count();
            assert_eq!(sent + full, packets.len());
            assert!(sent >= 10 && full > 0, "{sent} sent, {full} not");

            let (mut got, mut pool) = (Vec::new(), Pool::new(packets.len()));
            while got.len() < sent {
                wait(tun.fd());
                tun.recv_burst(&mut got, &mut pool, packets.len()).unwrap();
            }
            assert_eq!(got.len(), sent, "what was called sent is what the device got");
        })
        .unwrap();
}

/// `tc qdisc replace dev … root noqueue`: a queueing discipline would hide from the sender what the device drops
/// (sendmsg() succeeds once a packet is queued). kernel: include/uapi/linux/rtnetlink.h struct tcmsg
fn without_queue(ifindex: u32) {
    let mut message = vec![48, 0, 0, 0, 36, 0, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([0; 4]);
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([0xff; 4]); // TC_H_ROOT
    message.extend([0; 4]);
    message.extend([12, 0, 1, 0]); // TCA_KIND
    message.extend(b"noqueue\0");
    request(NETLINK_ROUTE, &message);
}

/// Sends a complete netlink request and checks its acknowledgement.
fn request(protocol: isize, message: &[u8]) {
    let socket = NetlinkSocket::new(protocol).unwrap();
    socket.send(message, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    assert_eq!(i32::from_ne_bytes(*answer[16..].first_chunk().unwrap()), 0, "refused");
}

#[test]
fn the_kernels_policies_do_not_keep_esp_from_us() {
    if !require_netns("the_kernels_policies_do_not_keep_esp_from_us") {
        return;
    }
    let (a, b) = veth_pair();
    let mut a = open(&a, false);
    let (mut b, plain) = b
        .run(|| {
            block_everything_in();
            let plain = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::from(50))).unwrap();
            (SocketUnderlay::open(true).unwrap(), plain)
        })
        .unwrap();
    send(&mut a, &[ipv4(B, 50, 0, &[1; 16])]);
    receive(&mut b, 0, 1);
    // The copy for the older socket is made first (or not at all), and it is not there.
    let error = std::io::Read::read(&mut &plain, &mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the policy keeps it from other sockets");
}

/// Adds a kernel policy that blocks all that comes in. kernel: include/uapi/linux/xfrm.h XFRM_MSG_NEWPOLICY
fn block_everything_in() {
    let mut message = vec![0; 16 + 168];
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message[4..6].copy_from_slice(&0x13u16.to_ne_bytes());
    message[6..8].copy_from_slice(&5u16.to_ne_bytes()); // request, acknowledge
    let policy = &mut message[16..];
    policy[40] = libc::AF_INET as u8;
    policy[56..88].fill(0xff); // no limits of bytes and packets
    policy[161] = 1; // XFRM_POLICY_BLOCK
    request(NETLINK_XFRM, &message);
}

#[test]
fn losses_of_a_full_socket_are_counted() {
    if !require_netns("losses_of_a_full_socket_are_counted") {
        return;
    }
    let (a, b) = veth_pair();
    let (mut a, mut b) = (open(&a, false), open(&b, true));
    let packets: Vec<_> = (0..64).map(|_| ipv4(B, 50, 0, &[0; 1400])).collect();
    let rounds = 400;
    for _ in 0..rounds {
        send(&mut a, &packets);
    }
    let (mut got, mut pool) = (Vec::new(), Pool::new(64));
    let mut received = 0;
    let mut drain = |b: &mut SocketUnderlay| loop {
        let n = b.recv_burst(&mut got, &mut pool, 64).unwrap().received;
        received += n as u64;
        got.drain(..).for_each(|item| pool.put(packet(item).buf));
        if n == 0 {
            return received;
        }
    };
    drain(&mut b);
    // The count travels with the next packet.
    send(&mut a, &[ipv4(B, 50, 0, &[0; 16])]);
    wait(b.fds()[0]);
    let received = drain(&mut b);
    let lost = b.losses().receive_overflow;
    assert!(lost > 0, "{received} received");
    assert!(received + lost <= rounds * 64 + 1, "{received} received, {lost} lost");
}

#[test]
fn a_cut_packet_is_told() {
    if !require_netns("a_cut_packet_is_told") {
        return;
    }
    let (a, b) = veth_pair();
    let (mut a, mut b) = (open(&a, false), open(&b, true));
    send(&mut a, &[ipv4(B, 50, 0, &[0; 200])]);
    wait(b.fds()[0]);
    let mut got = Vec::new();
    let burst = b.recv_burst(&mut got, &mut Pool::with_capacity(1, 100), 8).unwrap();
    assert_eq!(burst, Burst { received: 1, starved: true });
    assert!(
        matches!(got[0], Received::Damaged { fault: Fault::Truncated, from: Some(from), .. } if from == A)
    );
}

#[test]
fn the_mark_chooses_the_route() {
    if !require_netns("the_mark_chooses_the_route") {
        return;
    }
    let (a, b) = veth_pair();
    let (mut sender, mut b) = (open(&a, false), open(&b, true));
    a.run(|| prohibit_mark(7)).unwrap();
    let marked = Outgoing { mark: 7, ..ipv4(B, 50, 0, &[1; 16]) };
    let outcomes = send(&mut sender, &[marked, ipv4(B, 50, 0, &[2; 16])]);
    assert_eq!(outcomes, [Outcome::Failed(Errno::ACCESS), Outcome::Sent]);
    assert_eq!(packet(receive(&mut b, 0, 1).remove(0)).buf.bytes(), [2; 16]);
    let refused = a.run(|| Netlink::open().unwrap().route(None, B.into(), 7, 0).unwrap_err()).unwrap();
    assert!(matches!(refused, RouteError::Prohibit), "the look-up says the same: {refused:?}");
}

/// `ip rule add fwmark MARK prohibit`. kernel: include/uapi/linux/fib_rules.h
fn prohibit_mark(mark: u32) {
    let mut message = vec![36, 0, 0, 0, 32, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0]); // FR_ACT_PROHIBIT
    message.extend([8, 0, 10, 0]); // FRA_FWMARK
    message.extend(mark.to_ne_bytes());
    request(NETLINK_ROUTE, &message);
}
