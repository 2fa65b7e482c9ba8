//! ESP that arrives in fragments: the host joins them before the raw socket has them, in whatever order they come.

use rustix::net::sockopt::Ipv4PathMtuDiscovery;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;
use uvti_tests::capture::Capture;
use uvti_tests::esp::{Key, Suite};
use uvti_tests::frame::{ESP, ETH_IPV4, Ipv4, UDP, checksum, ethernet, udp};
use uvti_tests::path::{Flow, INNER, LEFT, Path, Plan, RIGHT, RIGHT_MAC, ROUTER_MAC, SPI_LEFT};
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

fn build(keys: &[Key; 2], words: &str) -> Path {
    let algorithms = [keys[0].ip_words(), keys[1].ip_words()];
    let plan = Plan { words, ..Plan::bare(algorithms, 1300) };
    Path::build(&plan, PathBuf::from(UVTI), |_| Ok(())).unwrap()
}

/// Cuts an IPv4 packet without options into fragments of at most `size` bytes of payload, a multiple of 8.
fn cut(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let pieces = payload.chunks(size).count();
    let fragment = |(i, piece): (usize, &[u8])| {
        let mut fragment = [header, piece].concat();
        let more = if i + 1 < pieces { 0x2000 } else { 0 };
        fragment[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
        fragment[6..8].copy_from_slice(&((i * size / 8) as u16 | more).to_be_bytes());
        fragment[10..12].fill(0);
        let sum = checksum(&fragment[..20]).to_be_bytes();
        fragment[10..12].copy_from_slice(&sum);
        fragment
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

#[test]
fn fragments_in_any_order_are_one_packet() {
    if !have("fragments_in_any_order_are_one_packet", Need::Netns) {
        return;
    }
    let keys = Suite::Gcm128.keys();
    let path = build(&keys, "replay-window 32");
    let wire = Capture::open(&path.router, "right").unwrap();
    let receiver = path.right.namespace.run(|| Ok(UdpSocket::bind((INNER[1], 0))?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let orders: [fn(&mut Vec<Vec<u8>>); 4] =
        [|_| (), |f| f.reverse(), |f| f.swap(0, 1), |f| f.insert(1, f[1].clone())];
    for (sequence, order) in (1..).zip(orders) {
        let payload = vec![sequence as u8; 1200];
        let inner =
            Ipv4::new(INNER[0], INNER[1], UDP).packet(&udp(INNER[0], INNER[1], (4000, port), &payload));
        let esp = keys[0].seal(SPI_LEFT.0, sequence, &inner, 4);
        let outer = Ipv4 { id: sequence as u16, ..Ipv4::new(LEFT, RIGHT, ESP) }.packet(&esp);
        let mut fragments = cut(&outer, 400);
        assert_eq!(fragments.len(), 4);
        order(&mut fragments);
        for fragment in fragments {
            wire.inject(&ethernet(RIGHT_MAC, ROUTER_MAC, ETH_IPV4, &fragment)).unwrap();
        }
        let mut buffer = [0; 2048];
        let n = receiver.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..n], payload);
    }
    assert_eq!(path.right.link("vti0").unwrap()["rx_packets"], 4);
    path.right.check().unwrap();
}

/// Without DF inside there is none outside: the router cuts what does not fit, bare and in UDP.
#[test]
fn a_routers_fragments_arrive_whole() {
    if !have("a_routers_fragments_arrive_whole", Need::Netns) {
        return;
    }
    let keys = Suite::Gcm128.keys();
    for words in ["", "encap espinudp 4500 4500 0.0.0.0"] {
        let path = build(&keys, words);
        let wire = Capture::open(&path.router, "right").unwrap();
        let flow = Flow::open(&path, Ipv4PathMtuDiscovery::DONT).unwrap();
        for size in [1400, 1438, 100] {
            flow.send(size).unwrap();
            assert_eq!(flow.receive().unwrap(), size);
        }
        let parsed =
            |frame: &uvti_tests::capture::Frame| Ipv4::parse(&frame.packet).map(|(header, _)| header);
        let headers: Vec<_> = wire.drain().unwrap().iter().filter_map(parsed).collect();
        assert_eq!(headers.iter().filter(|h| h.fragment).count(), 4, "two of three packets in two pieces");
        assert!(headers.iter().all(|h| !h.df));
        path.right.check().unwrap();
    }
}
