//! Explanations, for people and as JSON.

use super::Explained;
use comfy_table::{Cell, Table, presets};
use serde_json::{Value, json};
use std::fmt::Write;
use uvti_core::vti::explain::{Explanation, Outcome};

/// For people.
pub(super) fn text(explained: &[Explained]) -> String {
    let mut out = String::new();
    for (i, Explained { number, result }) in explained.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if let Some(number) = number {
            let _ = write!(out, "packet {number}: ");
        }
        match result {
            Ok(explanation) => one(&mut out, explanation),
            Err(why) => _ = writeln!(out, "cannot be explained: {why}"),
        }
    }
    out
}

fn one(out: &mut String, e: &Explanation) {
    let device = e.device.as_deref().unwrap_or("-");
    let _ = writeln!(out, "{device} {}: {}\n", e.way, e.packet);
    out.push_str(&checks(e));
    let verdict = match &e.verdict.reason {
        None => "would pass".to_owned(),
        Some(reason) => format!("would be dropped: {reason}"),
    };
    let _ = writeln!(out, "\n{verdict}\n  {}", e.verdict.meaning);
    let counted = link(e)
        .into_iter()
        .map(|(name, n)| format!("{name} {n}"))
        .chain(e.counts.xfrm.iter().map(|m| format!("{} 1", m.name())));
    let counted: Vec<String> = counted.chain(e.counts.sa.iter().map(|s| format!("SA {s} 1"))).collect();
    let counted = if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") };
    let _ = writeln!(out, "  a kernel VTI counts: {counted}");
    let reason = e.verdict.reason.iter().map(|reason| format!("{reason} 1 on {device}"));
    let _ = reason.map(|r| writeln!(out, "  uvti counts the same, and: {r}")).collect::<Result<Vec<_>, _>>();
    if let Some(icmp) = &e.icmp {
        let _ = writeln!(out, "  the sender is told: {icmp}");
    }
    if let Some(look_at) = &e.verdict.look_at {
        let _ = writeln!(out, "  look at: {look_at}");
    }
    for near in &e.near {
        let _ = writeln!(out, "\n{}", near.text);
        near.repair.iter().for_each(|line| _ = writeln!(out, "  {line}"));
    }
}

fn checks(e: &Explanation) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CHECK", "RESULT", "OBJECT"]);
    for check in &e.checks {
        let result = match check.result {
            Outcome::Ok => "ok",
            Outcome::Fail => "FAIL",
            Outcome::Unchecked => "?",
        };
        table.add_row([&check.name, result, &check.object].map(Cell::new));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Link counters that move, by the names of `struct rtnl_link_stats64`.
fn link(e: &Explanation) -> Vec<(String, u64)> {
    match json!(e.counts.link) {
        Value::Object(fields) => {
            fields.into_iter().filter_map(|(name, n)| Some((name, n.as_u64().filter(|n| *n > 0)?))).collect()
        }
        _ => Vec::new(),
    }
}

/// As JSON: an array, as of iproute2.
pub(super) fn json(explained: &[Explained]) -> String {
    let each: Vec<Value> = explained
        .iter()
        .map(|Explained { number, result }| {
            let mut value = match result {
                Ok(explanation) => object(explanation),
                Err(why) => json!({ "error": why }),
            };
            if let (Some(number), Value::Object(fields)) = (number, &mut value) {
                fields.shift_insert(0, "number".to_owned(), json!(number));
            }
            value
        })
        .collect();
    format!("{:#}\n", Value::Array(each))
}

fn object(e: &Explanation) -> Value {
    let mut value = json!(e);
    let link: serde_json::Map<String, Value> =
        link(e).into_iter().map(|(name, n)| (name, json!(n))).collect();
    value["counts"]["link"] = Value::Object(link);
    value["counts"]["xfrm"] = json!(e.counts.xfrm.iter().map(|m| m.name()).collect::<Vec<_>>());
    value
}
