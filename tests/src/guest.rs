//! Process 1 of a guest.

use crate::gateway::Engine;
use crate::outcome::Outcome;
use crate::{cover, interop, order, views};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// What a group's cases get to know of their surroundings.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program under test.
    pub uvti: PathBuf,
    /// Run only the cases whose name contains this.
    pub only: String,
}

impl Setup {
    /// Whether the case is to be run.
    pub fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }
}

/// Sets the guest up, runs the group it was booted for, and switches it off.
pub fn main() {
    if std::process::id() != 1 {
        eprintln!("uvti-guest is process 1 of the guests that the tests boot; run `tests/run`");
        std::process::exit(2);
    }
    uvti::guest::serve(|results| serve(&mut Results { lines: results }));
}

fn serve(results: &mut Results<'_>) -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let setup = Setup {
        uvti: PathBuf::from(variable("UVTI_PROGRAM")?),
        only: std::env::var("UVTI_ONLY").unwrap_or_default(),
    };
    run_group(&variable("UVTI_GROUP")?, &setup, results)
}

fn run_group(group: &str, setup: &Setup, results: &mut Results<'_>) -> Result<()> {
    match group {
        "interop-kernel" => interop::kernel_with_kernel(setup, results),
        "interop-uvti" => interop::kernel_with_uvti(setup, results),
        "cover" => cover::pairwise(setup, results),
        "cover-all" => cover::product(setup, results),
        "order-kernel" => order::run(setup, results, &[Engine::Kernel]),
        "order-uvti" => {
            order::run(setup, results, &[Engine::Uvti { program: setup.uvti.clone(), workers: 2 }])
        }
        "views" => views::run(setup, results),
        unknown => bail!("there is no group {unknown}"),
    }
}

/// Where outcomes go, each as soon as it is known.
#[derive(Debug)]
pub struct Results<'a> {
    lines: &'a mut uvti::guest::Results,
}

impl Results<'_> {
    /// Writes one outcome.
    pub fn push(&mut self, outcome: &Outcome) -> Result<()> {
        println!("{} {} ms {} {:?}", outcome.case, outcome.millis, outcome.seen, outcome.failures);
        self.lines.push(&serde_json::to_string(outcome)?)
    }
}
