//! `uvti drops`: the last dropped packets of each reason, as lines, JSON or a capture, and the burst history.

mod frame;
mod history;
mod pcap;
pub(crate) mod recorded;
#[cfg(test)]
pub(crate) mod testing;
mod text;

use crate::client::{Client, ClientError};
use crate::protocol::{DropHistory, DropRecord, DropsPage, DropsQuery, Request, Response};
use anyhow::{Context, ensure};
use jiff::tz::TimeZone;
use pcap::Capture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use uvti_core::reason::Reason;

/// Columns of what is not a terminal.
const WIDTH: usize = 100;

/// Which drops, and how to show them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this reason (`uvti reasons` has them).
    #[arg(long, value_name = "REASON", value_parser = known)]
    reason: Option<String>,
    /// Go on with each packet that is recorded, until interrupted.
    #[arg(long, conflicts_with = "history")]
    follow: bool,
    /// As JSON; with --follow one object a line.
    #[arg(short, long)]
    json: bool,
    /// Write a capture (pcapng) with a comment on each packet; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "history"])]
    pcap: Option<PathBuf>,
    /// When packets were dropped: each reason in the last three minutes.
    #[arg(long)]
    history: bool,
}

fn known(name: &str) -> Result<String, String> {
    Reason::from_name(name)
        .map(|_| name.to_owned())
        .ok_or_else(|| "no such reason: `uvti reasons` has them".into())
}

/// `uvti drops`. Whoever reads may close the pipe at any time.
pub(crate) fn run(args: &Args, client: &mut Client) -> anyhow::Result<()> {
    let done = match args.history {
        true => show_history(args, client),
        false => show_records(args, client),
    };
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn show_history(args: &Args, client: &mut Client) -> anyhow::Result<()> {
    let mut history = match client.ask(&Request::DropHistory)? {
        Response::DropHistory(history) => history,
        _ => return Err(ClientError::Unexpected.into()),
    };
    if let Some(reason) = &args.reason {
        history.rows.retain(|row| row.reason == *reason);
    }
    Ok(io::stdout().lock().write_all(history_text(args, &history).as_bytes())?)
}

fn history_text(args: &Args, history: &DropHistory) -> String {
    match args.json {
        true => format!("{:#}\n", history::object(history)),
        false => history::show(history, width()),
    }
}

/// Columns of the terminal.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|s| usize::from(s.ws_col)).filter(|w| *w > 0).unwrap_or(WIDTH)
}

fn show_records(args: &Args, client: &mut Client) -> anyhow::Result<()> {
    let mut sink = Sink::open(args)?;
    let mut query = DropsQuery { reason: args.reason.clone(), ..DropsQuery::default() };
    let mut numbers = Numbers::default();
    let mut page = all(client, &mut query)?;
    page.records.iter().for_each(|r| _ = numbers.missed(r));
    sink.start(&page)?;
    if page.records.is_empty() && !args.follow && !args.json {
        eprintln!("uvti: no drops are recorded");
    }
    query.wait = true;
    while args.follow && !sink.is_closed() {
        page = ask(client, &query).context("no more drops to follow")?;
        page.records.sort_by_key(order);
        sink.more(&page.records, page.records.iter().map(|r| numbers.missed(r)).sum())?;
        query.reached = page.reached;
    }
    Ok(())
}

/// Everything that is recorded, oldest first.
fn all(client: &mut Client, query: &mut DropsQuery) -> Result<DropsPage, ClientError> {
    let mut records = Vec::new();
    loop {
        let mut page = ask(client, query)?;
        records.append(&mut page.records);
        query.reached.clone_from(&page.reached);
        if !page.more {
            records.sort_by_key(order);
            return Ok(DropsPage { records, ..page });
        }
    }
}

fn ask(client: &mut Client, query: &DropsQuery) -> Result<DropsPage, ClientError> {
    match client.ask(&Request::Recorded(query.clone()))? {
        Response::Recorded(page) => Ok(page),
        _ => Err(ClientError::Unexpected),
    }
}

