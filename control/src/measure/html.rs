//! What was measured as one HTML page, with nothing from elsewhere.

use super::report::{Rate, Report, Size, why};
use super::svg::{Series, bars, escape, lines};
use std::collections::BTreeSet;
use std::fmt::Write;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}svg{width:100%;height:auto}svg text{font-size:12px;fill:#333}
.grid{stroke:#ddd}table{border-collapse:collapse;font-size:13px;width:100%}th,td{padding:3px 8px;text-align:right;
border-bottom:1px solid #e5e5e5;vertical-align:top}th:last-child,td:last-child{text-align:left}
.legend span{margin-right:1.2em;white-space:nowrap}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>uvti measure</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>uvti measure</h1>\n<p>{}: {}.</p>\n",
        escape(&report.path),
        escape(&report.balance())
    );
    page.push_str("<h2>Throughput by packet size</h2>\n");
    let names = ["no loss (NDR)".to_owned(), format!("at most {} % lost (PDR)", report.pdr_loss * 100.0)];
    let groups: Vec<String> = report.sizes.iter().map(|s| format!("{} bytes", s.bytes)).collect();
    let by = |value: fn(Rate) -> f64| {
        let [ndr, pdr] = names.clone();
        let of = |rate: fn(&Size) -> Option<Rate>| report.sizes.iter().map(|s| rate(s).map(value)).collect();
        [(ndr, of(|s| s.ndr)), (pdr, of(|s| s.pdr))]
    };
    let inner = "inner packet, IP header included";
    page.push_str(&bars("Packets a second by packet size", inner, "packets/s", &groups, &by(|r| r.pps)));
    page.push_str(&bars("Gbit/s by packet size", inner, "Gbit/s of inner packets", &groups, &by(|r| r.gbit)));
    for size in &report.sizes {
        section(&mut page, size);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, size: &Size) {
    _ = writeln!(page, "<h2>Drops by reason over offered load, {} bytes</h2>", size.bytes);
    let offered = "offered, packets/s";
    page.push_str(&lines(
        "Drops by reason over offered load",
        offered,
        "% of the packets offered",
        &drops(size),
    ));
    let latency = |of: fn(&super::arrivals::Latency) -> f64| {
        let point = |t: &super::trial::Trial| Some((t.offered_pps, of(t.latency_us.as_ref()?)));
        size.trials.iter().filter_map(point).collect::<Vec<_>>()
    };
    let series = [("p50", latency(|l| l.p50)), ("p99", latency(|l| l.p99)), ("p99.9", latency(|l| l.p999))];
    if !series[0].1.is_empty() {
        let series = series.map(|(name, points)| Series { name: name.into(), points });
        page.push_str(&lines("Latency over offered load", offered, "latency, µs", &series));
    }
    page.push_str(
        "<table>\n<tr><th>offered/s</th><th>packets</th><th>received</th><th>lost %</th><th>p50 µs</th><th>p99 µs</th><th>lost where and why</th></tr>\n",
    );
    for trial in &size.trials {
        let time = |of: fn(&super::arrivals::Latency) -> f64| {
            trial.latency_us.as_ref().map_or("-".to_owned(), |l| format!("{:.0}", of(l)))
        };
        _ = writeln!(
            page,
            "<tr><td>{:.0}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            trial.offered_pps,
            trial.offered,
            trial.received,
            trial.point().loss() * 100.0,
            time(|l| l.p50),
            time(|l| l.p99),
            escape(&why(trial))
        );
    }
    page.push_str("</table>\n");
}

/// A line for each place and reason that lost anything, and for what is unaccounted for.
fn drops(size: &Size) -> Vec<Series> {
    let reasons: BTreeSet<&str> =
        size.trials.iter().flat_map(|t| t.lost.keys()).map(String::as_str).collect();
    let series = |name: &str, lost: &dyn Fn(&super::trial::Trial) -> i64| Series {
        name: name.to_owned(),
        points: size
            .trials
            .iter()
            .map(|t| (t.offered_pps, lost(t) as f64 * 100.0 / t.offered.max(1) as f64))
            .collect(),
    };
    let mut all: Vec<Series> = reasons
        .into_iter()
        .map(|reason| series(reason, &|t| t.lost.get(reason).map_or(0, |n| *n as i64)))
        .collect();
    if size.trials.iter().any(|t| t.unaccounted > 0) {
        all.push(series("unaccounted for", &|t| t.unaccounted.max(0)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, trial};
    use super::*;

    #[test]
    fn a_page_needs_nothing_and_shows_each_reason() {
        let page = page(&report(vec![trial(4000.0, 3000, 0), trial(1000.0, 0, 0), trial(2000.0, 5, 3)]));
        // The name of SVG's namespace is no address to load from.
        let rest = page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http", "src=", "href=", "url(", "<script", "@import"] {
            assert!(!rest.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("</svg>").count(), 3);
        assert!(
            page.contains("</i>far: &lt;rx_no_sa&gt;</span>") && page.contains("</i>unaccounted for</span>")
        );
        assert!(page.contains("75.000"), "the share that was lost");
    }
}
