//! What marks a packet as ours, and what is noted of those that arrive.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of a mark, at the beginning of the payload.
pub(super) const MARK: usize = 12;

/// Writes the trial and the time of sending into a payload, if there is room.
pub(super) fn mark(payload: &mut [u8], trial: u32, now: Duration) {
    if let Some(mark) = payload.first_chunk_mut::<MARK>() {
        mark[..4].copy_from_slice(&trial.to_be_bytes());
        mark[4..].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
    }
}

/// The trial, and the time of sending in nanoseconds.
fn read(payload: &[u8]) -> Option<(u32, u64)> {
    let (trial, rest) = payload.split_first_chunk()?;
    Some((u32::from_be_bytes(*trial), u64::from_be_bytes(*rest.first_chunk()?)))
}

/// What arrives; shared by who receives and who asks.
#[derive(Clone, Debug)]
pub(super) struct Arrivals(Arc<Mutex<Noted>>);

#[derive(Debug)]
struct Noted {
    trial: u32,
    received: u64,
    /// Nanoseconds.
    latency: Histogram<u64>,
}

/// From sending to receiving, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the percentiles")]
pub(super) struct Latency {
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Arrivals {
    /// Nothing has arrived.
    pub(super) fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new(3)?;
        Ok(Self(Arc::new(Mutex::new(Noted { trial: 0, received: 0, latency }))))
    }

    /// From now on only packets of this trial are noted.
    pub(super) fn begin(&self, trial: u32) {
        let mut noted = self.lock();
        (noted.trial, noted.received) = (trial, 0);
        noted.latency.reset();
    }

    /// Packets arrive, by their payloads.
    pub(super) fn note<'a>(&self, payloads: impl IntoIterator<Item = &'a [u8]>, now: Duration) {
        let (mut noted, now) = (self.lock(), now.as_nanos() as u64);
        for (trial, sent) in payloads.into_iter().filter_map(read) {
            if trial == noted.trial {
                noted.received += 1;
                // It grows as it must, and takes every value.
                let _ = noted.latency.record(now.saturating_sub(sent));
            }
        }
    }

    /// How many of this trial.
    pub(super) fn received(&self) -> u64 {
        self.lock().received
    }

    /// How long they took; none if there are none.
    pub(super) fn latency(&self) -> Option<Latency> {
        let noted = self.lock();
        let at = |percent| noted.latency.value_at_percentile(percent) as f64 / 1e3;
        (noted.received > 0).then(|| Latency {
            min: noted.latency.min() as f64 / 1e3,
            p50: at(50.0),
            p99: at(99.0),
            p999: at(99.9),
            max: noted.latency.max() as f64 / 1e3,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // Numbers: whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_of_the_trial_count_and_their_times_are_told() {
        let arrivals = Arrivals::new().unwrap();
        assert_eq!(arrivals.latency(), None);
        arrivals.begin(7);
        for (trial, sent) in [(7, 0), (7, 90), (6, 50)] {
            let mut payload = [0; 20];
            mark(&mut payload, trial, Duration::from_micros(sent));
            arrivals.note([&payload[..], b"a stranger's"], Duration::from_micros(100));
        }
        arrivals.note([&b"short"[..]], Duration::ZERO);
        assert_eq!(arrivals.received(), 2);
        let latency = arrivals.latency().unwrap();
        assert!((latency.min - 10.0).abs() < 0.1 && (latency.max - 100.0).abs() < 0.2, "{latency:?}");
        arrivals.begin(8);
        assert_eq!((arrivals.received(), arrivals.latency()), (0, None));
    }
}
