//! What uvti shows of its own: drops by reason, the reasons, conservation.

use crate::breakdown::{self, By};
use crate::client::{Client, ClientError};
use crate::protocol::{Request, Response};
use crate::queues;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::json;
use std::fmt::Write;
use uvti_core::reason::{Reason, Row};

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

/// What a kernel VTI would have counted, in one cell: `carrier, XfrmOutNoStates`.
pub(crate) fn kernel_counts(row: &Row) -> String {
    let link = row.link.iter().map(|f| f.name().to_owned());
    let mib = row.mib.map(|m| m.name().to_owned());
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
                Cell::new(kernel_counts(row)),
                Cell::new(row.meaning),
            ]);
        }
    }
    text.push_str(&lines(&traffic));
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

/// `uvti xfrm_stat`. kernel: net/xfrm/xfrm_proc.c xfrm_statistics_seq_show()
pub(crate) fn xfrm_stat(client: &mut Client) -> Result<(String, bool), ClientError> {
    let Response::XfrmStat(counters) = client.ask(&Request::XfrmStat)? else {
        return Err(ClientError::Unexpected);
    };
    let text = counters.iter().map(|(mib, n)| format!("{:<24}\t{n}\n", mib.name())).collect();
    Ok((text, true))
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
                    "xfrm": r.mib.map(|m| m.name()),
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
        t.add_row([r.name, &kernel_counts(r), r.icmp.name(), r.meaning, r.check]);
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

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
