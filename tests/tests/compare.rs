//! `uvti compare`: uvti counts as the kernel does, in every scenario, and it shows when it does not.

use std::path::Path;
use std::process::{Command, Output};
use uvti_tests::golden::{Recorded, of_interfaces, recorded};
use uvti_tests::require::{Need, have};

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");

fn compare(program: &str, mutant: &str, args: &[&str]) -> Output {
    Command::new(program)
        .arg("compare")
        .args(args)
        .arg(SCENARIOS)
        .env("UVTI_MUTANT", mutant)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// `UVTI_ONLY=substring` picks scenarios.
#[test]
fn uvti_counts_as_the_kernel() {
    if !have("uvti_counts_as_the_kernel", Need::Uml) {
        return;
    }
    let only = std::env::var("UVTI_ONLY").unwrap_or_default();
    let output = compare(env!("CARGO_BIN_EXE_uvti-under-test"), "", &["--quiet", "--only", &only]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    println!("{said}");
}

/// Scenario files of the xfrm interface, which the guest's kernel has not: what Linux 6.12 counted was recorded.
fn interface_files() -> Vec<std::path::PathBuf> {
    ["xfrm-tx", "xfrm-rx", "xfrm-ipv6"].map(|f| Path::new(SCENARIOS).join(format!("{f}.scenario"))).into()
}

/// `UVTI_ONLY=substring` picks scenarios.
#[test]
fn an_xfrm_interface_counts_as_recorded() {
    if !have("an_xfrm_interface_counts_as_recorded", Need::Netns) {
        return;
    }
    let only = std::env::var("UVTI_ONLY").unwrap_or_default();
    let output = Command::new(env!("CARGO_BIN_EXE_uvti-under-test"))
        .args(["compare", "--quiet", "--only", &only])
        .args(interface_files())
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    println!("{said}");
}

/// The program with two checks in the wrong order: the comparison that holds them apart must say so.
#[test]
fn two_checks_in_the_wrong_order_are_noticed() {
    if !have("two_checks_in_the_wrong_order_are_noticed", Need::Uml) {
        return;
    }
    let mutant = env!("CARGO_BIN_EXE_uvti-mutant");
    let args = ["--quiet", "--only", "order_tx_too_big"];
    let output = compare(mutant, "number-before-size", &args);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("order_tx_too_big_before_overflow"), "{said}");
    assert!(said.contains("vti0 aborted") && said.contains("xfrm XfrmOutStateSeqError"), "{said}");
    assert!(!said.contains("order_tx_too_big_before_expired"), "{said}");
}

/// What cannot be run is neither the same nor different.
#[test]
fn a_scenario_that_cannot_be_run_has_a_status_of_its_own() {
    let folder = std::env::temp_dir().join(format!("uvti-compare-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("wrong.scenario");
    std::fs::write(&file, "[wrong] x\nsend five\n").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_uvti-under-test")).arg("compare").arg(&file).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output);
    assert!(said.contains("wrong.scenario:2:6: \"five\": a number of packets"), "{said}");
}

/// What the scenario files expect was recorded from the guest's kernel; another kernel counted the same.
#[test]
fn files_expect_what_another_kernel_counted() {
    let mut compared = 0;
    for entry in Path::new(SCENARIOS).read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "scenario") {
            continue;
        }
        for section in std::fs::read_to_string(&path).unwrap().split("\n[").skip(1) {
            let name = section.split(']').next().unwrap();
            let Ok(recorded) = recorded(name) else { continue };
            compared += 1;
            let expected = counters(section);
            for (counter, n) in &recorded.link {
                // Of the devices of a scenario the recording has the first, nearly always.
                let short = match counter.as_str() {
                    "tx_carrier_errors" => "carrier",
                    "tx_aborted_errors" => "aborted",
                    other => other,
                };
                let of = |device: &str| expected.get(&format!("{device} {short}")).copied();
                assert!(
                    [of("vti0"), of("vti1")].contains(&Some(*n)),
                    "{name}: {counter}: recorded {n}, the file has {:?}",
                    of("vti0")
                );
            }
            let xfrm: u64 = expected.iter().filter(|(c, _)| c.starts_with("xfrm ")).map(|(_, n)| n).sum();
            assert_eq!(xfrm, recorded.xfrm.values().sum::<u64>(), "{name}");
            for (counter, n) in &recorded.xfrm {
                assert_eq!(expected.get(&format!("xfrm {counter}")), Some(n), "{name}: {counter}");
            }
        }
    }
    assert!(compared > 200, "{compared} scenarios have a recording");
}

/// What the files expect of an xfrm interface is what was recorded: links, XFRM, SAs, the wire, and what was delivered.
#[test]
fn interface_files_expect_what_was_recorded() {
    let recorded = of_interfaces().unwrap();
    let mut compared = 0;
    for path in interface_files() {
        for section in std::fs::read_to_string(&path).unwrap().split("\n[").skip(1) {
            let name = section.split(']').next().unwrap();
            let recorded = recorded.iter().find(|r| r.scenario == name).unwrap_or_else(|| panic!("{name}"));
            compared += 1;
            assert_eq!(expected_of(section), told(recorded), "{name}");
        }
    }
    assert!(compared > 150, "{compared} scenarios are recorded");
}

/// `GROUP NAME` and how often, without lengths and fields of packets.
type Kinds = std::collections::BTreeMap<String, u64>;

/// The `expect` lines of a section, as far as a recording has them.
fn expected_of(section: &str) -> Kinds {
    let mut kinds = Kinds::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("expect ")) {
        let mut words = line.split_whitespace();
        let mut group = words.next().unwrap().to_owned();
        if group == "sa" {
            group = format!("sa {}", words.next().unwrap());
        }
        if matches!(group.as_str(), "nothing" | "icmp" | "errno" | "received") {
            continue;
        }
        let mut item = String::new();
        for word in words {
            match word.strip_prefix('+') {
                Some(n) => {
                    *kinds.entry(format!("{group} {}", std::mem::take(&mut item))).or_default() +=
                        n.parse::<u64>().unwrap()
                }
                // Of a packet its kind.
                None if item.is_empty() => item = word.to_owned(),
                None => {}
            }
        }
    }
    kinds
}

