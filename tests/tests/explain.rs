//! `uvti explain` says of a packet what is then counted for it when it is really sent.
//!
//! What is said and what is counted are both held against what a kernel's VTI was recorded to count
//! ([`uvti_tests::golden`]), never against uvti's own table.

use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use uvti_tests::capture::Capture;
use uvti_tests::esp::{Key, Suite};
use uvti_tests::frame::{ESP, ETH_IPV4, Ipv4, UDP, ethernet, mac_text, udp};
use uvti_tests::gateway::{Counters, Engine, Gateway};
use uvti_tests::golden::recorded;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::wait;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 5);
const WAN: [u8; 6] = [2, 0, 0, 0, 1, 0];
const WAN_FAR: [u8; 6] = [2, 0, 0, 0, 1, 1];
const LAN: [u8; 6] = [2, 0, 0, 0, 2, 0];
const LAN_FAR: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// What a packet is.
enum Packet {
    /// From the client into the tunnel: its size, and DF.
    Out(usize, bool),
    /// From the peer: SPI, sequence number, and whether its ICV is right.
    In(u32, u32, bool),
}
use Packet::{In, Out};

const VTI: &str = "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";
const VTI_FAR: &str = "link add vti0 type vti local 198.51.100.1 remote 203.0.113.1 key 1
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";
const OUT_KEY: &str = "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128";
const IN_KEY: &str = "aead rfc4106(gcm(aes)) 0x2122232425262728292a2b2c2d2e2f3031323334 128";

fn sa_out(dst: &str, more: &str) -> String {
    format!(
        "xfrm state add src 198.51.100.1 dst {dst} proto esp spi 0x100 reqid 1 mode tunnel {OUT_KEY} {more}"
    )
}

fn sa_in(mode: &str, more: &str) -> String {
    format!(
        "xfrm state add src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x200 reqid 1 mode {mode} {IN_KEY} {more}"
    )
}

fn policy(dir: &str, mark: u32, what: &str) -> String {
    format!("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir {dir} mark {mark} {what}")
}

fn template(src: &str, dst: &str, reqid: u32) -> String {
    format!("tmpl src {src} dst {dst} proto esp reqid {reqid} mode tunnel")
}

