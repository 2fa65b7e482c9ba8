//! `uvti compare`: uvti counts as the kernel does, in every scenario, and it shows when it does not.

use std::path::Path;
use std::process::{Command, Output};
use uvti_tests::golden::recorded;
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
