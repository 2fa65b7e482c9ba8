//! The xfrm interface: rules and messages of iproute2 6.1 and Linux 6.12 (`golden/interface.txt`), and what `ip` printed
//! of a running one (`golden/samples/xfrm`).

use crate::lab::{Bench, recorded_stats, words};
use uvti::ip::system::Output;

#[test]
fn rules_and_messages() {
    let bench = Bench::new();
    for record in include_str!("../golden/interface.txt").split("$ ip ").skip(1) {
        let command = record.lines().next().unwrap();
        let lines = |mark: &str| -> String {
            record.lines().filter_map(|l| l.strip_prefix(mark)).map(|l| format!("{l}\n")).collect()
        };
        let done = bench.ip(&words(command));
        assert_eq!((done.out, done.err), (lines("> "), lines("! ")), "{command}");
        assert_eq!(done.code.to_string(), lines("= ").trim(), "{command}");
    }
}

#[test]
fn external_is_refused_by_name() {
    let done = Bench::new().ip(&words("link add xfrm0 type xfrm external"));
    assert_eq!(done.err, "uvti: \"external\": not supported in userspace\n");
    assert_eq!(done.code, 1);
}

/// The lab of the recordings: five packets went out, a good and a forged one came in.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.lab.tables().next_ifindex = 3;
    bench.quiet("link add xfrm0 up type xfrm dev lo if_id 5");
    bench.quiet("link add xfrm1 type xfrm if_id 6");
    for (src, dst, spi, key, oseq) in [
        (
            "198.51.100.1",
            "198.51.100.2",
            "0x100",
            "0x0102030405060708090a0b0c0d0e0f1011121314",
            " replay-oseq 5",
        ),
        ("198.51.100.2", "198.51.100.1", "0x200", "0x2122232425262728292a2b2c2d2e2f3031323334", ""),
    ] {
        bench.quiet(&format!(
            "xfrm state add src {src} dst {dst} proto esp spi {spi} reqid 1 mode tunnel flag af-unspec if_id 5 \
             aead rfc4106(gcm(aes)) {key} 128{oseq}"
        ));
    }
    for dir in ["out", "in", "fwd"] {
        let (src, dst) = if dir == "out" { (1, 2) } else { (2, 1) };
        for any in ["0.0.0.0/0", "::/0"] {
            bench.quiet(&format!(
                "xfrm policy add src {any} dst {any} dir {dir} if_id 5 tmpl src 198.51.100.{src} dst 198.51.100.{dst} \
                 proto esp reqid 1 mode tunnel"
            ));
        }
    }
    bench.lab.tables().links[0].stats = recorded_stats();
    bench
}

/// What is shown, with the device below as in the recordings.
fn shown(bench: &Bench, command: &str) -> String {
    let tun = r#"[{"ifname":"xfrm0","inet6_addr_gen_mode":"none"},{"ifname":"xfrm1","inet6_addr_gen_mode":"none"}]"#;
    let host = Output { code: 0, out: tun.to_owned(), err: String::new() };
    let done = bench.ip_with(&words(command), Some(host));
    assert_eq!((done.err.as_str(), done.code), ("", 0), "{command}");
    done.out.replace("xfrm0@lo", "xfrm0@w0").replace("\"link\":\"lo\"", "\"link\":\"w0\"")
}

#[test]
fn links() {
    let bench = bench();
    for sample in [
        include_str!("../golden/samples/xfrm/ip-link.txt"),
        include_str!("../golden/samples/xfrm/ip-s-link.txt"),
        include_str!("../golden/samples/xfrm/ip-s-s-link.txt"),
        include_str!("../golden/samples/xfrm/ip-d-link.txt"),
        include_str!("../golden/samples/xfrm/ip-s-s-d-link.txt"),
        include_str!("../golden/samples/xfrm/ip-d-link-nodev-down.txt"),
    ] {
        let (command, wanted) = sample.split_once('\n').unwrap();
        assert_eq!(shown(&bench, command.strip_prefix("$ ip ").unwrap()), wanted, "{command}");
    }
    let json = shown(&bench, "-j -s -s -d link show dev xfrm0");
    assert_eq!(json, include_str!("../golden/samples/xfrm/ip-j-s-s-d-link.json"));
}

#[test]
fn policies_and_states() {
    let bench = bench();
    let wanted = |sample: &'static str| sample.split_once('\n').unwrap().1;
    let policies = shown(&bench, "xfrm policy");
    assert_eq!(policies, wanted(include_str!("../golden/samples/xfrm/ip-xfrm-policy.txt")));
    // The recorded ones were used.
    let states = wanted(include_str!("../golden/samples/xfrm/ip-xfrm-state.txt"));
    let unused = |l: &&str| !l.starts_with("\tlastused");
    let lines = |text: &str| text.lines().filter(unused).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&shown(&bench, "xfrm state")), lines(states));
}

#[test]
fn it_is_no_tunnel() {
    let bench = bench();
    assert_eq!(bench.ip(&words("tunnel show")).code, crate::lab::SYSTEM);
    let done = bench.ip(&words("tunnel del xfrm0"));
    assert_eq!((done.err.as_str(), done.code), ("delete tunnel \"xfrm0\" failed: No such device\n", 1));
    bench.quiet("link del xfrm0");
    assert_eq!(bench.lab.tables().links.len(), 1);
}