/// What was recorded, by the same names.
fn told(recorded: &Recorded) -> Kinds {
    let mut kinds = Kinds::new();
    let xfrm0 = [("xfrm0".to_owned(), recorded.link.clone())];
    let others = recorded
        .other_links
        .clone()
        .into_iter()
        .filter(|(name, _)| name.starts_with("xfrm") || name == "vti0");
    for (device, counters) in xfrm0.into_iter().chain(others) {
        for (counter, n) in counters {
            let short = match counter.as_str() {
                "tx_carrier_errors" => "carrier",
                "tx_aborted_errors" => "aborted",
                other => other,
            };
            kinds.insert(format!("{device} {short}"), n);
        }
    }
    kinds.extend(recorded.xfrm.iter().map(|(name, n)| (format!("xfrm {name}"), *n)));
    for sa in &recorded.sa_stats {
        let counts = sa.iter().filter_map(|(name, n)| Some((name, n.as_u64().filter(|n| *n > 0)?)));
        let spi = sa["spi"].as_str().unwrap();
        kinds.extend(counts.map(|(name, n)| (format!("sa {spi} {}", name.replace('_', "-")), n)));
    }
    for (kind, n) in recorded.wire.iter().filter(|(kind, _)| *kind != "arp") {
        let kind = match kind.as_str() {
            "esp4-frag" => "frag4",
            "ip4/17" => "udp4",
            other => other,
        };
        kinds.insert(format!("wire {kind}"), *n);
    }
    for (kind, n) in &recorded.delivered {
        kinds.insert(format!("delivered {}", if kind == "ip4/17" { "udp4" } else { "udp6" }), *n);
    }
    kinds
}

/// The counters of devices and of XFRM in the `expect` lines of a section.
fn counters(section: &str) -> std::collections::BTreeMap<String, u64> {
    let mut counters = std::collections::BTreeMap::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("expect ")) {
        let mut words = line.split_whitespace();
        let group = words.next().unwrap();
        let rest: Vec<&str> = words.collect();
        if group == "xfrm" || group.starts_with("vti") || group.contains("_vti") {
            for pair in rest.chunks(2) {
                counters.insert(format!("{group} {}", pair[0]), pair[1][1..].parse().unwrap());
            }
        }
    }
    counters
}
