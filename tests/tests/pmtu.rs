//! Path MTUs: learned from a router, not from a forger; and what `uvti mtu` says is what passes.

use rustix::net::sockopt::Ipv4PathMtuDiscovery;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path as File, PathBuf};
use uvti_tests::esp::Suite;
use uvti_tests::frame::{ESP, Ipv4, checksum};
use uvti_tests::netns::Namespace;
use uvti_tests::path::{Flow, LEFT, Path, Plan, RIGHT, SPI_LEFT};
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

fn gcm() -> [String; 2] {
    Suite::Gcm128.keys().map(|key| key.ip_words())
}

fn build(plan: &Plan<'_>, prepare: impl Fn(&Namespace) -> anyhow::Result<()>) -> Path {
    Path::build(plan, PathBuf::from(UVTI), prepare).unwrap()
}

/// What the host itself has for the way to the right gateway.
fn host_route(path: &Path) -> String {
    let left = &path.left.namespace;
    left.command(File::new("ip"), &["route", "get", &RIGHT.to_string()], "").unwrap()
}

/// An ICMP frag-needed of that MTU about an ESP packet with that SPI, from the router to the left gateway.
fn report(path: &Path, spi: u32, mtu: u16) {
    let quoted = Ipv4 { df: true, ..Ipv4::new(LEFT, RIGHT, ESP) }
        .packet(&[&spi.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 1400]].concat());
    let mut icmp = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), &quoted[..528]].concat();
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let socket =
        path.router.run(|| Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?)).unwrap();
    socket.connect(&SocketAddr::from((LEFT, 0)).into()).unwrap();
    (&socket).write_all(&icmp).unwrap();
}

fn mtu_of(ledger: &serde_json::Value) -> u64 {
    ledger["path"]["mtu"].as_u64().unwrap()
}

#[test]
fn a_routers_mtu_is_learned_and_told_to_senders() {
    if !have("a_routers_mtu_is_learned_and_told_to_senders", Need::Netns) {
        return;
    }
    let path = build(&Plan::bare(gcm(), 1300), |_| Ok(()));
    let route = host_route(&path);
    let flow = Flow::open(&path, Ipv4PathMtuDiscovery::DO).unwrap();
    assert_eq!(path.ledger().unwrap()["path"]["source"], "device");
    // The first packet fits the way as far as the gateway knows: it is lost at the router.
    flow.send(1400).unwrap();
    let ledger = path.wait_for_ledger(|l| l["path"]["source"]["learned"].is_object()).unwrap();
    assert_eq!((mtu_of(&ledger), ledger["path"]["largest_inner"].as_u64()), (1300, Some(1246)));
    assert!(ledger["path"]["source"]["learned"]["expires_in"].as_u64().unwrap() > 500);
    assert_eq!((flow.path_mtu().unwrap(), path.dropped("tx_too_big").unwrap()), (1480, 0));
    // The second is stopped, and its sender told.
    flow.send(1400).unwrap();
    flow.wait_for_path_mtu(1246).unwrap();
    assert_eq!(path.dropped("tx_too_big").unwrap(), 1);
    flow.send(1246).unwrap();
    assert_eq!(flow.receive().unwrap(), 1246, "and nothing larger has arrived before");
    assert_eq!(host_route(&path), route, "the host's own route is as it was");
    path.left.check().unwrap();
}

/// The same over IPv6: the router says packet-too-big.
#[test]
fn a_vti6_learns_too() {
    if !have("a_vti6_learns_too", Need::Netns) {
        return;
    }
    let path = build(&Plan { outer6: true, ..Plan::bare(gcm(), 1300) }, |_| Ok(()));
    let flow = Flow::open(&path, Ipv4PathMtuDiscovery::DO).unwrap();
    assert_eq!(path.ledger().unwrap()["path"]["largest_inner"], 1426);
    flow.send(1400).unwrap();
    let ledger = path.wait_for_ledger(|l| l["path"]["source"]["learned"].is_object()).unwrap();
    assert_eq!((mtu_of(&ledger), ledger["path"]["largest_inner"].as_u64()), (1300, Some(1226)));
    flow.send(1400).unwrap();
    flow.wait_for_path_mtu(1226).unwrap();
    flow.send(1226).unwrap();
    assert_eq!(flow.receive().unwrap(), 1226);
    let left = &path.left.namespace;
    let route = left.command(File::new("ip"), &["route", "get", "2001:db8:2::2"], "").unwrap();
    assert!(!route.contains("mtu"), "{route}");
}

