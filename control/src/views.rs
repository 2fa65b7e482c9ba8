//! What uvti shows of its own: drops by reason, the reasons, conservation.

use crate::breakdown::{self, By};
use crate::client::{Client, ClientError};
use crate::protocol::{Request, Response};
use crate::queues;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::json;
use std::fmt::Write;
use uvti_core::device::LinkInfo;
use uvti_core::reason::{LinkKind, Reason, Row};

pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().map(Cell::new));
    table
}

pub(crate) fn number(n: impl ToString) -> Cell {
    Cell::new(n).set_alignment(CellAlignment::Right)
}

pub(crate) fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What a kernel's device of that kind would have counted, in one cell: `carrier, XfrmOutNoStates`.
pub(crate) fn kernel_counts(row: &Row, kind: Option<LinkKind>) -> String {
    let link = row.counted_by(kind).map(|f| f.name().to_owned());
    let mib = row.mib.iter().map(|m| m.name().to_owned());
    let sa = row.sa.map(|s| format!("SA {}", s.name()));
    link.chain(mib).chain(sa).collect::<Vec<_>>().join(", ")
}

/// `uvti stat`.
pub(crate) fn stat(client: &mut Client, json: bool) -> Result<(String, bool), ClientError> {
    let Response::Stat(totals) = client.ask(&Request::Stat)? else { return Err(ClientError::Unexpected) };
    if json {
        return Ok((pretty(&json!(totals)), true));
    }
    let mut text = String::new();
    let mut traffic = table(&["DEVICE", "TX PACKETS", "TX BYTES", "RX PACKETS", "RX BYTES"]);
    let mut drops = table(&["DEVICE", "REASON", "PACKETS", "KERNEL COUNTS", "MEANING"]);
    let mut any = false;
    for d in &totals.devices {
        if d.name != "-" {
            let s = &d.stats;
            let numbers = [s.tx_packets, s.tx_bytes, s.rx_packets, s.rx_bytes].map(number);
            traffic.add_row(std::iter::once(Cell::new(&d.name)).chain(numbers));
        }
        for (name, n) in &d.drops {
            any = true;
            let Some(row) = Reason::from_name(name).map(|r| r.row()) else { continue };
            drops.add_row(vec![
                Cell::new(&d.name),
                Cell::new(name),
                number(n),
                Cell::new(kernel_counts(row, LinkKind::from_name(&d.kind))),
                Cell::new(row.meaning),
            ]);
        }
    }
    text.push_str(&lines(&traffic));
    for d in totals.devices.iter().filter(|d| d.tx_unmarked > 0) {
        let (name, n) = (&d.name, d.tx_unmarked);
        _ = writeln!(
            text,
            "\n{name}: {n} packets besides, encrypted by policies without a mark before the device"
        );
    }
    match any {
        true => _ = write!(text, "\n{}", lines(&drops)),
        false => text.push_str("\nno drops\n"),
    }
    Ok((text, true))
}

/// `uvti stat --by`.
pub(crate) fn stat_by(client: &mut Client, by: By, json: bool) -> Result<(String, bool), ClientError> {
    let Response::StatBy(breakdown) = client.ask(&Request::StatBy(by))? else {
        return Err(ClientError::Unexpected);
    };
    let text = if json { pretty(&json!(breakdown)) } else { breakdown::text(&breakdown) };
    Ok((text, true))
}

/// `uvti stat --queues`.
pub(crate) fn queues(client: &mut Client, json: bool) -> Result<(String, bool), ClientError> {
    let Response::Queues(list) = client.ask(&Request::Queues)? else { return Err(ClientError::Unexpected) };
    Ok((if json { pretty(&json!(list)) } else { queues::text(&list) }, true))
}

/// `uvti save`.
pub(crate) fn save(client: &mut Client) -> Result<(String, bool), ClientError> {
    if client.is_read_only()? {
        return Err(ClientError::NoKeys);
    }
    let (links, states) = (client.links()?, client.states()?);
    let (policies, defaults) = (client.policies()?, client.defaults()?);
    Ok((crate::ip::save::save(&links, &states, &policies, defaults), true))
}

/// `uvti xfrm_stat`. kernel: net/xfrm/xfrm_proc.c xfrm_statistics_seq_show()
pub(crate) fn xfrm_stat(client: &mut Client) -> Result<(String, bool), ClientError> {
    let Response::XfrmStat(counters) = client.ask(&Request::XfrmStat)? else {
        return Err(ClientError::Unexpected);
    };
    let text = counters.iter().map(|(mib, n)| format!("{:<24}\t{n}\n", mib.name())).collect();
    Ok((text, true))
}

/// The files of `uvti proc`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ProcFile {
    /// The devices of this namespace, with the counters of a kernel VTI for those of uvti.
    #[value(name = "net/dev")]
    Dev,
    /// As `uvti xfrm_stat`.
    #[value(name = "net/xfrm_stat")]
    XfrmStat,
}

/// `uvti proc FILE`.
pub(crate) fn proc(client: &mut Client, file: ProcFile) -> Result<(String, bool), ClientError> {
    match file {
        ProcFile::XfrmStat => xfrm_stat(client),
        ProcFile::Dev => {
            // Without /proc there are still our own devices to show.
            let host = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
            Ok((net_dev(&host, &client.links()?), true))
        }
    }
}

