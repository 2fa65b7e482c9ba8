//! A TUN device in a namespace of its own, driven by the namespace's own sockets.

use super::*;
use crate::host::netlink::{Netlink, RouteKind, RouteSpec};
use crate::host::netns::Netns;
use crate::host::packet::PacketSocket;
use crate::io::Errno;
use crate::testing::{require_netns, wait};
use std::net::UdpSocket;

fn in_netns(name: &str, test: impl FnOnce() + Send) {
    if require_netns(name) {
        Netns::new().unwrap().run(test).unwrap();
    }
}

/// A device with 10.1.0.1/24 that is up.
fn up(mtu: u32) -> SimpleTun {
    let tun = SimpleTun::create("vti0", Options { mtu, ..Options::default() }).unwrap();
    let mut netlink = Netlink::open().unwrap();
    netlink.add_address(tun.ifindex(), [10, 1, 0, 1].into(), 24).unwrap();
    netlink.set_up(tun.ifindex(), true).unwrap();
    tun
}

/// Swaps source and destination, addresses and ports: the checksums stay right.
fn reflect(packet: &mut [u8]) {
    let (src, dst) = packet[12..20].split_at_mut(4);
    src.swap_with_slice(dst);
    let (sport, dport) = packet[20..24].split_at_mut(2);
    sport.swap_with_slice(dport);
}

#[test]
fn traffic_both_ways() {
    in_netns("traffic_both_ways", || {
        let mut tun = up(1480);
        let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
        for i in 0..3u8 {
            socket.send_to(&[i; 100], "10.1.0.2:6000").unwrap();
        }
        wait(tun.fd());
        let (mut got, mut pool) = (Vec::new(), Pool::new(8));
        let burst = tun.recv_burst(&mut got, &mut pool, 64).unwrap();
        assert_eq!(burst.received, 3, "three datagrams, and no noise such as router solicitations");
        assert!(got.iter().all(|item| item.kind == Kind::Packet && item.buf.len() == 128));

        let mut packets: Vec<Buf> = got.into_iter().map(|item| item.buf).collect();
        packets.iter_mut().for_each(|p| reflect(p.bytes_mut()));
        packets.insert(1, Buf::from_packet(&[0x10, 0, 0, 0]));
        let mut outcomes = Vec::new();
        tun.send_burst(&mut packets, &mut outcomes);
        let refused = Outcome::Failed(Errno::INVAL);
        assert_eq!(outcomes, [Outcome::Sent, refused, Outcome::Sent, Outcome::Sent]);
        let mut data = [0; 200];
        for i in 0..3u8 {
            let (n, from) = socket.recv_from(&mut data).unwrap();
            assert_eq!((&data[..n], from.to_string()), (&[i; 100][..], "10.1.0.2:6000".to_owned()));
        }
    });
}

#[test]
fn bursts_are_bounded_and_starvation_is_told() {
    in_netns("bursts_are_bounded_and_starvation_is_told", || {
        let mut tun = up(1480);
        let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
        for _ in 0..5 {
            socket.send_to(b"x", "10.1.0.2:6000").unwrap();
        }
        let (mut got, mut pool) = (Vec::new(), Pool::new(4));
        assert_eq!(tun.recv_burst(&mut got, &mut pool, 3).unwrap(), Burst { received: 3, starved: false });
        assert_eq!(tun.recv_burst(&mut got, &mut pool, 3).unwrap(), Burst { received: 1, starved: true });
        got.drain(..).for_each(|item| pool.put(item.buf));
        assert_eq!(tun.recv_burst(&mut got, &mut pool, 3).unwrap(), Burst { received: 1, starved: false });
    });
}

