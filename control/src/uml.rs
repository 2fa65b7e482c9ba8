//! Boots User-Mode Linux as a plain process: no root, no image; the host's root is the guest's, read-only. For what
//! needs a kernel that has a VTI.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Memory of a guest, in MiB. It is taken as it is used.
const MEMORY: u64 = 512;
/// The file in the guest's output folder that takes its results.
pub(crate) const RESULTS: &str = "results.jsonl";
/// The last line of the results: whoever does not find it has not got them all.
pub(crate) const END: &str = "END";
/// The environment variable that names the output folder to process 1.
pub(crate) const OUTPUT: &str = "UVTI_OUTPUT";

/// Why this machine cannot boot a guest.
pub fn missing() -> Option<String> {
    if kernel().is_none() {
        return Some("apt-get install user-mode-linux, or set UVTI_TEST_UML to its kernel".to_owned());
    }
    for program in ["ip", "modprobe"] {
        if find(program).is_none() {
            return Some(format!("apt-get install iproute2 kmod: no `{program}`"));
        }
    }
    None
}

/// A guest to be.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// Process 1: it calls [`crate::guest::serve`].
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// Its environment.
    pub environment: &'a [(&'a str, String)],
    /// How long it may take, boot included.
    pub limit: Duration,
}

/// A guest that has ended well.
#[derive(Debug)]
pub struct Finished {
    /// The lines of its results.
    pub lines: Vec<String>,
    work: WorkDir,
}

impl Finished {
    /// Keeps the log of the guest's console, and says where.
    pub fn keep_console(&self) -> PathBuf {
        self.work.keep_console()
    }
}

/// A folder for one guest, removed with this.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
}

/// Boots a guest in a folder, and waits for its results. On any trouble the console's log is kept, and the error
/// names it.
pub fn run(guest: &Guest<'_>, work: WorkDir) -> Result<Finished> {
    let results = boot(guest, &work.path).and_then(|()| read_results(&work.path.join(RESULTS)));
    match (results, console_trouble(&work.console())) {
        (Ok(lines), None) => Ok(Finished { lines, work }),
        (Ok(_), Some(line)) => {
            bail!("the guest's kernel complains: {line} ({})", work.keep_console().display())
        }
        (Err(error), _) => {
            let (tail, kept) = (tail(&work.console(), 40), work.keep_console());
            Err(error.context(format!("the guest's console {}:\n{tail}", kept.display())))
        }
    }
}

fn boot(guest: &Guest<'_>, work: &Path) -> Result<()> {
    let kernel = kernel().context("no User-Mode Linux")?;
    let console = File::create(work.join("console"))?;
    let mut command = Command::new(kernel);
    command
        .arg(format!("mem={MEMORY}M"))
        .args(["rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=4"])
        .args(["con=null", "con0=null,fd:1", "console=tty0"])
        .arg(format!("uml_dir={}/", work.display()))
        .arg("umid=guest")
        .arg(format!("init={}", guest.program.display()))
        // What the kernel does not know becomes the environment of process 1.
        .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/run", "RUST_BACKTRACE=1"])
        .args(guest.environment.iter().map(|(name, value)| format!("{name}={value}")))
        .arg(format!("{OUTPUT}={}", work.display()))
        .arg("--")
        .args(guest.arguments)
        .env("TMPDIR", memory_dir(work))
        .env("HOME", work)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    let mut process = Process(command.spawn().context("cannot start User-Mode Linux")?);
    let end = Instant::now() + guest.limit;
    while process.0.try_wait()?.is_none() {
        if Instant::now() > end {
            bail!("the guest did not finish within {:?}", guest.limit);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The guest's process; killed, with the helper processes it leads, when the waiting ends early.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // The helpers are traced children of the first process: they die with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl WorkDir {
    /// A new one.
    pub fn new() -> Result<WorkDir> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("uvti-uml-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(WorkDir { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn console(&self) -> String {
        fs::read(self.path.join("console")).map_or_else(
            |error| format!("no console: {error}"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Copies the console out of the folder, which will be removed.
    fn keep_console(&self) -> PathBuf {
        let kept = self.path.with_extension("console");
        let _ = fs::copy(self.path.join("console"), &kept);
        kept
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Where the guest's memory goes: the host's shared memory when it has room, otherwise the work folder.
fn memory_dir(work: &Path) -> PathBuf {
    let shm = Path::new("/dev/shm");
    match rustix::fs::statvfs(shm) {
        Ok(stat) if stat.f_bavail * stat.f_frsize > MEMORY << 20 => shm.to_owned(),
        _ => work.to_owned(),
    }
}

fn read_results(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).context("the guest wrote no results")?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.pop().as_deref() != Some(END) {
        bail!("the guest stopped early; it wrote:\n{text}");
    }
    Ok(lines)
}

fn console_trouble(console: &str) -> Option<String> {
    let bad =
        |line: &&str| ["BUG:", "WARNING:", "Oops", "Kernel panic"].iter().any(|word| line.contains(word));
    console.lines().find(bad).map(str::to_owned)
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn kernel() -> Option<PathBuf> {
    match std::env::var_os("UVTI_TEST_UML") {
        Some(path) => Some(PathBuf::from(path)).filter(|path| path.is_file()),
        None => find("linux.uml"),
    }
}

/// Looks a program up as a shell does, and in the folders of root.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_without_their_end_are_refused() {
        let work = WorkDir::new().unwrap();
        let path = work.path.join(RESULTS);
        fs::write(&path, "one\n").unwrap();
        assert!(read_results(&path).is_err());
        fs::write(&path, format!("one\n{END}\n")).unwrap();
        assert_eq!(read_results(&path).unwrap(), ["one"]);
    }

    #[test]
    fn a_complaint_of_the_kernel_is_found() {
        assert_eq!(console_trouble("a\nBUG: sleeping\n").as_deref(), Some("BUG: sleeping"));
        assert_eq!(console_trouble("all quiet"), None);
    }
}
