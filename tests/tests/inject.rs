//! `uvti inject` as a lab uses it: two ends of a tunnel, and each fault at one of them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::wait;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const ENDS: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

/// One end of a tunnel.
struct End {
    namespace: Namespace,
    child: Child,
}

impl End {
    /// End 0 or 1, with a window of 32 for what it receives.
    fn start(namespace: &Namespace, end: usize, flags: &[&str]) -> End {
        let (own, far) = (ENDS[end], ENDS[1 - end]);
        let sa = |src: &str, dst: &str, spi: &str| {
            format!(
                "xfrm state add src {src} dst {dst} proto esp spi {spi} reqid 1 mode tunnel replay-window 32 \
                 aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"
            )
        };
        let policy = |dir: &str, src: &str, dst: &str| {
            format!("xfrm policy add dir {dir} mark 1 tmpl src {src} dst {dst} proto esp reqid 1 mode tunnel")
        };
        let lines = [
            format!("link add vti0 type vti local {own} remote {far} key 1"),
            sa(ENDS[0], ENDS[1], "0x100"),
            sa(ENDS[1], ENDS[0], "0x200"),
            policy("out", own, far),
            policy("in", far, own),
            format!("addr add 10.9.0.{}/24 dev vti0", end + 1),
            "link set vti0 up".to_owned(),
        ];
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("uvti-inject-{}-{number}", std::process::id()));
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let mut program = Command::new(UVTI);
        program.args(["run", "--workers", "2", "--batch"]).arg(&file).args(flags).stdout(Stdio::piped());
        let mut child = namespace.run(|| Ok(program.spawn()?)).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let _ = std::fs::remove_file(&file);
        End { namespace: namespace.clone(), child }
    }

    fn uvti(&self, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        self.namespace.command(Path::new(UVTI), &words, "").unwrap()
    }

    /// Sends `n` datagrams to the other end's `vti0`.
    fn send(&self, n: usize) {
        let send = || {
            let socket = std::net::UdpSocket::bind("10.9.0.1:0")?;
            for _ in 0..n {
                socket.send_to(&[0; 72], "10.9.0.2:9")?;
            }
            Ok(())
        };
        self.namespace.run(send).unwrap();
    }

    /// Packets received, rx_errors, packets sent, tx_errors, carrier, collisions, aborted.
    fn counters(&self) -> [u64; 7] {
        let text = self.uvti("ip -j -s -s link show dev vti0");
        let link: serde_json::Value = serde_json::from_str(&text).unwrap();
        let stats = &link[0]["stats64"];
        let of = |way: &str, name: &str| stats[way][name].as_u64().unwrap();
        [
            of("rx", "packets"),
            of("rx", "errors"),
            of("tx", "packets"),
            of("tx", "errors"),
            of("tx", "carrier_errors"),
            of("tx", "collisions"),
            of("tx", "aborted_errors"),
        ]
    }

    fn xfrm(&self) -> String {
        let text = self.uvti("xfrm_stat");
        let some = text.lines().filter(|l| !l.ends_with("\t0")).map(|l| l.replace([' ', '\t'], " "));
        let words = |line: String| line.split_whitespace().collect::<Vec<_>>().join("=");
        some.map(words).collect::<Vec<_>>().join(" ")
    }

    /// Waits until the counters are these.
    fn counts(&self, what: &str, wanted: [u64; 7]) {
        let mut seen = [0; 7];
        let reached = wait::until(Duration::from_secs(10), || {
            seen = self.counters();
            (seen == wanted).then_some(())
        });
        assert!(reached.is_some(), "{what}: {seen:?}, not {wanted:?}");
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn namespaces() -> [Namespace; 2] {
    let both = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    both[0].join("w", "02:00:00:00:00:01", &both[1], "w", "02:00:00:00:00:02").unwrap();
    for (namespace, address) in both.iter().zip(ENDS) {
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        namespace.ip(&["link set lo up", &format!("addr add {address}/24 dev w")]).unwrap();
    }
    both
}

#[test]
fn faults_count_as_real_ones_and_are_taken_back() {
    if !have("faults_count_as_real_ones_and_are_taken_back", Need::Netns) {
        return;
    }
    let namespaces = namespaces();
    let a = End::start(&namespaces[0], 0, &["--allow-inject"]);
    let b = End::start(&namespaces[1], 1, &["--allow-inject"]);
    // Somebody listens, or the host would answer. What is not read is nobody's business here.
    let _port = namespaces[1].run(|| Ok(std::net::UdpSocket::bind("10.9.0.2:9")?)).unwrap();
    a.send(40);
    b.counts("nothing wrong", [40, 0, 0, 0, 0, 0, 0]);
    // What arrives at B.
    let said = b.uvti("inject icv 2 --spi 0x100");
    assert_eq!(said, "1 icv 2 --spi 0x100: the next 2 packets\n");
    a.send(3);
    b.counts("icv", [41, 2, 0, 0, 0, 0, 0]);
    b.uvti("inject old-seq 2");
    a.send(3);
    b.counts("old-seq", [42, 4, 0, 0, 0, 0, 0]);
    b.uvti("inject duplicate 2");
    a.send(3);
    b.counts("duplicate", [45, 6, 0, 0, 0, 0, 0]);
    b.uvti("inject truncate 2 --to 4");
    a.send(3);
    b.counts("truncate", [46, 8, 0, 0, 0, 0, 0]);
    assert_eq!(b.uvti("inject list"), "");
    b.uvti("inject wrong-mode 198.51.100.2 0x100");
    a.send(2);
    b.counts("wrong-mode", [46, 10, 0, 0, 0, 0, 0]);
    assert_eq!(
        b.uvti("inject clear"),
        "5 wrong-mode 198.51.100.2 0x100: the SA 198.51.100.1 > 198.51.100.2 SPI 0x100 is back\n"
    );
    assert_eq!(
        b.xfrm(),
        "XfrmInHdrError=2 XfrmInStateProtoError=2 XfrmInStateModeError=2 XfrmInStateSeqError=4"
    );
    // What leaves A: 54 packets so far.
    a.send(1);
    b.counts("cleared", [47, 10, 0, 0, 0, 0, 0]);
    a.counts("before its faults", [0, 0, 55, 0, 0, 0, 0]);
    a.uvti("inject full-queue 1");
    a.send(1);
    a.counts("full-queue", [0, 0, 56, 0, 0, 0, 0]);
    a.uvti("inject no-route");
    a.send(2);
    a.counts("no-route", [0, 0, 56, 2, 2, 0, 0]);
    a.uvti("inject loop-route --dev vti0");
    a.send(2);
    a.counts("loop-route", [0, 0, 56, 4, 2, 2, 0]);
    assert_eq!(a.uvti("inject list"), "2 no-route: until cleared\n3 loop-route --dev vti0: until cleared\n");
    a.uvti("inject clear");
    a.uvti("inject expire 198.51.100.2 0x100");
    a.send(1);
    a.counts("expire", [0, 0, 56, 5, 2, 2, 1]);
    a.uvti("inject clear 4");
    a.send(1);
    a.counts("cleared", [0, 0, 57, 5, 2, 2, 1]);
    b.counts("all but one of A's arrived", [48, 10, 0, 0, 0, 0, 0]);
    assert_eq!(a.xfrm(), "XfrmOutBundleGenError=2 XfrmOutStateExpired=1");
    for end in [&a, &b] {
        assert!(end.uvti("check").ends_with("every packet is accounted for\n"));
    }
}

#[test]
fn without_the_flag_a_fault_is_refused_and_the_flag_named() {
    if !have("without_the_flag_a_fault_is_refused_and_the_flag_named", Need::Netns) {
        return;
    }
    let namespaces = namespaces();
    let end = End::start(&namespaces[0], 0, &[]);
    for words in [&["inject", "icv", "1"][..], &["inject", "list"], &["inject", "clear"]] {
        let error = end.namespace.command(Path::new(UVTI), words, "").unwrap_err().to_string();
        assert!(error.contains("`uvti run --allow-inject`"), "{error}");
    }
}
