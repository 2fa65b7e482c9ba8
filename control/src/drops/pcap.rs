//! Records as a capture file: pcapng, one interface a device, a comment on each packet.

use super::frame::Frame;
use super::text;
use crate::protocol::DropRecord;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use std::io::{self, Write};
use std::time::Duration;

/// Timestamps are in 10⁻⁹ s.
const NANOSECONDS: u8 = 9;
/// Bits of a packet's flags: which way it went.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Writes a capture.
pub(super) struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// The devices that have an interface, in the order of their numbers.
    devices: Vec<String>,
}

impl<W: Write> Capture<W> {
    /// Starts the file.
    pub(super) fn new(to: W) -> io::Result<Self> {
        let program = concat!("uvti ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(to, section).map_err(failed)?;
        Ok(Self { writer, devices: Vec::new() })
    }

    /// Appends a packet.
    pub(super) fn write(&mut self, record: &DropRecord) -> io::Result<()> {
        let frame = Frame::of(record);
        let way = if record.reason.starts_with("rx") { INBOUND } else { OUTBOUND };
        let packet = EnhancedPacketBlock {
            interface_id: self.interface(&record.device)?,
            timestamp: Duration::from_nanos(record.time),
            original_len: frame.len as u32,
            data: frame.bytes.into(),
            options: vec![
                EnhancedPacketOption::Comment(text::comment(record).into()),
                EnhancedPacketOption::Flags(way),
            ],
        };
        self.writer.write_pcapng_block(packet).map_err(failed).map(drop)
    }

    /// What was written is for others to read.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// The number of a device's interface, which is described before its first packet.
    fn interface(&mut self, device: &str) -> io::Result<u32> {
        if let Some(i) = self.devices.iter().position(|d| d == device) {
            return Ok(i as u32);
        }
        let description = match device {
            "-" => "packets that met no VTI".to_owned(),
            name => format!("packets that VTI {name} dropped"),
        };
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(device.to_owned().into()),
                InterfaceDescriptionOption::IfDescription(description.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(failed)?;
        self.devices.push(device.to_owned());
        Ok(self.devices.len() as u32 - 1)
    }
}

fn failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TIME, esp_record, record};
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    #[test]
    fn a_capture_has_an_interface_a_device_and_a_comment_a_packet() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        let records = [record(), DropRecord { device: "-".into(), ..esp_record() }, record()];
        records.iter().for_each(|r| capture.write(r).unwrap());
        capture.flush().unwrap();
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let (mut names, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap().into_owned() {
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.linktype, DataLink::RAW);
                    names.extend(interface.options.into_iter().find_map(|o| match o {
                        InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => packets.push(packet),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, ["vti0", "-"]);
        let interfaces: Vec<u32> = packets.iter().map(|p| p.interface_id).collect();
        assert_eq!(interfaces, [0, 1, 0]);
        assert_eq!(packets[0].timestamp, Duration::from_nanos(TIME));
        assert_eq!(*packets[0].data, *records[0].packet);
        assert_eq!(packets[1].data[20..], records[1].packet[..]);
        let comment = EnhancedPacketOption::Comment(text::comment(&records[1]).into());
        assert_eq!(packets[1].options, [comment, EnhancedPacketOption::Flags(INBOUND)]);
    }
}
