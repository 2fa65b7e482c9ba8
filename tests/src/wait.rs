//! Waiting for something that can be observed, never for time to pass.

use std::time::{Duration, Instant};

/// Asks `condition` until it answers, or `limit` is over: then `None`.
///
/// The pause between two questions only keeps the single processor of a guest free for what is waited for.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = condition() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
