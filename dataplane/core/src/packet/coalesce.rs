//! Joining packets of a flow into super-packets: the inverse of [`segment`](super::segment), and only where it is.
//!
//! Packets are joined if cutting the result gives the very same packets again: headers equal but for what counts up,
//! checksums right, every packet but the last of the same size. Within a flow order is kept; all else stays as it is.

use super::checksum::checksum;
use super::segment::put16;
use super::transport::{Layout, Transport, be16, be32, flag};
use super::{Buf, IPV4_HEADER, IPV6_HEADER};

/// The longest super-packet, bytes.
const LONGEST: usize = 65_535;
/// Most packets in one.
pub const MOST: usize = 128;
/// Most datagrams in one: more than 64 are refused by older kernels. kernel: include/linux/udp.h UDP_MAX_SEGMENTS
const DATAGRAMS: usize = 64;
/// How many groups back a packet looks for its flow.
const LOOKBACK: usize = 16;
/// Ends the chain of a group's members.
const END: u32 = u32::MAX;

/// What may be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams.
    pub udp: bool,
}

/// Packets to be handed on as one, or one packet.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its first packet.
    pub first: usize,
    /// How many packets it has.
    pub count: usize,
    /// Headers of the first one; `None` for a packet that is not looked into.
    layout: Option<Layout>,
    last: usize,
    /// Payload of each packet but the last, bytes.
    size: usize,
    /// Length of all, with one header, bytes.
    len: usize,
    /// Whether another packet may be added.
    open: bool,
    /// Whether the first packet's checksums were looked at, and are right.
    verified: bool,
}

/// Groups the packets of a burst. Holds scratch memory only.
#[derive(Debug, Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// For each packet the next one of its group.
    next: Vec<u32>,
}

impl Coalescer {
    /// Groups `packets`. Every packet is in one group; groups are in the order of their first packets.
    pub fn run(&mut self, packets: &[Buf], allow: Allow) -> &[Group] {
        self.groups.clear();
        self.next.clear();
        self.next.resize(packets.len(), END);
        for (i, packet) in packets.iter().enumerate() {
            let packet = packet.bytes();
            let layout = Layout::read(packet).filter(|l| match l.transport {
                Transport::Tcp => allow.tcp,
                Transport::Udp => allow.udp,
            });
            match layout {
                Some(layout) => self.place(packets, i, packet, layout),
                None => self.groups.push(Group::new(i, packet, None)),
            }
        }
        &self.groups
    }

    /// Group number `i` of the last [`run`](Self::run).
    pub fn group(&self, i: usize) -> Group {
        self.groups[i]
    }

    /// Packets of a group that [`run`](Self::run) returned last, in order.
    pub fn members(&self, group: &Group) -> impl Iterator<Item = usize> {
        let mut at = group.first as u32;
        std::iter::from_fn(move || {
            let now = (at != END).then_some(at as usize)?;
            at = self.next.get(now).copied().unwrap_or(END);
            Some(now)
        })
    }

    fn place(&mut self, packets: &[Buf], i: usize, packet: &[u8], layout: Layout) {
        let recent = self.groups.iter_mut().rev().take(LOOKBACK);
        let mut same =
            recent.filter(|g| g.open && is_same_flow(g.layout, packets[g.first].bytes(), layout, packet));
        if let Some(group) = same.next() {
            if group.accepts(packets, packet, layout) {
                self.next[group.last] = i as u32;
                group.add(i, packet, layout);
                return;
            }
            // Whatever comes now comes behind this packet.
            group.open = false;
        }
        self.groups.push(Group::new(i, packet, Some(layout)));
    }
}

impl Group {
    fn new(i: usize, packet: &[u8], layout: Option<Layout>) -> Self {
        let size = layout.map_or(0, |l| packet.len() - l.payload);
        let open = layout.is_some_and(|l| is_joinable(packet, l) && !is_pushed(packet, l));
        Self { first: i, count: 1, layout, last: i, size, len: packet.len(), open, verified: false }
    }

