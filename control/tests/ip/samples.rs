//! What `ip` printed of a running kernel VTI (`golden/samples`), byte for byte.

use crate::lab::{Bench, recorded_stats, words};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use uvti::ip::system::Output;
use uvti_core::reason::LinkStats;
use uvti_core::tables::Op;

/// When the recorded objects were added, shown in local time.
fn recorded() -> u64 {
    let local: DateTime = "2026-11-24T07:57:50".parse().unwrap();
    TimeZone::system().to_timestamp(local).unwrap().as_second() as u64
}

/// The lab of the recordings: a VTI that carried five packets, and received a good and a forged one.
fn bench() -> Bench {
    let bench = Bench::new();
    let now = recorded();
    {
        let mut tables = bench.lab.tables();
        tables.now = now;
        tables.next_ifindex = 2;
    }
    for command in [
        "link add vti0 up type vti local 198.51.100.1 remote 198.51.100.2 key 1",
        "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100 reqid 1 mode tunnel flag af-unspec \
         aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128 replay-oseq 5",
        "xfrm state add src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x200 reqid 1 mode tunnel flag af-unspec \
         aead rfc4106(gcm(aes)) 0x2122232425262728292a2b2c2d2e2f3031323334 128",
        "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x300 reqid 3 mode tunnel mark 3 flag esn \
         replay-window 64 limit packet-hard 9 aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128",
        "xfrm policy add dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel",
        "xfrm policy add dir in mark 1 tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel",
        "-6 xfrm policy add dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel",
        "-6 xfrm policy add dir in mark 1 tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel",
    ] {
        bench.quiet(&command.replace("-6 xfrm policy add", "xfrm policy add src ::/0"));
    }
    let mut tables = bench.lab.tables();
    tables.links[0].stats = recorded_stats();
    for sa in tables.tables.states.newest_first() {
        match sa.spec.spi.0 {
            0x100 => sa.run.consume(5, 500, now),
            0x200 => {
                sa.run.consume(1, 100, now);
                sa.run.count(uvti_core::reason::SaStat::IntegrityFailed);
            }
            _ => {}
        }
    }
    let policies = tables.tables.policies.newest_first();
    policies.iter().filter(|p| p.spec.sel.src.addr().is_ipv4()).for_each(|p| p.touch(now));
    drop(tables);
    bench
}

/// What the host says of the TUN behind the device of the recordings.
fn the_tun() -> Output {
    let out = r#"[{"ifname":"vti0","inet6_addr_gen_mode":"none"}]"#.to_owned();
    Output { code: 0, out, err: String::new() }
}

/// Runs the command of a sample and compares.
fn compare(bench: &Bench, sample: &str) {
    let (command, wanted) = sample.split_once('\n').unwrap();
    let done = bench.ip_with(&words(command.strip_prefix("$ ip ").unwrap()), Some(the_tun()));
    assert_eq!(done.out, wanted, "{command}");
    assert_eq!((done.err.as_str(), done.code), ("", 0), "{command}");
}

#[test]
fn states_and_policies() {
    let bench = bench();
    compare(&bench, include_str!("../golden/samples/ip-xfrm-state.txt"));
    compare(&bench, include_str!("../golden/samples/ip-s-xfrm-state.txt"));
    compare(&bench, include_str!("../golden/samples/ip-s-xfrm-state-count.txt"));
    compare(&bench, include_str!("../golden/samples/ip-xfrm-policy.txt"));
    compare(&bench, include_str!("../golden/samples/ip-s-xfrm-policy.txt"));
    compare(&bench, include_str!("../golden/samples/ip-s-xfrm-policy-count.txt"));
}

#[test]
fn links() {
    let bench = bench();
    compare(&bench, include_str!("../golden/samples/ip-s-link.txt"));
    compare(&bench, include_str!("../golden/samples/ip-s-s-link.txt"));
    compare(&bench, include_str!("../golden/samples/ip-s-s-d-link.txt"));
    let json = bench.ip_with(&words("-j -s -s -d link show dev vti0"), Some(the_tun()));
    assert_eq!(json.out, include_str!("../golden/samples/ip-j-s-s-d-link.json"));
}

#[test]
fn tunnels_stand_behind_the_systems() {
    let bench = bench();
    let (command, wanted) = include_str!("../golden/samples/ip-tunnel-show.txt").split_once('\n').unwrap();
    let (system, _) = wanted.split_at(wanted.find("vti0: ip/ip remote 198").unwrap());
    let system = Output { code: 0, out: system.to_owned(), err: String::new() };
    let done = bench.ip_with(&words(command.strip_prefix("$ ip ").unwrap()), Some(system));
    assert_eq!(done.out, wanted);
}

#[test]
fn drops_of_every_kind() {
    let bench = bench();
    bench.lab.tables().links[0].stats = LinkStats {
        rx_errors: 6,
        rx_dropped: 6,
        tx_packets: 2,
        tx_bytes: 200,
        tx_errors: 10,
        tx_aborted_errors: 2,
        tx_carrier_errors: 3,
        collisions: 4,
        ..LinkStats::default()
    };
    let sample = include_str!("../golden/samples/errors-all-tools.txt");
    let part = &sample[sample.find("$ ip -s -s link").unwrap()..sample.find("$ ip -s tunnel").unwrap()];
    compare(&bench, part);
}

