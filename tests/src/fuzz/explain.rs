//! `uvti explain`: captures, hexadecimal digits, flows in words, and the packets that come of them.

use super::{Input, plant};
use std::sync::{Arc, LazyLock};
use uvti_core::packet::Buf;
use uvti_core::route::Onward;
use uvti_core::tables::Snapshot;
use uvti_core::vti::explain::{self, Context, Esp, Explanation};
use uvti_core::vti::testing::{Lab, VTI};

static TABLES: LazyLock<Arc<Snapshot>> = LazyLock::new(|| Lab::vti().tables());

/// Every packet is explained, both ways; a verdict has its failed check.
pub(super) fn explain(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    for packet in uvti::fuzzing::explained(kind, input.0) {
        let cx = Context { ifname: &|index| index.to_string(), onward: &|_, _, _| Onward::Dropped };
        let device = TABLES.devices.by_ifindex(VTI).expect("vti0");
        let sent = explain::transmit(&TABLES, device, Buf::from_packet(&packet), &cx);
        check(&sent);
        plant(sent.verdict.passes && packet.get(8) == Some(&153));
        if let Some(incoming) = explain::incoming(&TABLES, &packet) {
            check(&explain::receive(&TABLES, &incoming.outer, Esp::Packet(incoming.buf), &cx));
        }
    }
}

fn check(explanation: &Explanation) {
    let verdict = &explanation.verdict;
    assert_eq!(verdict.passes, verdict.reason.is_none(), "{verdict:?}");
}
