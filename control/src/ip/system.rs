//! The system's own `ip`.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

/// What a shell answers for a program that is not there.
const NOT_FOUND: u8 = 127;

/// Runs it with these words on this program's standard input and output, and returns its exit code.
pub(super) fn run(words: &[String], err: &mut dyn Write) -> u8 {
    match Command::new("ip").args(words).status() {
        Ok(status) => status.code().map_or(NOT_FOUND, |c| c as u8),
        Err(error) => explain(words, &error, err),
    }
}

/// Runs it and takes its output; `None` where it is not installed.
pub(super) fn output(words: &[String]) -> Option<Output> {
    Command::new("ip").args(words).stdin(Stdio::null()).output().ok()
}

fn explain(words: &[String], error: &io::Error, err: &mut dyn Write) -> u8 {
    let what = words.join(" ");
    let _ = match error.kind() {
        io::ErrorKind::NotFound => {
            writeln!(err, "uvti: `ip {what}` is the system's ip's, and it is not installed: install iproute2")
        }
        _ => writeln!(err, "uvti: cannot run the system's ip: {error}"),
    };
    NOT_FOUND
}
