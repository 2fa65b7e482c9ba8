//! Nameless network namespaces: they live as long as a handle, and vanish with the process whatever happens.

use crate::sys;
use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    handle: Arc<File>,
}

impl Namespace {
    /// A new, empty one: not even `lo` is up.
    pub fn new() -> Result<Namespace> {
        let open = || -> Result<File> {
            sys::unshare_net().context("no new network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        };
        // The thread ends here; the open file keeps the namespace.
        let handle = std::thread::scope(|scope| scope.spawn(open).join().expect("open does not panic"))?;
        Ok(Namespace { handle: Arc::new(handle) })
    }

    /// The inode that names it in `/proc/PID/ns/net`.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.handle.metadata()?.ino())
    }

    /// Runs `work` on a thread inside. Sockets made and processes started there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network namespace")?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("a test's work inside does not panic"))
    }

    /// Runs a program inside, gives it `input`, and returns what it printed. A status other than 0 is an error.
    pub fn command(&self, program: &Path, args: &[&str], input: &str) -> Result<String> {
        self.run(|| {
            let mut child = Command::new(program)
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))?;
            let mut stdin = child.stdin.take().expect("stdin is piped");
            // A program that has refused its arguments does not read: its status tells.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            let output = child.wait_with_output()?;
            if !output.status.success() {
                let words = args.join(" ");
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{} {words}: {}: {}\n{input}", program.display(), output.status, said.trim());
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    /// Runs lines of the system's `ip` inside, all in one `ip -batch`.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        self.command(Path::new("ip"), &["-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
    }

    /// Sets a value of `/proc/sys` inside, by its path below it.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| {
            std::fs::write(format!("/proc/sys/{path}"), value).with_context(|| format!("cannot set {path}"))
        })
    }

    /// Adds a pair of joined veths, `name` inside here and `other_name` inside `other`, both up.
    pub fn join(
        &self,
        name: &str,
        mac: &str,
        other: &Namespace,
        other_name: &str,
        other_mac: &str,
    ) -> Result<()> {
        // `ip` takes a namespace by the id of a process in it: this thread's.
        let (ready, told) = std::sync::mpsc::channel();
        let (done, finished) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                other.run(move || {
                    let _ = ready.send(rustix::thread::gettid());
                    let _ = finished.recv();
                    Ok(())
                })
            });
            let thread = told.recv().context("the other namespace cannot be entered")?;
            let added = self.ip(&[&format!(
                "link add {name} address {mac} type veth peer name {other_name} address {other_mac} netns {}",
                thread.as_raw_nonzero()
            )]);
            drop(done);
            added
        })?;
        self.ip(&[&format!("link set {name} up")])?;
        other.ip(&[&format!("link set {other_name} up")])
    }
}
