//! What comes from outside, as functions of bytes: each panics if it is not treated as it has to be.
//!
//! `tests/tests/fuzz.rs` feeds them the inputs of `fuzz/corpus`; `fuzz/` links them to libFuzzer (`fuzz/run`).

mod explain;
mod offload;
mod packets;
mod text;
mod wire;

use std::sync::LazyLock;

/// Treats an input.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("esp_in", packets::esp_in),
    ("inner_out", packets::inner_out),
    ("gso", offload::gso),
    ("ip_words", text::ip_words),
    ("batch", text::batch),
    ("scenario", text::scenario),
    ("control", wire::control),
    ("netlink", wire::netlink),
    ("explain", explain::explain),
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if it finds a mistake.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(data);
}

static PLANTED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("UVTI_FUZZ_PLANT").is_some());

/// With `UVTI_FUZZ_PLANT` set, a mistake that only an input makes which is in no corpus: fuzzing has to find it.
fn plant(reached: bool) {
    assert!(!(*PLANTED && reached), "planted: found");
}

/// The bytes of an input, taken piece by piece; zeros and nothing at its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
