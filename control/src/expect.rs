//! `uvti expect carrier=+3 XfrmOutNoStates=+3 [--dev DEV] -- COMMAND…`: what a command adds to the counters of a VTI,
//! uvti's or the kernel's.

use crate::client::{Client, ClientError};
use crate::counters::{Counters, field, kernel_link, kernel_xfrm, totals, uvti_link, uvti_xfrm};
use crate::ip::words::number;
use crate::protocol::{Namespace, Request};
use anyhow::{Context, Result, bail};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use uvti_core::reason::{Mib, Reason};
use uvti_dataplane::host::netlink::Netlink;

/// How long after the last change of a counter the expected values may take to be reached.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Looks alike, after which nothing more is waited for.
const ALIKE: usize = 3;
/// What is added to the status of a command that failed, so that it is told from a wrong count.
const COMMAND_FAILED: i32 = 100;

/// What is expected of which command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// COUNTER=+N: a link counter by the name of `ip -s link` or the kernel (carrier, collsns, tx_packets, …),
    /// a name of /proc/net/xfrm_stat, or one of uvti's reasons.
    #[arg(required = true, value_name = "COUNTER=+N", value_parser = Expected::parse)]
    expected: Vec<Expected>,
    /// The VTI, uvti's or the kernel's [default: the only one].
    #[arg(long, value_name = "DEV")]
    dev: Option<String>,
    /// The command, which is run without a shell. It must succeed.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// One expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    /// As given.
    name: String,
    /// As [`Source::counters`] names it.
    counter: String,
    added: u64,
}

impl Expected {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once('=').ok_or("COUNTER=+N is expected")?;
        let added = count.strip_prefix('+').and_then(number).ok_or("what is added is +N")?;
        let own = Mib::ALL.iter().any(|m| m.name() == name) || Reason::from_name(name).is_some();
        let counter = match field(name) {
            Some(field) => field.to_owned(),
            None if own => name.to_owned(),
            None => {
                return Err(format!(
                    "no link counter, no name of xfrm_stat, and no reason (see `uvti reasons`): {name}"
                ));
            }
        };
        Ok(Self { name: name.to_owned(), counter, added })
    }
}

/// Whose counters are looked at.
enum Source {
    Kernel { netlink: Netlink, device: String },
    Uvti { client: Client, device: String },
}

