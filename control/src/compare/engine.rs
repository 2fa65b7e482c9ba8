//! Who does the work: the kernel's VTI, or uvti. Both take the same lines of `ip`, and count by the same names.

use super::scenario::Counts;
use crate::client::Client;
use crate::counters::{Counters, kernel_link, kernel_xfrm, totals, uvti_link, uvti_xfrm};
use crate::ip;
use crate::protocol::{Namespace, Request, Response};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use uvti_dataplane::host::netlink::Netlink;

/// An engine in the calling thread's network namespace.
pub(crate) struct Engine {
    kind: Kind,
    /// Lines of `ip` that wait to be run together.
    pending: Vec<Vec<String>>,
    /// A folder for files.
    scratch: PathBuf,
}

enum Kind {
    Kernel,
    /// Started when the first line is its own.
    Uvti {
        running: Option<Running>,
        devices: Vec<String>,
    },
}

impl Engine {
    pub(crate) fn new(uvti: bool, scratch: &Path) -> Self {
        let kind = match uvti {
            true => Kind::Uvti { running: None, devices: Vec::new() },
            false => Kind::Kernel,
        };
        Self { kind, pending: Vec::new(), scratch: scratch.to_owned() }
    }

    /// Takes a line of `ip` for [`Engine::apply`].
    pub(crate) fn ip_later(&mut self, words: &[String]) {
        self.pending.push(words.to_vec());
    }

    /// Runs the lines that wait.
    pub(crate) fn apply(&mut self) -> Result<()> {
        let lines = std::mem::take(&mut self.pending);
        let mut rest = &lines[..];
        while let Some(first) = rest.first() {
            let ours = self.owns(first);
            let run = rest.iter().take_while(|words| self.owns(words) == ours).count();
            self.run(&rest[..run])?;
            rest = &rest[run..];
        }
        Ok(())
    }

    /// Runs one line.
    pub(crate) fn ip_now(&mut self, words: &[String]) -> Result<()> {
        self.run(&[words.to_vec()])
    }

    /// Runs lines that are all the engine's or all the system's.
    fn run(&mut self, lines: &[Vec<String>]) -> Result<()> {
        let text: Vec<String> = lines.iter().map(|words| line(words)).collect();
        if !lines.first().is_some_and(|words| self.owns(words)) {
            self.system(&text)?;
            return self.refresh();
        }
        let batch = self.scratch.join("batch");
        std::fs::write(&batch, text.join("\n") + "\n")?;
        let scratch = self.scratch.clone();
        let Kind::Uvti { running, devices } = &mut self.kind else { return Ok(()) };
        devices.extend(lines.iter().filter_map(|words| new_device(words)));
        let running = started(running, &scratch)?;
        let mut said = Vec::new();
        let words = ["-batch".to_owned(), batch.display().to_string()];
        let code = ip::run(&words, Some(&running.control), &mut Vec::new(), &mut said);
        ensure!(code == 0, "{}", String::from_utf8_lossy(&said).trim());
        Ok(())
    }

    /// Whether a line is uvti's rather than the system's. (The system's lines could go through uvti as well, but
    /// then each would be a process.)
    fn owns(&self, words: &[String]) -> bool {
        let Kind::Uvti { devices, .. } = &self.kind else { return false };
        let Some((object, rest)) = words.split_first() else { return false };
        match object.as_str() {
            "xfrm" | "x" | "tunnel" | "t" => true,
            object if "link".starts_with(object) => {
                let verb = rest.first().map_or("", String::as_str);
                let ours = rest.iter().any(|w| devices.contains(w));
                new_device(words).is_some() || (ours && verb != "set")
            }
            _ => false,
        }
    }

    /// Runs lines of the system's `ip`.
    pub(crate) fn system(&self, lines: &[String]) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run the system's ip")?;
        if let Some(mut input) = child.stdin.take() {
            // One that has refused a line does not read on: its status tells.
            let _ = input.write_all((lines.join("\n") + "\n").as_bytes());
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: ip {}", said.trim(), lines.join("; ip "));
        Ok(())
    }

