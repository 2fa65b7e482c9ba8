//! Puts what the kernel and uvti counted beside each other and beside what is expected.

use super::On;
use super::known::Known;
use super::place::{Job, Row};
use super::scenario::{Counts, Scenario};
use std::collections::BTreeSet;

/// One scenario, compared.
#[derive(Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) lines: Vec<Line>,
    /// Why it could not be run.
    pub(crate) failure: Option<String>,
    /// Explained differences that were not there.
    pub(crate) gone: Vec<&'a Known>,
    pub(crate) millis: u64,
}

/// One counter.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) field: String,
    /// `None`: was not run.
    pub(crate) kernel: Option<u64>,
    pub(crate) uvti: Option<u64>,
    pub(crate) expected: u64,
    pub(crate) state: State,
}

/// What a line shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Same,
    Different,
    /// Different, for this reason.
    Explained(String),
}

impl Verdict<'_> {
    /// Whether there is nothing to look at.
    pub(crate) fn is_fine(&self) -> bool {
        let same = self.lines.iter().all(|line| line.state != State::Different);
        same && self.failure.is_none() && self.gone.is_empty()
    }
}

/// Compares all scenarios of a job.
pub(crate) fn all<'a>(job: &'a Job, rows: &[Row], known: &'a [Known]) -> Vec<Verdict<'a>> {
    job.scenarios.iter().map(|scenario| one(scenario, job, rows, known)).collect()
}

fn one<'a>(scenario: &'a Scenario, job: &Job, rows: &[Row], known: &'a [Known]) -> Verdict<'a> {
    let mine: Vec<&Row> = rows.iter().filter(|row| row.scenario == scenario.name).collect();
    let failure = |on: &On| match mine.iter().find(|row| row.on == *on).map(|row| &row.observed) {
        Some(Ok(_)) => None,
        Some(Err(why)) => Some(format!("{}: {why}", scenario.name)),
        None => Some(format!("{}: was not run", scenario.name)),
    };
    let counts = |on: On| mine.iter().find(|row| row.on == on).and_then(|row| row.observed.as_ref().ok());
    let (kernel, uvti) = (counts(On::Kernel), counts(On::Uvti));
    let known: Vec<&Known> = known.iter().filter(|k| k.scenario == scenario.name).collect();
    let lines = lines(kernel, uvti, &scenario.expected, &known);
    let explained = |k: &&Known| lines.iter().any(|l| l.field == k.field && l.state != State::Same);
    let gone =
        if uvti.is_some() { known.into_iter().filter(|k| !explained(k)).collect() } else { Vec::new() };
    Verdict {
        scenario,
        failure: scenario.engines(&job.on).iter().find_map(failure),
        gone,
        millis: mine.iter().map(|row| row.millis).sum(),
        lines,
    }
}

fn lines(kernel: Option<&Counts>, uvti: Option<&Counts>, expected: &Counts, known: &[&Known]) -> Vec<Line> {
    let fields: BTreeSet<&String> =
        [kernel, uvti, Some(expected)].into_iter().flatten().flat_map(Counts::keys).collect();
    let line = |field: &String| {
        let of = |counts: &Counts| counts.get(field).copied().unwrap_or(0);
        let (kernel, uvti, expected) = (kernel.map(of), uvti.map(of), of(expected));
        let kernel_fits = kernel.is_none_or(|n| n == expected);
        let known = known.iter().find(|k| k.field == *field && k.kernel == expected && Some(k.uvti) == uvti);
        let state = match (kernel_fits, uvti.is_none_or(|n| n == expected), known) {
            (true, true, _) => State::Same,
            (true, false, Some(known)) => State::Explained(known.why.clone()),
            _ => State::Different,
        };
        Line { field: field.clone(), kernel, uvti, expected, state }
    };
    fields.into_iter().map(line).collect()
}
