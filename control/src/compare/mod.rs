//! `uvti compare`: the same configuration and the same packets on the kernel's VTI and on uvti.
//!
//! [`file`] reads scenarios ([`scenario`], by way of [`statement`] and [`traffic`]), [`place`] finds a kernel that has
//! a VTI, [`lab`] runs a scenario on an [`engine`] with packets made by hand ([`packet`], [`seen`]), [`verdict`] finds
//! the differences ([`known`] holds those that are explained), [`report`] tells, [`record`] writes expectations.

mod cursor;
mod engine;
mod file;
mod known;
mod lab;
mod packet;
mod place;
mod record;
mod report;
mod scenario;
mod seen;
mod statement;
#[cfg(test)]
mod tests;
mod traffic;
mod verdict;

use anyhow::{Context, Result, bail};
use scenario::Scenario;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the project keeps its scenarios.
const OWN: &str = "tests/scenarios";

/// What to compare, and how to tell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Scenario files, or folders of them [default: tests/scenarios].
    files: Vec<PathBuf>,
    /// Only scenarios whose name contains this.
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// On which engines; one alone is compared with what the files expect.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [On::Kernel, On::Uvti])]
    on: Vec<On>,
    /// Show only scenarios that differ.
    #[arg(short, long)]
    quiet: bool,
    /// As JSON.
    #[arg(short, long)]
    json: bool,
    /// Write what the kernel counted into the files, as their expectations.
    #[arg(long, conflicts_with = "json")]
    record: bool,
    /// Process 1 of a guest.
    #[arg(long, hide = true)]
    guest: bool,
}

/// Who runs the scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum On {
    /// The kernel's ip_vti and ip6_vti.
    Kernel,
    /// This program.
    Uvti,
}

/// `uvti compare`. Exit status 0: all the same; 1: differences; 2: could not be run.
pub(crate) fn run(args: &Args) -> ExitCode {
    if args.guest {
        place::serve();
        return ExitCode::FAILURE;
    }
    match compare(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("uvti: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(args: &Args) -> Result<bool> {
    let files = files(&args.files)?;
    let mut scenarios = read(&files)?;
    let known = known::read_all(&files)?;
    if let Some(only) = &args.only {
        scenarios.retain(|s| s.name.contains(only));
    }
    if scenarios.is_empty() {
        bail!("there are no such scenarios");
    }
    if args.record {
        // Theirs are from another kernel.
        scenarios.retain(|s| !s.recorded);
    }
    if scenarios.is_empty() {
        bail!("what these scenarios expect is recorded elsewhere");
    }
    let on = if args.record { vec![On::Kernel] } else { args.on.clone() };
    let job = place::Job { scenarios, on, record: args.record };
    let rows = place::run(&job)?;
    if args.record {
        return record::write(&job.scenarios, &rows);
    }
    let verdicts = verdict::all(&job, &rows, &known);
    let text = match args.json {
        true => report::json(&verdicts),
        false => report::text(&verdicts, args.quiet),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    if let Some(failed) = verdicts.iter().find_map(|v| v.failure.as_ref()) {
        bail!("not every scenario could be run: {failed}");
    }
    Ok(verdicts.iter().all(verdict::Verdict::is_fine))
}

/// The scenario files among what was named, in order.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let own = [PathBuf::from(OWN)];
    let named = if named.is_empty() { &own } else { named };
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = path.read_dir().with_context(|| path.display().to_string())?;
        let mut inside: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        inside.retain(|p| p.extension().is_some_and(|e| e == "scenario"));
        inside.sort();
        files.extend(inside);
    }
    if files.is_empty() || named.len() == 1 && !named[0].exists() {
        bail!("no scenarios in {}: name files or a folder of *.scenario", named[0].display());
    }
    Ok(files)
}

/// Reads all files; every file's first mistake is told.
fn read(files: &[PathBuf]) -> Result<Vec<Scenario>> {
    let (mut all, mut problems): (Vec<Scenario>, Vec<String>) = (Vec::new(), Vec::new());
    for path in files {
        match file::read(path) {
            Ok(scenarios) => all.extend(scenarios),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    let mut names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.push(format!("two scenarios are called {}", twice[0]));
    }
    match problems.is_empty() {
        true => Ok(all),
        false => bail!("{}", problems.join("\n")),
    }
}

/// How many scenarios and statements a text has: for `fuzzing`. It includes itself.
pub(crate) fn count(text: &str) -> Result<(usize, usize), String> {
    let scenarios = file::parse("fuzz", text, &|_| Ok(text.to_owned())).map_err(|p| p.to_string())?;
    Ok((scenarios.len(), scenarios.iter().map(|s| s.steps.len()).sum()))
}

/// The folder a file is in.
fn folder(file: &Path) -> PathBuf {
    file.parent().map_or_else(PathBuf::new, Path::to_owned)
}
