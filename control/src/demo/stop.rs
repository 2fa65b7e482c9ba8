//! Being interrupted, and waiting with a deadline.

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The user wants it to end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Whether the user wants it to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by the signals that end a program, so that it ends by returning, and cleans up.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(Self(flag))
    }

    /// An error if so.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Waits until `ready` has something, at most for `limit`; then `what` names what did not come.
    pub(crate) fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            self.check()?;
            if Instant::now() >= deadline {
                bail!("{what}: not within {} s", limit.as_secs_f32());
            }
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_by_what_comes_first() {
        let stop = Stop(Arc::default());
        assert_eq!(stop.wait(Duration::ZERO, "x", || Ok(Some(1))).unwrap(), 1);
        let late = stop.wait::<()>(Duration::ZERO, "the sun", || Ok(None)).unwrap_err();
        assert!(late.to_string().starts_with("the sun: not within"));
        stop.0.store(true, Ordering::Relaxed);
        let stopped = stop.wait::<()>(Duration::MAX / 4, "x", || Ok(None)).unwrap_err();
        assert!(stopped.is::<Interrupted>());
    }
}