#[test]
fn a_list_is_the_systems_with_our_devices_in_their_places() {
    let bench = bench();
    let lo = "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536\n    link/loopback 00:00:00:00:00:00\n";
    let tun = "7: vti0: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1480\n    link/none \n";
    let system = |text: String| Some(Output { code: 0, out: text, err: String::new() });
    let list = bench.ip_with(&words("link show"), system(format!("{lo}{tun}")));
    let one = bench.ip(&words("link show vti0"));
    assert_eq!(list.out, format!("{lo}{}", one.out));
    let of_type = bench.ip_with(&words("link show type vti"), system(String::new()));
    assert_eq!(of_type.out, one.out);
    let tuns = bench.ip_with(&words("link show type tun"), system(tun.to_owned()));
    assert_eq!(tuns.out, "");
    let without_ip = bench.ip_with(&words("link show"), None);
    assert_eq!((without_ip.out, without_ip.code), (one.out, 0));
}

#[test]
fn names_that_are_not_ours_are_the_systems() {
    let bench = bench();
    for command in
        ["link del eth7", "link show eth7", "address show", "tunnel add t mode gre", "link set vti0 mtu 9"]
    {
        let done = bench.ip(&words(command));
        let refused = done.code == crate::lab::SYSTEM || done.err == "Cannot find device \"eth7\"\n";
        assert!(refused, "{command}: {done:?}");
    }
    assert_eq!(bench.lab.tables().links.len(), 1);
    bench.quiet("tunnel del vti0");
    assert!(bench.lab.tables().links.is_empty());
}

#[test]
fn delete_all_is_one_transaction() {
    let bench = bench();
    bench.quiet("xfrm state deleteall reqid 1");
    assert_eq!(bench.lab.tables().tables.states.len(), 1);
    bench.quiet("xfrm policy deleteall dir in");
    bench.quiet("-6 xfrm policy deleteall");
    let left: Vec<String> = bench
        .lab
        .tables()
        .tables
        .policies
        .newest_first()
        .iter()
        .map(|p| p.spec.sel.src.to_string())
        .collect();
    assert_eq!(left, ["0.0.0.0/0"]);
}

#[test]
fn without_a_dataplane_ours_fails_by_name_and_the_rest_is_the_systems() {
    let bench = bench();
    let host = crate::lab::Host { lab: &bench.lab, captured: None, asked: 0.into() };
    let nowhere = std::path::Path::new("/nowhere/x.sock");
    let run = |command: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = uvti::ip::run_with(&words(command), Some(nowhere), &host, &mut out, &mut err);
        (code, String::from_utf8(err).unwrap())
    };
    let (code, err) = run("xfrm state");
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/x.sock") && err.contains("uvti run"), "{err}");
    assert_eq!(run("link add v type vti remote 198.51.100.2").0, 1);
    assert_eq!(run("link show").0, crate::lab::SYSTEM);
}

#[test]
fn a_file_is_checked_as_a_whole() {
    use uvti::ip::batch::{Kind, plan};
    let names = Only;
    let file = "# two tunnels\n\
                link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1\n\
                address add 10.0.0.1/30 dev vti0\n\
                link add vti1 up type vti remote 198.51.100.3 dev vti0\n\
                link del vti1\n\
                link del vti1\n";
    let lines = plan("lab.uvti", file, &names).unwrap();
    let kinds: Vec<(usize, bool)> =
        lines.iter().map(|l| (l.number, matches!(&l.kind, Kind::Owned(_)))).collect();
    assert_eq!(kinds, [(2, true), (3, false), (4, true), (4, false), (5, true), (6, false)]);
    assert!(matches!(&lines[4].kind, Kind::Owned(ops) if ops[..] == [Op::LinkDel { name: "vti1".into() }]));

    let wrong = "link add vti0 type vti local nowhere\n\
                 bogus x\n\
                 xfrm policy add dir\n\
                 -s link\n\
                 xfrm state list\n\
                 xfrm state deleteall\n\
                 link add a 'b\n";
    let errors: Vec<String> =
        plan("lab.uvti", wrong, &names).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        errors[..4],
        [
            "lab.uvti:1:30: Error: inet address is expected rather than \"nowhere\".",
            "lab.uvti:2:1: Object \"bogus\" is unknown, try \"ip help\".",
            "lab.uvti:3:20: Command line is not complete. Try option \"help\"",
            "lab.uvti:4:1: Object \"-s\" is unknown, try \"ip help\".",
        ]
    );
    assert_eq!(errors.len(), 7);
    assert_eq!(errors[6], "lab.uvti:7:12: Unterminated quoted string");
}

/// A host with `lo` and nothing else.
struct Only;

impl uvti::ip::parse::Names for Only {
    fn device(&self, name: &str) -> bool {
        name == "lo"
    }
    fn link(&self, _: &str) -> Option<uvti_core::device::LinkSpec> {
        None
    }
}