#[test]
fn a_forger_who_knows_no_spi_changes_nothing() {
    if !have("a_forger_who_knows_no_spi_changes_nothing", Need::Netns) {
        return;
    }
    let path = build(&Plan::bare(gcm(), 1500), |_| Ok(()));
    let route = host_route(&path);
    report(&path, 0x666, 600);
    // Who reads the second has read the first.
    report(&path, SPI_LEFT.0, 1290);
    let ledger = path.wait_for_ledger(|l| mtu_of(l) != 1500).unwrap();
    assert_eq!(mtu_of(&ledger), 1290);
    report(&path, SPI_LEFT.0, 1400);
    report(&path, SPI_LEFT.0, 100);
    let ledger = path.wait_for_ledger(|l| mtu_of(l) != 1290).unwrap();
    assert_eq!(mtu_of(&ledger), 552, "it does not rise, and does not fall below the least");
    assert_eq!(host_route(&path), route);
    assert!(!route.contains("mtu"), "{route}");
}

#[test]
fn what_was_learned_is_forgotten_after_the_hosts_time() {
    if !have("what_was_learned_is_forgotten_after_the_hosts_time", Need::Netns) {
        return;
    }
    let soon = |left: &Namespace| left.sysctl("net/ipv4/route/mtu_expires", "2");
    let path = build(&Plan::bare(gcm(), 1500), soon);
    report(&path, SPI_LEFT.0, 1290);
    path.wait_for_ledger(|l| mtu_of(l) == 1290).unwrap();
    let ledger = path.wait_for_ledger(|l| mtu_of(l) != 1290).unwrap();
    assert_eq!((mtu_of(&ledger), ledger["path"]["source"].as_str()), (1500, Some("device")));
}

/// Sends exactly the largest packet with DF, which arrives, and one byte more, about which the sender is told.
#[test]
fn the_ledger_is_what_passes() {
    if !have("the_ledger_is_what_passes", Need::Netns) {
        return;
    }
    let hex = |bytes: usize| format!("0x{}", "5a".repeat(bytes));
    let aead = |name: &str, key: usize, icv: u32| format!("aead {name} {} {icv}", hex(key));
    let cbc = format!("enc cbc(aes) {}", hex(16));
    let sha256 = format!("auth-trunc hmac(sha256) {} 128", hex(32));
    let natt = "encap espinudp 4500 4500 0.0.0.0";
    for (algorithms, words, route_mtu, largest) in [
        (aead("rfc4106(gcm(aes))", 20, 128), "", None, 1446),
        (aead("rfc4106(gcm(aes))", 20, 64), "", None, 1454),
        (format!("{cbc} auth hmac(sha1) {}", hex(20)), "", None, 1438),
        (format!("{cbc} {sha256}"), "", None, 1438),
        (format!("enc ecb(cipher_null) \"\" {sha256}"), "", None, 1454),
        (aead("rfc7539esp(chacha20,poly1305)", 36, 128), "", None, 1446),
        (aead("rfc4106(gcm(aes))", 20, 128), natt, None, 1438),
        (aead("rfc4106(gcm(aes))", 20, 128), "", Some(1300), 1246),
    ] {
        let case = format!("{algorithms} {words} {route_mtu:?}");
        let narrow = |left: &Namespace| match route_mtu {
            Some(mtu) => left.ip(&[&format!("route change default via 198.51.100.254 mtu {mtu}")]),
            None => Ok(()),
        };
        let plan = Plan { words, ..Plan::bare([algorithms.clone(), algorithms], 1500) };
        let path = build(&plan, narrow);
        let ledger = path.ledger().unwrap();
        assert_eq!(ledger["path"]["largest_inner"].as_u64(), Some(largest), "{case}");
        let source = if route_mtu.is_some() { "route" } else { "device" };
        assert_eq!(ledger["path"]["source"], source, "{case}");
        let flow = Flow::open(&path, Ipv4PathMtuDiscovery::DO).unwrap();
        flow.send(largest as usize).unwrap();
        assert_eq!(flow.receive().unwrap(), largest as usize, "{case}");
        assert_eq!(flow.path_mtu().unwrap(), 1480, "{case}");
        flow.send(largest as usize + 1).unwrap();
        flow.wait_for_path_mtu(largest as u32).unwrap();
        let shown = path.left.uvti(&["mtu"]).unwrap();
        let command = format!("ip link set dev vti0 mtu {largest}");
        assert!(shown.contains(&command), "{shown}");
        // Pasted, it repairs.
        let words: Vec<&str> = command.split(' ').collect();
        path.left.uvti(&words).unwrap();
        path.wait_for_ledger(|l| l["advice"].is_null()).unwrap();
    }
}