#[test]
fn largest_packet_is_whole_and_a_cut_one_is_told() {
    in_netns("largest_packet_is_whole_and_a_cut_one_is_told", || {
        let mut tun = up(65_535);
        let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
        socket.send_to(&[1; 65_507], "10.1.0.2:6000").unwrap();
        socket.send_to(&[1; 200], "10.1.0.2:6000").unwrap();
        let mut got = Vec::new();
        tun.recv_burst(&mut got, &mut Pool::new(1), 1).unwrap();
        assert_eq!((got[0].kind, got[0].buf.len()), (Kind::Packet, 65_535));
        tun.recv_burst(&mut got, &mut Pool::with_capacity(1, 100), 1).unwrap();
        assert_eq!((got[1].kind, got[1].buf.len()), (Kind::Truncated, 100));
    });
}

#[test]
fn looks_like_a_vti_and_outlives_its_owner() {
    in_netns("looks_like_a_vti_and_outlives_its_owner", || {
        let tun = up(1400);
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link_by_name("vti0").unwrap();
        assert_eq!((link.link_type, link.mtu, link.txqlen, link.up), (768, 1400, 1000, true));
        let route = RouteSpec {
            dst: [192, 0, 2, 0].into(),
            prefix: 24,
            via: None,
            dev: Some(link.index),
            mtu: None,
            kind: RouteKind::Unicast,
        };
        netlink.add_route(route).unwrap();

        drop(tun);
        let route = netlink.route(None, [192, 0, 2, 1].into(), 0, 0).unwrap();
        assert_eq!((route.ifindex, route.carrier), (link.index, false), "the host drops what nobody reads");

        let again = SimpleTun::create("vti0", Options::default()).unwrap();
        assert_eq!(again.ifindex(), link.index);
        assert!(netlink.link_by_name("vti0").unwrap().carrier);
        again.destroy().unwrap();
        drop(again);
        assert_eq!(netlink.link_by_name("vti0").unwrap_err().errno(), Some(Errno::NODEV));
    });
}

#[test]
fn offloads_of_an_earlier_owner_are_cleared() {
    in_netns("offloads_of_an_earlier_owner_are_cleared", || {
        let earlier = up(1480);
        // kernel: include/uapi/linux/if_tun.h TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
        crate::sys::tun::set_offload(earlier.fd(), 7).unwrap();
        drop(earlier);
        let mut tun = SimpleTun::create("vti0", Options::default()).unwrap();
        let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
        socket.send_to(b"x", "10.1.0.2:6000").unwrap();
        let (mut got, mut pool) = (Vec::new(), Pool::new(8));
        wait(tun.fd());
        tun.recv_burst(&mut got, &mut pool, 8).unwrap();
        // With TUN_F_CSUM the host leaves the UDP checksum to us: only the sum over the pseudo header is there.
        let udp = &got[0].buf.bytes()[20..];
        let pseudo = [0x0a01, 1, 0x0a01, 2, 17, udp.len() as u32];
        let words = udp.chunks(2).map(|w| u32::from_be_bytes([0, 0, w[0], w.get(1).copied().unwrap_or(0)]));
        let sum: u32 = pseudo.into_iter().chain(words).sum();
        assert_eq!(sum % 0xffff, 0, "the checksum is complete");
    });
}

#[test]
fn errors_of_creation_are_told_apart() {
    in_netns("errors_of_creation_are_told_apart", || {
        let create = |name: &str| SimpleTun::create(name, Options::default());
        let _first = create("vti0").unwrap();
        assert!(matches!(create("vti0").unwrap_err(), CreateError::Busy(name) if name == "vti0"));
        let elsewhere = Netns::new().unwrap();
        Netlink::open().unwrap().add_veth("veth0", "veth1", &elsewhere).unwrap();
        let error = create("veth0").unwrap_err();
        assert!(matches!(&error, CreateError::NotTun { kind, .. } if kind == "veth"), "{error}");
        let error = create("lo").unwrap_err();
        assert!(matches!(error, CreateError::NotTun { .. }), "{error}");
    });
}

#[test]
fn names_are_checked_before_anything_else() {
    for name in ["", "0123456789abcdef", ".", "..", "a/b", "a:b", "a b", "tun%d", "a\0", "a\x0b"] {
        assert!(matches!(check_name(name), Err(CreateError::InvalidName { .. })), "{name:?}");
    }
    for name in ["vti0", "0123456789abcde", "...", "é"] {
        check_name(name).unwrap();
    }
}

