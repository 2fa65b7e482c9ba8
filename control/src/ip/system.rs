//! The system's own `ip`, which serves everything that uvti does not own.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

/// Exit code when there is no system `ip`, as a shell's for a command that is not found.
pub const NOT_INSTALLED: u8 = 127;

/// What a captured command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: u8,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// How a line of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code.
    pub code: u8,
    /// iproute2 leaves there and then, without a `Command failed`, even under `-force`.
    pub at_once: bool,
}

/// Runs commands of the system's `ip`; the words are everything behind `ip`.
pub trait System {
    /// Runs one whose output goes where ours goes; returns its exit code.
    fn pass(&self, words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> u8;
    /// The same as a line of a batch, which ends otherwise than a command of its own.
    fn line(&self, options: &[String], words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> Ended {
        let code = self.pass(&[options, words].concat(), out, err);
        Ended { code, at_once: code == 255 }
    }
    /// Runs one whose output we need; `None` when no `ip` is installed.
    fn capture(&self, words: &[String]) -> Option<Output>;
    /// Whether the calling thread's network namespace has a device of this name.
    fn device(&self, name: &str) -> bool;
}

/// The `ip` in `PATH`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Installed;

impl System for Installed {
    /// It inherits our standard input, output and error, so that `ip monitor`, colours and pipes work.
    fn pass(&self, words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        let _ = out.flush();
        let _ = err.flush();
        match Command::new("ip").args(words).status() {
            Ok(status) => code(status),
            Err(error) => missing(words, &error, err),
        }
    }

    /// Only iproute2 knows which of its errors end a batch at once: it gets the line as a batch of its own, and says.
    fn line(&self, options: &[String], words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> Ended {
        let _ = out.flush();
        let ran = match one_line_batch(options, words) {
            Ok(ran) => ran,
            Err(error) => return Ended { code: missing(words, &error, err), at_once: false },
        };
        let said = String::from_utf8_lossy(&ran.stderr);
        let goes_on = said.strip_suffix("Command failed -:1\n");
        let _ = err.write_all(goes_on.unwrap_or(&said).as_bytes());
        let code = code(ran.status);
        Ended { code, at_once: code != 0 && goes_on.is_none() }
    }

    fn capture(&self, words: &[String]) -> Option<Output> {
        let output = Command::new("ip").args(words).stdin(Stdio::null()).output().ok()?;
        Some(Output {
            code: code(output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn device(&self, name: &str) -> bool {
        use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
        socket(AddressFamily::INET, SocketType::DGRAM, None).and_then(|any| name_to_index(any, name)).is_ok()
    }
}

fn one_line_batch(options: &[String], words: &[String]) -> std::io::Result<std::process::Output> {
    let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has ended: its status tells.
        let _ = stdin.write_all((line.join(" ") + "\n").as_bytes());
    }
    child.wait_with_output()
}

/// A word as a batch file has it. One with both quotes in it has no blank, or no batch file could have brought it.
fn quoted(word: &str) -> String {
    match (word.contains('\''), word.contains('"')) {
        (false, _) => format!("'{word}'"),
        (true, false) => format!("\"{word}\""),
        (true, true) => word.to_owned(),
    }
}

fn missing(words: &[String], error: &std::io::Error, err: &mut dyn Write) -> u8 {
    let _ = writeln!(
        err,
        "uvti: cannot run the system's \"ip {}\": {error}: install iproute2; without it uvti serves only what it \
         owns: links and tunnels of type vti and vti6, links of type xfrm, and xfrm",
        words.join(" ")
    );
    NOT_INSTALLED
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
