//! Shows verdicts, as text and as JSON.

use super::verdict::{Line, State, Verdict};
use serde_json::json;
use std::fmt::Write;

/// Side by side; with `quiet` only what differs.
pub(crate) fn text(verdicts: &[Verdict<'_>], quiet: bool) -> String {
    let mut text = String::new();
    for verdict in verdicts.iter().filter(|v| !quiet || !v.is_fine()) {
        scenario(&mut text, verdict);
    }
    let count =
        |wanted: fn(&Line) -> bool| verdicts.iter().flat_map(|v| &v.lines).filter(|l| wanted(l)).count();
    let bad = verdicts.iter().filter(|v| !v.is_fine()).count();
    let _ = writeln!(
        text,
        "{} scenarios, {} counters: {} the same, {} explained, {} different; {bad} scenarios differ",
        verdicts.len(),
        count(|_| true),
        count(|l| l.state == State::Same),
        count(|l| matches!(l.state, State::Explained(_))),
        count(|l| l.state == State::Different),
    );
    text
}

fn scenario(text: &mut String, verdict: &Verdict<'_>) {
    let scenario = verdict.scenario;
    let _ = writeln!(text, "{}: {}", scenario.name, scenario.title);
    if let Some(why) = &verdict.failure {
        let _ = writeln!(text, "  could not be run: {why}");
    }
    let width = verdict.lines.iter().map(|l| l.field.len()).max().unwrap_or(0).max(24);
    if !verdict.lines.is_empty() {
        let _ = writeln!(text, "  {:width$} {:>9} {:>9} {:>9}", "", "KERNEL", "UVTI", "RECORDED");
    }
    for line in &verdict.lines {
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        let (kernel, uvti) = (number(line.kernel), number(line.uvti));
        let mark = match &line.state {
            State::Same => String::new(),
            State::Different => "  <-- differs".to_owned(),
            State::Explained(why) => format!("  explained: {why}"),
        };
        let _ = writeln!(text, "  {:width$} {kernel:>9} {uvti:>9} {:>9}{mark}", line.field, line.expected);
    }
    for known in &verdict.gone {
        let _ = writeln!(
            text,
            "  {}: kernel {} and uvti {} were expected to differ: remove it from known-differences",
            known.field, known.kernel, known.uvti
        );
    }
    text.push('\n');
}

/// Everything.
pub(crate) fn json(verdicts: &[Verdict<'_>]) -> String {
    let scenarios: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            let counters: Vec<_> = verdict
                .lines
                .iter()
                .map(|line| {
                    json!({
                        "counter": line.field,
                        "kernel": line.kernel,
                        "uvti": line.uvti,
                        "recorded": line.expected,
                        "same": line.state == State::Same,
                        "explained": match &line.state { State::Explained(why) => Some(why), _ => None },
                    })
                })
                .collect();
            json!({
                "scenario": verdict.scenario.name,
                "title": verdict.scenario.title,
                "file": verdict.scenario.file,
                "ok": verdict.is_fine(),
                "failure": verdict.failure,
                "gone": verdict.gone.iter().map(|k| &k.field).collect::<Vec<_>>(),
                "millis": verdict.millis,
                "counters": counters,
            })
        })
        .collect();
    let ok = verdicts.iter().all(Verdict::is_fine);
    format!("{:#}\n", json!({ "ok": ok, "scenarios": scenarios }))
}