/// What a device that nobody reads has no room for is its driver's loss: the host says so, and nobody else can.
#[test]
fn the_host_counts_what_a_full_device_lost() {
    in_netns("the_host_counts_what_a_full_device_lost", || {
        let tun = up(1480);
        let mut netlink = Netlink::open().unwrap();
        netlink.set_txqlen(tun.ifindex(), 4).unwrap();
        let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
        for _ in 0..10 {
            // The queue of the device tells the sender nothing, or that it is full.
            let _ = socket.send_to(b"x", "10.1.0.2:6000");
        }
        let link = netlink.link_by_index(tun.ifindex()).unwrap();
        assert_eq!((link.tx_dropped, link.rx_dropped), (6, 0));
    });
}

/// A device with offload, and the way to it.
fn offload(name: &str) -> OffloadQueue {
    OffloadQueue::new(OffloadTun::create(name, Options::default(), Offloads::ALL).unwrap())
}

fn forward() {
    for knob in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{knob}"), "1").unwrap();
    }
}

/// Up, with a route to one host of each family.
fn route_to(name: &str, v4: [u8; 4], v6: u16) {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link_by_name(name).unwrap().index;
    netlink.set_up(index, true).unwrap();
    netlink.add_address(index, [v4[0], v4[1], v4[2], 254].into(), 24).unwrap();
    let dst = [0x2001, 0xdb8, 0, 0, 0, 0, 0, v6].into();
    let dev = Some(index);
    netlink
        .add_route(RouteSpec { dst, prefix: 128, via: None, dev, mtu: None, kind: RouteKind::Unicast })
        .unwrap();
}

/// TCP streams of both families and a stream of datagrams, mixed, each of which can be joined.
fn streams() -> Vec<Vec<u8>> {
    use uvti_core::packet::testing::{tcp4, tcp6, udp6, with_checksum};
    let mut packets = Vec::new();
    for i in 0..20u16 {
        // The last of each is shorter, and has PSH.
        let (len, flags) = if i == 19 { (333, 0x18) } else { (1000, 0x10) };
        let payload: Vec<u8> = (0..len).map(|n| (n as u16 * 7 + i) as u8).collect();
        let seq = u32::from(i) * 1000;
        let mut four = tcp4(seq, flags, &payload);
        four[4..6].copy_from_slice(&(0xfff8 + i as u32).to_be_bytes()[2..]);
        let mut udp = udp6("2001:db8::1", "2001:db8::2", 5, 6, 48 + len);
        udp[48..].copy_from_slice(&payload);
        packets.extend([with_checksum(four), tcp6(seq, flags, &payload), with_checksum(udp)]);
    }
    packets
}

/// A router took one off the TTL.
fn routed(mut packet: Vec<u8>) -> Vec<u8> {
    let ttl = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[ttl] -= 1;
    uvti_core::packet::testing::with_checksum(packet)
}

/// Packets of one flow, in order.
fn flow(packets: &[Vec<u8>], version: u8, proto: u8) -> Vec<Vec<u8>> {
    let at = if version == 4 { 9 } else { 6 };
    packets.iter().filter(|p| p[0] >> 4 == version && p[at] == proto).cloned().collect()
}

fn drain(queue: &mut dyn TunQueue, n: usize) -> Vec<Vec<u8>> {
    let (mut got, mut pool) = (Vec::new(), Pool::new(256));
    while got.len() < n {
        wait(queue.fd());
        queue.recv_burst(&mut got, &mut pool, 64).unwrap();
    }
    got.iter().map(|item| (item.kind == Kind::Packet).then(|| item.buf.bytes().to_vec()).unwrap()).collect()
}

