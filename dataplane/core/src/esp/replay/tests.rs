//! The window against RFC 4303's scenarios, the kernel's measured ones, and a slow model.

use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

fn at(top: u64) -> ReplayCounters {
    ReplayCounters { seq: top as u32, seq_hi: (top >> 32) as u32, ..Default::default() }
}

/// Checks and, if it may pass, advances: a packet whose ICV is right.
fn receive(w: &Replay, seq: u32) -> Result<u64, ReplayError> {
    w.check(seq).inspect(|whole| {
        w.advance(*whole);
    })
}

/// Every step of every scenario: the guessed high half, the verdict, and the top afterwards.
#[test]
fn rfc4303_scenarios() {
    let file: Value = serde_json::from_str(include_str!("../vectors/antireplay_rfc4303.json")).unwrap();
    let scenarios = file["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 14);
    for s in scenarios {
        let esn = s["esn"].as_bool().unwrap();
        let w = Replay::new(s["window"].as_u64().unwrap() as u32, esn, &at(s["start_top"].as_u64().unwrap()));
        s["start_seen"]
            .as_array()
            .unwrap()
            .iter()
            .for_each(|n| assert_eq!(w.advance(n.as_u64().unwrap()), 0));
        for step in s["steps"].as_array().unwrap() {
            let verdict = step["verdict"].as_str().unwrap();
            let icv_ok = step["icv_ok"].as_bool().unwrap();
            let before = w.top();
            let got = w.check(step["seq_lo"].as_u64().unwrap() as u32);
            match (&got, step["seq_hi_used_for_icv"].as_u64()) {
                (Ok(seq), Some(hi)) => assert_eq!(seq >> 32, hi, "{}: {step}", s["name"]),
                (Ok(seq), None) => assert!(!esn && *seq <= u64::from(u32::MAX), "{}: {step}", s["name"]),
                (Err(_), _) => (),
            }
            let name = match got {
                Err(ReplayError::Zero) => "reject_zero_or_below",
                Err(ReplayError::Old) => "reject_old",
                Err(ReplayError::Duplicate) => "reject_dup",
                Ok(seq) if seq > before && !icv_ok => "accept_advance_but_icv_bad",
                Ok(seq) if seq > before => "accept_advance",
                Ok(_) => "accept_in_window",
            };
            assert_eq!(name, verdict, "{}: {step}", s["name"]);
            if let (Ok(seq), true) = (got, icv_ok) {
                w.advance(seq);
            }
            assert_eq!(w.top(), step["top_after"].as_u64().unwrap(), "{}: {step}", s["name"]);
        }
    }
}

/// Scenarios rx_replay_window0 and rx_seq0_window0: no window, no check, not even of 0.
#[test]
fn window_0_takes_everything() {
    let w = Replay::new(0, false, &at(0));
    for seq in [0, 5, 5, 5, 0, u32::MAX, 1] {
        assert_eq!(receive(&w, seq), Ok(u64::from(seq)));
    }
    let mut shown = ReplayCounters::default();
    w.snapshot(&mut shown);
    assert_eq!((shown.seq, shown.bitmap), (0, vec![0]), "the kernel shows no received number");
}

/// Scenarios rx_replay, rx_replay_old, rx_replay_seq0.
#[test]
fn window_32_as_measured() {
    use ReplayError::*;
    let w = Replay::new(32, false, &at(0));
    assert_eq!([1, 1, 1].map(|s| receive(&w, s)), [Ok(1), Err(Duplicate), Err(Duplicate)]);
    let w = Replay::new(32, false, &at(0));
    assert_eq!([100, 69, 68, 50].map(|s| receive(&w, s)), [Ok(100), Ok(69), Err(Old), Err(Old)]);
    assert_eq!(receive(&w, 0), Err(Zero));
}

/// Scenario rx_replay_bmp.
#[test]
fn window_128_as_measured() {
    use ReplayError::*;
    let w = Replay::new(128, false, &at(0));
    assert_eq!([200, 200, 73, 72].map(|s| receive(&w, s)), [Ok(200), Err(Duplicate), Ok(73), Err(Old)]);
}

/// A legacy word has the newest number in bit 0; a bitmap has number n in bit (n − 1) mod window.
#[test]
fn bitmaps_are_shown_as_by_the_kernel() {
    let shown = |window, esn| {
        let w = Replay::new(window, esn, &at(0));
        for seq in [1, 3, 4] {
            receive(&w, seq).unwrap();
        }
        let mut shown = ReplayCounters::default();
        w.snapshot(&mut shown);
        (shown.seq, shown.bitmap)
    };
    assert_eq!(shown(32, false), (4, vec![0b1011]));
    assert_eq!(shown(32, true), (4, vec![0b1101]));
    assert_eq!(shown(128, false), (4, vec![0b1101, 0, 0, 0]));
    assert_eq!(shown(33, false), (4, vec![0b1101, 0]));
}

/// What was sent before our time was not lost: before the first number of a new window, or before the top of one that
/// is continued.
#[test]
fn lost_counts_from_the_first_number_seen() {
    let new = Replay::new(4, false, &at(0));
    assert_eq!([1000, 1002, 999, 1010].map(|n| new.advance(n)), [0, 0, 0, 5]);
    assert_eq!(new.advance(2000), 4 - 1 + 1996 - 1010);
    let continued = Replay::new(4, false, &at(500));
    assert_eq!([501, 510].map(|n| continued.advance(n)), [0, 5]);
}

/// The window, slowly: all authentic numbers ever seen.
struct Model {
    window: i128,
    esn: bool,
    start: i128,
    top: i128,
    seen: BTreeSet<i128>,
}

impl Model {
    /// RFC 4303 appendix A2.2 in words: the one number with this low half that lies in the window or above it.
    fn whole(&self, low: u32) -> i128 {
        if !self.esn {
            return i128::from(low);
        }
        let behind = if self.window == 0 { 1 << 31 } else { self.window - 1 };
        let bottom = self.top - behind;
        let epoch = (self.top >> 32) - 1;
        let candidates = (epoch..epoch + 3).map(|hi| (hi << 32) + i128::from(low));
        candidates.into_iter().find(|n| (bottom..bottom + (1 << 32)).contains(n)).unwrap()
    }

    fn check(&self, low: u32) -> Result<u64, ReplayError> {
        let n = self.whole(low);
        if n < 0 || (n == 0 && self.window > 0) {
            return Err(ReplayError::Zero);
        }
        if n > i128::from(u64::MAX) || (self.window > 0 && n <= self.top - self.window) {
            return Err(ReplayError::Old);
        }
        if self.window > 0 && self.seen.contains(&n) {
            return Err(ReplayError::Duplicate);
        }
        Ok(n as u64)
    }

    /// Lost are those that were expected, are now left of the window, and never came.
    fn advance(&mut self, seq: u64) -> u64 {
        let seq = i128::from(seq);
        if self.window == 0 {
            self.top = if self.esn { self.top.max(seq) } else { self.top };
            return 0;
        }
        let missing = |m: &Self| {
            let (first, last) = (m.start + 1, m.top - m.window);
            if last < first { 0 } else { last - first + 1 - m.seen.range(first..=last).count() as i128 }
        };
        // Of a new SA nobody knows whether those before the first that came were ever sent.
        if self.start == 0 && self.seen.is_empty() {
            self.start = seq - 1;
        }
        let before = missing(self);
        self.seen.insert(seq);
        self.top = self.top.max(seq);
        (missing(self) - before) as u64
    }

    /// Which numbers of the window were seen, newest first.
    fn in_window(&self) -> Vec<i128> {
        self.seen.iter().rev().copied().filter(|n| *n > self.top - self.window && *n > 0).collect()
    }
}

/// Numbers that a snapshot shows as seen, newest first, those in the window only.
fn shown(w: &Replay, window: i128, esn: bool) -> Vec<i128> {
    let mut s = ReplayCounters::default();
    w.snapshot(&mut s);
    let top = i128::from(u64::from(s.seq_hi) << 32 | u64::from(s.seq));
    let bit = |n: i128| (s.bitmap[(n / 32) as usize] >> (n % 32)) & 1 == 1;
    let newest = i128::from((top as u32).wrapping_sub(1));
    (0..window)
        .filter(|d| if !esn && window <= 32 { bit(*d) } else { bit((newest - d).rem_euclid(window)) })
        .map(|d| top - d)
        .collect()
}

/// Tops at which something could overflow.
fn tops() -> impl Strategy<Value = u64> {
    let edges =
        prop::sample::select(vec![0u64, 1 << 31, 1 << 32, 3 << 31, 5 << 32, u64::MAX - (1 << 32), u64::MAX]);
    (edges, -5000i64..5000).prop_map(|(edge, off)| edge.saturating_add_signed(off))
}

/// A packet's distance from the top: mostly near, sometimes anywhere.
fn distances() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -40i64..40, 4 => -200i64..200, 2 => -5000i64..5000, 1 => any::<i32>().prop_map(i64::from)]
}

