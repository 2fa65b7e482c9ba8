//! The command line.

use crate::breakdown::By;
use crate::client::{Client, ClientError};
use crate::protocol::Namespace;
use crate::{
    compare, demo, drops, expect, explain, inject, ip, keys, manual, measure, mtu, run, sysctl, views,
};
use clap::{CommandFactory, Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use uvti_dataplane::worker::tamper::{Honest, Tamper};

/// The Linux kernel's IPsec VTI as a userspace dataplane that counts every drop by its exact reason.
#[derive(Debug, Parser)]
#[command(name = "uvti", version, max_term_width = 100)]
pub(crate) struct Cli {
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
    /// Print what uvti owns as a batch of `ip` lines that makes it again, keys included.
    ///
    /// Links, states with their sequence numbers, policies with their indices, default policies. Addresses, routes and
    /// link state are the system's. What `ip` has no words for is left out: which packets inside a replay window have
    /// been seen, and what an SA has used of its limits.
    Save,
    /// Traffic, and drops by device and reason.
    Stat {
        /// Drops alone, by one of these; whichever it is, they add up to the same.
        #[arg(long, value_enum)]
        by: Option<By>,
        /// Every queue instead: what waits in it, the most that did, and what found no room. What drivers and sockets
        /// lost is here only, for uvti never had it.
        #[arg(long, conflicts_with = "by")]
        queues: bool,
        /// As JSON.
        #[arg(short, long)]
        json: bool,
    },
    /// The XFRM counters, in the form of /proc/net/xfrm_stat.
    #[command(name = "xfrm_stat", alias = "xfrm-stat")]
    XfrmStat,
    /// Files of /proc as a kernel VTI would fill them.
    Proc {
        /// Which.
        #[arg(value_enum)]
        file: views::ProcFile,
    },
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
    /// Plant a fault in a running dataplane, to see what it makes the counters show.
    Inject(inject::Args),
    /// What would become of a packet, check by check, and what would repair it: 0 it passes, 1 it is dropped, 2 nobody
    /// can tell.
    Explain(explain::Args),
    /// Where the bytes of each path's MTU go: headers, algorithms, and the largest inner packet and TCP segment that pass.
    Mtu(mtu::Args),
    /// Read and set the sysctls that the dataplane goes by: the host's where it has them, else uvti's own.
    Sysctl(sysctl::Args),
    /// The last dropped packets of each reason, with their SA and policy; or when packets were dropped.
    Drops(drops::Args),
    /// Keys of SAs in the form of Wireshark: written for it, or read to add SAs.
    Keys(keys::Args),
    /// Show it all: two namespaces, a tunnel, traffic, and one drop of each kind beside the kernel's counters.
    Demo(demo::Args),
    /// How much a tunnel carries: the rates without loss and with little (RFC 2544), loss by reason at each load, latency.
    ///
    /// Without `--to` or `--memory` it builds two namespaces with a tunnel of two dataplanes, as the demo does.
    Measure(measure::Args),
    /// Compare the kernel's VTI with uvti: the same lines and packets, counter by counter.
    Compare(compare::Args),
    /// Run a command, and check what it added to the counters of a VTI, uvti's or the kernel's.
    Expect(expect::Args),
    /// Print the completions of a shell: `source <(uvti completions bash)`.
    Completions {
        /// Which.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one a command, into a folder.
    Man {
        /// An existing folder, for instance /usr/local/share/man/man1.
        folder: PathBuf,
    },
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
        Command::Stat { queues: true, json, .. } => finish(ask(control, |c| views::queues(c, json))),
        Command::Stat { by: Some(by), json, .. } => finish(ask(control, |c| views::stat_by(c, by, json))),
        Command::Stat { by: None, json, .. } => finish(ask(control, |c| views::stat(c, json))),
        Command::Save => finish(ask(control, views::save)),
        Command::XfrmStat => finish(ask(control, views::xfrm_stat)),
        Command::Proc { file } => finish(ask(control, |c| views::proc(c, file))),
        Command::Reasons { json } => finish(print(&views::reasons(json))),
        Command::Check { json } => finish(ask(control, |c| views::check(c, json))),
        Command::Inject(args) => finish(inject::run(args, control)),
        Command::Explain(args) => explain::run(&args, control),
        Command::Mtu(args) => finish(ask(control, |c| mtu::run(c, &args))),
        Command::Sysctl(args) => finish(ask_sysctl(control, &args)),
        Command::Drops(args) => finish(
            Client::connect(control, &Namespace::Own)
                .map_err(Into::into)
                .and_then(|mut client| drops::run(&args, &mut client))
                .map(|()| ExitCode::SUCCESS),
        ),
        Command::Keys(args) => finish(keys::run(&args, control)),
        Command::Demo(args) => finish(demo::run(&args)),
        Command::Measure(args) => finish(measure::run(&args, control)),
        Command::Compare(args) => compare::run(&args),
        Command::Expect(args) => expect::run(&args, control),
        Command::Completions { shell } => finish(print(&manual::completions(Cli::command(), shell))),
        Command::Man { folder } => finish(manual::write(Cli::command(), &folder).map(|()| ExitCode::SUCCESS)),
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

fn ask_sysctl(control: Option<&std::path::Path>, args: &sysctl::Args) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(control, &Namespace::Own)?;
    let (text, complaints, fine) = sysctl::run(&mut client, args)?;
    print(&text)?;
    eprint!("{complaints}");
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A closed pipe (`| head`) is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
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