    /// Headers of the first packet and the size of each part, if the group is a super-packet.
    pub fn joined(&self) -> Option<(Layout, u16)> {
        if self.count > 1 { Some((self.layout?, self.size as u16)) } else { None }
    }

    /// Writes the header of the super-packet. The transport's checksum field has the sum over the pseudo header, for
    /// the host to complete.
    pub fn header(&self, packets: &[Buf], to: &mut Vec<u8>) {
        let Some(layout) = self.layout else { return };
        to.clear();
        to.extend_from_slice(&packets[self.first].bytes()[..layout.payload]);
        let part = self.len - layout.header;
        if layout.v6 {
            put16(to, 4, (self.len - IPV6_HEADER) as u16);
        } else {
            put16(to, 2, self.len as u16);
            put16(to, 10, 0);
            let sum = checksum(&to[..layout.header]);
            put16(to, 10, sum);
        }
        match layout.transport {
            Transport::Tcp => {
                to[layout.header + 13] |= packets[self.last].bytes()[layout.header + 13] & flag::PSH
            }
            Transport::Udp => put16(to, layout.header + 4, part as u16),
        }
        let pseudo = layout.pseudo(to, part).fold();
        put16(to, layout.checksum_at(), pseudo);
    }

    /// Whether `packet`, of the same flow, continues the group. The first packet's checksums are looked at only when
    /// there is a second one.
    fn accepts(&mut self, packets: &[Buf], packet: &[u8], layout: Layout) -> bool {
        let first = packets[self.first].bytes();
        let payload = packet.len() - layout.payload;
        let room = self.len + payload <= LONGEST
            && self.count < if layout.transport == Transport::Tcp { MOST } else { DATAGRAMS }
            && payload <= self.size;
        if !room
            || self.layout != Some(layout)
            || !is_joinable(packet, layout)
            || !self.continues(first, packet)
        {
            return false;
        }
        self.verified = self.verified || has_right_checksums(first, layout);
        self.verified && has_right_checksums(packet, layout)
    }

    /// Whether the headers are those that cutting would write.
    fn continues(&self, first: &[u8], packet: &[u8]) -> bool {
        let Some(Layout { v6, transport, header, payload }) = self.layout else { return false };
        let equal = |range: std::ops::Range<usize>| first[range.clone()] == packet[range];
        let ip = match v6 {
            // All but the length.
            true => equal(0..4) && equal(6..40),
            // All but length, ID and checksum.
            false => {
                let id = be16(first, 4).map(|id| id.wrapping_add(self.count as u16));
                equal(0..2) && equal(6..10) && equal(12..20) && be16(packet, 4) == id
            }
        };
        let at = |offset: usize| header + offset;
        ip && match transport {
            Transport::Udp => equal(at(0)..at(4)),
            // Ports; what is acknowledged, reserved bits; window; urgent pointer and options. The flags are ACK alone.
            Transport::Tcp => {
                let seq = be32(first, at(4)).map(|seq| seq.wrapping_add((self.count * self.size) as u32));
                equal(at(0)..at(4))
                    && be32(packet, at(4)) == seq
                    && equal(at(8)..at(13))
                    && equal(at(14)..at(16))
                    && equal(at(18)..payload)
            }
        }
    }

    fn add(&mut self, i: usize, packet: &[u8], layout: Layout) {
        let payload = packet.len() - layout.payload;
        self.last = i;
        self.count += 1;
        self.len += payload;
        self.open = payload == self.size && !is_pushed(packet, layout);
    }
}

/// Same family, protocol, addresses and ports.
fn is_same_flow(layout: Option<Layout>, first: &[u8], other: Layout, packet: &[u8]) -> bool {
    let addresses = if other.v6 { 8..40 } else { 12..20 };
    layout.is_some_and(|l| {
        (l.v6, l.transport) == (other.v6, other.transport)
            && first[l.header..l.header + 4] == packet[other.header..other.header + 4]
            && first[addresses.clone()] == packet[addresses]
    })
}

