//! A door for the fuzz targets (`tests/src/fuzz`).

use super::{FromHost, Kind, offload, vnet};
use crate::io::Pool;
use uvti_core::packet::Buf;

/// Length of the header in front of a frame, bytes.
pub const HEADER: usize = vnet::LEN;

/// What becomes of a frame that a device with offloads hands over: its packets, or `None` in place of one that cannot
/// be used.
pub fn packets(header: [u8; HEADER], frame: &[u8]) -> Vec<Option<Buf>> {
    let (mut into, mut pool) = (Vec::new(), Pool::with_capacity(4, frame.len().max(64)));
    let count = offload::take_in(
        offload::Read::Whole(vnet::read(header)),
        &mut Buf::from_packet(frame),
        &mut into,
        &mut pool,
    );
    assert_eq!(count, into.len(), "what is said to have come has come");
    let usable = |FromHost { buf, kind }| (kind == Kind::Packet).then_some(buf);
    into.into_iter().map(usable).collect()
}