/// A gateway between a client and a peer, both of which are bare wires.
struct Lab {
    gateway: Gateway,
    wan: Capture,
    lan: Capture,
    sent: u64,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Lab {
    fn new(config: &[String]) -> Lab {
        let (inside, outside) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        for name in ["conf/all/rp_filter", "conf/default/rp_filter", "conf/all/send_redirects"] {
            inside.sysctl(&format!("net/ipv4/{name}"), "0").unwrap();
        }
        inside.sysctl("net/ipv4/ip_forward", "1").unwrap();
        for space in [&inside, &outside] {
            space.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
            space.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        inside.join("wan", &mac_text(WAN), &outside, "wan", &mac_text(WAN_FAR)).unwrap();
        inside.join("lan", &mac_text(LAN), &outside, "lan", &mac_text(LAN_FAR)).unwrap();
        let lines = [
            "link set lo up".to_owned(),
            format!("addr add {GATEWAY}/24 dev wan"),
            "addr add 10.1.0.1/24 dev lan".to_owned(),
            format!("neigh replace {PEER} lladdr {} dev wan nud permanent", mac_text(WAN_FAR)),
            format!("neigh replace {CLIENT} lladdr {} dev lan nud permanent", mac_text(LAN_FAR)),
        ];
        inside.ip(&lines.each_ref().map(String::as_str)).unwrap();
        let (wan, lan) = (Capture::open(&outside, "wan").unwrap(), Capture::open(&outside, "lan").unwrap());
        let lines: Vec<String> = config.iter().flat_map(|block| block.lines()).map(str::to_owned).collect();
        let engine = Engine::Uvti { program: PathBuf::from(UVTI), workers: 1 };
        Lab { gateway: Gateway::start(inside, engine, &lines).unwrap(), wan, lan, sent: 0 }
    }

    fn uvti(&self, args: &[&str]) -> Said {
        let run = || Ok(Command::new(UVTI).args(args).output()?);
        let output = self.gateway.namespace.run(run).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// What is said of a packet as JSON; the exit status must agree with it.
    fn explain(&self, args: &[&str]) -> Value {
        let said = self.uvti(&[&["explain", "-j"], args].concat());
        let value: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
        let passes = value[0]["verdict"]["passes"].as_bool().unwrap();
        assert_eq!(said.code, i32::from(!passes), "{}", said.out);
        value[0].clone()
    }

    /// Sends a packet and waits until it is counted.
    fn send(&mut self, way: &Packet, packet: &[u8]) {
        match way {
            Out(..) => self.lan.inject(&ethernet(LAN, LAN_FAR, ETH_IPV4, packet)).unwrap(),
            In(..) => self.wan.inject(&ethernet(WAN, WAN_FAR, ETH_IPV4, packet)).unwrap(),
        }
        self.sent += 1;
        let counted = || {
            let link = self.gateway.link("vti0").unwrap();
            let names = ["rx_packets", "rx_errors", "tx_packets", "tx_errors"];
            let total: u64 = names.iter().filter_map(|name| link.get(*name)).sum();
            (total >= self.sent).then_some(())
        };
        wait::until(Duration::from_secs(10), counted).expect("the packet is counted");
    }
}

fn packet(what: &Packet) -> Vec<u8> {
    match *what {
        Out(size, df) => Ipv4 { df, ..Ipv4::new(CLIENT, SERVER, UDP) }.packet(&udp(
            CLIENT,
            SERVER,
            (4000, 5000),
            &vec![0; size - 28],
        )),
        In(spi, sequence, authentic) => {
            let inner = Ipv4::new(SERVER, CLIENT, UDP).packet(&udp(SERVER, CLIENT, (4000, 5000), &[0; 72]));
            let mut esp = Key::counting(Suite::Gcm128, 0x21).seal(spi, sequence, &inner, 4);
            if !authentic {
                *esp.last_mut().unwrap() ^= 1;
            }
            Ipv4::new(PEER, GATEWAY, ESP).packet(&esp)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Explains each packet and sends it; what was said and what was counted must both be what a kernel counted.
fn check(scenario: &str, config: &[String], packets: &[Packet]) {
    let expected = recorded(scenario).unwrap();
    assert_eq!(expected.sent, packets.len() as u64, "{scenario}");
    let mut lab = Lab::new(config);
    let (mut link, mut xfrm) = (Counters::new(), Counters::new());
    for what in packets {
        let packet = packet(what);
        let hex = hex(&packet);
        let said = match what {
            Out(..) => lab.explain(&["--dev", "vti0", "--hex", &hex]),
            In(..) => lab.explain(&["--rx", "--hex", &hex]),
        };
        for (name, n) in said["counts"]["link"].as_object().unwrap() {
            *link.entry(name.clone()).or_default() += n.as_u64().unwrap();
        }
        for name in said["counts"]["xfrm"].as_array().into_iter().flatten().filter_map(|name| name.as_str()) {
            *xfrm.entry(name.to_owned()).or_default() += 1;
        }
        let told = expected.icmp.len() == 1;
        assert_eq!(said["icmp"].is_string(), told, "{scenario}: {:?} {said}", expected.icmp);
        lab.send(what, &packet);
    }
    assert_eq!((&link, &xfrm), (&expected.link, &expected.xfrm), "{scenario}: what is said");
    let counted = (lab.gateway.link("vti0").unwrap(), lab.gateway.xfrm_stat().unwrap());
    assert_eq!(counted, (expected.link, expected.xfrm), "{scenario}: what is counted");
    lab.gateway.check().unwrap();
    lab.gateway.stop().unwrap();
}

fn five(packet: fn() -> Packet) -> Vec<Packet> {
    (0..5).map(|_| packet()).collect()
}

fn sequences(numbers: &[u32]) -> Vec<Packet> {
    numbers.iter().map(|n| In(0x200, *n, true)).collect()
}

#[test]
fn what_is_said_of_a_packet_that_leaves_is_counted() {
    if !have("what_is_said_of_a_packet_that_leaves_is_counted", Need::Netns) {
        return;
    }
    let vti = || VTI.to_owned();
    let good = || sa_out("198.51.100.2", "");
    let out = |reqid| template("198.51.100.1", "198.51.100.2", reqid);
    let allow = || policy("out", 1, &out(1));
    let small = || five(|| Out(100, false));
    check("tx_ok_fwd", &[vti(), good(), allow()], &small());
    check("tx_nosa", &[vti(), allow()], &small());
    check("tx_nopol_mark", &[vti(), good(), policy("out", 2, &out(1))], &small());
    check("tx_pol_block", &[vti(), good(), policy("out", 1, "action block")], &small());
    check("tx_pol_allow_notmpl", &[vti(), good(), policy("out", 1, "")], &small());
    check("tx_tmpl_reqid_mismatch", &[vti(), good(), policy("out", 1, &out(9))], &small());
    let other = template("198.51.100.1", "198.51.100.3", 1);
    check("tx_state_check_daddr", &[vti(), sa_out("198.51.100.3", ""), policy("out", 1, &other)], &small());
    let far = policy("out", 1, &template("198.51.100.1", "203.0.113.1", 1));
    let far = [VTI_FAR.to_owned(), sa_out("203.0.113.1", ""), far];
    check("tx_outer_noroute", &far, &small());
    let looped = ["route add 203.0.113.0/24 dev vti0".to_owned()];
    check("tx_loop_self", &[&far[..], &looped].concat(), &small());
    check("tx_big_df_fwd", &[vti(), good(), allow()], &five(|| Out(1470, true)));
    check("tx_big_nodf_fwd", &[vti(), good(), allow()], &five(|| Out(1470, false)));
    check("tx_seq_overflow", &[vti(), sa_out("198.51.100.2", "replay-oseq 0xfffffffd"), allow()], &small());
}

#[test]
fn what_is_said_of_a_packet_that_comes_is_counted() {
    if !have("what_is_said_of_a_packet_that_comes_is_counted", Need::Netns) {
        return;
    }
    let allow = |reqid| policy("in", 1, &template("198.51.100.2", "198.51.100.1", reqid));
    let with = |sa: String, reqid| [VTI.to_owned(), sa, allow(reqid)];
    let good = || with(sa_in("tunnel", ""), 1);
    let window = || with(sa_in("tunnel", "replay-window 32"), 1);
    check("rx_ok_fwd", &good(), &sequences(&[1, 2, 3, 4, 5]));
    check("rx_unknown_spi", &good(), &five(|| In(0x999, 1, true)));
    check("rx_bad_icv", &good(), &(1..6).map(|n| In(0x200, n, false)).collect::<Vec<_>>());
    check("rx_replay", &window(), &sequences(&[1, 1, 1]));
    check("rx_replay_old", &window(), &sequences(&[100, 69, 68, 50]));
    check("rx_nopol", &good()[..2], &sequences(&[1, 2, 3, 4, 5]));
    check("rx_tmpl_reqid_mismatch", &with(sa_in("tunnel", ""), 9), &sequences(&[1, 2, 3, 4, 5]));
    check("rx_sa_transport", &with(sa_in("transport", ""), 1), &sequences(&[1, 2, 3, 4, 5]));
}

#[test]
fn a_near_miss_is_repaired_by_the_line_that_it_prints() {
    if !have("a_near_miss_is_repaired_by_the_line_that_it_prints", Need::Netns) {
        return;
    }
    let out = template("198.51.100.1", "198.51.100.2", 1);
    let lab = Lab::new(&[VTI.to_owned(), sa_out("198.51.100.2", ""), policy("out", 2, &out)]);
    let flow = "--dev vti0 from 10.1.0.2 to 10.2.0.5 proto udp dport 5000 len 1400 df";
    let flow: Vec<&str> = flow.split(' ').collect();
    let said = lab.uvti(&[&["explain"], &flow[..]].concat());
    assert_eq!(said.code, 1, "{}", said.err);
    let near =
        "policy 1 would match, but its mark is 0x2, the device's key is 0x1\n  uvti ip xfrm policy update ";
    assert!(said.out.contains(near), "{}", said.out);
    let line = said.out.lines().find_map(|line| line.trim().strip_prefix("uvti ip ")).unwrap();
    let repaired = lab.uvti(&std::iter::once("ip").chain(line.split(' ')).collect::<Vec<_>>());
    assert_eq!((repaired.code, repaired.err.as_str()), (0, ""));
    assert_eq!(lab.uvti(&[&["explain"], &flow[..]].concat()).code, 0);
    let said = lab.uvti(&["explain", "--dev", "eth7", "from", "10.1.0.2", "to", "10.2.0.5"]);
    assert_eq!((said.code, said.err.as_str()), (2, "uvti: \"eth7\" is no VTI of uvti; there is vti0\n"));
    assert_eq!(lab.uvti(&["explain", "from", "10.1.0.2", "to", "10.2.0.5"]).code, 2);
}

/// A capture of both directions: ESP to us is received, the rest leaves.
#[test]
fn the_packets_of_a_capture_go_the_way_they_went() {
    if !have("the_packets_of_a_capture_go_the_way_they_went", Need::Netns) {
        return;
    }
    let out = template("198.51.100.1", "198.51.100.2", 1);
    let lab = Lab::new(&[VTI.to_owned(), sa_out("198.51.100.2", ""), policy("out", 1, &out)]);
    // kernel: the format is https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap: link type 101 is raw IP.
    let header = [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65535, 101];
    let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    for packet in [packet(&Out(100, false)), packet(&In(0x200, 1, true))] {
        let length = packet.len() as u32;
        file.extend([0, 0, length, length].iter().flat_map(|word| word.to_be_bytes()));
        file.extend(packet);
    }
    let path = std::env::temp_dir().join(format!("uvti-explain-{}.pcap", std::process::id()));
    std::fs::write(&path, &file).unwrap();
    let path = path.to_str().unwrap();
    let said = lab.uvti(&["explain", "--dev", "vti0", "--pcap", path, "-j"]);
    let one = lab.uvti(&["explain", "--pcap", path, "--packet", "2"]);
    std::fs::write(path, &file[..file.len() - 1]).unwrap();
    let broken = lab.uvti(&["explain", "--dev", "vti0", "--pcap", path]);
    std::fs::remove_file(path).unwrap();
    let value: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
    assert_eq!((said.code, &value[0]["verdict"]["passes"]), (1, &Value::Bool(true)), "{}", said.out);
    assert_eq!((&value[1]["way"], &value[1]["verdict"]["reason"]), (&"rx".into(), &"rx_no_sa".into()));
    assert_eq!(one.code, 1);
    assert!(one.out.starts_with("packet 2: vti0 rx: esp 198.51.100.2 > 198.51.100.1 spi 0x00000200 seq 1"));
    assert_eq!(broken.code, 2, "{}", broken.out);
}
