//! Records for tests.

use crate::protocol::{DropRecord, OuterLabel};
use uvti_core::device::LinkKind;
use uvti_core::packet::testing::udp4;
use uvti_core::xfrm::{Direction, Family, Mark, Proto, SaId, Selector, Spi};
use uvti_dataplane::account::{Contents, PolicyName, SaName};

/// 13:46:40.123456789 UTC on 24 November 2026.
pub(crate) const TIME: u64 = 1_795_528_000_123_456_789;

/// An inner packet that found no SA.
pub(crate) fn record() -> DropRecord {
    let packet = udp4("10.1.0.2", "10.2.0.2", 40000, 5000, 100);
    DropRecord {
        time: TIME,
        worker: 1,
        seq: 1,
        nth: 1,
        device: "vti0".into(),
        kind: Some(LinkKind::Vti),
        reason: "tx_no_sa".into(),
        sa: None,
        policy: Some(PolicyName {
            index: 9,
            dir: Direction::Out,
            priority: 100,
            mark: Mark::exact(1),
            if_id: 0,
            sel: Selector { dst: "10.2.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) },
        }),
        outer: None,
        len: packet.len(),
        packet: Contents(packet),
    }
}

/// An ESP packet that was seen before.
pub(crate) fn esp_record() -> DropRecord {
    let packet = [&0x200_u32.to_be_bytes()[..], &7_u32.to_be_bytes(), &[0xaa; 92]].concat();
    let (src, dst) = ("198.51.100.2".parse().unwrap(), "198.51.100.1".parse().unwrap());
    let id = SaId { dst, spi: Spi(0x200), proto: Proto::Esp, mark: Mark::default() };
    DropRecord {
        reason: "rx_replay_duplicate".into(),
        sa: Some(SaName { id, reqid: 1 }),
        policy: None,
        outer: Some(OuterLabel { src, dst, tos: 0, udp: None }),
        len: packet.len(),
        packet: Contents(packet),
        ..record()
    }
}
