//! `uvti explain`: what would become of a packet, check by check.
//!
//! The client makes packets of what the user gave (`words`, `capture`); the running dataplane explains them on its
//! live tables (`answer`) and changes nothing; the client prints (`view`).

mod answer;
mod capture;
#[cfg(test)]
mod tests;
mod view;
mod words;

pub use answer::{Query, answer};

use crate::client::{Client, ClientError};
use crate::protocol::{Namespace, Request, Response};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use uvti_core::vti::explain::Explanation;

/// Which packet is meant.
#[derive(Debug, clap::Args)]
#[command(after_help = words::HELP)]
pub struct Args {
    /// The VTI that the inner packet is about to leave by.
    #[arg(long, value_name = "VTI")]
    dev: Option<String>,
    /// The packet has come from the network: an outer one.
    #[arg(long, conflicts_with = "dev")]
    rx: bool,
    /// The packet, from its IP header on, in hexadecimal.
    #[arg(long, conflicts_with_all = ["words", "pcap"])]
    hex: Option<String>,
    /// The packets of a capture (pcap or pcapng). ESP to us is received; everything else leaves by --dev.
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    pcap: Option<PathBuf>,
    /// Only the packet with this number in the capture, from 1.
    #[arg(long, value_name = "N", requires = "pcap")]
    packet: Option<u64>,
    /// As JSON.
    #[arg(short, long)]
    json: bool,
    /// The flow.
    #[arg(value_name = "FLOW")]
    words: Vec<String>,
}

/// What [`capture`] and [`words`] read, without a file or a command line: for `fuzzing`.
pub(crate) fn packets_of(kind: u8, bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let flow: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match kind % 4 {
        0 => capture::packets(bytes, None)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(_, p)| p.ok())
            .collect(),
        1 => words::hex(&text).into_iter().collect(),
        2 => words::flow(&flow).into_iter().collect(),
        _ => match words::received(&flow) {
            Ok(Query::Header { inner, .. }) => inner.into_iter().collect(),
            _ => Vec::new(),
        },
    }
}

/// Exit status where nothing can be said.
const CANNOT: u8 = 2;

/// One packet's explanation, or why there is none.
struct Explained {
    /// Its number in a capture.
    number: Option<u64>,
    result: Result<Explanation, String>,
}

/// Runs the command. Exit status 0: it passes (of a capture, all that can be explained); 1: it is dropped; 2: it
/// cannot be explained.
pub(crate) fn run(args: &Args, control: Option<&Path>) -> ExitCode {
    let explained = match explain(args, control) {
        Ok(explained) => explained,
        Err(error) => {
            eprintln!("uvti: {error:#}");
            return ExitCode::from(CANNOT);
        }
    };
    if let [Explained { number: None, result: Err(text) }] = &explained[..] {
        eprintln!("uvti: {text}");
        return ExitCode::from(CANNOT);
    }
    let text = if args.json { view::json(&explained) } else { view::text(&explained) };
    // A closed pipe (`| head`) is not an error.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::from(status(&explained))
}

fn status(explained: &[Explained]) -> u8 {
    let mut known = explained.iter().filter_map(|e| e.result.as_ref().ok()).peekable();
    match known.peek() {
        None => CANNOT,
        Some(_) => u8::from(!known.all(|explanation| explanation.verdict.passes)),
    }
}

fn explain(args: &Args, control: Option<&Path>) -> anyhow::Result<Vec<Explained>> {
    let queries = queries(args)?;
    let mut client = Client::connect(control, &Namespace::Own)?;
    queries
        .into_iter()
        .map(|(number, query)| Ok(Explained { number, result: ask(&mut client, query)? }))
        .collect()
}

fn ask(
    client: &mut Client,
    query: Result<Query, String>,
) -> Result<Result<Explanation, String>, ClientError> {
    let query = match query {
        Ok(query) => query,
        Err(text) => return Ok(Err(text)),
    };
    match client.ask(&Request::Explain(query)) {
        Ok(Response::Explained(explanation)) => Ok(Ok(*explanation)),
        Ok(_) => Err(ClientError::Unexpected),
        Err(ClientError::Answer(text)) => Ok(Err(text)),
        Err(error) => Err(error),
    }
}

/// A packet's number in its capture, and what is asked about it; or why nothing can be.
type Numbered = (Option<u64>, Result<Query, String>);

fn queries(args: &Args) -> anyhow::Result<Vec<Numbered>> {
    if let Some(path) = &args.pcap {
        let packets = capture::read(path, args.packet)?;
        let ask = |packet| match args.rx {
            true => Query::Receive { packet },
            false => Query::Captured { device: args.dev.clone(), packet },
        };
        return Ok(packets.into_iter().map(|(number, packet)| (Some(number), packet.map(ask))).collect());
    }
    let query = match (&args.hex, &args.dev, args.rx) {
        (Some(hex), Some(device), _) => Query::Transmit { device: device.clone(), packet: words::hex(hex)? },
        (Some(hex), None, true) => Query::Receive { packet: words::hex(hex)? },
        (None, Some(device), _) => {
            Query::Transmit { device: device.clone(), packet: words::flow(&args.words)? }
        }
        (None, None, true) => words::received(&args.words)?,
        (_, None, false) => {
            anyhow::bail!("which way? --dev VTI for a packet that leaves, --rx for one received")
        }
    };
    Ok(vec![(None, Ok(query))])
}
