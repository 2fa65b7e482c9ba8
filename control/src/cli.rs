//! The command line.

use crate::client::{Client, ClientError};
use crate::protocol::Namespace;
use crate::{compare, demo, expect, ip, run, views};
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use uvti_dataplane::worker::tamper::{Honest, Tamper};

/// The Linux kernel's IPsec VTI as a userspace dataplane that counts every drop by its exact reason.
#[derive(Debug, Parser)]
#[command(name = "uvti", version, max_term_width = 100)]
struct Cli {
    /// Control socket; otherwise that of the network namespace.
    #[arg(long, global = true, env = "UVTI_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the dataplane of this network namespace, in the foreground.
    Run(run::Args),
    /// iproute2's `ip`: VTIs and xfrm are uvti's, everything else is the system's.
    #[command(disable_help_flag = true)]
    Ip {
        /// As for `ip`: `link add vti0 type vti …`, `xfrm state …`, `-s -s -d link show`, `-batch FILE`, …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
        words: Vec<String>,
    },
    /// Make the running configuration that of a batch file, by the difference, as one transaction.
    Reload {
        /// The file, as for `uvti run --batch`.
        file: PathBuf,
    },
    /// Drops by device and reason.
    Stat {
        /// As JSON.
        #[arg(short, long)]
        json: bool,
    },
    /// The XFRM counters, in the form of /proc/net/xfrm_stat.
    #[command(name = "xfrm_stat", alias = "xfrm-stat")]
    XfrmStat,
    /// The table of drop reasons: what a kernel VTI counts, what the sender is told, what to look at.
    Reasons {
        /// As JSON.
        #[arg(short, long)]
        json: bool,
    },
    /// Check that every packet that came in is accounted for; exit status 1 if not.
    Check {
        /// As JSON.
        #[arg(short, long)]
        json: bool,
    },
    /// Show it all: two namespaces, a tunnel, traffic, and one drop of each kind beside the kernel's counters.
    Demo(demo::Args),
    /// Compare the kernel's VTI with uvti: the same lines and packets, counter by counter.
    Compare(compare::Args),
    /// Run a command, and check what it added to the counters of a VTI, uvti's or the kernel's.
    Expect(expect::Args),
}

/// The program. Exit status 0 is success, 1 a failure, 2 a refusal or wrong usage, 255 iproute2's wrong argument.
pub fn main() -> ExitCode {
    main_with(|| Honest)
}

/// The program with a fault planted in the workers of `uvti run`: for tests that must see `uvti check` fail.
#[doc(hidden)]
pub fn main_with<T: Tamper>(tamper: fn() -> T) -> ExitCode {
    let cli = Cli::parse();
    let control = cli.control.as_deref();
    match cli.command {
        Command::Run(args) => finish(run::run(&args, control, tamper)),
        Command::Ip { words } => {
            let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
            let code = ip::run(&words, control, &mut out, &mut err);
            let _ = out.flush();
            ExitCode::from(code)
        }
        Command::Reload { file } => finish(run::reload(&file, control)),
        Command::Stat { json } => finish(ask(control, |c| views::stat(c, json))),
        Command::XfrmStat => finish(ask(control, views::xfrm_stat)),
        Command::Reasons { json } => finish(print(&views::reasons(json))),
        Command::Check { json } => finish(ask(control, |c| views::check(c, json))),
        Command::Demo(args) => finish(demo::run(&args)),
        Command::Compare(args) => compare::run(&args),
        Command::Expect(args) => expect::run(&args, control),
    }
}

fn ask(
    control: Option<&std::path::Path>,
    view: impl FnOnce(&mut Client) -> Result<(String, bool), ClientError>,
) -> anyhow::Result<ExitCode> {
    let (text, fine) = view(&mut Client::connect(control, &Namespace::Own)?)?;
    print(&text)?;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A closed pipe (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("uvti: {error:#}");
        ExitCode::FAILURE
    })
}