    /// Lets uvti look at what the system was changed to.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        if let Kind::Uvti { running: Some(running), .. } = &mut self.kind {
            running.client.ask(&Request::Refresh)?;
        }
        Ok(())
    }

    /// Returns when everything that had reached the engine before has been counted, or nearly so: uvti's workers
    /// have been at the beginning of a round, where they hand over their banks.
    pub(crate) fn go_round(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Uvti { running: Some(running), .. } => {
                running.client.ask(&Request::Check)?;
            }
            _ => std::thread::yield_now(),
        }
        Ok(())
    }

    /// Counters of all VTIs and of XFRM.
    pub(crate) fn counters(&mut self, netlink: &mut Netlink) -> Result<Counts> {
        let mut counts = Counts::new();
        match &mut self.kind {
            Kind::Kernel => {
                for link in netlink.links()? {
                    if matches!(link.kind.as_deref(), Some("vti" | "vti6" | "xfrm")) {
                        add(&mut counts, &link.name, kernel_link(netlink, &link.name)?);
                    }
                }
                add(&mut counts, "xfrm", kernel_xfrm()?);
            }
            Kind::Uvti { running: Some(running), .. } => {
                let totals = totals(&mut running.client)?;
                for device in totals.devices.iter().filter(|d| d.name != "-") {
                    add(&mut counts, &device.name, uvti_link(&device.stats));
                }
                add(&mut counts, "xfrm", uvti_xfrm(&totals));
            }
            Kind::Uvti { running: None, .. } => {}
        }
        Ok(counts)
    }

    /// What each SA counted: `sa 0x100 packets`. An SA is there even if it counted nothing, for [`super::lab`] to
    /// see it vanish; only counts above 0 come out of [`Engine::sas`].
    pub(crate) fn sas(&mut self) -> Result<Counts> {
        let words = ["-s", "xfrm", "state", "list"].map(str::to_owned);
        let text = match &self.kind {
            Kind::Kernel => {
                let output = Command::new("ip").args(words).stdin(Stdio::null()).output()?;
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
            Kind::Uvti { running: Some(running), .. } => {
                let (mut out, mut said) = (Vec::new(), Vec::new());
                let code = ip::run(&words, Some(&running.control), &mut out, &mut said);
                ensure!(code == 0, "{}", String::from_utf8_lossy(&said).trim());
                String::from_utf8_lossy(&out).into_owned()
            }
            Kind::Uvti { running: None, .. } => String::new(),
        };
        sa_counts(&text).with_context(|| format!("not the states of `ip -s xfrm state`: {text}"))
    }

    /// Packets that uvti cannot account for: none, if all is well.
    pub(crate) fn check(&mut self) -> Result<Counts> {
        let Kind::Uvti { running: Some(running), .. } = &mut self.kind else { return Ok(Counts::new()) };
        let Response::Check(report) = running.client.ask(&Request::Check)? else {
            bail!("uvti did not answer whether every packet is accounted for");
        };
        let missing: u64 = report.rows.iter().map(|r| r.missing().unsigned_abs() as u64).sum();
        Ok([("check missing".to_owned(), missing)].into_iter().filter(|(_, n)| *n != 0).collect())
    }
}

fn add(counts: &mut Counts, group: &str, counters: Counters) {
    counts.extend(counters.into_iter().map(|(name, n)| (format!("{group} {name}"), n)));
}

