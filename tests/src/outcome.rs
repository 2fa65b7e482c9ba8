//! The result of one case, as it crosses from the guest to the host: one JSON line.

use serde::{Deserialize, Serialize};

/// What became of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The name of the case.
    pub case: String,
    /// What was wrong; empty when the case passed.
    pub failures: Vec<String>,
    /// What was seen, for people.
    pub seen: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl Outcome {
    /// Runs one case: `check` returns what it saw, and pushes what was wrong. An error is a failure.
    pub fn of(case: &str, check: impl FnOnce(&mut Vec<String>) -> anyhow::Result<String>) -> Outcome {
        let start = std::time::Instant::now();
        let mut failures = Vec::new();
        let seen = check(&mut failures).unwrap_or_else(|error| {
            failures.push(format!("{error:#}"));
            String::new()
        });
        let millis = start.elapsed().as_millis() as u64;
        Outcome { case: case.to_owned(), failures, seen, millis }
    }
}

/// The cases that failed, as text for a test's panic; `None` when all passed.
pub fn failures(outcomes: &[Outcome]) -> Option<String> {
    let bad: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.failures.is_empty())
        .map(|outcome| format!("{}:\n    {}", outcome.case, outcome.failures.join("\n    ")))
        .collect();
    (!bad.is_empty()).then(|| format!("{} of {} cases failed\n{}", bad.len(), outcomes.len(), bad.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_failure() {
        let good = Outcome::of("good", |_| Ok("5 packets".to_owned()));
        let bad = Outcome::of("bad", |_| anyhow::bail!("no route"));
        assert_eq!(failures(std::slice::from_ref(&good)), None);
        assert_eq!(failures(&[good, bad]).unwrap(), "1 of 2 cases failed\nbad:\n    no route");
    }
}