#[test]
fn a_resumed_window_accepts_nothing_at_or_below_its_top() {
    for (window, esn) in [(1, false), (32, false), (64, true), (1000, false), (4096, true)] {
        let w = Replay::new(window, esn, &at(7));
        w.resume(5000);
        w.resume(70);
        assert_eq!(w.top(), 5000);
        for seq in 1..=5000u32 {
            let refused = w.check(seq);
            // With ESN what is left of the window is taken as one of the next 2^32; the ICV then tells.
            let far = esn && refused == Ok(1 << 32 | u64::from(seq));
            assert!(refused.is_err() || far, "{window} {esn} {seq}: {refused:?}");
        }
        assert_eq!(w.check(5001), Ok(5001));
        assert_eq!(w.advance(5001), 0, "what came before the restart is not lost");
        assert_eq!(w.advance(5003), u64::from(window == 1));
    }
    let none = Replay::new(0, false, &at(0));
    none.resume(5);
    assert_eq!((none.top(), none.check(3)), (0, Ok(3)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn like_the_model(
        window in prop::sample::select(vec![0u32, 1, 31, 32, 33, 63, 64, 65, 128, 1000, 4096, u32::MAX]),
        esn: bool,
        top in tops(),
        packets in prop::collection::vec((distances(), prop::bool::weighted(0.9)), 1..120),
    ) {
        let top = if esn { top } else { u64::from(top as u32) };
        let real = Replay::new(window, esn, &at(top));
        let window = i128::from(window.min(MAX_REPLAY_WINDOW));
        let mut model = Model { window, esn, start: top.into(), top: top.into(), seen: BTreeSet::new() };
        for (distance, authentic) in packets {
            let low = real.top().wrapping_add_signed(distance) as u32;
            let got = real.check(low);
            prop_assert_eq!(got, model.check(low));
            if let (Ok(seq), true) = (got, authentic) {
                prop_assert_eq!(real.advance(seq), model.advance(seq), "lost");
            }
            prop_assert_eq!(i128::from(real.top()), model.top);
            if window > 0 {
                prop_assert_eq!(shown(&real, window, esn), model.in_window());
            }
        }
    }

    /// `ip xfrm state add` with what `ip xfrm state` showed goes on where the other stopped.
    #[test]
    fn a_snapshot_can_be_continued(
        window in prop::sample::select(vec![1u32, 32, 33, 64, 1000, 4096]),
        esn: bool,
        top in tops(),
        packets in prop::collection::vec(-100i64..100, 1..60),
        more in prop::collection::vec(-200i64..100, 1..60),
    ) {
        let first = Replay::new(window, esn, &at(top));
        for d in packets {
            let _ = receive(&first, first.top().wrapping_add_signed(d) as u32);
        }
        let mut counters = ReplayCounters::default();
        first.snapshot(&mut counters);
        let second = Replay::new(window, esn, &counters);
        for d in more {
            let low = first.top().wrapping_add_signed(d) as u32;
            prop_assert_eq!(receive(&first, low), receive(&second, low));
        }
    }

    /// Neither method ever panics, whatever numbers it is given.
    #[test]
    fn any_number_is_harmless(
        window: u32, esn: bool, start: u64, words in prop::collection::vec(any::<u32>(), 0..140),
        numbers in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let w = Replay::new(window, esn, &ReplayCounters { bitmap: words, ..at(start) });
        for n in numbers {
            let _ = w.check(n as u32);
            w.advance(n);
            w.snapshot(&mut ReplayCounters::default());
        }
    }
}
