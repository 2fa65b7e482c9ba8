//! What is going on, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A line on the terminal that says what is going on, or nothing.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Draws on standard error if `visible`.
    pub(crate) fn new(visible: bool) -> Self {
        let bar = if visible { ProgressBar::new(1) } else { ProgressBar::hidden() };
        // A template that does not parse would be indicatif's default: nothing to fail for.
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self(bar)
    }

    /// A new step, which has not got anywhere.
    pub(crate) fn begin(&self, what: &str) {
        self.0.set_length(1);
        self.0.set_position(0);
        self.0.set_message(what.to_owned());
    }

    /// How far the step is.
    pub(crate) fn at(&self, done: Duration, of: Duration) {
        self.count(done.as_millis() as u64, of.as_millis() as u64);
    }

    /// How far the step is.
    pub(crate) fn count(&self, done: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(done.min(of));
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
