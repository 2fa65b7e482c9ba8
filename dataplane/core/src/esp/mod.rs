//! ESP (RFC 4303): what an SA's algorithms do to a packet, its sequence numbers, and its replay window.
//!
//! A [`Crypter`] holds the keyed algorithms of one SA. [`Crypter::seal`] builds ESP around the inner packet that
//! a [`Buf`](crate::packet::Buf) holds, [`Crypter::open`] takes it off again; both work in place, without
//! allocating and without moving the payload. Numbers are given out by [`OutSeq`] and checked by [`Replay`].
//! Nothing here draws random numbers: the IV is an argument.

mod aead;
mod alg;
mod authenc;
mod cipher;
mod gcm;
mod layout;
mod mac;
mod open;
mod replay;
mod seal;
mod self_test;
mod seq;
mod suite;

#[cfg(test)]
mod tests;

pub use alg::{auth_bits, auth_name, enc_name};
pub use layout::{Overhead, peek};
pub use open::{NextHeader, OpenError};
pub use replay::{Replay, ReplayError};
pub use seal::{Header, SealError};
pub use self_test::{SelfTestFailed, self_test};
pub use seq::{Numbers, OutSeq};

use crate::tables::Refusal;
use crate::xfrm::Algorithms;
use std::fmt;
use suite::Suite;

/// The keyed algorithms of one SA.
///
/// Keys are zeroed on drop where the library lets us: `ring` does not erase its expanded keys.
pub struct Crypter {
    suite: Suite,
    overhead: Overhead,
}

impl Crypter {
    /// Looks the algorithms up and expands their keys. Refusals are in the kernel's words where the kernel refuses
    /// as well, and name the algorithm where only userspace does.
    pub fn new(algorithms: &Algorithms) -> Result<Crypter, Refusal> {
        let (suite, overhead) = Suite::new(alg::resolve(algorithms)?)?;
        Ok(Crypter { suite, overhead })
    }

    /// The bytes that these algorithms add to a packet.
    pub fn overhead(&self) -> Overhead {
        self.overhead
    }
}

impl fmt::Debug for Crypter {
    /// The family and the overhead; no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match &self.suite {
            Suite::Ring(_) => "AEAD (ring)",
            Suite::Other(_) => "other",
        };
        f.debug_struct("Crypter").field("suite", &family).field("overhead", &self.overhead).finish()
    }
}
