//! Writes what the kernel counted into scenario files, in the place of their expectations.

use super::On;
use super::place::Row;
use super::scenario::{Counts, Scenario};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Longest line that is written.
const WIDTH: usize = 110;

/// Rewrites the files of these scenarios. `false` if one could not be run: it keeps its expectations.
pub(crate) fn write(scenarios: &[Scenario], rows: &[Row]) -> Result<bool> {
    let mut fine = true;
    let mut files: BTreeMap<&str, Vec<(&Scenario, &Counts)>> = BTreeMap::new();
    for scenario in scenarios {
        match rows.iter().find(|r| r.scenario == scenario.name && r.on == On::Kernel).map(|r| &r.observed) {
            Some(Ok(counts)) => files.entry(&scenario.file).or_default().push((scenario, counts)),
            Some(Err(why)) => {
                eprintln!("{}: {why}", scenario.name);
                fine = false;
            }
            None => fine = false,
        }
    }
    for (file, recorded) in files {
        let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
        std::fs::write(file, rewritten(&text, &recorded)).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(fine)
}

fn rewritten(text: &str, recorded: &[(&Scenario, &Counts)]) -> String {
    let gone: BTreeSet<usize> = recorded.iter().flat_map(|(s, _)| s.place.expect.iter().copied()).collect();
    let mut new = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        if !gone.contains(&number) {
            new.push_str(line);
            new.push('\n');
        }
        for (_, counts) in recorded.iter().filter(|(s, _)| s.place.after == number) {
            new.extend(lines(counts).iter().map(|line| format!("{line}\n")));
        }
    }
    new
}

/// `expect` lines: one for each group that fits.
fn lines(counts: &Counts) -> Vec<String> {
    if counts.is_empty() {
        return vec!["expect nothing".to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    let mut open = "";
    for (name, n) in counts {
        let words = if name.starts_with("sa ") { 2 } else { 1 };
        let at = name.match_indices(' ').nth(words - 1).map_or(name.len(), |(at, _)| at);
        let (group, item) = name.split_at(at);
        let pair = format!("{item} +{n}");
        match lines.last_mut() {
            Some(line) if open == group && line.len() + pair.len() <= WIDTH => line.push_str(&pair),
            _ => lines.push(format!("expect {group}{pair}")),
        }
        open = group;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::file::parse;

    #[test]
    fn what_is_recorded_is_read_again_and_the_rest_of_the_file_stays() {
        let text = "# about\n[a] one\nsend 1 from 10.0.0.1 to 10.0.0.2\nexpect vti0 tx_errors +9\n\n[b] two\nexpect nothing\n";
        let read = |text: &str| parse("f", text, &|_| Err("no".to_owned())).unwrap();
        let scenarios = read(text);
        let counts: Counts = [("vti0 carrier", 1), ("sa 0x100 packets", 2), ("wire esp4 len 152 df", 3)]
            .map(|(name, n)| (name.to_owned(), n))
            .into();
        let new = rewritten(text, &[(&scenarios[0], &counts), (&scenarios[1], &Counts::new())]);
        let again = read(&new);
        assert_eq!(again[0].expected, counts);
        assert_eq!(again[0].steps, scenarios[0].steps);
        assert_eq!(again[1].expected, Counts::new());
        assert!(new.starts_with("# about\n[a] one\nsend"), "{new}");
        assert!(new.contains("\n\n[b] two\nexpect nothing\n"), "{new}");
    }
}
