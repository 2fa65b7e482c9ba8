//! What counting costs: the worker's loop with the shipped account beside the same loop with none, in interleaved pairs.
//!
//! Prints ratios, each the median of its pairs with the quartiles beside it. With `--test` each is done once.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use uvti_benches::lane::Lane;
use uvti_core::packet::testing::udp4;
use uvti_core::reason::Reason;
use uvti_core::vti::testing::{Lab, OUT};
use uvti_core::xfrm::PolicySpec;
use uvti_dataplane::account::{Attribution, DEFAULT_RECORDS, DEFAULT_ROWS, FlightRecorder, NoAccount};

/// Packets a measurement.
const PACKETS: usize = 64 * 512;
/// Pairs of measurements.
const PAIRS: usize = 41;

/// The lab's tunnel for 10.2.0.0/16; for 10.3.0.0/16 a policy whose template no SA fits.
fn lab() -> Lab {
    let mut lab = Lab::vti();
    let mut orphan: PolicySpec = lab.policies[OUT].clone();
    orphan.sel.dst = "10.3.0.0/16".parse().expect("a prefix");
    orphan.sel.family = Some(uvti_core::xfrm::Family::V4);
    orphan.priority = 0;
    orphan.templates[0].reqid = 77;
    lab.policies[OUT].priority = 10;
    lab.policies.push(orphan);
    lab
}

fn counted(lab: &Lab) -> Lane {
    let flight = FlightRecorder::new(1, DEFAULT_RECORDS);
    let ledger = flight.ledgers(|| Attribution::new(DEFAULT_ROWS)).remove(0);
    let shelf = ledger.attribution.shelf();
    Lane::new(lab, ledger, vec![shelf], flight)
}

fn passes(size: usize) -> Vec<u8> {
    udp4("10.1.0.2", "10.2.0.5", 4000, 5000, size)
}

fn is_dropped(size: usize) -> Vec<u8> {
    udp4("10.1.0.2", "10.3.0.5", 4000, 5000, size)
}

/// Packets of which one in `every` is dropped.
fn mixed(size: usize, every: usize) -> Arc<[Vec<u8>]> {
    (1..=every).map(|i| if i == every / 2 { is_dropped(size) } else { passes(size) }).collect()
}

/// Ratios of the times that `n` packets take on the first and on the second side, measured in turn.
fn ratios(
    pairs: usize,
    n: usize,
    mut a: impl FnMut(usize) -> Duration,
    mut b: impl FnMut(usize) -> Duration,
) -> Ratio {
    let (mut ratios, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    for pair in 0..pairs {
        // Whoever is first may find a colder machine.
        let (x, y) = match pair % 2 {
            0 => (a(n), b(n)),
            _ => {
                let y = b(n);
                (a(n), y)
            }
        };
        ratios.push(x.as_secs_f64() / y.as_secs_f64());
        times[0].push(x);
        times[1].push(y);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |part: usize| ratios[(ratios.len() - 1) * part / 4];
    let [a, b] = times.map(|mut t| {
        t.sort();
        t[t.len() / 2].as_secs_f64() * 1e9 / n as f64
    });
    Ratio { median: at(2), quartiles: [at(1), at(3)], nanoseconds: [a, b] }
}

struct Ratio {
    median: f64,
    quartiles: [f64; 2],
    /// Of a packet, on either side.
    nanoseconds: [f64; 2],
}

fn print(what: &str, goal: &str, r: &Ratio) {
    let ([low, high], [a, b]) = (r.quartiles, r.nanoseconds);
    println!("{what:<58} {:.3} ({low:.3}..{high:.3})  {a:.0} ns / {b:.0} ns  {goal}", r.median);
}

/// Memory of the process before and after a flood of drops.
fn flood(lane: &Lane, packets: &Arc<[Vec<u8>]>, rounds: usize, n: usize) {
    let before = resident();
    (0..rounds).for_each(|_| _ = lane.carry(packets, n));
    let grown = resident().saturating_sub(before);
    println!("{} packets dropped in a row: {grown} KiB more memory", rounds * n);
    assert!(grown < 8 << 10, "memory grows with drops");
}

/// Memory that the process has, KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let mut words = status.split_whitespace().skip_while(|w| *w != "VmRSS:");
    words.nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

fn main() {
    // `cargo bench` says --bench; `cargo test`, and CI, --test.
    let test = std::env::args().any(|a| a == "--test");
    let (pairs, packets) = if test { (1, 640) } else { (PAIRS, PACKETS) };
    let lab = lab();
    let (with, without) = (counted(&lab), Lane::new(&lab, NoAccount, Vec::new(), FlightRecorder::new(1, 0)));
    let one = |packet: Vec<u8>| -> Arc<[Vec<u8>]> { Arc::new([packet]) };

    for size in [64, 1400] {
        for (percent, load, goal) in
            [(0, one(passes(size)), "goal <= 1.02"), (1, mixed(size, 100), "goal <= 1.05")]
        {
            let r = ratios(pairs, packets, |n| with.carry(&load, n), |n| without.carry(&load, n));
            print(&format!("{size} bytes, {percent} % dropped: account / none"), goal, &r);
        }
    }
    let (small, large, forwarded) = (one(is_dropped(64)), one(is_dropped(1400)), one(passes(64)));
    let r = ratios(pairs, packets, |n| with.carry(&small, n), |n| without.carry(&small, n));
    print("64 bytes, 100 % dropped: account / none", "", &r);
    let r = ratios(pairs, packets, |n| with.carry(&small, n), |n| with.carry(&forwarded, n));
    print("64 bytes: dropped without an SA / forwarded", "goal <= 0.40", &r);
    let r = ratios(pairs, packets, |n| with.carry(&large, n), |n| with.carry(&small, n));
    print("dropped without an SA: 1400 bytes / 64 bytes", "", &r);

    flood(&with, &small, if test { 1 } else { 200 }, packets);
    let all = black_box(with.engine()).totals().expect("totals").all;
    assert!(all.dropped(Reason::TxNoSa) > 0);
}
