//! What the tests that boot a guest share.

use std::path::Path;
use std::time::Duration;
use uvti_tests::require::{Need, have};
use uvti_tests::{outcome, uml};

/// Runs a group in a guest, and fails when one of its cases does.
pub(crate) fn run_group(name: &str, seconds: u64) {
    if !have(name, Need::Uml) {
        return;
    }
    let group = uml::Group {
        name,
        guest: Path::new(env!("CARGO_BIN_EXE_uvti-guest")),
        uvti: Path::new(env!("CARGO_BIN_EXE_uvti-under-test")),
        limit: Duration::from_secs(seconds),
    };
    let outcomes = uml::run(&group).unwrap_or_else(|error| panic!("{error:#}"));
    for outcome in &outcomes {
        println!("{}: {} ms: {}", outcome.case, outcome.millis, outcome.seen);
    }
    assert!(!outcomes.is_empty(), "group {name} has no cases");
    if let Some(failures) = outcome::failures(&outcomes) {
        panic!("{failures}");
    }
}