fn order(record: &DropRecord) -> (u64, u16, u64) {
    (record.time, record.worker, record.seq)
}

/// The last number seen of each worker and reason: a gap is records that were overwritten before they were read.
#[derive(Default)]
struct Numbers(HashMap<(u16, String), u64>);

impl Numbers {
    /// How many records are missing before this one.
    fn missed(&mut self, record: &DropRecord) -> u64 {
        let last = self.0.entry((record.worker, record.reason.clone())).or_default();
        let missed = record.nth.saturating_sub(*last + 1);
        *last = record.nth;
        missed
    }
}

/// Where records go, and how they are written.
enum Sink {
    Lines(TimeZone),
    Json { follow: bool },
    Capture { to: Capture<Box<dyn Write>>, stdout: bool },
}

impl Sink {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let Some(file) = &args.pcap else {
            return Ok(match args.json {
                true => Sink::Json { follow: args.follow },
                false => Sink::Lines(TimeZone::system()),
            });
        };
        let stdout = file == Path::new("-");
        let to: Box<dyn Write> = if stdout {
            ensure!(
                !io::stdout().is_terminal(),
                "a capture is not for a terminal: give --pcap a file, or a pipe"
            );
            Box::new(BufWriter::new(io::stdout()))
        } else {
            let failed = || format!("cannot write {}", file.display());
            Box::new(BufWriter::new(File::create(file).with_context(failed)?))
        };
        Ok(Sink::Capture { to: Capture::new(to)?, stdout })
    }

    /// Writes what was recorded before.
    fn start(&mut self, page: &DropsPage) -> io::Result<()> {
        if let Sink::Json { follow: false } = self {
            let records: Vec<Value> = page.records.iter().map(text::object).collect();
            return print(&format!("{:#}\n", json!({ "skipped": page.skipped, "records": records })));
        }
        if page.skipped > 0 {
            eprintln!("uvti: {} drops were not recorded, for somebody was reading", page.skipped);
        }
        self.more(&page.records, 0)
    }

    /// Writes more records; before them `missed` are missing.
    fn more(&mut self, records: &[DropRecord], missed: u64) -> io::Result<()> {
        match self {
            Sink::Lines(zone) => {
                let note = (missed > 0).then(|| format!("{missed} records missed"));
                let lines = records.iter().map(|r| text::line(r, zone));
                print(&lined(note.into_iter().chain(lines)))
            }
            Sink::Json { .. } => {
                let note = (missed > 0).then(|| json!({ "missed": missed }).to_string());
                let lines = records.iter().map(|r| text::object(r).to_string());
                print(&lined(note.into_iter().chain(lines)))
            }
            Sink::Capture { to, .. } => {
                if missed > 0 {
                    eprintln!("uvti: {missed} records missed");
                }
                records.iter().try_for_each(|r| to.write(r))?;
                to.flush()
            }
        }
    }

    /// Whether nobody reads any more: seen without writing, for drops may be rare.
    fn is_closed(&self) -> bool {
        if matches!(self, Sink::Capture { stdout: false, .. }) {
            return false;
        }
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }
}

fn lined(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::testing::record;
    use super::*;

    #[test]
    fn a_gap_in_the_numbers_of_a_worker_and_reason_is_what_was_missed() {
        let mut numbers = Numbers::default();
        let of = |worker, reason: &str, nth| DropRecord { worker, nth, reason: reason.into(), ..record() };
        let seen = [
            (of(0, "tx_no_sa", 5), 4),
            (of(0, "tx_no_sa", 6), 0),
            (of(1, "tx_no_sa", 1), 0),
            (of(0, "tx_too_big", 1), 0),
            (of(0, "tx_no_sa", 9), 2),
        ];
        for (record, missed) in seen {
            assert_eq!(numbers.missed(&record), missed, "{record:?}");
        }
    }
}
