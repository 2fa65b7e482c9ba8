//! Doors for the fuzz targets (`tests/src/fuzz`) to readers of foreign text and files that nobody else needs to see.

use crate::{compare, explain};

/// What `uvti explain` makes of its argument: the packets of a capture, of `--hex`, of a flow, of `--rx` and a flow.
/// A packet that it cannot use is left out.
pub fn explained(kind: u8, bytes: &[u8]) -> Vec<Vec<u8>> {
    explain::packets_of(kind, bytes)
}

/// How many scenarios a file has, and how many statements; or what is wrong with it, as the user is told.
pub fn scenarios(text: &str) -> Result<(usize, usize), String> {
    compare::count(text)
}
