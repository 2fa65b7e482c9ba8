//! What counting costs: the worker's loop with the shipped account beside the same loop with none, in interleaved pairs.
//!
//! Prints ratios, each the median of its pairs with the quartiles beside it. With `--test` each pair is measured once.

use std::sync::Arc;
use std::time::Duration;
use uvti_benches::lane::Lane;
use uvti_core::packet::testing::udp4;
use uvti_core::reason::Reason;
use uvti_core::vti::testing::{Lab, OUT};
use uvti_core::xfrm::{Family, PolicySpec};
use uvti_dataplane::account::{Attribution, DEFAULT_RECORDS, DEFAULT_ROWS, FlightRecorder, NoAccount};

/// Packets a measurement.
const PACKETS: usize = 64 * 512;
/// Workers are started anew so often: where their memory lies makes a difference, too.
const STARTS: usize = 9;
/// Pairs of measurements with each of them.
const PAIRS: usize = 5;

/// The lab's tunnel for 10.2.0.0/16; for 10.3.0.0/16 a policy whose template no SA fits.
fn lab() -> Lab {
    let mut lab = Lab::vti();
    let mut orphan: PolicySpec = lab.policies[OUT].clone();
    orphan.sel.dst = "10.3.0.0/16".parse().expect("a prefix");
    orphan.sel.family = Some(Family::V4);
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

/// Two loads that are compared.
struct Case {
    what: &'static str,
    goal: &'static str,
    /// With the account.
    load: Arc<[Vec<u8>]>,
    /// What it is compared with: the same without an account, or another load with one.
    other: Option<Arc<[Vec<u8>]>>,
    times: Vec<[Duration; 2]>,
}

impl Case {
    fn new(what: &'static str, goal: &'static str, load: Arc<[Vec<u8>]>) -> Self {
        Self { what, goal, load, other: None, times: Vec::new() }
    }

    fn against(self, other: Arc<[Vec<u8>]>) -> Self {
        Self { other: Some(other), ..self }
    }

    /// Measures a pair; whoever is first may find a colder machine.
    fn measure(&mut self, with: &Lane, without: &Lane, n: usize) {
        let one = || with.carry(&self.load, n);
        let two = || match &self.other {
            Some(other) => with.carry(other, n),
            None => without.carry(&self.load, n),
        };
        let pair = match self.times.len() % 2 {
            0 => [one(), two()],
            _ => {
                let two = two();
                [one(), two]
            }
        };
        self.times.push(pair);
    }

    fn print(&self, n: usize) {
        let mut ratios: Vec<f64> =
            self.times.iter().map(|[a, b]| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |quarter: usize| ratios[(ratios.len() - 1) * quarter / 4];
        let nanoseconds = |side: usize| {
            let mut times: Vec<_> = self.times.iter().map(|pair| pair[side]).collect();
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e9 / n as f64
        };
        println!(
            "{:<50} {:.3} ({:.3}..{:.3}) {:>4.0} ns / {:>3.0} ns  {}",
            self.what,
            at(2),
            at(1),
            at(3),
            nanoseconds(0),
            nanoseconds(1),
            self.goal
        );
    }
}

fn cases() -> Vec<Case> {
    let one = |packet: Vec<u8>| -> Arc<[Vec<u8>]> { Arc::new([packet]) };
    let (small, large) = (one(is_dropped(64)), one(is_dropped(1400)));
    vec![
        Case::new("64 bytes, none dropped: account / none", "goal <= 1.02", one(passes(64))),
        Case::new("1400 bytes, none dropped: account / none", "goal <= 1.02", one(passes(1400))),
        Case::new("64 bytes, 1 % dropped: account / none", "goal <= 1.05", mixed(64, 100)),
        Case::new("1400 bytes, 1 % dropped: account / none", "goal <= 1.05", mixed(1400, 100)),
        Case::new("64 bytes, all dropped: account / none", "", small.clone()),
        Case::new("64 bytes, without an SA: dropped / forwarded", "goal <= 0.40", small.clone())
            .against(one(passes(64))),
        Case::new("dropped: 1400 bytes / 64 bytes", "goal ~ 1", large).against(small),
    ]
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
    // `cargo bench` says --bench; CI says --test.
    let test = std::env::args().any(|a| a == "--test");
    let (starts, pairs, packets) = if test { (1, 1, 640) } else { (STARTS, PAIRS, PACKETS) };
    let (lab, mut cases) = (lab(), cases());
    for _ in 0..starts {
        let (with, without) =
            (counted(&lab), Lane::new(&lab, NoAccount, Vec::new(), FlightRecorder::new(1, 0)));
        // Cold caches and untouched buffers are not what is compared.
        cases.iter().for_each(|case| [&with, &without].iter().for_each(|l| _ = l.carry(&case.load, packets)));
        for case in &mut cases {
            (0..pairs).for_each(|_| case.measure(&with, &without, packets));
        }
    }
    cases.iter().for_each(|case| case.print(packets));

    let lane = counted(&lab);
    let drops: Arc<[Vec<u8>]> = Arc::new([is_dropped(64)]);
    lane.carry(&drops, packets);
    flood(&lane, &drops, if test { 1 } else { 200 }, packets);
    let totals = lane.engine().totals().expect("totals");
    assert!(totals.all.dropped(Reason::TxNoSa) >= packets as u64);
}
