//! A VTI gateway: a namespace whose VTI is either the kernel's or uvti's. Both are configured by the same lines
//! of iproute2 and asked by the same commands, so that a case cannot tell them apart.

use crate::netns::Namespace;
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Who does the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The kernel's ip_vti.
    Kernel,
    /// The program under test, with so many workers.
    Uvti {
        /// The program.
        program: PathBuf,
        /// `--workers`.
        workers: usize,
    },
}

impl Engine {
    /// A short name.
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Kernel => "kernel",
            Engine::Uvti { .. } => "uvti",
        }
    }
}

/// Counters by the kernel's names; a counter that is 0 is not there.
pub type Counters = BTreeMap<String, u64>;

/// What one SA has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaCount {
    /// Bytes of inner packets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Where it lives.
    pub namespace: Namespace,
    engine: Engine,
    daemon: Option<Daemon>,
}

impl Gateway {
    /// Takes a namespace whose interfaces are ready; for uvti starts the dataplane with these lines as its batch.
    pub fn start(namespace: Namespace, engine: Engine, lines: &[String]) -> Result<Gateway> {
        Self::start_with(namespace, engine, lines, &[])
    }

    /// The same with more flags for `uvti run`.
    pub fn start_with(
        namespace: Namespace,
        engine: Engine,
        lines: &[String],
        flags: &[&str],
    ) -> Result<Gateway> {
        let daemon = match &engine {
            Engine::Kernel => None,
            Engine::Uvti { program, workers } => {
                Some(Daemon::start(&namespace, program, *workers, lines, flags)?)
            }
        };
        let gateway = Gateway { namespace, engine, daemon };
        if gateway.daemon.is_none() {
            gateway.ip(lines)?;
        }
        Ok(gateway)
    }

    /// Runs lines of `ip` in one batch.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        let batch = Batch::write(lines)?;
        self.ask(&["-batch", batch.text()]).map(drop)
    }

    /// Runs one `ip` command and returns what it prints.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        match &self.engine {
            Engine::Kernel => self.namespace.command(Path::new("ip"), words, ""),
            Engine::Uvti { program, .. } => {
                self.namespace.command(program, &[&["ip"][..], words].concat(), "")
            }
        }
    }

    /// Runs one `uvti` command, of uvti's own, and returns what it prints.
    pub fn uvti(&self, words: &[&str]) -> Result<String> {
        match &self.engine {
            Engine::Kernel => bail!("the kernel's VTI has no `uvti {}`", words.join(" ")),
            Engine::Uvti { program, .. } => self.namespace.command(program, words, ""),
        }
    }

    /// The device's counters, by the names of `struct rtnl_link_stats64`.
    pub fn link(&self, device: &str) -> Result<Counters> {
        let text = self.ask(&["-j", "-s", "-s", "link", "show", "dev", device])?;
        link_counters(&text).with_context(|| format!("not the JSON of a link: {text}"))
    }

    /// A file of `/proc/net`, as the VTI's engine has it.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        match &self.engine {
            Engine::Kernel => {
                self.namespace.run(|| Ok(std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?))
            }
            Engine::Uvti { program, .. } => {
                self.namespace.command(program, &["proc", &format!("net/{file}")], "")
            }
        }
    }

    /// The counters of `/proc/net/xfrm_stat`.
    pub fn xfrm_stat(&self) -> Result<Counters> {
        let text = self.proc_net("xfrm_stat")?;
        xfrm_counters(&text).with_context(|| format!("not an xfrm_stat: {text}"))
    }

    /// What each SA has counted, by SPI.
    pub fn sas(&self) -> Result<BTreeMap<u32, SaCount>> {
        let text = self.ask(&["-s", "xfrm", "state", "list"])?;
        sa_counts(&text).with_context(|| format!("not the states of `ip -s xfrm state`: {text}"))
    }

    /// For uvti: `uvti check` must find every conservation identity to hold.
    pub fn check(&self) -> Result<()> {
        match &self.engine {
            Engine::Kernel => Ok(()),
            Engine::Uvti { program, .. } => self.namespace.command(program, &["check"], "").map(drop),
        }
    }

    /// For uvti: kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// For uvti: stops it as a service manager does; it must end by itself, with status 0.
    pub fn stop(mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::stop)
    }
}

/// `uvti run`, in the foreground of the namespace.
#[derive(Debug)]
struct Daemon {
    child: Child,
    _batch: Batch,
}

