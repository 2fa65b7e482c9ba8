//! Bursts from the wire and from the host, on a tunnel with everything right.

use super::{Input, plant};
use std::sync::Arc;
use uvti_core::packet::{Buf, Incoming, Outer, UdpPorts};
use uvti_core::tables::Snapshot;
use uvti_core::vti::testing::{
    IN, Lab, NOW, OUT, SPI_IN, SPI_OUT, VTI, aes_cbc_hmac_sha1, chacha20_poly1305, ip,
};
use uvti_core::vti::{Receiver, RxSlot, RxVerdict, Transmitter, TxSlot, TxVerdict, explain};
use uvti_core::xfrm::{Encap, EncapKind, Limits, StateFlags};

/// Most packets of a burst.
const MOST: usize = 12;

/// A tunnel, as the low bits of a byte say.
fn lab(kind: u8) -> Lab {
    let (local, remote) = (ip("198.51.100.1"), ip("198.51.100.2"));
    let mut lab = match kind & 3 {
        0 => Lab::vti(),
        1 => Lab::vti6(),
        2 => Lab::between(local, remote, chacha20_poly1305()),
        _ => Lab::between(local, remote, aes_cbc_hmac_sha1()),
    };
    for state in &mut lab.states {
        state.replay_window = if kind & 8 != 0 { 32 } else { 0 };
        if kind & 4 != 0 {
            let original = if state.dst.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
            state.encap = Some(Encap { kind: EncapKind::EspInUdp, sport: 4500, dport: 4500, original });
        }
        if kind & 16 != 0 {
            (state.flags.0, state.replay_window) = (state.flags.0 | StateFlags::ESN, 64);
        }
        if kind & 32 != 0 {
            state.limits = Limits { hard_packets: 5, soft_packets: 3, ..Limits::NONE };
        }
    }
    lab
}

/// ESP in: what a peer with the right keys seals around anything, spoilt or not, and what has no key at all.
///
/// One burst and its packets one by one are the same; what is delivered is what was sealed.
pub(super) fn esp_in(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    let lab = lab(kind);
    let peer = lab.peer();
    let mut arrivals: Vec<(Buf, Outer, Option<&[u8]>)> = Vec::new();
    while !input.is_empty() && arrivals.len() < MOST {
        let (how, seq, next_header, tos) = (input.byte(), input.byte(), input.byte(), input.byte());
        let len = input.word() % 1600;
        let inner = input.take(len);
        let udp = (kind & 4 != 0) ^ (how & 1 != 0);
        let udp = udp.then_some(UdpPorts { src: 4500, dst: 4500 });
        let outer = Outer { tos, udp, ..peer.outer };
        let mut peer = peer.clone();
        peer.next_header = next_header;
        let mut buf = match how & 2 {
            0 => peer.esp(seq.into(), inner),
            _ => Buf::from_packet(inner),
        };
        let spoilt = match buf.bytes_mut().get_mut(usize::from(how >> 2)) {
            Some(byte) if how >> 2 != 0 => {
                *byte ^= 1 << (seq & 7);
                true
            }
            _ => false,
        };
        arrivals.push((buf, outer, (!spoilt && how & 2 == 0).then_some(inner)));
    }
    let slot = |(buf, outer, _): &(Buf, Outer, _)| {
        RxSlot::new(Incoming { buf: Buf::from_packet(buf.bytes()), outer: *outer })
    };
    let tables = lab.tables();
    let mut burst: Vec<RxSlot> = arrivals.iter().map(slot).collect();
    Receiver::default().run(&tables, &mut burst, 0, NOW);

    let tables = lab.tables();
    let mut receiver = Receiver::default();
    for (whole, arrival) in burst.iter().zip(&arrivals) {
        let mut alone = [slot(arrival)];
        receiver.run(&tables, &mut alone, 0, NOW);
        assert_eq!(fate(whole), fate(&alone[0]), "in a burst, and alone");
        assert_eq!(whole.buf.bytes(), alone[0].buf.bytes());
        if let RxVerdict::Deliver { .. } = whole.verdict {
            let len = whole.len;
            let sealed = arrival.2.expect("only what was sealed with the key, and not spoilt, is delivered");
            let inner = whole.buf.bytes();
            assert!(inner.len() <= len && len == sealed.len(), "{} {len} {}", inner.len(), sealed.len());
            // The TOS and IPv4's checksum may say that there was congestion on the way.
            let body = if inner[0] >> 4 == 4 { 12 } else { 2 };
            assert_eq!(inner[body..], sealed[body..inner.len()]);
            plant(inner[0] >> 4 == 4 && inner[8] == 153);
        }
    }
}