/// What is joined here the host takes; and what it hands over as super-packets, or cuts itself, is what was sent.
#[test]
fn the_host_cuts_what_was_joined_into_the_same_packets_and_so_do_we() {
    in_netns("the_host_cuts_what_was_joined_into_the_same_packets_and_so_do_we", || {
        forward();
        let mut from = offload("from");
        route_to("from", [10, 1, 0, 1], 1);
        let sent = streams();
        let expect: Vec<Vec<u8>> = sent.iter().cloned().map(routed).collect();
        for with_offload in [false, true] {
            let mut to: Box<dyn TunQueue> = match with_offload {
                true => Box::new(offload("to")),
                false => Box::new(SimpleTun::create("to", Options::default()).unwrap()),
            };
            route_to_once("to");
            let mut packets: Vec<Buf> = sent.iter().map(|p| Buf::from_packet(p)).collect();
            let mut outcomes = Vec::new();
            let before = received("from");
            from.send_burst(&mut packets, &mut outcomes);
            assert_eq!(outcomes, vec![Outcome::Sent; sent.len()]);
            assert_eq!(received("from") - before, 3, "three super-packets");
            let got = drain(to.as_mut(), sent.len());
            assert_eq!(got.len(), sent.len());
            for (version, proto) in [(4, 6), (6, 6), (6, 17)] {
                let (got, expect) = (flow(&got, version, proto), flow(&expect, version, proto));
                assert_eq!(got.len(), 20, "IPv{version} {proto}");
                assert!(got == expect, "IPv{version} {proto}, offload {with_offload}");
            }
        }
    });
}

/// The device outlives its owner: the second one finds it set up.
fn route_to_once(name: &str) {
    let mut netlink = Netlink::open().unwrap();
    if !netlink.link_by_name(name).unwrap().up {
        route_to(name, [10, 2, 0, 1], 2);
    }
}