/// Whether a packet may be part of a super-packet at all: payload, no IP options or extension headers, no flag but ACK
/// and PSH, a checksum.
fn is_joinable(packet: &[u8], layout: Layout) -> bool {
    let header = layout.header;
    let plain = header == if layout.v6 { IPV6_HEADER } else { IPV4_HEADER };
    // The reserved bit of IPv4.
    let clean = layout.v6 || packet[6] & 0x80 == 0;
    plain
        && clean
        && packet.len() > layout.payload
        && match layout.transport {
            Transport::Tcp => packet[header + 13] & !flag::PSH == flag::ACK,
            Transport::Udp => {
                be16(packet, header + 6) != Some(0)
                    && be16(packet, header + 4) == Some((packet.len() - header) as u16)
            }
        }
}

/// PSH ends a super-packet: cutting leaves it to the last packet.
fn is_pushed(packet: &[u8], layout: Layout) -> bool {
    layout.transport == Transport::Tcp && packet[layout.header + 13] & flag::PSH != 0
}

/// Whether the checksums are those that cutting would write, bit by bit.
fn has_right_checksums(packet: &[u8], layout: Layout) -> bool {
    let header = layout.header;
    // 0xffff in the field, which is another way to write 0, is left alone.
    let ip = layout.v6 || (checksum(&packet[..header]) == 0 && packet[10..12] != [0xff, 0xff]);
    let mut sum = layout.pseudo(packet, packet.len() - header);
    sum.add(&packet[header..]);
    let field = be16(packet, layout.checksum_at());
    // A right one in the field makes the sum all ones. TCP writes 0 as 0, UDP as 0xffff.
    let other_zero = match layout.transport {
        Transport::Tcp => Some(0xffff),
        Transport::Udp => Some(0),
    };
    ip && sum.fold() == 0xffff && field != other_zero
}

#[cfg(test)]
mod tests {
    use super::super::segment::Segments;
    use super::super::testing::{tcp4, tcp6, udp6, with_checksum};
    use super::*;
    use proptest::prelude::*;

    const ALL: Allow = Allow { tcp: true, udp: true };
    const ACK: u8 = flag::ACK;
    const PSH: u8 = flag::PSH;

    fn bufs(packets: &[Vec<u8>]) -> Vec<Buf> {
        packets.iter().map(|p| Buf::from_packet(p)).collect()
    }

    fn counts(packets: &[Vec<u8>], allow: Allow) -> Vec<usize> {
        Coalescer::default().run(&bufs(packets), allow).iter().map(|g| g.count).collect()
    }

    /// Joins, completes the checksum as the host would need to, cuts again; packets in the order of the groups.
    fn there_and_back(packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<usize>) {
        let bufs = bufs(packets);
        let mut coalescer = Coalescer::default();
        let groups = coalescer.run(&bufs, ALL).to_vec();
        let (mut out, mut order, mut header) = (Vec::new(), Vec::new(), Vec::new());
        for group in &groups {
            order.extend(coalescer.members(group));
            let Some((layout, size)) = group.joined() else {
                out.push(packets[group.first].clone());
                continue;
            };
            group.header(&bufs, &mut header);
            let mut whole = header.clone();
            coalescer.members(group).for_each(|i| whole.extend_from_slice(&packets[i][layout.payload..]));
            let segments = Segments::new(&whole, layout.transport, size, layout.header).unwrap();
            assert_eq!(segments.count(), group.count);
            let mut buf = Buf::with_capacity(65_535);
            for i in 0..segments.count() {
                assert!(segments.write(i, &mut buf));
                out.push(buf.bytes().to_vec());
            }
        }
        (out, order)
    }

    fn with_id(mut packet: Vec<u8>, id: u16) -> Vec<u8> {
        put16(&mut packet, 4, id);
        with_checksum(packet)
    }

