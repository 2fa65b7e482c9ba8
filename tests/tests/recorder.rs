//! `uvti drops`: what is recorded of packets that were really dropped, as lines, as a capture that tshark reads, live,
//! and as a history.

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use uvti_tests::capture::Capture;
use uvti_tests::frame::{ESP, ETH_IPV4, Ipv4, UDP, ethernet, mac_text, udp};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::wait;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const LIMIT: Duration = Duration::from_secs(20);
const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const WAN: [u8; 6] = [2, 0, 0, 0, 1, 0];
const FAR: [u8; 6] = [2, 0, 0, 0, 1, 1];
const KEY: &str = "0x0102030405060708090a0b0c0d0e0f1011121314";

/// A dataplane with a VTI: the policy for 10.2.1.0/24 has no SA, that for 10.2.2.0/24 has one, other nets have none.
struct Lab {
    namespace: Namespace,
    wan: Capture,
    folder: PathBuf,
    daemon: Child,
}

impl Lab {
    fn start(test: &str, args: &[&str]) -> Option<Lab> {
        if !have(test, Need::Netns) {
            return None;
        }
        let namespace = Namespace::new().unwrap();
        for space in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{space}/disable_ipv6"), "1").unwrap();
        }
        namespace
            .ip(&[
                "link set lo up",
                &format!(
                    "link add w0 address {} type veth peer name w1 address {}",
                    mac_text(WAN),
                    mac_text(FAR)
                ),
                "link set w1 up",
                "link set w0 up",
                &format!("addr add {HERE}/24 dev w0"),
            ])
            .unwrap();
        let wan = Capture::open(&namespace, "w1").unwrap();
        let folder = std::env::temp_dir().join(format!("uvti-recorder-{}-{test}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let tmpl = |reqid| format!("mark 1 tmpl src {HERE} dst {PEER} proto esp reqid {reqid} mode tunnel");
        let lines = [
            format!("link add vti0 type vti local {HERE} remote {PEER} key 1"),
            format!(
                "xfrm state add src {HERE} dst {PEER} proto esp spi 0x100 reqid 2 mode tunnel \
                 aead 'rfc4106(gcm(aes))' {KEY} 128"
            ),
            format!("xfrm policy add dst 10.2.1.0/24 dir out priority 7 index 9 {}", tmpl(1)),
            format!("xfrm policy add dst 10.2.2.0/24 dir out {}", tmpl(2)),
            format!("addr add {CLIENT}/24 dev vti0"),
            "link set vti0 up".into(),
            "route add 10.2.0.0/16 dev vti0".into(),
        ];
        let batch = folder.join("batch");
        std::fs::write(&batch, lines.join("\n") + "\n").unwrap();
        let mut run = Command::new(UVTI);
        run.args(["run", "--workers", "2", "--batch"]).arg(batch).args(args).stdout(Stdio::piped());
        let mut daemon = namespace.run(|| Ok(run.spawn()?)).unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Lab { namespace, wan, folder, daemon })
    }

    /// An inner packet to 10.2.`net`.5, and the bytes that the host must hand to the VTI.
    fn inner(&self, net: u8, port: u16, size: usize, df: bool) -> Vec<u8> {
        let dst = Ipv4Addr::new(10, 2, net, 5);
        let header = Ipv4 { df, id: 0x1234, ..Ipv4::new(CLIENT, dst, UDP) };
        header.packet(&udp(CLIENT, dst, (40000, port), &vec![0x5a; size - 28]))
    }

