//! Every backend carries the same: through a tunnel of two dataplanes, one packet a system call or many.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::traffic::{self, Datagrams, End};
use uvti_tests::wait;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const BACKENDS: [&[&str]; 5] = [
    &["--tun", "simple"],
    &["--tun", "offload"],
    &["--tun", "offload", "--wire", "fast"],
    &["--tun", "offload", "--wire", "fast", "--offload", "gro"],
    &["--tun", "offload", "--wire", "fast", "--offload", "tso,uso"],
];

struct Gateway {
    namespace: Namespace,
    child: Child,
}

impl Gateway {
    fn start(namespace: Namespace, host: u8, flags: &[&str]) -> Self {
        let (own, peer) = (host, 3 - host);
        let suite = "proto esp mode tunnel aead rfc4106(gcm(aes)) 0x0f0e0d0c0b0a09080706050403020100cafef00d 128 \
                     encap espinudp 4500 4500 0.0.0.0";
        let ends = |from: u8, to: u8| format!("src 198.51.100.{from} dst 198.51.100.{to}");
        let lines = [
            format!("link add vti0 type vti local 198.51.100.{own} remote 198.51.100.{peer} key 1"),
            format!("xfrm state add {} spi 0x1001 {suite}", ends(1, 2)),
            format!("xfrm state add {} spi 0x1002 {suite}", ends(2, 1)),
            format!("xfrm policy add dir out mark 1 tmpl {} proto esp mode tunnel", ends(own, peer)),
            format!("xfrm policy add dir in mark 1 tmpl {} proto esp mode tunnel", ends(peer, own)),
            format!("addr add 10.9.0.{own}/30 dev vti0"),
            // Nothing is too big.
            "link set vti0 mtu 1400 up".to_owned(),
        ];
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("uvti-offload-{}-{number}", std::process::id()));
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let run = || {
            let mut command = Command::new(UVTI);
            command.args(["run", "--workers", "2", "--batch"]).arg(&file).args(flags);
            Ok(command.stdout(Stdio::piped()).spawn()?)
        };
        let mut child = namespace.run(run).unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let _ = std::fs::remove_file(&file);
        assert_eq!(said, "ready\n");
        Self { namespace, child }
    }

    fn uvti(&self, words: &[&str]) -> String {
        self.namespace.command(Path::new(UVTI), words, "").unwrap()
    }

    /// Packets and bytes that the device sent and received, and its errors.
    fn counted(&self) -> [u64; 6] {
        let links: serde_json::Value =
            serde_json::from_str(&self.uvti(&["ip", "-j", "-s", "link", "show", "dev", "vti0"])).unwrap();
        let stats = &links[0]["stats64"];
        [
            ("tx", "packets"),
            ("tx", "bytes"),
            ("tx", "errors"),
            ("rx", "packets"),
            ("rx", "bytes"),
            ("rx", "errors"),
        ]
        .map(|(way, name)| stats[way][name].as_u64().unwrap())
    }

    fn end(&self, host: u8) -> End<'_> {
        End { namespace: &self.namespace, address: IpAddr::V4(Ipv4Addr::new(10, 9, 0, host)) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pair(flags: &[&str]) -> (Gateway, Gateway) {
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    left.join("wire", "02:00:00:00:00:01", &right, "wire", "02:00:00:00:00:02").unwrap();
    left.ip(&["link set lo up", "addr add 198.51.100.1/24 dev wire"]).unwrap();
    right.ip(&["link set lo up", "addr add 198.51.100.2/24 dev wire"]).unwrap();
    (Gateway::start(left, 1, flags), Gateway::start(right, 2, flags))
}

#[test]
fn every_backend_carries_and_counts_the_same() {
    if !have("every_backend_carries_and_counts_the_same", Need::Netns) {
        return;
    }
    let counts = BACKENDS.map(|flags| {
        let (left, right) = pair(flags);
        for size in [64, 1000] {
            let run = Datagrams { count: 500, size, tos: 0, df: true, port: 5000 };
            traffic::udp(&left.end(1), &right.end(2), &run).unwrap();
        }
        let counted = left.counted();
        assert_eq!(counted[..2], right.counted()[3..5], "{flags:?}");
        counted
    });
    assert!(counts.iter().all(|c| *c == counts[0]), "{counts:?}");
    assert!(counts[0][0] >= 1000 && counts[0][2] == 0, "{counts:?}");
}

#[test]
fn every_backend_accounts_for_each_packet_of_a_stream() {
    if !have("every_backend_accounts_for_each_packet_of_a_stream", Need::Netns) {
        return;
    }
    for flags in BACKENDS {
        let (left, right) = pair(flags);
        for (from, to) in [(left.end(1), right.end(2)), (right.end(2), left.end(1))] {
            traffic::tcp(&from, &to, 5000, 4 << 20).unwrap_or_else(|error| panic!("{flags:?}: {error:#}"));
        }
        // The last acknowledgement may still be under way.
        let arrived = || {
            let (left, right) = (left.counted(), right.counted());
            (left[..2] == right[3..5] && right[..2] == left[3..5]).then_some(())
        };
        wait::until(Duration::from_secs(10), arrived).expect("every packet arrives");
        for (gateway, peer) in [(&left, &right), (&right, &left)] {
            gateway.uvti(&["check"]);
            let (own, other) = (gateway.counted(), peer.counted());
            // Wire packets, whatever the host's super-packets are: at most an MTU each.
            assert!(own[0] > (4 << 20) / 1500 && own[1] / own[0] < 1500, "{flags:?} {own:?}");
            assert_eq!((own[2], own[5], own[0], own[1]), (0, 0, other[3], other[4]), "{flags:?}");
        }
    }
}