    fn stream4(n: usize, size: usize) -> Vec<Vec<u8>> {
        let segment = |i: usize| with_id(tcp4((i * size) as u32, ACK, &vec![i as u8; size]), 100 + i as u16);
        (0..n).map(segment).collect()
    }

    #[test]
    fn a_stream_is_one_until_it_is_pushed_or_short() {
        let mut stream = stream4(4, 100);
        stream[2] = with_id(tcp4(200, ACK | PSH, &[2; 100]), 102);
        assert_eq!(counts(&stream, ALL), [3, 1]);
        assert_eq!(counts(&stream, Allow { tcp: false, udp: true }), [1; 4]);
        let mut stream = stream4(4, 100);
        stream[1] = with_id(tcp4(100, ACK, &[1; 99]), 101);
        assert_eq!(counts(&stream, ALL), [2, 2], "a shorter one is the last");
    }

    #[test]
    fn streams_may_be_mixed_and_keep_their_order() {
        let six = |i: usize| tcp6((i * 50) as u32, ACK, &[i as u8; 50]);
        let four = stream4(2, 100);
        let mixed = [four[0].clone(), six(0), four[1].clone(), six(1), six(3), six(2)];
        let mut coalescer = Coalescer::default();
        let groups = coalescer.run(&bufs(&mixed), ALL).to_vec();
        let members: Vec<Vec<usize>> = groups.iter().map(|g| coalescer.members(g).collect()).collect();
        assert_eq!(members, [vec![0, 2], vec![1, 3], vec![4], vec![5]]);
    }

    /// Each change of the second packet that cutting would not restore keeps it alone.
    #[test]
    fn what_could_not_be_restored_is_left_alone() {
        let (a, b) = (tcp4(0, ACK, &[1; 20]), with_id(tcp4(20, ACK, &[2; 20]), 101));
        assert_eq!(counts(&[a.clone(), b.clone()], ALL), [2]);
        // TOS, ID, DF, TTL, ack, reserved bits, FIN, SYN, ECE, CWR, window, urgent pointer, option.
        let changes: [(usize, u8); 13] = [
            (1, 4),
            (5, 3),
            (6, 0x40),
            (8, 1),
            (31, 1),
            (32, 2),
            (33, 1),
            (33, 2),
            (33, 64),
            (33, 128),
            (35, 1),
            (39, 1),
            (43, 5),
        ];
        for (at, bit) in changes {
            let mut changed = b.clone();
            changed[at] ^= bit;
            assert_eq!(counts(&[a.clone(), with_checksum(changed)], ALL), [1, 1], "byte {at}");
        }
        for (at, what) in [(10, "IPv4 checksum"), (36, "TCP checksum"), (50, "payload")] {
            for broken in [0, 1] {
                let mut pair = [a.clone(), b.clone()];
                pair[broken][at] ^= 1;
                assert_eq!(counts(&pair, ALL), [1, 1], "{what} of {broken}");
            }
        }
        let gap = with_id(tcp4(21, ACK, &[2; 20]), 101);
        assert_eq!(counts(&[a.clone(), gap], ALL), [1, 1]);
        let bare = with_id(tcp4(20, ACK, b""), 101);
        assert_eq!(
            counts(&[a.clone(), bare, b.clone()], ALL),
            [1, 1, 1],
            "nothing goes past a packet of its flow"
        );
        let longer = with_id(tcp4(20, ACK, &[2; 21]), 101);
        assert_eq!(counts(&[a, longer], ALL), [1, 1]);
    }

