//! The rules for what a VTI puts on the wire: each ESP packet is opened, and its outer header held against the
//! packet inside.
//!
//! kernel: measured on Linux 6.1 and 6.12, see ARCHITECTURE.md

use crate::capture::{EspPacket, Frame};
use crate::esp::{Key, Opened};
use crate::frame::Ipv4;
use crate::sys::Way;
use std::net::Ipv4Addr;

/// One direction of a tunnel, as it must look.
#[derive(Debug)]
pub struct Stream<'a> {
    /// Which way it passes the capture.
    pub way: Way,
    /// Outer source.
    pub src: Ipv4Addr,
    /// Outer destination.
    pub dst: Ipv4Addr,
    /// UDP ports, for ESP in UDP.
    pub ports: Option<(u16, u16)>,
    /// The SA's SPI.
    pub spi: u32,
    /// The SA's key.
    pub key: &'a Key,
    /// How many packets the sender's link has counted.
    pub packets: u64,
}

/// What is wrong with the packets of one direction; of each kind of fault the first is told.
pub fn check_stream(frames: &[Frame], stream: &Stream<'_>) -> Vec<String> {
    let packets: Vec<EspPacket> =
        frames.iter().filter(|frame| frame.way == stream.way).filter_map(EspPacket::parse).collect();
    let mut faults = Faults::default();
    if packets.len() as u64 != stream.packets {
        faults
            .add("count", format!("{} ESP packets, but the link counted {}", packets.len(), stream.packets));
    }
    let mut salt = None;
    let mut last_id = None;
    for (index, packet) in packets.iter().enumerate() {
        let sequence = index as u32 + 1;
        let Some(opened) = stream.key.open(&packet.esp) else {
            faults.add("crypto", format!("packet {sequence} does not open with the SA's key"));
            continue;
        };
        if packet.sequence() != sequence {
            faults.add("sequence", format!("packet {sequence} has sequence number {}", packet.sequence()));
        }
        // kernel: crypto/seqiv.c: the IV is the sequence number, XORed with what was drawn for the SA.
        if *salt.get_or_insert(opened.iv ^ u64::from(opened.sequence))
            != opened.iv ^ u64::from(opened.sequence)
        {
            faults.add("iv", format!("packet {sequence}: the IV {:#x} is not salt XOR sequence", opened.iv));
        }
        addresses(packet, stream, sequence, &mut faults);
        trailer(&opened, sequence, &mut faults);
        outer_header(&packet.outer, &opened, sequence, &mut faults);
        if !packet.outer.df {
            let step = packet.outer.id.wrapping_sub(last_id.unwrap_or(packet.outer.id.wrapping_sub(1)));
            if step == 0 || step > 0x7fff {
                faults.add("id", format!("packet {sequence}: ID {} after {last_id:?}", packet.outer.id));
            }
            last_id = Some(packet.outer.id);
        }
    }
    faults.texts()
}

fn addresses(packet: &EspPacket, stream: &Stream<'_>, sequence: u32, faults: &mut Faults) {
    let (outer, ports) = (&packet.outer, packet.ports);
    if (outer.src, outer.dst, ports, packet.spi()) != (stream.src, stream.dst, stream.ports, stream.spi) {
        faults.add("address", format!("packet {sequence}: {outer:?} {ports:?} SPI {:#x}", packet.spi()));
    }
    let carried = if ports.is_some() { 28 } else { 20 } + packet.esp.len();
    if usize::from(outer.length) != carried {
        faults.add("length", format!("packet {sequence}: total length {} for {carried} bytes", outer.length));
    }
}

