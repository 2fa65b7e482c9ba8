//! IP packets out of a capture. The file is not trusted: what is read of it is bounded, and nothing in it is believed.

use anyhow::{Context, Result, bail, ensure};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Packets explained of one capture, when none is named.
const MOST_PACKETS: u64 = 1000;
/// Bytes of a capture that are read.
const MOST_BYTES: u64 = 1 << 30;

/// A packet from its IP header on, or why it has none; with its number from 1.
pub(super) type Packet = (u64, Result<Vec<u8>, String>);

/// The packets of a file; with `only`, that one.
pub(super) fn read(path: &Path, only: Option<u64>) -> Result<Vec<Packet>> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let packets = packets(BufReader::new(file.take(MOST_BYTES)), only).with_context(name)?;
    match only {
        Some(number) if packets.is_empty() => bail!("{}: there is no packet {number}", name()),
        _ if packets.is_empty() => bail!("{}: there is no packet in it", name()),
        _ => Ok(packets),
    }
}

/// The packets of what a file contains.
pub(super) fn packets(mut file: impl BufRead, only: Option<u64>) -> Result<Vec<Packet>> {
    let magic = file.fill_buf()?.first_chunk::<4>().copied().unwrap_or_default();
    let mut wanted = Wanted { only, number: 0, packets: Vec::new() };
    // A pcapng starts with a section header block, in either byte order.
    match magic {
        [0x0a, 0x0d, 0x0d, 0x0a] => pcapng(file, &mut wanted)?,
        _ => pcap(file, &mut wanted)?,
    }
    Ok(wanted.packets)
}

fn pcap(file: impl Read, wanted: &mut Wanted) -> Result<()> {
    let mut reader = PcapReader::new(file).context("neither pcap nor pcapng")?;
    let link = reader.header().datalink;
    while let Some(packet) = reader.next_packet() {
        if wanted.take(link, &packet.context("the capture is damaged")?.data) {
            break;
        }
    }
    Ok(())
}

fn pcapng(file: impl Read, wanted: &mut Wanted) -> Result<()> {
    let mut reader = PcapNgReader::new(file).context("neither pcap nor pcapng")?;
    loop {
        let (interface, data) = match reader.next_block() {
            None => return Ok(()),
            Some(block) => match block.context("the capture is damaged")? {
                Block::EnhancedPacket(packet) => (packet.interface_id, packet.data.into_owned()),
                Block::SimplePacket(packet) => (0, packet.data.into_owned()),
                _ => continue,
            },
        };
        let link = reader.interfaces().get(interface as usize).map(|i| i.linktype);
        if wanted.take(link.context("a packet of an interface that is not described")?, &data) {
            return Ok(());
        }
    }
}

/// The packets that are wanted, as they come.
struct Wanted {
    only: Option<u64>,
    number: u64,
    packets: Vec<Packet>,
}

impl Wanted {
    /// Takes the next packet; whether that was the last one wanted.
    fn take(&mut self, link: DataLink, frame: &[u8]) -> bool {
        self.number += 1;
        if self.only.is_none_or(|only| only == self.number) {
            let packet = strip(link, frame).map(<[u8]>::to_vec).map_err(|e| e.to_string());
            self.packets.push((self.number, packet));
        }
        self.number >= self.only.unwrap_or(MOST_PACKETS)
    }
}

/// Takes the link layer off.
fn strip(link: DataLink, frame: &[u8]) -> Result<&[u8]> {
    // https://www.tcpdump.org/linktypes.html: 12, 14 and 101 are RAW, 228 and 229 one IP version only.
    let (kind, packet) = match u32::from(link) {
        12 | 14 | 101 | 228 | 229 => return Ok(frame),
        1 => ethernet(frame),
        113 => typed(frame, 14, 16),
        276 => typed(frame, 0, 20),
        other => bail!("link type {other} is not known (Ethernet, raw IP and Linux cooked are)"),
    }
    .context("shorter than its link header")?;
    ensure!(matches!(kind, IPV4 | IPV6), "no IP packet (type {kind:#06x})");
    Ok(packet)
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];

fn ethernet(frame: &[u8]) -> Option<(u16, &[u8])> {
    let (mut at, mut kind) = (14, word(frame, 12)?);
    while VLAN.contains(&kind) {
        kind = word(frame, at + 2)?;
        at += 4;
    }
    Some((kind, frame.get(at..)?))
}

fn typed(frame: &[u8], kind: usize, header: usize) -> Option<(u16, &[u8])> {
    Some((word(frame, kind)?, frame.get(header..)?))
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use proptest::prelude::*;
    use std::time::Duration;

    const IP: [u8; 20] = [0x45; 20];

    fn old(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let header = PcapHeader { datalink: link.into(), ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for frame in frames {
            writer.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, frame)).unwrap();
        }
        writer.into_writer()
    }

    fn new(link: u32, frame: &[u8]) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let interface = InterfaceDescriptionBlock { linktype: link.into(), snaplen: 0, options: vec![] };
        writer.write_pcapng_block(interface).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: frame.len() as u32,
            data: frame.into(),
            options: vec![],
        };
        writer.write_pcapng_block(packet).unwrap();
        writer.into_inner()
    }

    #[test]
    fn every_link_type_comes_off() {
        let ethernet = [&[0; 12][..], &[8, 0], &IP].concat();
        let vlan = [&[0; 12][..], &[0x81, 0, 0, 7, 8, 0], &IP].concat();
        let cooked = [&[0; 14][..], &[8, 0], &IP].concat();
        let cooked2 = [&[8, 0][..], &[0; 18], &IP].concat();
        for (link, frame) in [(101, IP.to_vec()), (1, ethernet), (1, vlan), (113, cooked), (276, cooked2)] {
            for file in [old(link, std::slice::from_ref(&frame)), new(link, &frame)] {
                assert_eq!(packets(&file[..], None).unwrap(), [(1, Ok(IP.to_vec()))], "{link}");
            }
        }
    }

    #[test]
    fn one_packet_by_its_number_and_others_named() {
        let arp = [&[0; 12][..], &[8, 6], &[0; 28]].concat();
        let ip = [&[0; 12][..], &[8, 0], &IP].concat();
        let file = old(1, &[arp, ip, vec![0; 5]]);
        assert_eq!(packets(&file[..], Some(2)).unwrap(), [(2, Ok(IP.to_vec()))]);
        let all = packets(&file[..], None).unwrap();
        assert_eq!(all[0].1, Err("no IP packet (type 0x0806)".to_owned()));
        assert_eq!(all[2].1, Err("shorter than its link header".to_owned()));
        assert_eq!(packets(&file[..], Some(4)).unwrap(), []);
        assert!(packets(&b"#!/bin/sh"[..], None).is_err());
        assert!(packets(&file[..file.len() - 1], None).is_err(), "a capture that ends too early");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_hostile_file_does_no_harm(
            which in 0..3,
            at in any::<prop::sample::Index>(),
            bytes in prop::collection::vec(any::<u8>(), 1..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut file = match which {
                0 => old(1, &vec![[&[0; 12][..], &[8, 0], &IP].concat(); 3]),
                1 => new(1, &[&[0; 12][..], &[8, 0], &IP].concat()),
                _ => Vec::new(),
            };
            let at = at.index(file.len() + 1);
            file.splice(at..(at + bytes.len()).min(file.len()), bytes);
            file.truncate(cut.index(file.len() * 2).min(file.len()));
            let _ = packets(&file[..], None);
        }
    }
}
