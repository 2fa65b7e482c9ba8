//! `uvti measure`: how much a tunnel carries, and what becomes of the rest.
//!
//! [`search`] says which load comes next, [`trial`] offers it by a [`clock`] and adds up, over a path: [`live`] through
//! running dataplanes, [`memory`] through two engines. [`report`] and [`html`] tell.

mod arrivals;
mod clock;
mod config;
mod host;
mod html;
mod live;
mod memory;
mod pipe;
mod report;
mod search;
mod svg;
mod trial;

use crate::cli::print;
use crate::demo::become_able;
use crate::demo::progress::Progress;
use crate::demo::stage::Stage;
use crate::demo::stop::{Interrupted, Stop};
use anyhow::{Context, Result, ensure};
use clock::Wall;
use live::Live;
use memory::Memory;
use report::{Report, Size};
use search::Search;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use trial::{Load, Path, Trial};

/// What is measured, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Through a tunnel that runs already: from this namespace to this inner address. Its traffic counts, too.
    #[arg(long, value_name = "ADDR", conflicts_with = "memory")]
    to: Option<IpAddr>,
    /// The namespace (`ip netns`) that has the address, with a dataplane of its own. Without it, what has left as ESP
    /// counts as received.
    #[arg(long, value_name = "NETNS", requires = "to")]
    far: Option<String>,
    /// Two engines in memory, without the host: no TUN devices, no sockets, no privilege.
    #[arg(long)]
    memory: bool,
    /// ESP in UDP instead of raw ESP, where the tunnel is measure's own.
    #[arg(long, conflicts_with_all = ["to", "memory"])]
    udp: bool,
    /// Bytes of inner packets, IP header included.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,576,1400",
          value_parser = clap::value_parser!(u16).range(64..))]
    size: Vec<u16>,
    /// Seconds of a trial.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = positive)]
    time: f64,
    /// Highest rate to offer, packets a second.
    #[arg(long, value_name = "PPS", default_value_t = 2e6, value_parser = positive)]
    max_rate: f64,
    /// Lowest rate to offer.
    #[arg(long, value_name = "PPS", default_value_t = 1000.0, value_parser = positive)]
    min_rate: f64,
    /// Loss that the partial drop rate (PDR) allows, percent. The no drop rate (NDR) is searched for anyhow.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = positive)]
    loss: f64,
    /// How close to a rate that loses too much the one found is to be, percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = positive)]
    precision: f64,
    /// As JSON.
    #[arg(short, long)]
    json: bool,
    /// Write a page with plots, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// For `uvti run`, where the tunnel is measure's own: `-- --workers 1 --wire fast`.
    #[arg(last = true, value_name = "RUN ARGS", conflicts_with_all = ["to", "memory"])]
    run: Vec<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fine = number.is_finite() && number > 0.0;
    fine.then_some(number).ok_or_else(|| "must be more than 0".to_owned())
}

/// `uvti measure`.
pub(crate) fn run(args: &Args, control: Option<&std::path::Path>) -> Result<ExitCode> {
    ensure!(args.min_rate < args.max_rate, "--min-rate must be less than --max-rate");
    ensure!(args.loss < 100.0, "--loss must be less than 100");
    // Before there are threads: a plain user becomes root of namespaces of its own.
    if !args.memory && args.to.is_none() {
        become_able()?;
    }
    let stop = Stop::on_signals().context("cannot handle signals")?;
    let progress = Progress::new(std::io::stderr().is_terminal());
    let measured = measure(args, control, &stop, &progress);
    progress.finish();
    let report = match measured {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("uvti: interrupted; everything is cleaned up");
            return Ok(ExitCode::from(130));
        }
        measured => measured?,
    };
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(&report))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&if args.json { report::json(&report) } else { report::text(&report) })
}