impl Daemon {
    fn start(
        namespace: &Namespace,
        program: &Path,
        workers: usize,
        lines: &[String],
        flags: &[&str],
    ) -> Result<Daemon> {
        let batch = Batch::write(lines)?;
        let child = namespace.run(|| {
            Command::new(program)
                .args(["run", "--batch", batch.text(), "--workers", &workers.to_string()])
                .args(flags)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start uvti")
        })?;
        let mut daemon = Daemon { child, _batch: batch };
        let output = daemon.child.stdout.take().expect("stdout is piped");
        let (lines, ready) = mpsc::channel();
        // Reads on until the end, so that uvti never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        loop {
            match ready.recv_timeout(Duration::from_secs(20)) {
                Ok(line) if line.trim() == "ready" => return Ok(daemon),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("uvti run did not say `ready` within 20 s"),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("uvti run ended before it was ready: {}", daemon.child.wait()?)
                }
            }
        }
    }

    fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = wait::until(Duration::from_secs(20), || self.child.try_wait().transpose());
        let status = ended.context("uvti run did not stop within 20 s of SIGTERM")??;
        ensure!(status.success(), "uvti run ended with {status} on SIGTERM");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Lines for `ip -batch`, in a file that goes with it.
#[derive(Debug)]
struct Batch {
    path: String,
}

impl Batch {
    fn write(lines: &[String]) -> Result<Batch> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("uvti-batch-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, lines.join("\n") + "\n")?;
        Ok(Batch { path: path.to_str().context("the temporary folder's name is not text")?.to_owned() })
    }

    fn text(&self) -> &str {
        &self.path
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads `ip -j -s -s link show dev DEV`.
fn link_counters(json: &str) -> Option<Counters> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let stats = value.get(0)?.get("stats64")?;
    let mut counters = Counters::new();
    for way in ["rx", "tx"] {
        for (name, count) in stats.get(way)?.as_object()? {
            let name = match name.as_str() {
                // One field in the kernel, without a direction.
                "collisions" | "multicast" => name.clone(),
                _ => format!("{way}_{name}"),
            };
            let count = count.as_u64()?;
            if count != 0 {
                counters.insert(name, count);
            }
        }
    }
    Some(counters)
}

/// Reads `/proc/net/xfrm_stat`: a name and a number a line.
fn xfrm_counters(text: &str) -> Option<Counters> {
    let mut counters = Counters::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (name, count) = (words.next()?, words.next()?.parse().ok()?);
        if count != 0 {
            counters.insert(name.to_owned(), count);
        }
    }
    (!text.is_empty()).then_some(counters)
}

/// Reads the SPI and the current lifetime of each state of `ip -s xfrm state list`.
fn sa_counts(text: &str) -> Option<BTreeMap<u32, SaCount>> {
    let mut counts = BTreeMap::new();
    let mut spi = None;
    let mut current = false;
    for line in text.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once(" spi 0x") {
            let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            spi = Some(u32::from_str_radix(&hex, 16).ok()?);
        } else if line == "lifetime current:" {
            current = true;
        } else if std::mem::take(&mut current) {
            // `500(bytes), 5(packets)`
            let (bytes, packets) = line.split_once(", ")?;
            let number = |text: &str, unit: &str| text.strip_suffix(unit)?.parse().ok();
            let count = SaCount { bytes: number(bytes, "(bytes)")?, packets: number(packets, "(packets)")? };
            counts.insert(spi?, count);
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_counters_are_read() {
        let json = r#"[{"ifname":"vti0","stats64":{"rx":{"bytes":100,"packets":1,"errors":0,"over_errors":0},
            "tx":{"bytes":0,"errors":3,"carrier_errors":2,"collisions":1}}}]"#;
        let counters = link_counters(json).unwrap();
        let pairs: Vec<(&str, u64)> = counters.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(
            pairs,
            [
                ("collisions", 1),
                ("rx_bytes", 100),
                ("rx_packets", 1),
                ("tx_carrier_errors", 2),
                ("tx_errors", 3)
            ]
        );
        assert_eq!(link_counters("[]"), None);
    }

    #[test]
    fn an_xfrm_stat_is_read() {
        let counters = xfrm_counters("XfrmInError   \t0\nXfrmInNoStates  \t5\n").unwrap();
        assert_eq!(counters, Counters::from([("XfrmInNoStates".to_owned(), 5)]));
        assert_eq!(xfrm_counters(""), None);
        assert_eq!(xfrm_counters("garbage"), None);
    }

    #[test]
    fn the_counts_of_states_are_read() {
        let text = "src 198.51.100.1 dst 198.51.100.2\n\tproto esp spi 0x00000100(256) reqid 1(0x00000001) mode tunnel\n\
            \tlifetime config:\n\t  limit: soft (INF)(bytes), hard (INF)(bytes)\n\
            \tlifetime current:\n\t  500(bytes), 5(packets)\n\t  add 2026-01-01 00:00:00 use -\n";
        let counts = sa_counts(text).unwrap();
        assert_eq!(counts, BTreeMap::from([(0x100, SaCount { bytes: 500, packets: 5 })]));
    }
}
