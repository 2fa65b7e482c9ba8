//! `uvti inject`: faults on purpose.

use crate::client::Client;
use crate::protocol::{Namespace, Request, Response};
use anyhow::bail;
use clap::Subcommand;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use uvti_core::xfrm::Spi;
use uvti_dataplane::inject::Fault;

const ABOUT: &str = "\
A fault changes a table, a packet, a route, the clock or a socket of a running dataplane, never a counter: what the \
counters then show is what they show of a real one. Behind each fault stands what it makes a kernel VTI count for a \
packet, and uvti with it; after `SA`, under `stats:` of `ip -s xfrm state`. `uvti run --allow-inject` must have been \
started. What a fault has changed is logged, listed by `uvti inject list`, and taken back by `uvti inject clear`.";

/// The faults, and what is done with them.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Remove an SA. tx: errors, carrier, XfrmOutNoStates; rx: errors, dropped, XfrmInNoStates.
    DropSa(State),
    /// Put an SA into transport mode. tx: errors, carrier, XfrmOutNoStates; rx: errors, dropped, XfrmInStateModeError.
    WrongMode(State),
    /// Let an SA reach its hard limit. tx: errors, aborted, XfrmOutStateExpired; rx: errors, dropped,
    /// XfrmInStateExpired; then as drop-sa.
    Expire(State),
    /// Flip a bit of the ICV of the next N received packets. rx: errors, dropped, XfrmInStateProtoError, SA failed.
    Icv(Packets),
    /// Let the next N received packets carry sequence number 1. rx: errors, dropped, XfrmInStateSeqError,
    /// SA replay-window.
    ///
    /// A number left of the window or seen in it. Without a replay window, with ESN, or while 1 is still to come,
    /// it is the ICV that does not fit: XfrmInStateProtoError.
    OldSeq(Packets),
    /// Let the next N received packets arrive twice. rx, the second: errors, dropped, XfrmInStateSeqError, SA replay.
    ///
    /// Without a replay window both are received, as by a kernel.
    Duplicate(Packets),
    /// Cut the next N received packets. rx: errors, dropped, XfrmInStateProtoError (below 8 bytes XfrmInHdrError).
    Truncate {
        #[command(flatten)]
        packets: Packets,
        /// Bytes of ESP that are left: header and IV of AES-GCM, and half an ICV, if not given.
        #[arg(long, default_value_t = 24, value_name = "BYTES")]
        to: usize,
    },
    /// Route a tunnel's far end into its own device. tx: errors, collisions.
    LoopRoute(Tunnel),
    /// Have no route to a tunnel's far end. tx: errors, carrier, XfrmOutBundleGenError.
    NoRoute(Tunnel),
    /// Give the route to a tunnel's far end a smaller MTU. tx of what is too big with DF: errors, and ICMP frag-needed.
    SmallMtu {
        /// MTU of the route, bytes.
        #[arg(value_parser = clap::value_parser!(u32).range(68..=65535))]
        bytes: u32,
        #[command(flatten)]
        tunnel: Tunnel,
    },
    /// Let the socket answer ENOBUFS to the next N outer packets. tx: packets, and one byte each; no error.
    FullQueue {
        /// How many.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        n: u64,
    },
    /// Set the clock by which SAs age ahead. What that ends is removed and counts as drop-sa, never as expired.
    Clock {
        /// `+SECONDS`.
        #[arg(value_parser = ahead)]
        seconds: u64,
    },
    /// The faults in force.
    List,
    /// Take faults back. What expired by the clock stays expired; an SA put back goes on with its numbers.
    Clear {
        /// Only that of this number.
        number: Option<u32>,
    },
}

/// Names an SA.
#[derive(Debug, clap::Args)]
struct State {
    /// Its destination.
    dst: IpAddr,
    /// Its SPI.
    #[arg(value_parser = spi)]
    spi: Spi,
}

/// So many received packets.
#[derive(Debug, clap::Args)]
struct Packets {
    /// How many.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    n: u64,
    /// Only those with this SPI.
    #[arg(long, value_parser = spi)]
    spi: Option<Spi>,
}