    #[test]
    fn the_other_way_to_write_a_checksum_of_zero_is_left_alone() {
        let (a, b) = (tcp4(0, ACK, &[0; 20]), with_id(tcp4(20, ACK, &[0; 20]), 101));
        let mut zero = b.clone();
        // The checksum, added to what is summed, makes the next one 0.
        let sum = [b[36], b[37]];
        zero[50..52].copy_from_slice(&sum);
        let mut zero = with_checksum(zero);
        assert_eq!(zero[36..38], [0, 0]);
        assert_eq!(counts(&[a.clone(), zero.clone()], ALL), [2]);
        zero[36..38].fill(0xff);
        assert_eq!(counts(&[a, zero], ALL), [1, 1]);
    }

    #[test]
    fn datagrams_without_a_checksum_are_left_alone() {
        let with = with_checksum(udp6("2001:db8::1", "2001:db8::2", 1, 2, 100));
        let without = udp6("2001:db8::1", "2001:db8::2", 1, 2, 100);
        assert_eq!(counts(&[with.clone(), with.clone()], ALL), [2]);
        assert_eq!(counts(&[without.clone(), without], ALL), [1, 1]);
        assert_eq!(counts(&vec![with; 65], ALL), [64, 1]);
    }

    #[test]
    fn a_super_packet_is_an_ip_packet() {
        assert_eq!(counts(&stream4(50, 1400), ALL), [46, 4]);
    }

    /// A packet of one of a few flows; most continue their flow, some break a rule.
    #[derive(Clone, Debug)]
    struct Step {
        flow: usize,
        len: usize,
        flags: u8,
        spoil: Option<(usize, u8, bool)>,
    }

    fn step() -> impl Strategy<Value = Step> {
        let flags = prop::sample::select(vec![ACK, ACK, ACK, ACK, ACK | PSH, ACK | flag::FIN, 2, ACK | 64]);
        let len = prop::sample::select(vec![0usize, 7, 100, 100, 100, 100, 101]);
        let spoil = proptest::option::weighted(0.2, (0usize..60, any::<u8>(), any::<bool>()));
        (0usize..4, len, flags, spoil).prop_map(|(flow, len, flags, spoil)| Step { flow, len, flags, spoil })
    }

    proptest! {
        #[test]
        fn cutting_restores_what_was_joined(steps in proptest::collection::vec(step(), 0..80)) {
            let (mut seq, mut id) = ([0u32; 4], 0u16);
            let packets: Vec<Vec<u8>> = steps.iter().enumerate().map(|(i, step)| {
                let payload: Vec<u8> = (0..step.len).map(|n| (n + i) as u8).collect();
                let mut p = match step.flow {
                    0 => with_id(tcp4(seq[0], step.flags, &payload), id),
                    1 => tcp6(seq[1], step.flags, &payload),
                    flow => {
                        let mut p = udp6("2001:db8::1", "2001:db8::2", 9, flow as u16, 48 + step.len);
                        p[48..].copy_from_slice(&payload);
                        with_checksum(p)
                    }
                };
                id = id.wrapping_add(u16::from(step.flow == 0));
                seq[step.flow] = seq[step.flow].wrapping_add(step.len as u32);
                if let Some((at, value, repair)) = step.spoil {
                    if at < p.len() { p[at] ^= value; }
                    // The helper takes only what is TCP or UDP without options.
                    if repair && Layout::read(&p).is_some_and(|l| l.header == if l.v6 { 40 } else { 20 }) {
                        p = with_checksum(p);
                    }
                }
                p
            }).collect();
            let (out, order) = there_and_back(&packets);
            let expect: Vec<Vec<u8>> = order.iter().map(|i| packets[*i].clone()).collect();
            prop_assert_eq!(out, expect, "every packet is what it was");
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..packets.len()).collect::<Vec<_>>(), "each once");
            for flow in 0..4 {
                let of: Vec<usize> = order.iter().copied().filter(|i| steps[*i].flow == flow && steps[*i].spoil.is_none()).collect();
                prop_assert!(of.is_sorted(), "flow {} in order", flow);
            }
        }

        #[test]
        fn nothing_panics(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let groups = counts(&packets, ALL);
            prop_assert_eq!(groups.iter().sum::<usize>(), packets.len());
        }
    }
}