/// A line as `ip -batch` reads it.
fn line(words: &[String]) -> String {
    let quoted = |word: &String| match word.is_empty() || word.contains(' ') {
        true => format!("\"{word}\""),
        false => word.clone(),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The name in `link add NAME type vti …` or `link add … name NAME type xfrm …`.
fn new_device(words: &[String]) -> Option<String> {
    let kind = words.iter().position(|w| w == "type").and_then(|at| words.get(at + 1))?;
    if words.get(1)?.as_str() != "add" || !matches!(kind.as_str(), "vti" | "vti6" | "xfrm") {
        return None;
    }
    match words.get(2)?.as_str() {
        "name" | "dev" => words.get(3).cloned(),
        name => Some(name.to_owned()),
    }
}

/// A running `uvti run`.
struct Running {
    child: Child,
    client: Client,
    control: PathBuf,
}

fn started<'a>(running: &'a mut Option<Running>, scratch: &Path) -> Result<&'a mut Running> {
    if running.is_none() {
        *running = Some(Running::start(scratch)?);
    }
    running.as_mut().context("uvti is not running")
}

impl Running {
    /// This very program, as `uvti run`.
    fn start(scratch: &Path) -> Result<Self> {
        let (control, log) = (scratch.join("sock"), scratch.join("log"));
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["run", "--workers", "1", "--control"])
            .arg(&control)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("cannot start uvti run")?;
        let mut said = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        if said.trim() != "ready" {
            let (status, log) = (child.wait()?, std::fs::read_to_string(&log).unwrap_or_default());
            bail!("uvti run ended before it was ready: {status}\n{log}");
        }
        let client = Client::connect(Some(&control), &Namespace::Own)?;
        Ok(Self { child, client, control })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The namespace with all its devices goes as well: there is nothing to put in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what each state of `ip -s xfrm state list` counted; two SAs with one SPI count together.
fn sa_counts(text: &str) -> Option<Counts> {
    let mut counts = Counts::new();
    let mut spi = String::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some((_, rest)) = line.split_once(" spi 0x") {
            let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            spi = format!("sa {:#x}", u32::from_str_radix(&hex, 16).ok()?);
        } else if line == "lifetime current:" {
            // `500(bytes), 5(packets)`
            let (bytes, packets) = lines.next()?.split_once(", ")?;
            let number = |text: &str, unit: &str| text.strip_suffix(unit)?.parse::<u64>().ok();
            *counts.entry(format!("{spi} bytes")).or_default() += number(bytes, "(bytes)")?;
            *counts.entry(format!("{spi} packets")).or_default() += number(packets, "(packets)")?;
        } else if line == "stats:" {
            // `replay-window 0 replay 0 failed 0`
            let words: Vec<&str> = lines.next()?.split_whitespace().collect();
            for pair in words.chunks_exact(2) {
                *counts.entry(format!("{spi} {}", pair[0])).or_default() += pair[1].parse::<u64>().ok()?;
            }
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_states_counted_is_read() {
        let text = "src 198.51.100.1 dst 198.51.100.2\n\tproto esp spi 0x00000100(256) reqid 1(0x00000001) mode tunnel\n\
            \tlifetime config:\n\t  limit: soft (INF)(bytes), hard (INF)(bytes)\n\
            \tlifetime current:\n\t  500(bytes), 5(packets)\n\t  add 2026-01-01 00:00:00 use -\n\
            \tstats:\n\t  replay-window 0 replay 2 failed 0\n";
        let counts = sa_counts(text).unwrap();
        assert_eq!(
            (counts["sa 0x100 bytes"], counts["sa 0x100 packets"], counts["sa 0x100 replay"]),
            (500, 5, 2)
        );
    }

    #[test]
    fn lines_are_uvtis_or_the_systems() {
        let mut engine = Engine::new(true, Path::new("/nowhere"));
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        assert!(engine.owns(&words("link add vti0 type vti local 192.0.2.1")));
        assert!(engine.owns(&words("xfrm state flush")));
        assert!(!engine.owns(&words("link add d0 type dummy")));
        assert!(!engine.owns(&words("link del vti0")));
        if let Kind::Uvti { devices, .. } = &mut engine.kind {
            devices.push("vti0".to_owned());
        }
        assert!(engine.owns(&words("link del vti0")));
        assert!(!engine.owns(&words("link set vti0 up")));
    }
}