/// Packets that the host has taken from the device, a super-packet as one.
fn received(name: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{name}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn datagrams_that_the_host_left_uncut_are_those_that_it_cuts() {
    in_netns("datagrams_that_the_host_left_uncut_are_those_that_it_cuts", || {
        let mut seen = Vec::new();
        for with_offload in [false, true] {
            let mut tun: Box<dyn TunQueue> = match with_offload {
                true => Box::new(offload("vti0")),
                false => Box::new(up(1480)),
            };
            let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
            // kernel: include/uapi/linux/udp.h UDP_SEGMENT
            crate::sys::sockopt::set(&socket, 17, 103, 100).unwrap();
            let data: Vec<u8> = (0..950u32).map(|n| n as u8).collect();
            socket.send_to(&data, "10.1.0.2:6000").unwrap();
            socket.send_to(b"single", "10.1.0.2:6000").unwrap();
            seen.push(drain(tun.as_mut(), 11));
        }
        let id = |p: &Vec<u8>| u16::from_be_bytes([p[4], p[5]]);
        for packets in &mut seen {
            assert!(packets[..10].windows(2).all(|w| id(&w[1]) == id(&w[0]).wrapping_add(1)));
            for packet in packets {
                assert_eq!(uvti_core::packet::checksum(&packet[..20]), 0);
                // Where the host's counter stands differs.
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
        }
        assert_eq!(seen[0].len(), 11);
        assert!(seen[0] == seen[1]);
    });
}

#[test]
fn a_device_that_is_down_refuses_each_packet_and_joining_goes_on() {
    in_netns("a_device_that_is_down_refuses_each_packet_and_joining_goes_on", || {
        let mut tun = offload("from");
        let mut packets: Vec<Buf> = streams().iter().map(|p| Buf::from_packet(p)).collect();
        let mut outcomes = Vec::new();
        tun.send_burst(&mut packets, &mut outcomes);
        assert_eq!(outcomes, vec![Outcome::Failed(Errno::IO); 60]);
        route_to("from", [10, 1, 0, 1], 1);
        outcomes.clear();
        tun.send_burst(&mut packets, &mut outcomes);
        assert_eq!((outcomes, received("from")), (vec![Outcome::Sent; 60], 3));
    });
}

#[test]
fn switched_off_nothing_is_joined() {
    in_netns("switched_off_nothing_is_joined", || {
        let tun = OffloadTun::create("from", Options::default(), Offloads::NONE).unwrap();
        let mut queue = OffloadQueue::new(tun);
        route_to("from", [10, 1, 0, 1], 1);
        let mut packets: Vec<Buf> = streams().iter().map(|p| Buf::from_packet(p)).collect();
        let mut outcomes = Vec::new();
        queue.send_burst(&mut packets, &mut outcomes);
        assert_eq!((outcomes, received("from")), (vec![Outcome::Sent; 60], 60));
    });
}

/// Scenarios tx_garbage_ipv4 and tx_ver_mismatch: what a packet is, is what its sender says.
#[test]
fn the_protocol_is_the_hosts_word() {
    in_netns("the_protocol_is_the_hosts_word", || {
        let mut tun: [Box<dyn TunQueue>; 2] = [Box::new(up(1480)), Box::new(offload("vti1"))];
        let mut netlink = Netlink::open().unwrap();
        for (queue, name) in tun.iter_mut().zip(["vti0", "vti1"]) {
            let index = netlink.link_by_name(name).unwrap().index;
            netlink.set_up(index, true).unwrap();
            for ethertype in [0x0800, 0x86dd, 0x0806] {
                PacketSocket::open(index, ethertype).unwrap().send(&[0; 40]).unwrap();
                let (mut got, mut pool) = (Vec::new(), Pool::new(256));
                wait(queue.fd());
                queue.recv_burst(&mut got, &mut pool, 64).unwrap();
                let said: Vec<_> =
                    got.iter().map(|item| (item.buf.protocol.number(), item.buf.len())).collect();
                assert_eq!(said, [(ethertype, 40)], "{name}");
            }
        }
    });
}

/// Scenarios tx_afpacket_noroute6, tx_nopol_default_block_afpacket, tx_key0_pol_unmarked_afpacket: a TUN alone does not tell
/// a packet of an AF_PACKET socket from one that the host routed, nor whether a route leads to where it goes.
#[test]
fn a_tun_does_not_say_whether_a_packet_was_routed() {
    in_netns("a_tun_does_not_say_whether_a_packet_was_routed", || {
        let mut tun = up(1480);
        let mut read = |n: usize| {
            let (mut got, mut pool) = (Vec::new(), Pool::new(8));
            while got.len() < n {
                wait(tun.fd());
                tun.recv_burst(&mut got, &mut pool, 8).unwrap();
            }
            got.into_iter().map(|item| (item.buf.protocol, item.buf.bytes().to_vec())).collect::<Vec<_>>()
        };
        UdpSocket::bind("10.1.0.1:5000").unwrap().send_to(b"x", "10.1.0.2:6000").unwrap();
        let routed = read(1);
        let index = Netlink::open().unwrap().link_by_name("vti0").unwrap().index;
        PacketSocket::open(index, 0x0800).unwrap().send(&routed[0].1).unwrap();
        assert_eq!(read(1), routed);
        let nowhere = uvti_core::packet::testing::udp6("2001:db8:a::1", "2001:db8:dead::1", 1, 2, 120);
        PacketSocket::open(index, 0x86dd).unwrap().send(&nowhere).unwrap();
        assert_eq!(read(1)[0].1, nowhere);
    });
}

/// Scenario tx_big_nodf_local: a TUN alone has no tunnel whose MTU the host would remember for its route.
#[test]
fn a_tun_alone_leaves_the_routes_mtu_as_it_is() {
    in_netns("a_tun_alone_leaves_the_routes_mtu_as_it_is", || {
        let mut tun = up(1480);
        let socket = UdpSocket::bind("10.1.0.1:5000").unwrap();
        crate::host::packet::report_errors(&socket, false, Some(false), 0).unwrap();
        for _ in 0..3 {
            socket.send_to(&[0; 1442], "10.1.0.2:6000").unwrap();
            let (mut got, mut pool) = (Vec::new(), Pool::new(8));
            wait(tun.fd());
            tun.recv_burst(&mut got, &mut pool, 8).unwrap();
            assert_eq!(got.iter().map(|item| item.buf.len()).collect::<Vec<_>>(), [1470]);
        }
    });
}
