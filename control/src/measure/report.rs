//! What was measured: as text, and as JSON.

use super::search::{Bracket, Search};
use super::trial::Trial;
use crate::views::{lines, number, pretty, table};
use comfy_table::Cell;
use serde::Serialize;
use std::fmt::Write;

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What carried the packets.
    pub(super) path: String,
    /// Share of the packets that may be lost at the partial drop rate.
    pub(super) pdr_loss: f64,
    /// By packet size.
    pub(super) sizes: Vec<Size>,
    /// Whether every packet offered was received or lost by a reason.
    pub(super) accounted: bool,
}

/// One packet size.
#[derive(Debug, Serialize)]
pub(super) struct Size {
    /// Bytes of an inner packet, IP header included.
    pub(super) bytes: usize,
    /// No drop rate: the highest with no loss, if there is one.
    pub(super) ndr: Option<Rate>,
    /// Partial drop rate.
    pub(super) pdr: Option<Rate>,
    /// By offered load.
    pub(super) trials: Vec<Trial>,
}

/// A rate that was found.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Rate {
    /// Packets a second.
    pub(super) pps: f64,
    /// Bits of inner packets, 10^9 a second.
    pub(super) gbit: f64,
    /// Nothing faster was tried, or could be offered: the path may carry more.
    pub(super) at_least: bool,
    /// The place of its trial among those of its size.
    pub(super) trial: usize,
}

impl Size {
    /// What the trials of one size come to; the goals of the search are partial and no loss.
    pub(super) fn new(bytes: usize, search: &Search, trials: Vec<Trial>) -> Self {
        let points: Vec<_> = trials.iter().map(Trial::point).collect();
        let mut order: Vec<usize> = (0..trials.len()).collect();
        order.sort_by(|a, b| trials[*a].offered_pps.total_cmp(&trials[*b].offered_pps));
        let rate = |goal| {
            let Bracket { passes, fails } = search.bracket(&points, goal);
            let i = passes?;
            let trial = order.iter().position(|o| *o == i)?;
            let (pps, gbit) = (trials[i].offered_pps, trials[i].gbit());
            Some(Rate { pps, gbit, at_least: fails.is_none(), trial })
        };
        let partial = search.goals.iter().copied().fold(0.0, f64::max);
        let (ndr, pdr) = (rate(0.0), rate(partial));
        let trials = order.iter().map(|i| trials[*i].clone()).collect();
        Self { bytes, ndr, pdr, trials }
    }
}

impl Report {
    /// All of it.
    pub(super) fn new(path: String, pdr_loss: f64, sizes: Vec<Size>) -> Self {
        let accounted = sizes.iter().flat_map(|s| &s.trials).all(|t| t.unaccounted == 0);
        Self { path, pdr_loss, sizes, accounted }
    }

    /// Trials in which packets are unaccounted for, and how many.
    fn unaccounted(&self) -> (usize, i64) {
        let missing = self.sizes.iter().flat_map(|s| &s.trials).map(|t| t.unaccounted).filter(|n| *n != 0);
        missing.fold((0, 0), |(trials, sum), n| (trials + 1, sum + n))
    }

    /// In a sentence.
    pub(super) fn balance(&self) -> String {
        let (trials, n) = self.unaccounted();
        match trials {
            0 => "every packet offered was received, or lost by a reason".to_owned(),
            _ => format!(
                "{n} packets unaccounted for, in {trials} trials: lost or late where nobody counts, or, below zero, others' packets"
            ),
        }
    }
}

/// As JSON.
pub(super) fn json(report: &Report) -> String {
    serde_json::to_value(report).map_or_else(|error| format!("{{\"error\": \"{error}\"}}\n"), |v| pretty(&v))
}

