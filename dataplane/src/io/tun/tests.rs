//! A TUN device in a namespace of its own, driven by the namespace's own sockets.

use super::*;
use crate::host::netlink::{Netlink, RouteKind, RouteSpec};
use crate::host::netns::Netns;
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
