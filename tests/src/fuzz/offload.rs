//! Frames with instructions from the host: super-packets to be cut, checksums to be finished.

use super::{Input, plant};
use uvti_core::packet::Buf;
use uvti_core::packet::coalesce::{Allow, Coalescer};
use uvti_core::packet::segment::Segments;
use uvti_dataplane::io::tun::fuzzing::{HEADER, packets};

/// Every frame becomes packets or is unusable; what they are joined to, cut again, is the same packets.
pub(super) fn gso(data: &[u8]) {
    let mut input = Input(data);
    let mut all: Vec<Buf> = Vec::new();
    while !input.is_empty() && all.len() < 300 {
        let mut header = [0; HEADER];
        let written = input.take(HEADER);
        header[..written.len()].copy_from_slice(written);
        let len = input.word() % 4096;
        let frame = input.take(len);
        let cut = packets(header, frame);
        assert!(!cut.is_empty(), "a frame does not vanish");
        plant(cut.len() == 3 && header[1] == 5 && cut.iter().all(Option::is_some));
        all.extend(cut.into_iter().flatten());
    }
    there_and_back(&all);
}

fn there_and_back(packets: &[Buf]) {
    let mut coalescer = Coalescer::default();
    let groups = coalescer.run(packets, Allow { tcp: true, udp: true }).to_vec();
    let (mut header, mut buf) = (Vec::new(), Buf::with_capacity(65_535));
    assert_eq!(groups.iter().map(|g| g.count).sum::<usize>(), packets.len());
    for group in groups {
        let Some((layout, size)) = group.joined() else { continue };
        group.header(packets, &mut header);
        let mut whole = header.clone();
        coalescer
            .members(&group)
            .for_each(|i| whole.extend_from_slice(&packets[i].bytes()[layout.payload..]));
        let segments =
            Segments::new(&whole, layout.transport, size, layout.header).expect("what was joined can be cut");
        assert_eq!(segments.count(), group.count);
        for (i, member) in coalescer.members(&group).enumerate() {
            assert!(segments.write(i, &mut buf));
            assert_eq!(buf.bytes(), packets[member].bytes());
        }
    }
}
