//! `uvti drops --history`: when each reason dropped, as a line of blocks.

use super::text::timestamp;
use crate::protocol::{DropHistory, HistoryRow};
use serde_json::{Value, json};
use std::fmt::Write;

/// From one eighth of the height to all of it.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns, however narrow the terminal is.
const FEWEST: usize = 20;

/// The history for a terminal of so many columns.
///
/// A column is as high as the fullest of its buckets, so that a burst of one bucket is as visible as a plateau.
pub(super) fn show(history: &DropHistory, width: usize) -> String {
    if history.rows.is_empty() {
        return format!("no drops in the last {}\n", span(history.buckets * history.bucket));
    }
    let widest = |cell: &dyn Fn(&HistoryRow) -> String, title: &str| {
        history.rows.iter().map(|r| cell(r).len()).chain([title.len()]).max().unwrap_or(0)
    };
    let most_title = format!("MAX/{}", span(history.bucket));
    let (name, most, total) = (
        widest(&|r| r.reason.clone(), "REASON"),
        widest(&|r| fullest(r).to_string(), &most_title),
        widest(&|r| sum(r).to_string(), "PACKETS"),
    );
    let columns = width.saturating_sub(name + most + total + 3).max(FEWEST);
    let mut text = String::new();
    let (start, end) = (format!("-{}", span(history.buckets * history.bucket)), "now");
    let gap = columns - start.len() - end.len();
    let axis = format!("{start}{:gap$}{end}", "");
    _ = writeln!(text, "{:name$} {most_title:>most$} {:>total$} {axis}", "REASON", "PACKETS");
    for row in &history.rows {
        let line = format!(
            "{:name$} {:>most$} {:>total$} {}",
            row.reason,
            fullest(row),
            sum(row),
            sparkline(history, row, columns)
        );
        _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The history as a JSON object: buckets that are empty are left out.
pub(super) fn object(history: &DropHistory) -> Value {
    let millis = |buckets: u64| buckets * history.bucket / 1_000_000;
    let bucket = |(at, n): &(u64, u64)| json!({ "ms_ago": millis(history.last - at), "packets": n });
    let row = |r: &HistoryRow| {
        json!({
            "reason": r.reason,
            "packets": sum(r),
            "max": fullest(r),
            "buckets": r.packets.iter().map(bucket).collect::<Vec<_>>(),
        })
    };
    json!({
        "now": timestamp(history.last * history.bucket).to_string(),
        "bucket_ms": millis(1),
        "window_ms": millis(history.buckets),
        "reasons": history.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn sparkline(history: &DropHistory, row: &HistoryRow, columns: usize) -> String {
    let first = (history.last + 1).saturating_sub(history.buckets);
    let mut heights = vec![0; columns];
    for (at, n) in &row.packets {
        let column = at.saturating_sub(first) * columns as u64 / history.buckets.max(1);
        if let Some(height) = heights.get_mut(column as usize) {
            *height = (*n).max(*height);
        }
    }
    let most = fullest(row).max(1);
    heights
        .into_iter()
        .map(|n| match n {
            0 => ' ',
            n => BLOCKS[((n * 8).div_ceil(most) as usize).clamp(1, 8) - 1],
        })
        .collect()
}

fn fullest(row: &HistoryRow) -> u64 {
    row.packets.iter().map(|(_, n)| *n).max().unwrap_or(0)
}

fn sum(row: &HistoryRow) -> u64 {
    row.packets.iter().map(|(_, n)| n).sum()
}

/// A length of time in its best unit.
fn span(nanoseconds: u64) -> String {
    match nanoseconds / 1_000_000 {
        ms if ms >= 60_000 && ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms >= 1000 && ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> DropHistory {
        let row = |reason: &str, packets| HistoryRow { reason: reason.into(), packets };
        DropHistory {
            bucket: 10_000_000,
            buckets: 18_000,
            last: 1_000_000,
            rows: vec![
                // In the first bucket of the window, twice in one column, and in the last bucket.
                row("tx_no_sa", vec![(982_001, 1), (999_990, 3), (999_995, 8), (1_000_000, 4)]),
                row("rx_replay_duplicate", vec![(991_001, 12_345)]),
            ],
        }
    }

    #[test]
    fn a_column_is_as_high_as_its_fullest_bucket() {
        let text = show(&history(), 60);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "REASON              MAX/10ms PACKETS -3min               now",
                "tx_no_sa                   8      16 ▁                     █",
                "rx_replay_duplicate    12345   12345            █",
            ]
        );
        assert!(lines.iter().all(|l| l.chars().count() <= 60));
    }

    #[test]
    fn a_narrow_terminal_has_some_columns_and_an_empty_history_says_so() {
        let text = show(&history(), 0);
        assert_eq!(text.lines().nth(1).unwrap().chars().filter(|c| BLOCKS.contains(c)).count(), 2);
        let empty = DropHistory { rows: Vec::new(), ..history() };
        assert_eq!(show(&empty, 80), "no drops in the last 3min\n");
    }

    #[test]
    fn an_object_tells_how_long_ago() {
        let object = object(&history());
        assert_eq!((&object["bucket_ms"], &object["window_ms"]), (&json!(10), &json!(180_000)));
        let row = &object["reasons"][0];
        assert_eq!((&row["max"], &row["packets"]), (&json!(8), &json!(16)));
        assert_eq!(row["buckets"][0], json!({ "ms_ago": 179_990, "packets": 1 }));
        assert_eq!(row["buckets"][3], json!({ "ms_ago": 0, "packets": 4 }));
    }
}
