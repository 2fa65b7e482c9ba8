//! The xfrm interface end to end: two gateways with `xfrm0` carry ping and TCP, of their own and of a client behind one
//! of them, and every view knows the device. No kernel here has the module: both ends are uvti's.

use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uvti_tests::esp::Suite;
use uvti_tests::gateway::{Engine, Gateway};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::traffic::{self, End};
use uvti_tests::wait;

/// How long a packet may take.
const LIMIT: Duration = Duration::from_secs(20);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

struct Site {
    client: Namespace,
    left: Gateway,
    right: Gateway,
}

/// Lines for one end; `key[0]` is what it sends by. The left one has the client's network behind it.
fn lines(ours: u8, theirs: u8, keys: [&str; 2]) -> Vec<String> {
    let (us, them) = (format!("198.51.100.{ours}"), format!("198.51.100.{theirs}"));
    let mut lines = vec![
        "link add xfrm0 type xfrm dev wan if_id 0x2a".to_owned(),
        format!(
            "xfrm state add src {us} dst {them} proto esp spi 0x10{ours} reqid 1 mode tunnel if_id 42 flag af-unspec {}",
            keys[0]
        ),
        format!(
            "xfrm state add src {them} dst {us} proto esp spi 0x10{theirs} reqid 1 mode tunnel if_id 42 flag af-unspec replay-window 64 {}",
            keys[1]
        ),
    ];
    for any in ["0.0.0.0/0", "::/0"] {
        for (dir, src, dst) in [("out", &us, &them), ("in", &them, &us), ("fwd", &them, &us)] {
            lines.push(format!(
                "xfrm policy add src {any} dst {any} dir {dir} if_id 42 tmpl src {src} dst {dst} proto esp reqid 1 mode tunnel"
            ));
        }
    }
    lines.extend([
        "link set xfrm0 mtu 1400 up".to_owned(),
        format!("addr add 10.9.0.{ours}/24 dev xfrm0"),
        format!("addr add 2001:db8:9::{ours}/64 dev xfrm0 nodad"),
    ]);
    if ours == 2 {
        lines.push("route add 10.1.0.0/24 dev xfrm0".to_owned());
    }
    lines
}

fn build() -> Result<Site> {
    let (client, left, right) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    for space in [&client, &left, &right] {
        // IPv6 sends nothing of its own accord.
        space.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        space.sysctl("net/ipv6/conf/default/router_solicitations", "0")?;
        space.ip(&["link set lo up"])?;
    }
    left.join("wan", "02:00:00:00:01:00", &right, "wan", "02:00:00:00:01:01")?;
    left.join("lan", "02:00:00:00:02:00", &client, "lan", "02:00:00:00:02:01")?;
    left.ip(&["addr add 198.51.100.1/24 dev wan", "addr add 10.1.0.1/24 dev lan"])?;
    left.sysctl("net/ipv4/ip_forward", "1")?;
    right.ip(&["addr add 198.51.100.2/24 dev wan"])?;
    client.ip(&[&format!("addr add {CLIENT}/24 dev lan"), "route add default via 10.1.0.1"])?;
    let [to_right, to_left] = Suite::Gcm128.keys().map(|key| key.ip_words());
    let engine =
        || Engine::Uvti { program: PathBuf::from(env!("CARGO_BIN_EXE_uvti-under-test")), workers: 2 };
    let left = Gateway::start(left, engine(), &lines(1, 2, [&to_right, &to_left]))?;
    let right = Gateway::start(right, engine(), &lines(2, 1, [&to_left, &to_right]))?;
    Ok(Site { client, left, right })
}

