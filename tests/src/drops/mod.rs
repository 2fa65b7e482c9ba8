//! The kernel's VTI and uvti count the same for the same packets.
//!
//! Each scenario (`scenarios`) is a script and packets. It runs in a laboratory of its own (`lab`) with the
//! guest's kernel and with uvti; what both counted is held against the recording of a kernel ([`crate::golden`]).

mod lab;
mod scenarios;
pub mod views;

use crate::gateway::Engine;
use crate::golden::{Recorded, recorded};
use crate::guest::{Results, Setup};
use crate::outcome::Outcome;
use anyhow::Result;
use lab::{Lab, Observed};
use scenarios::{SCENARIOS, Scenario};

/// The guest's kernel against the recording.
pub fn kernel(setup: &Setup, results: &mut Results) -> Result<()> {
    run(setup, results, &[Engine::Kernel])
}

/// The guest's kernel and uvti against the recording, and against each other.
pub fn kernel_and_uvti(setup: &Setup, results: &mut Results) -> Result<()> {
    run(setup, results, &[Engine::Kernel, Engine::Uvti { program: setup.uvti.clone(), workers: 1 }])
}

fn run(setup: &Setup, results: &mut Results, engines: &[Engine]) -> Result<()> {
    for scenario in SCENARIOS.iter().filter(|scenario| setup.wants(scenario.name)) {
        results.push(&Outcome::of(scenario.name, |failures| {
            let expected = recorded(scenario.name)?;
            let mut seen = String::new();
            for engine in engines {
                let observed = observe(scenario, engine, &expected)?;
                let wanted = Observed::of(&expected);
                if observed != wanted {
                    failures.push(format!("{}: {observed:?}, but recorded is {wanted:?}", engine.name()));
                }
                seen = format!("{:?} {:?}", observed.link, observed.xfrm);
            }
            Ok(seen)
        }))?;
    }
    Ok(())
}

fn observe(scenario: &Scenario, engine: &Engine, expected: &Recorded) -> Result<Observed> {
    let mut lab = Lab::build(engine, scenario.config)?;
    for step in scenario.steps {
        lab.take(step)?;
    }
    lab.finish(&Observed::of(expected))
}