/// `uvti expect`. Exit status 0: as expected; 1: not; 2: could not be looked at; 100 and more: the command failed.
pub(crate) fn run(args: &Args, control: Option<&Path>) -> ExitCode {
    match expect(args, control) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("uvti: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn expect(args: &Args, control: Option<&Path>) -> Result<ExitCode> {
    let mut source = Source::find(args.dev.as_deref(), control)?;
    if let (Source::Kernel { device, .. }, Some(reason)) =
        (&source, args.expected.iter().find(|e| Reason::from_name(&e.counter).is_some()))
    {
        bail!("{}: the kernel does not count by reason, and {device} is the kernel's", reason.name);
    }
    let before = source.counters()?;
    let (program, words) = args.command.split_first().context("no command")?;
    let status = Command::new(program).args(words).status().with_context(|| program.clone())?;
    let added = settle(&mut source, &before, &args.expected)?;
    let mut fine = true;
    for expected in &args.expected {
        let got = added(&expected.counter);
        if got != i128::from(expected.added) {
            println!("{}: expected +{}, got {got:+}", expected.name, expected.added);
            fine = false;
        }
    }
    Ok(match failure(status) {
        Some(code) => {
            eprintln!("uvti: {}: {status}", args.command.join(" "));
            ExitCode::from(code)
        }
        None if fine => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

fn failure(status: ExitStatus) -> Option<u8> {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    (code != 0).then(|| u8::try_from(COMMAND_FAILED + code).unwrap_or(u8::MAX))
}

/// Waits until the counters are as expected and stay so, or have not changed for [`LIMIT`]. Returns what was added.
fn settle(
    source: &mut Source,
    before: &Counters,
    expected: &[Expected],
) -> Result<impl Fn(&str) -> i128 + use<>> {
    let of = |counters: &Counters, name: &str| counters.get(name).copied().unwrap_or(0);
    let reached = |now: &Counters| {
        expected.iter().all(|e| of(now, &e.counter) == of(before, &e.counter).wrapping_add(e.added))
    };
    let mut last = source.counters()?;
    let (mut changed, mut alike) = (Instant::now(), 0);
    while if reached(&last) { alike < ALIKE } else { changed.elapsed() < LIMIT } {
        std::thread::sleep(PAUSE);
        let now = source.counters()?;
        alike += 1;
        if now != last {
            (last, changed, alike) = (now, Instant::now(), 0);
        }
    }
    let before = before.clone();
    Ok(move |name: &str| i128::from(of(&last, name)) - i128::from(of(&before, name)))
}

impl Source {
    /// The device of that name, or the only VTI there is. uvti's goes before the kernel's.
    fn find(device: Option<&str>, control: Option<&Path>) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let client = match Client::connect(control, &Namespace::Own) {
            Ok(client) => Some(client),
            Err(ClientError::NotRunning(_)) if control.is_none() => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(mut client) = client {
            let ours: Vec<String> = client.links()?.into_iter().map(|link| link.spec.name).collect();
            if let Some(device) = choose(&ours, device)? {
                return Ok(Source::Uvti { client, device });
            }
        }
        let links = netlink.links()?.into_iter();
        let vtis = links.filter(|l| device.is_some() || is_vti(&l.name, l.kind.as_deref())).map(|l| l.name);
        match choose(&vtis.collect::<Vec<String>>(), device)? {
            Some(device) => Ok(Source::Kernel { netlink, device }),
            None => match device {
                Some(device) => bail!("there is no device {device} in this network namespace"),
                None => bail!("there is no VTI in this network namespace"),
            },
        }
    }

    fn counters(&mut self) -> Result<Counters> {
        match self {
            Source::Kernel { netlink, device } => {
                let mut counters = kernel_link(netlink, device)?;
                counters.extend(kernel_xfrm()?);
                Ok(counters)
            }
            Source::Uvti { client, device } => {
                // The workers go round: what had reached them is counted.
                client.ask(&Request::Check)?;
                let totals = totals(client)?;
                let mut counters = uvti_xfrm(&totals);
                // Packets that met no device are counted by reason under `-`.
                for here in totals.devices.iter().filter(|d| d.name == *device || d.name == "-") {
                    if here.name == *device {
                        counters.extend(uvti_link(&here.stats));
                    }
                    for (reason, n) in &here.drops {
                        *counters.entry(reason.clone()).or_default() += n;
                    }
                }
                Ok(counters)
            }
        }
    }
}

/// Whether it is a VTI, or an xfrm interface, that somebody made, and not the kernel's fallback device.
fn is_vti(name: &str, kind: Option<&str>) -> bool {
    matches!(kind, Some("vti" | "vti6" | "xfrm")) && !matches!(name, "ip_vti0" | "ip6_vti0")
}

fn choose(found: &[String], wanted: Option<&str>) -> Result<Option<String>> {
    match (wanted, found) {
        (Some(name), _) => Ok(found.iter().find(|f| *f == name).cloned()),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only.clone())),
        (None, several) => bail!("which VTI? --dev {}", several.join(" or --dev ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_iproute2_the_kernel_and_uvti_do() {
        let counter = |text: &str| Expected::parse(text).map(|e| (e.counter, e.added));
        assert_eq!(counter("carrier=+3"), Ok(("carrier".to_owned(), 3)));
        assert_eq!(counter("collsns=+0"), Ok(("collisions".to_owned(), 0)));
        assert_eq!(counter("tx_carrier_errors=+1"), Ok(("carrier".to_owned(), 1)));
        assert_eq!(counter("XfrmOutNoStates=+3"), Ok(("XfrmOutNoStates".to_owned(), 3)));
        assert_eq!(counter("tx_no_sa=+3"), Ok(("tx_no_sa".to_owned(), 3)));
        for bad in ["carrier", "carrier=3", "carrier=+", "carrier=+x", "carier=+1", "Xfrm=+1"] {
            assert!(counter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_device_is_the_only_one_or_the_named_one() {
        let found = ["vti0".to_owned(), "vti1".to_owned()];
        assert_eq!(choose(&found, Some("vti1")).unwrap().as_deref(), Some("vti1"));
        assert_eq!(choose(&found, Some("eth0")).unwrap(), None);
        assert!(choose(&found, None).is_err());
        assert_eq!(choose(&found[..1], None).unwrap().as_deref(), Some("vti0"));
        assert_eq!(choose(&[], None).unwrap(), None);
    }

    #[test]
    fn a_failed_command_is_told_from_a_wrong_count() {
        assert_eq!(failure(ExitStatus::from_raw(0)), None);
        assert_eq!(failure(ExitStatus::from_raw(1 << 8)), Some(101));
        assert_eq!(failure(ExitStatus::from_raw(9)), Some(237));
        assert_eq!(failure(ExitStatus::from_raw(200 << 8)), Some(255));
    }
}