/// RFC 4303 §2.4: padded with 1, 2, 3… to a multiple of four, and no further.
fn trailer(opened: &Opened, sequence: u32, faults: &mut Faults) {
    let counting = opened.padding.iter().zip(1..).all(|(&byte, expected)| byte == expected);
    let least = (opened.inner.len() + 2).next_multiple_of(4) - opened.inner.len() - 2;
    if !counting || opened.padding.len() != least {
        faults.add("padding", format!("packet {sequence}: padding {:?}", opened.padding));
    }
    let version = opened.inner.first().map_or(0, |byte| byte >> 4);
    if !matches!((opened.next_header, version), (4, 4) | (41, 6)) {
        faults.add("inner", format!("packet {sequence}: next header {}, IP {version}", opened.next_header));
    }
}

/// kernel: net/ipv4/xfrm4_mode_tunnel.c and its successors in net/xfrm/xfrm_output.c
fn outer_header(outer: &Ipv4, opened: &Opened, sequence: u32, faults: &mut Faults) {
    let (tos, df) = match (opened.next_header, opened.inner.as_slice()) {
        (4, [_, tos, _, _, _, _, flags, ..]) => (*tos, flags & 0x40 != 0),
        (_, [first, second, ..]) => ((first << 4) | (second >> 4), true),
        _ => return,
    };
    // Congestion experienced is not copied outward: it becomes ECT(0).
    let expected_tos = if tos & 3 == 3 { tos & !1 } else { tos };
    if outer.tos != expected_tos {
        faults.add("tos", format!("packet {sequence}: TOS {:#x}, the inner one is {tos:#x}", outer.tos));
    }
    if outer.df != df {
        faults.add("df", format!("packet {sequence}: DF {}, the inner one is {df}", outer.df));
    }
    if outer.ttl != 64 {
        faults.add("ttl", format!("packet {sequence}: TTL {}", outer.ttl));
    }
    if outer.df && outer.id != 0 {
        faults.add("id with DF", format!("packet {sequence}: ID {}", outer.id));
    }
}

/// Faults by kind: the first of each, and how many there were.
#[derive(Default)]
struct Faults(std::collections::BTreeMap<&'static str, (String, u64)>);

impl Faults {
    fn add(&mut self, kind: &'static str, text: String) {
        self.0.entry(kind).or_insert((text, 0)).1 += 1;
    }

    fn texts(self) -> Vec<String> {
        self.0.into_iter().map(|(kind, (first, count))| format!("{kind}: {first} ({count} such)")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::Suite;
    use crate::frame::{ESP, ETH_IPV4, UDP};

    /// A rule that finds nothing proves nothing: each planted fault must be found, and a clean packet must pass.
    #[test]
    fn planted_faults_are_found() {
        let (src, dst) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
        let key = Key::counting(Suite::Gcm128, 1);
        let inner = Ipv4 { tos: 0xbb, df: true, ..Ipv4::new(src, dst, UDP) }.packet(&[0; 33]);
        let clean = Ipv4 { tos: 0xba, df: true, ..Ipv4::new(src, dst, ESP) };
        let faults = |outer: Ipv4, spi: u32, sequence: u32| {
            let packet = outer.packet(&key.seal(spi, sequence, &inner, 4));
            let frames = [Frame { way: Way::In, kind: ETH_IPV4, packet }];
            let stream = Stream { way: Way::In, src, dst, ports: None, spi: 0x100, key: &key, packets: 1 };
            check_stream(&frames, &stream)
        };
        assert_eq!(faults(clean, 0x100, 1), Vec::<String>::new());
        for (kind, found) in [
            ("tos", faults(Ipv4 { tos: 0xbb, ..clean }, 0x100, 1)),
            ("df", faults(Ipv4 { df: false, ..clean }, 0x100, 1)),
            ("ttl", faults(Ipv4 { ttl: 63, ..clean }, 0x100, 1)),
            ("id with DF", faults(Ipv4 { id: 9, ..clean }, 0x100, 1)),
            ("address", faults(Ipv4 { src: dst, ..clean }, 0x100, 1)),
            ("address", faults(clean, 0x101, 1)),
            ("sequence", faults(clean, 0x100, 2)),
        ] {
            assert!(found.iter().any(|text| text.starts_with(&format!("{kind}: "))), "{kind}: {found:?}");
        }
    }
}
