//! Where scenarios run: in namespaces of this machine if its kernel has a VTI, else in a User-Mode Linux guest, the
//! kernel and uvti in the same one.

use super::scenario::{Counts, Scenario};
use super::{On, lab};
use crate::guest::{self, Results, SCRATCH};
use crate::uml::{self, Guest, WorkDir};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};
use uvti_dataplane::host::netns::Netns;

/// The job's file, in the guest's output folder.
const JOB: &str = "job.json";
/// How long a guest may take to boot, and for each scenario.
const BOOT: Duration = Duration::from_secs(120);
const EACH: Duration = Duration::from_secs(20);
/// Most guests at a time.
const MOST_GUESTS: usize = 4;
/// Scenarios for which it is not worth while to boot another guest.
const FEWEST_SCENARIOS: usize = 10;

/// What is to be run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) on: Vec<On>,
    pub(crate) record: bool,
}

/// What came of one scenario on one engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) on: On,
    /// What was counted, or why it could not be run.
    pub(crate) observed: Result<Counts, String>,
    pub(crate) millis: u64,
}

/// Runs a job where that can be done. What was recorded needs no kernel with a VTI, and is a job of its own.
pub(crate) fn run(job: &Job) -> Result<Vec<Row>> {
    let on_kernels = job.on == [On::Kernel];
    let (recorded, rest): (Vec<_>, Vec<_>) =
        job.scenarios.iter().cloned().partition(|s| s.recorded && !on_kernels);
    let mut rows = Vec::new();
    for (scenarios, vti) in [(recorded, false), (rest, true)] {
        if !scenarios.is_empty() {
            rows.extend(run_together(&Job { scenarios, on: job.on.clone(), ..*job }, vti)?);
        }
    }
    Ok(rows)
}

fn run_together(job: &Job, vti: bool) -> Result<Vec<Row>> {
    let Err(here) = can_here(vti) else {
        let scratch = WorkDir::new()?;
        let mut rows = Vec::new();
        each(job, scratch.path(), |row| {
            rows.push(row);
            Ok(())
        })?;
        return Ok(rows);
    };
    if let Some(missing) = uml::missing() {
        bail!("this machine's kernel cannot be used ({here:#}), and there is no User-Mode Linux: {missing}");
    }
    in_guests(job)
}

/// A guest has one processor: as many of them as this machine has share the scenarios.
fn in_guests(job: &Job) -> Result<Vec<Row>> {
    let guests = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_GUESTS);
    let each = job.scenarios.len().div_ceil(guests).max(FEWEST_SCENARIOS);
    let shares = job.scenarios.chunks(each).map(|scenarios| Job {
        scenarios: scenarios.to_vec(),
        on: job.on.clone(),
        ..*job
    });
    let rows: Vec<Result<Vec<Row>>> = std::thread::scope(|scope| {
        let started: Vec<_> = shares.map(|share| scope.spawn(move || in_guest(&share))).collect();
        started
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| bail!("waiting for a guest failed")))
            .collect()
    });
    Ok(rows.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn in_guest(job: &Job) -> Result<Vec<Row>> {
    let work = WorkDir::new()?;
    std::fs::write(work.path().join(JOB), serde_json::to_string(job)?)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let limit = BOOT + EACH * u32::try_from(job.scenarios.len() * job.on.len()).unwrap_or(u32::MAX);
    let ours: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| name.starts_with("UVTI_")).collect();
    let environment: Vec<(&str, String)> =
        ours.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let arguments = ["compare", "--guest"];
    let guest = Guest { program: &program, arguments: &arguments, environment: &environment, limit };
    let finished = uml::run(&guest, work)?;
    let read = |line: &String| serde_json::from_str(line).with_context(|| format!("not a result: {line}"));
    finished.lines.iter().map(read).collect()
}

/// Process 1 of the guest that [`run`] boots.
pub(crate) fn serve() {
    guest::serve(|results: &mut Results| {
        let text = std::fs::read_to_string(guest::output().join(JOB)).context(JOB)?;
        each(&serde_json::from_str(&text)?, Path::new(SCRATCH), |row| {
            results.push(&serde_json::to_string(&row)?)
        })
    });
}

fn each(job: &Job, scratch: &Path, mut take: impl FnMut(Row) -> Result<()>) -> Result<()> {
    for scenario in &job.scenarios {
        for on in scenario.engines(&job.on) {
            let start = Instant::now();
            let observed = lab::observe(scenario, on == On::Uvti, job.record, scratch);
            take(Row {
                scenario: scenario.name.clone(),
                on,
                observed: observed.map_err(|error| format!("{error:#}")),
                millis: start.elapsed().as_millis() as u64,
            })?;
        }
    }
    Ok(())
}

/// Whether we may use this kernel, and it has VTIs, if they are needed.
fn can_here(vti: bool) -> Result<()> {
    std::fs::File::options().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
    let engine = super::engine::Engine::new(false, Path::new(""));
    Netns::new().context("no new network namespace: root is needed")?.run(|| {
        if !vti {
            return Ok(());
        }
        engine.system(&[
            "link add vti0 type vti local 192.0.2.1 remote 192.0.2.2".to_owned(),
            "link add vti6 type vti6 local 2001:db8::1 remote 2001:db8::2".to_owned(),
            "xfrm state count".to_owned(),
        ])
    })?
}