/// The host's /proc/net/dev with our devices' lines replaced, and appended where the host has none.
fn net_dev(host: &str, links: &[LinkInfo]) -> String {
    let mut text = String::new();
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    for line in host.lines() {
        let ours = links.iter().find(|l| Some(&l.spec.name) == name(line).as_ref());
        let line = ours.map_or_else(|| line.to_owned(), net_dev_line);
        _ = writeln!(text, "{line}");
    }
    for link in links.iter().filter(|l| !host.lines().any(|line| name(line).as_ref() == Some(&l.spec.name))) {
        _ = writeln!(text, "{}", net_dev_line(link));
    }
    text
}

/// kernel: net/core/net-procfs.c dev_seq_printf_stats(): `carrier` is carrier and aborted together
fn net_dev_line(link: &LinkInfo) -> String {
    let s = &link.stats;
    let carrier = s.tx_carrier_errors + s.tx_aborted_errors;
    format!(
        "{:>6}: {:>7} {:>7} {:>4} {:>4} {:>4} {:>5} {:>10} {:>9} {:>8} {:>7} {:>4} {:>4} {:>4} {:>5} {carrier:>7} {:>10}",
        link.spec.name,
        s.rx_bytes,
        s.rx_packets,
        s.rx_errors,
        s.rx_dropped,
        0,
        s.rx_frame_errors,
        0,
        0,
        s.tx_bytes,
        s.tx_packets,
        s.tx_errors,
        s.tx_dropped,
        0,
        s.collisions,
        0,
    )
}

/// `uvti reasons`.
pub(crate) fn reasons(json: bool) -> String {
    let rows = Reason::ALL.iter().map(|r| r.row());
    if json {
        let rows: Vec<_> = rows
            .map(|r| {
                json!({
                    "name": r.name,
                    "direction": r.way.name(),
                    "link": r.link.iter().map(|f| f.name()).collect::<Vec<_>>(),
                    "vti6_tx_dropped": r.vti6_tx_dropped,
                    "xfrm_link": r.xfrm_link.map(|own| own.iter().map(|f| f.name()).collect::<Vec<_>>()),
                    "xfrm": r.mib.iter().map(|m| m.name()).collect::<Vec<_>>(),
                    "sa": r.sa.map(|s| s.name()),
                    "icmp": r.icmp.name(),
                    "meaning": r.meaning,
                    "check": r.check,
                })
            })
            .collect();
        return pretty(&json!(rows));
    }
    let mut t = table(&["REASON", "KERNEL COUNTS", "SENDER IS TOLD", "MEANING", "LOOK AT"]);
    rows.for_each(|r| {
        t.add_row([r.name, &kernel_counts(r, Some(LinkKind::Vti)), r.icmp.name(), r.meaning, r.check]);
    });
    lines(&t)
}

/// `uvti check`.
pub(crate) fn check(client: &mut Client, json: bool) -> Result<(String, bool), ClientError> {
    let Response::Check(report) = client.ask(&Request::Check)? else { return Err(ClientError::Unexpected) };
    let fine = report.rows.iter().all(|r| r.missing() == 0);
    if json {
        return Ok((pretty(&json!({ "ok": fine, "rows": report.rows })), fine));
    }
    let mut t = table(&["PLACE", "IN", "HOP IN", "OUT", "DROPS", "HOP OUT", "HELD", "MISSING"]);
    for r in &report.rows {
        let numbers = [r.input, r.hop_in, r.output + r.consumed, r.drops, r.hop_out].map(number);
        let rest = [number(r.held), number(r.missing())];
        t.add_row(std::iter::once(Cell::new(&r.place)).chain(numbers).chain(rest));
    }
    let mut text = lines(&t);
    for r in report.rows.iter().filter(|r| r.missing() != 0) {
        _ = writeln!(text, "{}: {} packets unaccounted for", r.place, r.missing());
    }
    text.push_str(if fine { "every packet is accounted for\n" } else { "packets are missing\n" });
    Ok((text, fine))
}

pub(crate) fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uvti_core::device::LinkSpec;
    use uvti_core::reason::LinkStats;

    /// A kernel's lines: 2 sent, 3 without SA, 2 at the end of their numbers, 4 in a loop, 1 too big; 6 forged.
    #[test]
    fn a_vtis_line_of_proc_net_dev_is_the_kernels() {
        let spec = LinkSpec::new("vti0", LinkKind::Vti);
        let stats = LinkStats {
            rx_errors: 6,
            rx_dropped: 6,
            tx_packets: 2,
            tx_bytes: 200,
            tx_errors: 10,
            collisions: 4,
            tx_carrier_errors: 3,
            tx_aborted_errors: 2,
            ..LinkStats::default()
        };
        let link = LinkInfo { spec, ifindex: 7, up: true, mtu: 1480, txqlen: 1000, stats };
        let head =
            "Inter-|   Receive                            \n face |bytes    packets errs drop fifo frame\n";
        let lo = "    lo:     340       2    0    0    0     0          0         0     1110       7    0\n";
        let tun = "  vti0:       1       1    0    0    0     0          0         0       99      12    0\n";
        let vti = "  vti0:       0       0    6    6    0     0          0         0      200       2   10    0    0     4       5          0\n";
        let links = [link];
        assert_eq!(net_dev(&format!("{head}{tun}{lo}"), &links), format!("{head}{vti}{lo}"));
        assert_eq!(net_dev(&format!("{head}{lo}"), &links), format!("{head}{lo}{vti}"));
    }
}