/// As text.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}\n\n", report.path);
    let pdr = format!("PDR {} %", report.pdr_loss * 100.0);
    let mut rates =
        table(&["BYTES", "NDR", "GBIT/S", &pdr, "GBIT/S", "P50 US", "P99 US", "P99.9 US", "MAX US"]);
    for size in &report.sizes {
        let mut row = vec![number(size.bytes)];
        for rate in [size.ndr, size.pdr] {
            row.push(number(
                rate.map_or("-".into(), |r| format!("{}{:.0}", if r.at_least { ">=" } else { "" }, r.pps)),
            ));
            row.push(number(rate.map_or("-".into(), |r| format!("{:.3}", r.gbit))));
        }
        // Where nothing is lost, else where little is.
        let latency = size.ndr.or(size.pdr).and_then(|r| size.trials.get(r.trial)?.latency_us);
        let times = latency.map_or([f64::NAN; 4], |l| [l.p50, l.p99, l.p999, l.max]);
        row.extend(times.map(|t| number(if t.is_nan() { "-".into() } else { format!("{t:.0}") })));
        rates.add_row(row);
    }
    text.push_str(&lines(&rates));
    text.push('\n');
    let mut trials =
        table(&["BYTES", "OFFERED/S", "PACKETS", "RECEIVED", "LOST %", "P99 US", "LOST WHERE AND WHY"]);
    for trial in report.sizes.iter().flat_map(|s| &s.trials) {
        let mut row: Vec<Cell> = vec![number(trial.size), number(format!("{:.0}", trial.offered_pps))];
        row.extend([trial.offered, trial.received].map(number));
        row.push(number(format!("{:.3}", trial.point().loss() * 100.0)));
        row.push(number(trial.latency_us.map_or("-".into(), |l| format!("{:.0}", l.p99))));
        row.push(Cell::new(why(trial)));
        trials.add_row(row);
    }
    text.push_str(&lines(&trials));
    _ = writeln!(text, "\n{}", report.balance());
    text
}

/// The losses of a trial, most first.
pub(super) fn why(trial: &Trial) -> String {
    let mut lost: Vec<_> = trial.lost.iter().map(|(place, n)| (*n as i64, place.as_str())).collect();
    lost.sort_by_key(|(n, _)| -n);
    if trial.unaccounted != 0 {
        lost.push((trial.unaccounted, "unaccounted for"));
    }
    lost.iter().map(|(n, place)| format!("{n} {place}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::measure::trial::Losses;

    pub(in crate::measure) fn trial(pps: f64, lost: u64, unaccounted: i64) -> Trial {
        Trial {
            size: 64,
            asked_pps: pps,
            offered_pps: pps,
            offered: pps as u64,
            received: pps as u64 - lost - unaccounted.unsigned_abs(),
            lost: Losses::from([("far: <rx_no_sa>".to_owned(), lost)]),
            unaccounted,
            latency_us: None,
        }
    }

    pub(in crate::measure) fn report(trials: Vec<Trial>) -> Report {
        let search = Search { least: 10.0, most: 4000.0, precision: 1.1, goals: vec![0.01, 0.0] };
        Report::new("a path".into(), 0.01, vec![Size::new(64, &search, trials)])
    }

    #[test]
    fn rates_are_those_of_trials_and_what_is_missing_is_said() {
        let report = report(vec![trial(4000.0, 3000, 0), trial(1000.0, 0, 0), trial(2000.0, 5, 3)]);
        let size = &report.sizes[0];
        let found = |r: Option<Rate>| r.map(|r| (r.pps, r.at_least, size.trials[r.trial].offered_pps));
        assert_eq!(found(size.ndr), Some((1000.0, false, 1000.0)));
        assert_eq!(found(size.pdr), Some((2000.0, false, 2000.0)));
        let text = text(&report);
        assert!(text.contains("5 far: <rx_no_sa>, 3 unaccounted for"), "{text}");
        assert!(text.ends_with("others' packets\n"), "{text}");
        assert!(!report.accounted && json(&report).contains("\"accounted\": false"));
    }

    #[test]
    fn a_rate_above_which_nothing_was_offered_is_at_least_that() {
        let report = report(vec![trial(4000.0, 0, 0)]);
        assert!(report.accounted && report.sizes[0].ndr.unwrap().at_least);
        assert!(text(&report).contains(">=4000"));
    }
}
