//! What the demo saw: as text of 100 columns, and as JSON.

use super::drops::{Counters, Drop};
use super::traffic::{Ping, Tcp, Udp};
use crate::protocol::{CheckReport, CheckRow};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::json;
use std::fmt::Write;

/// Longest line.
const COLUMNS: usize = 100;

/// Everything.
pub(super) struct Report {
    pub(super) ping: Ping,
    pub(super) tcp: Tcp,
    pub(super) udp: Udp,
    pub(super) drops: Vec<Drop>,
    /// At A and at B.
    pub(super) conservation: [CheckReport; 2],
}

impl Report {
    /// Whether all is as it must be.
    pub(super) fn ok(&self) -> bool {
        self.drops.iter().all(|d| d.same) && self.missing().is_empty()
    }

    fn rows(&self) -> impl Iterator<Item = (char, &CheckRow)> {
        ['A', 'B']
            .into_iter()
            .zip(&self.conservation)
            .flat_map(|(end, c)| c.rows.iter().map(move |r| (end, r)))
    }

    /// Where packets are missing.
    fn missing(&self) -> Vec<String> {
        let lost = self.rows().filter(|(_, r)| r.missing() != 0);
        lost.map(|(end, r)| format!("{end}: {}: {} packets unaccounted for", r.place, r.missing())).collect()
    }
}

/// As JSON.
pub(super) fn json(r: &Report) -> serde_json::Result<String> {
    let [a, b] = &r.conservation;
    let value = json!({
        "ok": r.ok(),
        "ping": r.ping,
        "tcp": r.tcp,
        "udp": r.udp,
        "drops": r.drops,
        "conservation": { "ok": r.missing().is_empty(), "a": a.rows, "b": b.rows },
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// As text.
pub(super) fn text(r: &Report) -> String {
    let mut text = String::from(INTRODUCTION);
    text.push_str(&throughput(r));
    text.push('\n');
    text.push_str(&drops(&r.drops));
    text.push('\n');
    text.push_str(&verdict(r));
    text
}

const INTRODUCTION: &str = "
Two network namespaces, joined by a veth cable, with `uvti run` in each:

   A  10.9.0.1 on vti0                                                     10.9.0.2 on vti0  B
      198.51.100.1  ════════  ESP, AES-128-GCM, SPI 0x100 → and 0x200 ←  ════════  198.51.100.2

";

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings);
    table
}

fn throughput(r: &Report) -> String {
    let mut t = table(&["THROUGH THE TUNNEL", "", "WHAT IT IS"]);
    let mut row = |name: &str, value: String, what: String| {
        t.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right), Cell::new(what)]);
    };
    let (ping, tcp, udp) = (&r.ping, &r.tcp, &r.udp);
    row("ping", format!("{:.0} µs", ping.median_us), format!("median round trip of {} echoes", ping.sent));
    row(
        "TCP",
        format!("{:.2} Gbit/s", tcp.gbit_per_second),
        format!("one stream for {:.0} s, A to B, as received", tcp.seconds),
    );
    let lost = match udp.sent.saturating_sub(udp.received) {
        0 => "none lost".to_owned(),
        n => format!("{n} of {} lost", udp.sent),
    };
    row(
        "UDP",
        format!("{:.0} packets/s", udp.packets_per_second),
        format!("{} bytes each for {:.0} s, A to B, as received; {lost}", udp.payload, udp.seconds),
    );
    lines(&t).join("\n") + "\n"
}

/// Two lines for each class: what was counted, and below it what the reason means.
fn drops(drops: &[Drop]) -> String {
    let kernel = drops.first().map_or("", |d| &d.kernel_version);
    let mut t = table(&["DROPPED FOR", "REASON IN UVTI", &format!("LINUX {kernel} COUNTED"), "UVTI"]);
    for d in drops {
        let uvti =
            if d.same { "same".to_owned() } else { counters(&d.uvti.reasons, &d.uvti.link, &d.uvti.xfrm) };
        t.add_row([d.cause, d.reason, &counters(&Counters::new(), &d.kernel.link, &d.kernel.xfrm), &uvti]);
    }
    let mut lines = lines(&t).into_iter();
    let mut text = lines.next().unwrap_or_default() + "\n";
    for (line, d) in lines.zip(drops) {
        _ = writeln!(text, "{line}");
        wrap(d.meaning, COLUMNS - 2).iter().for_each(|part| _ = writeln!(text, "  {part}"));
    }
    text
}

/// In the words of `ip -s -s link`, direction left out: the reason has it.
fn counters(reasons: &Counters, link: &Counters, xfrm: &Counters) -> String {
    let short = |name: &str| match name {
        "collisions" => "collsns".to_owned(),
        _ => {
            let name = name.trim_start_matches("tx_").trim_start_matches("rx_");
            name.trim_end_matches("_errors").to_owned()
        }
    };
    let plain = |(name, n): (&String, &u64)| format!("{name} {n}");
    let reasons = reasons.iter().map(plain);
    let link = link.iter().rev().map(|(name, n)| format!("{} {n}", short(name)));
    let mut all: Vec<String> = reasons.chain(link).chain(xfrm.iter().map(plain)).collect();
    if all.is_empty() {
        all.push("nothing".into());
    }
    all.join(" ")
}

fn verdict(r: &Report) -> String {
    let different = r.drops.iter().filter(|d| !d.same).count();
    let mut text = match different {
        0 => format!("All {} counted as the kernel counts them. ", r.drops.len()),
        n => format!("{n} of {} NOT counted as the kernel counts them. ", r.drops.len()),
    };
    let missing = r.missing();
    if missing.is_empty() {
        let packets: u64 = r.rows().map(|(_, row)| row.input).sum();
        _ = writeln!(text, "All {packets} packets that came in at A and B are accounted for.");
    } else {
        _ = writeln!(text, "Packets are MISSING:\n  {}", missing.join("\n  "));
    }
    text
}

fn lines(table: &Table) -> Vec<String> {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect()
}

/// At spaces, so that no line is longer than `width` where that can be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