/// What became of a packet: its length, or the reason.
fn fate(slot: &RxSlot) -> Result<usize, &'static str> {
    match &slot.verdict {
        RxVerdict::Deliver { .. } => Ok(slot.len),
        RxVerdict::Drop(drop) => Err(drop.reason.row().name),
        other => panic!("no verdict: {other:?}"),
    }
}

/// Inner packets out: whatever the host sends into the device is sent or dropped by a reason, in a burst as alone, and
/// the far end gets out what went in.
pub(super) fn inner_out(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    let lab = lab(kind & !8);
    let mut packets: Vec<&[u8]> = Vec::new();
    while !input.is_empty() && packets.len() < MOST {
        let len = input.word() % 1600;
        packets.push(input.take(len));
    }
    let mut burst: Vec<TxSlot> = packets.iter().map(|p| TxSlot::new(Buf::from_packet(p))).collect();
    send(&lab.tables(), &mut Transmitter::default(), &mut burst);

    let far = far_end(&lab);
    let (near_tables, far_tables) = (lab.tables(), far.tables());
    let (mut transmitter, mut receiver) = (Transmitter::default(), Receiver::default());
    for (slot, packet) in burst.iter().zip(&packets) {
        let mut alone = [TxSlot::new(Buf::from_packet(packet))];
        send(&near_tables, &mut transmitter, &mut alone);
        assert_eq!(slot.buf.bytes(), alone[0].buf.bytes(), "in a burst, and alone");
        match (&slot.verdict, &alone[0].verdict) {
            (TxVerdict::Drop(a), TxVerdict::Drop(b)) => {
                assert_eq!(a.reason, b.reason);
                assert_eq!(slot.buf.bytes(), *packet, "what is dropped is as it was");
            }
            (TxVerdict::Send { .. }, TxVerdict::Send { .. }) => {
                let incoming = explain::incoming(&far_tables, slot.buf.bytes()).expect("an outer packet");
                let mut got = [RxSlot::new(incoming)];
                receiver.run(&far_tables, &mut got, 0, NOW);
                assert!(matches!(got[0].verdict, RxVerdict::Deliver { .. }), "{:?}", got[0].verdict);
                let inner = got[0].buf.bytes();
                assert_eq!(inner, &packet[..inner.len()]);
                plant(inner[0] >> 4 == 6 && inner[6] == 44);
            }
            other => panic!("verdicts differ, or there is none: {other:?}"),
        }
    }
}

fn send(tables: &Arc<Snapshot>, transmitter: &mut Transmitter, burst: &mut [TxSlot]) {
    let device = tables.devices.by_ifindex(VTI).expect("vti0").clone();
    transmitter.run(tables, &device, burst, 0, NOW);
}

/// The tunnel as its other end has it, with no limits.
fn far_end(lab: &Lab) -> Lab {
    let (device, out) = (&lab.devices[0].spec, &lab.states[OUT]);
    let mut far = Lab::between(device.remote, device.local, out.algs.clone());
    (far.states[OUT].spi, far.states[IN].spi) = (SPI_IN, SPI_OUT);
    far.states[IN].encap = out.encap;
    (far.states[IN].flags, far.states[IN].replay_window) = (out.flags, 64);
    far
}