fn measure(
    args: &Args,
    control: Option<&std::path::Path>,
    stop: &Stop,
    progress: &Progress,
) -> Result<Report> {
    let clock = Wall::new();
    let [a, b] = config::tunnel(args.udp);
    if args.memory {
        let path = "AES-128-GCM through two engines in memory, a worker each";
        return search_all(args, &mut Memory::new([&a, &b], clock)?, path, &clock, stop, progress);
    }
    if let Some(to) = args.to {
        let path = match &args.far {
            Some(far) => format!("through the running tunnel to {to} in {far}"),
            None => format!("into the running tunnel to {to}: received is what left as ESP"),
        };
        let mut live = Live::through(control, to, args.far.as_deref(), clock)?;
        return search_all(args, &mut live, &path, &clock, stop, progress);
    }
    progress.begin("starting two dataplanes");
    let stage = Stage::build([&a, &b], &args.run, stop)?;
    let carried = if args.udp { "ESP in UDP" } else { "raw ESP" };
    let words: Vec<&str> = ["uvti", "run"].into_iter().chain(args.run.iter().map(String::as_str)).collect();
    let path = format!("AES-128-GCM, {carried}, two namespaces and a veth, `{}`", words.join(" "));
    let (mut live, stage) = Live::on(stage, clock)?;
    let report = search_all(args, &mut live, &path, &clock, stop, progress)?;
    drop(live);
    stage.fall(stop)?;
    Ok(report)
}

fn search_all(
    args: &Args,
    path: &mut dyn Path,
    name: &str,
    clock: &Wall,
    stop: &Stop,
    progress: &Progress,
) -> Result<Report> {
    let loss = args.loss / 100.0;
    let (least, most, precision) = (args.min_rate, args.max_rate, 1.0 + args.precision / 100.0);
    let search = Search { least, most, precision, goals: vec![loss, 0.0] };
    let mut number = 0;
    let mut sizes = Vec::new();
    for (done, size) in args.size.iter().enumerate() {
        let mut try_load = |rate: f64, tried: usize| {
            number += 1;
            progress.begin(&format!("{size} bytes, trial {}: {rate:.0} packets/s", tried + 1));
            progress.count(done as u64, args.size.len() as u64);
            let time = Duration::from_secs_f64(args.time);
            trial::run(path, clock, Load { number, size: (*size).into(), rate, time }, stop)
        };
        sizes.push(search_size((*size).into(), &search, &mut try_load)?);
    }
    Ok(Report::new(name.to_owned(), loss, sizes))
}

/// The rates of one size.
fn search_size(
    size: usize,
    search: &Search,
    try_load: &mut dyn FnMut(f64, usize) -> Result<Trial>,
) -> Result<Size> {
    let mut trials: Vec<Trial> = Vec::new();
    let mut points = Vec::new();
    while let Some(rate) = search.next(&points) {
        let trial = try_load(rate, trials.len())?;
        points.push(trial.point());
        trials.push(trial);
    }
    Ok(Size::new(size, search, trials))
}

#[cfg(test)]
mod tests {
    use super::trial::tests::Model;
    use super::*;

    /// By a clock that is set: however slow the machine, the rates are the path's.
    #[test]
    fn the_rates_of_a_queue_are_found() {
        let mut path = Model::new(50_000.0);
        let clock = path.clock.clone();
        let search = Search { least: 1e3, most: 1e6, precision: 1.02, goals: vec![0.005, 0.0] };
        let mut try_load = |rate: f64, tried: usize| {
            let load = Load { number: tried as u32, size: 64, rate, time: Duration::from_secs(1) };
            trial::run(&mut path, &*clock, load, &Stop::default())
        };
        let size = search_size(64, &search, &mut try_load).unwrap();
        // The queue of 100 takes what comes in a second beyond the capacity.
        let (ndr, pdr) = (size.ndr.unwrap(), size.pdr.unwrap());
        assert!((49_000.0..=50_120.0).contains(&ndr.pps), "{ndr:?}");
        assert!(pdr.pps >= ndr.pps && (49_200.0..=50_500.0).contains(&pdr.pps), "{pdr:?}");
        assert!(!ndr.at_least && size.trials.iter().all(|t| t.unaccounted == 0));
        assert!(size.trials.is_sorted_by_key(|t| t.offered_pps));
    }
}