#[test]
fn two_gateways_carry_ping_and_tcp() {
    if !have("two_gateways_carry_ping_and_tcp", Need::Netns) {
        return;
    }
    let Site { client, left, right } = build().unwrap();
    let end = |namespace, host: u8| End { namespace, address: IpAddr::V4(Ipv4Addr::new(10, 9, 0, host)) };
    let (l, r) = (end(&left.namespace, 1), end(&right.namespace, 2));
    traffic::ping(&l, &r, 3).unwrap();
    traffic::tcp(&l, &r, 5000, 1_000_000).unwrap();
    traffic::tcp(&r, &l, 5001, 1_000_000).unwrap();

    let end6 = |namespace, host| End {
        namespace,
        address: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, host)),
    };
    traffic::ping(&end6(&left.namespace, 1), &end6(&right.namespace, 2), 3).unwrap();

    // Forwarded: by the fwd policy.
    let c = End { namespace: &client, address: CLIENT.into() };
    traffic::ping(&c, &r, 3).unwrap();
    traffic::tcp(&c, &r, 5002, 1_000_000).unwrap();

    let (sent, received) = (left.link("xfrm0").unwrap(), right.link("xfrm0").unwrap());
    assert_eq!((sent["tx_packets"], sent["tx_bytes"]), (received["rx_packets"], received["rx_bytes"]));
    assert_eq!(sent.get("tx_errors"), None);
    left.check().unwrap();
    right.check().unwrap();
    left.stop().unwrap();
    right.stop().unwrap();
}

#[test]
fn every_view_knows_the_device() {
    if !have("every_view_knows_the_device", Need::Netns) {
        return;
    }
    let Site { left, right, .. } = build().unwrap();
    let said = |words: &[&str]| left.uvti(words).unwrap();
    assert!(said(&["stat"]).contains("xfrm0"));
    assert!(left.proc_net("dev").unwrap().lines().any(|line| line.trim_start().starts_with("xfrm0:")));
    let ledger = said(&["mtu", "xfrm0"]);
    assert!(ledger.contains("1446") && !ledger.contains("0x00000102"), "only what leaves: {ledger}");
    let told = said(&[
        "explain", "--dev", "xfrm0", "from", "10.9.0.1", "to", "10.9.0.2", "proto", "udp", "dport", "5000",
    ]);
    assert!(told.contains("if_id 0x2a") && told.contains("Sent by SA 0x00000101"), "{told}");

    let host = left.namespace.command(Path::new("ip"), &["-o", "link", "show", "xfrm0"], "").unwrap();
    assert!(host.contains("link/none") && !host.contains("MULTICAST"), "{host}");

    // A policy less: received, and then dropped for a reason that counts so.
    left.ip(&["xfrm policy delete src 0.0.0.0/0 dst 0.0.0.0/0 dir in if_id 42".to_owned()]).unwrap();
    let counted = || left.link("xfrm0").unwrap().get("rx_packets").copied().unwrap_or(0);
    let before = counted();
    right.namespace.run(|| Ok(UdpSocket::bind("10.9.0.2:0")?.send_to(b"?", "10.9.0.1:5000")?)).unwrap();
    wait::until(LIMIT, || (counted() > before).then_some(())).expect("it was received");
    assert!(!left.link("xfrm0").unwrap().contains_key("rx_errors"));
    assert!(said(&["stat", "--by", "device"]).contains("rx_no_policy"));
    assert!(said(&["stat"]).contains("rx_packets, rx_bytes, XfrmInNoPols"));
    assert!(said(&["drops", "--reason", "rx_no_policy"]).contains("[rx_packets, rx_bytes, XfrmInNoPols]"));

    // What is saved makes the same again.
    let saved = said(&["save"]);
    assert!(
        saved.lines().any(|l| l.starts_with("link add name xfrm0 mtu 1400 type xfrm dev wan if_id 0x2a")),
        "{saved}"
    );
    left.ip(&["link del xfrm0".to_owned(), "xfrm state flush".to_owned(), "xfrm policy flush".to_owned()])
        .unwrap();
    left.ip(&saved.lines().map(str::to_owned).collect::<Vec<_>>()).unwrap();
    let again = said(&["save"]);
    let without_numbers = |text: &str| -> Vec<String> {
        text.lines().map(|l| l.split(" replay-").next().unwrap_or(l).to_owned()).collect()
    };
    assert_eq!(without_numbers(&again), without_numbers(&saved));
    left.check().unwrap();
}