    /// Sends a packet as it is, `n` times.
    fn send(&self, packet: &[u8], n: usize) {
        let dst = Ipv4::parse(packet).unwrap().0.dst;
        let send = || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            for _ in 0..n {
                socket.send_to(packet, &SocketAddrV4::new(dst, 0).into())?;
            }
            Ok(())
        };
        self.namespace.run(send).unwrap();
    }

    /// A packet of the peer's arrives. Returns its ESP.
    fn arrive(&self, src: Ipv4Addr, spi: u32) -> Vec<u8> {
        let esp = [&spi.to_be_bytes()[..], &7_u32.to_be_bytes(), &[0xaa; 92]].concat();
        let packet = Ipv4::new(src, HERE, ESP).packet(&esp);
        self.wan.inject(&ethernet(WAN, FAR, ETH_IPV4, &packet)).unwrap();
        esp
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(UVTI);
        command.args(args).env("TZ", "UTC");
        command
    }

    fn uvti(&self, args: &[&str]) -> String {
        let output = self.namespace.run(|| Ok(self.command(args).output()?)).unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.uvti(args)).unwrap()
    }

    /// Packets dropped for a reason.
    fn dropped(&self, reason: &str) -> u64 {
        let stat = self.json(&["stat", "-j"]);
        let drops = stat["devices"].as_array().unwrap().iter().flat_map(|d| d["drops"].as_array().unwrap());
        drops.filter(|pair| pair[0] == reason).map(|pair| pair[1].as_u64().unwrap()).sum()
    }

    fn wait_for(&self, reason: &str, n: u64) {
        let enough = || (self.dropped(reason) >= n).then_some(());
        wait::until(LIMIT, enough).unwrap_or_else(|| panic!("{n} {reason}: {}", self.uvti(&["stat"])));
    }

    /// Resident memory of the dataplane, KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `uvti drops --follow` and its lines.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(lab: &Lab) -> Follower {
        let mut command = lab.command(&["drops", "--follow", "--reason", "tx_no_sa"]);
        let mut child = lab.namespace.run(|| Ok(command.stdout(Stdio::piped()).spawn()?)).unwrap();
        let out = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends, and closes the pipe, when the test reads no more.
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.contains(".9 UDP") || sender.send(line).is_err() {
                    break;
                }
            }
        });
        Follower { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a line")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One packet of each of five reasons; the bytes of each, by reason.
fn drop_five(lab: &Lab) -> Vec<(&'static str, Vec<u8>)> {
    let (no_sa, no_policy) = (lab.inner(1, 5000, 1400, true), lab.inner(3, 5000, 60, false));
    let too_big = lab.inner(2, 5000, 1470, true);
    [&no_sa, &no_policy, &too_big].into_iter().for_each(|packet| lab.send(packet, 1));
    let no_rx_sa = lab.arrive(PEER, 0x9999);
    let no_tunnel = lab.arrive(Ipv4Addr::new(198, 51, 100, 77), 0x200);
    let dropped = vec![
        ("tx_no_sa", no_sa),
        ("tx_no_policy", no_policy),
        ("tx_too_big", too_big),
        ("rx_no_sa", no_rx_sa),
        ("rx_no_tunnel", no_tunnel),
    ];
    dropped.iter().for_each(|(reason, _)| lab.wait_for(reason, 1));
    dropped
}

#[test]
fn drops_are_shown_with_policy_sa_counters_and_the_packet() {
    let Some(lab) = Lab::start("drops_are_shown", &[]) else { return };
    drop_five(&lab);
    let text = lab.uvti(&["drops"]);
    let line = |reason: &str| {
        let line = text.lines().find(|l| l.split(' ').nth(3) == Some(reason));
        // Without date and time.
        line.unwrap_or_else(|| panic!("{reason}: {text}")).splitn(3, ' ').nth(2).unwrap()
    };
    assert_eq!(
        line("tx_no_sa"),
        "vti0 tx_no_sa worker 0 [tx_errors, carrier, XfrmOutNoStates] policy index 9 dir out prio 7 \
         src 0.0.0.0/0 dst 10.2.1.0/24 mark 0x1: 10.9.0.1.40000 > 10.2.1.5.5000 UDP len 1400 DF"
    );
    assert_eq!(
        line("tx_no_policy"),
        "vti0 tx_no_policy worker 0 [tx_errors, carrier]: 10.9.0.1.40000 > 10.2.3.5.5000 UDP len 60"
    );
    let too_big = line("tx_too_big");
    assert!(
        too_big.contains("sa 198.51.100.2 spi 0x00000100 reqid 2")
            && too_big.ends_with(": 10.9.0.1.40000 > 10.2.2.5.5000 UDP len 1470 DF"),
        "{too_big}"
    );
    assert_eq!(
        line("rx_no_tunnel"),
        "- rx_no_tunnel worker 0 [XfrmInNoStates]: 198.51.100.77 > 198.51.100.1 ESP spi 0x00000200 seq 7 len 120"
    );
    let one = lab.uvti(&["drops", "--reason", "rx_no_sa"]);
    assert!(one.lines().count() == 1 && one.contains("ESP spi 0x00009999 seq 7"), "{one}");
    let json = lab.json(&["drops", "-j", "--reason", "tx_no_sa"]);
    assert_eq!((&json["records"][0]["policy"]["index"], &json["skipped"]), (&9.into(), &0.into()));
    let history = lab.json(&["drops", "--history", "-j"]);
    assert_eq!(history["reasons"].as_array().unwrap().len(), 5);
    assert!(lab.uvti(&["drops", "--history"]).contains('█'));
}

#[test]
fn tshark_reads_the_capture() {
    if !have("tshark_reads_the_capture", Need::Tshark) {
        return;
    }
    let Some(lab) = Lab::start("tshark_reads", &[]) else { return };
    let dropped = drop_five(&lab);
    let file = lab.folder.join("drops.pcapng");
    let name = file.to_str().unwrap();
    lab.uvti(&["drops", "--pcap", name]);
    let tshark = |args: &[&str]| {
        let output = Command::new("tshark").args(["-r", name]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let packets: Value = serde_json::from_str(&tshark(&["-T", "json", "-x"])).unwrap();
    let packets = packets.as_array().unwrap();
    assert_eq!(packets.len(), dropped.len());
    for (reason, bytes) in &dropped {
        let filter = format!("frame.comment contains \"{reason}: \"");
        let fields = ["frame.interface_name", "_ws.expert.message", "ip.src", "esp.spi", "frame.comment"];
        let args = fields.iter().flat_map(|f| ["-e", f]);
        let args: Vec<&str> =
            ["-Y", &filter, "-T", "fields", "-E", "separator=|"].into_iter().chain(args).collect();
        let said = tshark(&args);
        let (interface, rest) = said.split_once('|').unwrap_or_else(|| panic!("{reason}: {said}"));
        assert_eq!(interface, if *reason == "rx_no_tunnel" { "-" } else { "vti0" }, "{said}");
        assert!(!rest.contains("Malformed"), "{said}");
        let raw = packets.iter().find_map(|p| {
            let layers = &p["_source"]["layers"];
            let spoken = layers.to_string().contains(&format!("{reason}: "));
            spoken.then(|| layers["frame_raw"][0].as_str().unwrap().to_owned())
        });
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let raw = raw.unwrap();
        match reason.starts_with("rx") {
            // Behind the outer header, which the socket took off.
            true => assert_eq!(raw[40..], hex, "{reason}"),
            false => assert_eq!(raw, hex, "{reason}"),
        }
    }
    let esp = tshark(&[
        "-Y",
        "esp.spi == 0x9999",
        "-T",
        "fields",
        "-e",
        "ip.src",
        "-e",
        "ip.dst",
        "-e",
        "esp.sequence",
    ]);
    assert_eq!(esp.trim_end(), "198.51.100.2\t198.51.100.1\t7");
    let comment =
        tshark(&["-Y", "udp.dstport == 5000 && ip.len == 1400", "-T", "fields", "-e", "frame.comment"]);
    for part in
        ["A policy matches, but no valid SA", "tx_errors, carrier, XfrmOutNoStates", "policy index 9 dir out"]
    {
        assert!(comment.contains(part), "{part}: {comment}");
    }
}

#[test]
fn a_follower_sees_a_drop_as_it_happens_and_ends_with_its_pipe() {
    let Some(lab) = Lab::start("a_follower_sees", &["--record", "2"]) else { return };
    lab.send(&lab.inner(1, 1, 100, false), 1);
    lab.wait_for("tx_no_sa", 1);
    let mut follower = Follower::start(&lab);
    assert!(follower.line().ends_with("10.9.0.1.40000 > 10.2.1.5.1 UDP len 100"));
    lab.send(&lab.inner(1, 2, 100, false), 1);
    assert!(follower.line().ends_with("10.9.0.1.40000 > 10.2.1.5.2 UDP len 100"));
    // While it does not read, two records are kept and one answer may be on its way: others are gone, and counted.
    follower.signal(rustix::process::Signal::STOP);
    for i in 3..=10 {
        lab.send(&lab.inner(1, 100 + i, 100, false), 1);
        lab.wait_for("tx_no_sa", u64::from(i));
    }
    follower.signal(rustix::process::Signal::CONT);
    let (mut lines, mut missed) = (0, 0);
    loop {
        let line = follower.line();
        match line.strip_suffix(" records missed") {
            Some(n) => missed += n.parse::<u64>().unwrap(),
            None => lines += 1,
        }
        if line.contains("10.2.1.5.110 UDP") {
            break;
        }
    }
    assert!(missed >= 4, "{missed}");
    assert_eq!(lines + missed, 8);
    // Port 9 makes the reader close the pipe.
    lab.send(&lab.inner(1, 9, 100, false), 1);
    let ended = || follower.child.try_wait().unwrap();
    assert!(wait::until(LIMIT, ended).expect("it ends").success());
}

#[test]
fn a_flood_keeps_the_last_and_takes_no_memory() {
    let Some(lab) = Lab::start("a_flood_keeps", &[]) else { return };
    let packet = lab.inner(1, 5000, 1400, false);
    lab.send(&packet, 2000);
    lab.wait_for("tx_no_sa", 100);
    let before = lab.memory();
    while lab.dropped("tx_no_sa") < 100_000 {
        lab.send(&packet, 5000);
    }
    let grown = lab.memory().saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB");
    let records = lab.json(&["drops", "-j"]);
    assert_eq!(records["records"].as_array().unwrap().len(), 16);
}
