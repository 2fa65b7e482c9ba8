//! `uvti keys`: SAs in the form in which Wireshark keeps their keys.

mod sa;
mod table;

#[cfg(test)]
mod tests;

use crate::cli::print;
use crate::client::Client;
use crate::ip::batch::{self, Kind};
use crate::protocol::{Namespace, Rejected};
use crate::service::Running;
use anyhow::{Context, bail};
use clap::Subcommand;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use uvti_core::tables::Op;
use uvti_core::xfrm::StateInfo;

/// Longest file that is read, bytes.
const LONGEST: u64 = 16 << 20;

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The keys of all SAs, as Wireshark's file `esp_sa` has them. What Wireshark lacks (ChaCha20-Poly1305, GMAC) is
    /// named, and left out: exit status 1.
    Export {
        /// Write them to this file, which only its owner may read, instead of standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Add an SA in tunnel mode for each line of such a file; all, or none.
    Import {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// Print the lines of `ip` that would add them, for a batch, and add none.
        #[arg(long)]
        print: bool,
        /// What the file does not say, for each of them, as `ip xfrm state add` takes it: `reqid 1 replay-window 32`,
        /// `encap espinudp 4500 4500 0.0.0.0`.
        #[arg(trailing_var_arg = true, value_name = "WORD")]
        words: Vec<String>,
    },
}

/// Carries it out.
pub(crate) fn run(args: &Args, control: Option<&Path>) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Export { output } => {
            let states = Client::connect(control, &Namespace::Own)?.states()?;
            let (text, complaints) = exported(&states);
            match output {
                Some(file) => {
                    write(file, &text).with_context(|| format!("cannot write {}", file.display()))?
                }
                None => _ = print(&text)?,
            }
            eprint!("{complaints}");
            Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Import { file, print: only_print, words } => {
            let name = file.display().to_string();
            let lines = imported(&name, &read(file).with_context(|| format!("cannot read {name}"))?, words)?;
            match only_print {
                true => print(&lines.trim_start_matches('\n').replace("\n\n", "\n")),
                false => add(&name, &lines, control),
            }
        }
    }
}

/// The file, and what is not in it.
fn exported(states: &[StateInfo]) -> (String, String) {
    let mut text = "# ESP SAs for Wireshark: keys. Written by uvti keys export.\n".to_owned();
    let mut complaints = String::new();
    for spec in states.iter().rev().map(|info| &info.spec) {
        let name = format!("src {} dst {} spi {}", spec.src, spec.dst, spec.spi);
        match sa::row(spec) {
            Ok(fields) => {
                if sa::is_unchecked(spec) {
                    let _ =
                        writeln!(text, "# {name} has extended sequence numbers: its ICVs cannot be checked.");
                }
                text.push_str(&table::written(&fields));
            }
            Err(why) => _ = writeln!(complaints, "uvti keys: {name} left out: {why}"),
        }
    }
    (text, complaints)
}

/// The lines of `ip` that add the SAs of a file, each at its line in the file.
fn imported(name: &str, text: &str, words: &[String]) -> anyhow::Result<String> {
    let at = |line: usize, why: String| anyhow::anyhow!("{name}:{line}: {why}");
    let rows = table::rows(text).map_err(|(line, why)| at(line, why))?;
    let mut lines = String::new();
    let mut written = 1;
    for row in rows {
        let line = sa::line(&row.fields).map_err(|why| at(row.line, why))?;
        lines.extend(std::iter::repeat_n('\n', row.line - written));
        let _ = writeln!(lines, "{}", [&[line][..], words].concat().join(" "));
        written = row.line + 1;
    }
    Ok(lines)
}

/// One transaction.
fn add(name: &str, lines: &str, control: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(control, &Namespace::Own)?;
    let links = client.links()?;
    let (mut ops, mut places) = (Vec::new(), Vec::new());
    match batch::plan(name, lines, &Running(&links)) {
        Ok(plan) => {
            for line in plan {
                let Kind::Owned(owned) = line.kind else { bail!("{name}:{}: not a state", line.number) };
                places.extend(owned.iter().map(|_| line.number));
                ops.extend(owned);
            }
        }
        // The column is one of a line that nobody has seen.
        Err(errors) => {
            errors.iter().for_each(|e| eprintln!("{name}:{}: {}", e.line, e.text));
            return Ok(ExitCode::FAILURE);
        }
    }
    if let Some(at) = ops.iter().position(|op| !matches!(op, Op::StateAdd(_))) {
        bail!("{name}:{}: not a state", places[at]);
    }
    match client.apply(ops)? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Rejected { index, refusal }) => {
            let line = places.get(index).copied().unwrap_or(0);
            eprintln!("{name}:{line}: {refusal}");
            Ok(ExitCode::from(2))
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(fs::File::open(file)?),
    };
    source.by_ref().take(LONGEST).read_to_string(&mut text)?;
    match source.read(&mut [0])? {
        0 => Ok(text),
        _ => Err(io::Error::other(format!("longer than {LONGEST} bytes"))),
    }
}

/// Puts a new file in place of an old one, whoever may read that.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = file.with_file_name(name);
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = target.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, file));
    written.inspect_err(|_| _ = fs::remove_file(&new))
}
