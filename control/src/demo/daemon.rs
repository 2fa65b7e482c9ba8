//! A dataplane: this very program as `uvti run`, in a namespace.

use super::stop::Stop;
use crate::client::Client;
use crate::protocol::Namespace;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use uvti_dataplane::host::netns::Netns;

/// How long it may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(5);

/// A running `uvti run`. It ends with this.
pub(super) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it in `netns`, with these arguments, and waits until it is ready. Its files are in `dir`, by `name`.
    pub(super) fn start(
        netns: &Netns,
        dir: &Path,
        (name, batch, args): (&str, &str, &[String]),
        stop: &Stop,
    ) -> Result<(Self, Client)> {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        let (control, log, lines) = (file("sock"), file("log"), file("batch"));
        std::fs::write(&lines, batch).with_context(|| format!("cannot write {}", lines.display()))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(&program);
        command.arg("run").arg("--control").arg(&control).args(args).arg("--batch").arg(&lines);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        // A Ctrl-C at the terminal is for the demo, which ends it in order.
        command.process_group(0);
        let child =
            netns.run(|| command.spawn())?.with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self { child, log };
        let said = daemon.child.stdout.take().map(read).ok_or_else(|| anyhow!("no pipe to uvti run"))?;
        let ready =
            stop.wait(LIMIT, "`uvti run` starting", || daemon.is_ready(&said).map(|r| r.then_some(())));
        ready.map_err(|error| daemon.explain(error))?;
        let client = Client::connect(Some(&control), &Namespace::Own)?;
        Ok((daemon, client))
    }

    fn is_ready(&mut self, said: &Receiver<String>) -> Result<bool> {
        match said.try_recv() {
            Ok(line) => Ok(line.trim() == "ready"),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => bail!("`uvti run` ended: {}", self.child.wait()?),
        }
    }

    /// With the last of what it logged.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        match lines[lines.len().saturating_sub(5)..].join("\n") {
            last if last.is_empty() => error,
            last => error.context(format!("`uvti run` said:\n{last}")),
        }
    }

    /// Ends it as a service manager does; it must end by itself, with status 0.
    pub(super) fn end(mut self, stop: &Stop) -> Result<()> {
        self.terminate();
        let status = stop.wait(LIMIT, "`uvti run` stopping", || Ok(self.child.try_wait()?))?;
        if status.success() {
            return Ok(());
        }
        Err(self.explain(anyhow!("`uvti run` ended with {status}")))
    }

    fn terminate(&self) {
        // It has not been waited for, so that its id is still its own.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.terminate();
        let deadline = Instant::now() + LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Its lines, read to the end on a thread, so that it never blocks on a full pipe.
fn read(stdout: ChildStdout) -> Receiver<String> {
    let (lines, said) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    said
}
