//! `uvti demo`: what a stranger runs first.

use std::process::Command;
use uvti_tests::require::{Need, have};

#[test]
fn the_demo_counts_what_the_kernel_counts() {
    if !have("the_demo_counts_what_the_kernel_counts", Need::Netns) {
        return;
    }
    let demo = Command::new(env!("CARGO_BIN_EXE_uvti-under-test")).args(["demo", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&demo.stdout);
    let errors = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{}: {errors}\n{text}", demo.status);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["conservation"]["ok"], true);
    let drops = report["drops"].as_array().unwrap();
    assert_eq!(drops.len(), 16);
    for drop in drops {
        assert_eq!(drop["kernel"], drop["uvti"], "{}", drop["class"]);
    }
    assert!(report["tcp"]["bytes"].as_u64().unwrap() > 0);
    assert!(report["udp"]["received"].as_u64().unwrap() > 0);
}