/// The tunnels there are.
#[derive(Debug, clap::Args)]
struct Tunnel {
    /// Only that of this device; otherwise all there are now.
    #[arg(long)]
    dev: Option<String>,
}

/// As iproute2 reads it: decimal, or hexadecimal after 0x.
fn spi(word: &str) -> Result<Spi, String> {
    crate::ip::number(word).map(Spi).ok_or_else(|| "an SPI is a number such as 0x100".to_owned())
}

fn ahead(word: &str) -> Result<u64, String> {
    let digits = word.strip_prefix('+').unwrap_or(word);
    digits.parse().ok().filter(|s| *s > 0).ok_or_else(|| "seconds, such as +3600".to_owned())
}

impl What {
    /// What is asked of the dataplane.
    fn request(self) -> Request {
        let fault = match self {
            What::DropSa(State { dst, spi }) => Fault::DropSa { dst, spi },
            What::WrongMode(State { dst, spi }) => Fault::WrongMode { dst, spi },
            What::Expire(State { dst, spi }) => Fault::Expire { dst, spi },
            What::Icv(Packets { n, spi }) => Fault::Icv { n, spi },
            What::OldSeq(Packets { n, spi }) => Fault::OldSequence { n, spi },
            What::Duplicate(Packets { n, spi }) => Fault::Duplicate { n, spi },
            What::Truncate { packets: Packets { n, spi }, to } => Fault::Truncate { n, spi, bytes: to },
            What::LoopRoute(Tunnel { dev }) => Fault::LoopRoute { dev },
            What::NoRoute(Tunnel { dev }) => Fault::NoRoute { dev },
            What::SmallMtu { bytes, tunnel: Tunnel { dev } } => Fault::SmallMtu { mtu: bytes, dev },
            What::FullQueue { n } => Fault::FullQueue { n },
            What::Clock { seconds } => Fault::Clock { seconds },
            What::List => return Request::Injected,
            What::Clear { number } => return Request::InjectClear(number),
        };
        Request::Inject(fault)
    }
}

/// `uvti inject`.
pub(crate) fn run(args: Args, control: Option<&Path>) -> anyhow::Result<ExitCode> {
    let lines: Vec<String> = match Client::connect(control, &Namespace::Own)?.ask(&args.what.request())? {
        Response::Injected(faults) => {
            faults.iter().map(|f| format!("{} {}: {}", f.number, f.fault, f.effect)).collect()
        }
        Response::Cleared(done) => done,
        _ => bail!("uvti answered something else than was asked"),
    };
    crate::cli::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn fault(words: &str) -> Result<Fault, String> {
        let parsed = Line::try_parse_from(std::iter::once("inject").chain(words.split(' ')));
        match parsed.map_err(|e| e.to_string())?.args.what.request() {
            Request::Inject(fault) => Ok(fault),
            other => Err(format!("{other:?}")),
        }
    }

    /// A fault is listed as it was written.
    #[test]
    fn words_to_faults_and_back() {
        for words in [
            "drop-sa 198.51.100.2 0x100",
            "wrong-mode 2001:db8::2 0x100",
            "expire 198.51.100.2 0x100",
            "icv 5",
            "icv 5 --spi 0x100",
            "old-seq 1",
            "duplicate 2 --spi 0x7",
            "truncate 3 --to 8",
            "truncate 3 --to 24 --spi 0x7",
            "loop-route",
            "loop-route --dev vti0",
            "no-route --dev vti0",
            "small-mtu 1300 --dev vti0",
            "full-queue 9",
            "clock +3600",
        ] {
            assert_eq!(fault(words).map(|f| f.to_string()).as_deref(), Ok(words));
        }
        assert_eq!(fault("drop-sa 198.51.100.2 256"), fault("drop-sa 198.51.100.2 0x100"));
        assert_eq!(fault("truncate 3"), fault("truncate 3 --to 24"));
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        for words in
            ["icv 0", "full-queue 0", "clock +0", "small-mtu 67", "drop-sa vti0 0x100", "drop-sa ::1 x"]
        {
            assert!(fault(words).is_err(), "{words}");
        }
    }
}
