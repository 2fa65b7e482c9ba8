//! Boots a guest for a group of cases.

use crate::outcome::Outcome;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;
use uvti::uml::{Guest, WorkDir};

pub use uvti::uml::missing;

/// A group of cases for one guest.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Its name, which `uvti-guest` knows.
    pub name: &'a str,
    /// The `uvti-guest` program.
    pub guest: &'a Path,
    /// The program under test.
    pub uvti: &'a Path,
    /// How long the guest may take, boot included.
    pub limit: Duration,
}

/// Boots a guest, lets it run the group, and returns the outcome of each case.
///
/// On any trouble the guest's console log is kept, and the error or the screen names it.
pub fn run(group: &Group<'_>) -> Result<Vec<Outcome>> {
    let mut environment =
        vec![("UVTI_GROUP", group.name.to_owned()), ("UVTI_PROGRAM", group.uvti.display().to_string())];
    for name in ["UVTI_ONLY", "UVTI_RECORD"] {
        environment.extend(std::env::var(name).ok().map(|value| (name, value)));
    }
    let guest = Guest { program: group.guest, arguments: &[], environment: &environment, limit: group.limit };
    let finished =
        uvti::uml::run(&guest, WorkDir::new()?).with_context(|| format!("group {}", group.name))?;
    let read = |line: &String| serde_json::from_str(line).with_context(|| format!("not a result: {line}"));
    let outcomes: Vec<Outcome> = finished.lines.iter().map(read).collect::<Result<_>>()?;
    if outcomes.iter().any(|outcome| !outcome.failures.is_empty()) {
        let kept = finished.keep_console();
        crate::require::say(&format!("{}: the guest's console: {}", group.name, kept.display()));
    }
    Ok(outcomes)
}
