//! `uvti demo`: two network namespaces, a tunnel of two real dataplanes, traffic, and one drop of each kind beside
//! what a kernel counted for it.
//!
//! [`stage`] builds the place, [`daemon`] runs the dataplanes, [`traffic`] uses the tunnel, [`classes`] says what is
//! to be dropped, [`drops`] has it dropped and compares, [`show`] tells.

mod classes;
mod daemon;
mod drops;
pub(crate) mod packets;
pub(crate) mod progress;
mod show;
pub(crate) mod stage;
pub(crate) mod stop;
mod traffic;

use anyhow::{Context, bail};
use classes::{BATCH_A, BATCH_B};
use progress::Progress;
use stage::Stage;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use stop::{Interrupted, Stop};
use uvti_dataplane::host::netns::{Netns, become_root_in_own_namespaces};

/// Pings, one after the other.
const PINGS: usize = 20;
/// How long each stream runs.
const STREAM: Duration = Duration::from_secs(3);

/// How the demo tells what it saw.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As JSON, and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

/// `uvti demo`. Exit status 0 when all counters are the kernel's and every packet is accounted for.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    become_able()?;
    let stop = Stop::on_signals().context("cannot handle signals")?;
    let progress = Progress::new(!args.json && std::io::stderr().is_terminal());
    let report = match perform(&stop, &progress) {
        Ok(report) => report,
        Err(error) if error.is::<Interrupted>() => {
            progress.finish();
            eprintln!("uvti: interrupted; everything is cleaned up");
            return Ok(ExitCode::from(130));
        }
        Err(error) => return Err(error),
    };
    progress.finish();
    let text = if args.json { show::json(&report)? } else { show::text(&report) };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything; what was built is gone when it returns, however it returns.
fn perform(stop: &Stop, progress: &Progress) -> anyhow::Result<show::Report> {
    progress.begin("starting two dataplanes");
    let mut stage = Stage::build([BATCH_A, BATCH_B], &["--workers".into(), "2".into()], stop)?;
    stage.route_back()?;
    progress.begin("ping");
    let ping = traffic::ping(&stage, PINGS, stop)?;
    let tcp = traffic::tcp(&stage, STREAM, stop, progress)?;
    let udp = traffic::udp(&stage, STREAM, stop, progress)?;
    progress.begin("waiting for the last packets");
    stage.settle(stop)?;
    let drops = drops::all(&mut stage, stop, progress)?;
    progress.begin("adding up");
    let conservation = stage.check()?;
    stage.end(stop)?;
    Ok(show::Report { ping, tcp, udp, drops, conservation })
}

/// Makes a plain user root of namespaces of its own. Says what is missing where that cannot be.
pub(crate) fn become_able() -> anyhow::Result<()> {
    if Netns::new().is_err()
        && let Err(error) = become_root_in_own_namespaces()
    {
        bail!("this needs root, or a kernel that lets plain users make user namespaces ({error})");
    }
    match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) => {
            bail!("this needs to open /dev/net/tun ({error}): load the module tun, or run as root")
        }
    }
}
