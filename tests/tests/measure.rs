//! `uvti measure`: every packet that it offers is accounted for, through dataplanes and in memory.

use std::path::Path;
use std::process::Command;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

/// What `uvti measure` says as JSON. A load that any machine carries: nothing here is about speed.
fn measure(args: &[&str]) -> serde_json::Value {
    let common =
        ["measure", "-j", "--time", "0.1", "--size", "64", "--max-rate", "2000", "--min-rate", "1000"];
    let output = Command::new(UVTI).args(common).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first of its trials, whose packets are received, lost or unaccounted for.
fn balanced(report: &serde_json::Value) -> &serde_json::Value {
    let trials = report["sizes"][0]["trials"].as_array().unwrap();
    for trial in trials {
        let n = |name: &str| trial[name].as_i64().unwrap();
        let lost: i64 = trial["lost"].as_object().unwrap().values().map(|n| n.as_i64().unwrap()).sum();
        assert!(n("offered") > 0);
        assert_eq!(n("offered"), n("received") + lost + n("unaccounted"), "{trial}");
    }
    &trials[0]
}

#[test]
fn a_tunnel_of_its_own_is_measured() {
    if !have("a_tunnel_of_its_own_is_measured", Need::Netns) {
        return;
    }
    let dir = std::env::temp_dir().join(format!("uvti-measure-{}", std::process::id()));
    for args in [&["--"][..], &["--udp", "--", "--workers", "1", "--wire", "fast"]] {
        let html = ["--html", dir.to_str().unwrap()];
        let report = measure(&[&html, args].concat());
        let trial = balanced(&report);
        assert!(trial["received"].as_u64().unwrap() > 0, "{trial}");
        assert!(trial["latency_us"]["p50"].as_f64().unwrap() > 0.0, "{trial}");
        let page = std::fs::read_to_string(&dir).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
    }
    std::fs::remove_file(&dir).unwrap();
}

#[test]
fn two_engines_in_memory_are_measured() {
    let report = measure(&["--memory"]);
    let trial = balanced(&report);
    assert!(trial["received"].as_u64().unwrap() > 0, "{trial}");
}

/// A running dataplane that has no SA: nothing leaves, and the reason is found.
#[test]
fn a_running_tunnel_is_measured() {
    if !have("a_running_tunnel_is_measured", Need::Netns) {
        return;
    }
    let namespace = Namespace::new().unwrap();
    let batch = std::env::temp_dir().join(format!("uvti-measure-batch-{}", std::process::id()));
    let lines = "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1\n\
        xfrm policy add dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp mode tunnel\n\
        addr add 10.9.0.1/30 dev vti0\nlink set vti0 up\n";
    std::fs::write(&batch, lines).unwrap();
    let control = batch.with_extension("sock");
    let mut run = Command::new(UVTI);
    run.arg("--control").arg(&control).arg("run").arg("--batch").arg(&batch);
    run.stdout(std::process::Stdio::piped());
    let mut daemon = namespace.run(|| Ok(run.spawn()?)).unwrap();
    let mut ready = String::new();
    use std::io::BufRead;
    std::io::BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let control = control.to_str().unwrap();
    let report = namespace.run(|| Ok(measure(&["--to", "10.9.0.2", "--control", control])));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    std::fs::remove_file(&batch).unwrap();
    let _ = std::fs::remove_file(Path::new(control));
    let report = report.unwrap();
    let trial = balanced(&report);
    assert_eq!(trial["received"], 0);
    assert!(trial["lost"]["near: tx_no_sa"].as_u64().unwrap() > 0, "{trial}");
    assert_eq!(report["sizes"][0]["ndr"], serde_json::Value::Null);
}
