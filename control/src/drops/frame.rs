//! A recorded packet as an IP packet, and in one line.

use crate::ip::parse::protocol_name;
use crate::protocol::DropRecord;
use std::net::IpAddr;
use uvti_core::esp::peek;
use uvti_core::packet::{Buf, Inner, OuterHeader, PerPacket, UDP_HEADER, UdpPorts, proto};

/// The UDP port of ESP in UDP. RFC 3948 §2.1
const NAT_T: u16 = 4500;

/// An IP packet, as far as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// From the IP header on.
    pub(super) bytes: Vec<u8>,
    /// Length of the whole packet, bytes.
    pub(super) len: usize,
}

impl Frame {
    /// The packet of a record. An outer header that the socket took off is rebuilt: addresses, TOS and ports are the
    /// packet's; TTL, identification and DF are not known.
    pub(super) fn of(record: &DropRecord) -> Frame {
        let bare = || Frame { bytes: record.packet.to_vec(), len: record.len };
        let Some(outer) = record.outer else { return bare() };
        // As long as the whole packet, for the length fields; what was not kept goes again.
        let mut buf = Buf::with_capacity(record.len);
        buf.fill(&record.packet);
        buf.set_len(record.len);
        let udp = outer.udp.map(|(src, dst)| UdpPorts { src, dst });
        let packet = PerPacket { tos: outer.tos, ..PerPacket::default() };
        let pushed = OuterHeader::new(outer.src, outer.dst, udp).and_then(|h| h.push(&mut buf, packet));
        if pushed.is_err() {
            return bare();
        }
        let len = buf.len();
        buf.truncate(len - record.len.saturating_sub(record.packet.len()));
        Frame { bytes: buf.bytes().to_vec(), len }
    }

    /// In one line: `10.1.0.2.40000 > 10.2.0.2.5000 UDP len 1400 DF`.
    pub(super) fn line(&self) -> String {
        let Ok(inner) = Inner::dissect(&self.bytes) else { return format!("not IP, len {}", self.len) };
        let flow = inner.flow;
        let fragment = self.is_fragment(&inner);
        let has_ports =
            matches!(flow.proto, proto::TCP | proto::UDP | proto::SCTP | proto::DCCP) && !fragment;
        let end = |address: IpAddr, port: u16| match has_ports {
            true => format!("{address}.{port}"),
            false => address.to_string(),
        };
        let mut words = vec![end(flow.src, flow.sport), ">".into(), end(flow.dst, flow.dport)];
        words.push(match protocol_name(flow.proto) {
            number if number.parse::<u8>().is_ok() => format!("proto {number}"),
            name => name.to_uppercase(),
        });
        if matches!(flow.proto, proto::ICMP | proto::ICMPV6) && !fragment {
            words.push(format!("type {} code {}", flow.sport, flow.dport));
        }
        words.extend(self.esp(&inner, fragment));
        words.push(format!("len {}", self.len));
        if fragment {
            words.push("fragment".into());
        }
        if inner.df && flow.src.is_ipv4() {
            words.push("DF".into());
        }
        words.join(" ")
    }

    /// SPI and sequence number, if it carries ESP. RFC 3948 §2.2: an SPI of 0 is not ESP but IKE.
    fn esp(&self, inner: &Inner, fragment: bool) -> Option<String> {
        let flow = &inner.flow;
        let (prefix, at) = match flow.proto {
            _ if fragment => return None,
            proto::ESP => ("", inner.payload),
            proto::UDP if flow.sport == NAT_T || flow.dport == NAT_T => ("ESP ", inner.payload + UDP_HEADER),
            _ => return None,
        };
        let (spi, seq) = peek(self.bytes.get(at..)?)?;
        (prefix.is_empty() || spi.0 != 0).then(|| format!("{prefix}spi {spi} seq {seq}"))
    }

    fn is_fragment(&self, inner: &Inner) -> bool {
        let first = inner.flow.src.is_ipv4() && self.bytes.get(6).is_some_and(|b| b & 0x20 != 0);
        inner.later_fragment || first
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{esp_record, record};
    use super::*;
    use uvti_core::packet::{checksum, testing};

    fn line(packet: Vec<u8>) -> String {
        Frame { len: packet.len(), bytes: packet }.line()
    }

    #[test]
    fn a_line_has_what_decides() {
        let udp = testing::udp4("10.1.0.2", "10.2.0.2", 40000, 5000, 1400);
        assert_eq!(line(udp.clone()), "10.1.0.2.40000 > 10.2.0.2.5000 UDP len 1400");
        let mut df = udp.clone();
        df[6] = 0x40;
        assert_eq!(line(df), "10.1.0.2.40000 > 10.2.0.2.5000 UDP len 1400 DF");
        let mut fragment = udp.clone();
        fragment[6] = 0x20;
        assert_eq!(line(fragment), "10.1.0.2 > 10.2.0.2 UDP len 1400 fragment");
        let mut ping = udp.clone();
        ping[9] = 1;
        ping[20..22].copy_from_slice(&[8, 0]);
        assert_eq!(line(ping), "10.1.0.2 > 10.2.0.2 ICMP type 8 code 0 len 1400");
        let mut odd = udp;
        odd[9] = 253;
        assert_eq!(line(odd), "10.1.0.2 > 10.2.0.2 proto 253 len 1400");
        let six = testing::udp6("2001:db8::1", "2001:db8::2", 1, 2, 100);
        assert_eq!(line(six), "2001:db8::1.1 > 2001:db8::2.2 UDP len 100");
        assert_eq!(line(vec![0; 9]), "not IP, len 9");
        assert_eq!(line(vec![]), "not IP, len 0");
    }

    #[test]
    fn esp_gets_its_outer_header_back() {
        let mut record = esp_record();
        let frame = Frame::of(&record);
        assert_eq!(frame.bytes[20..], record.packet[..]);
        assert_eq!(checksum(&frame.bytes[..20]), 0);
        assert_eq!(frame.line(), "198.51.100.2 > 198.51.100.1 ESP spi 0x00000200 seq 7 len 120");
        record.outer.as_mut().unwrap().udp = Some((4500, 4500));
        let frame = Frame::of(&record);
        assert_eq!(frame.bytes[28..], record.packet[..]);
        let line = "198.51.100.2.4500 > 198.51.100.1.4500 UDP ESP spi 0x00000200 seq 7 len 128";
        assert_eq!(frame.line(), line);
    }

    #[test]
    fn a_cut_packet_says_how_long_it_was() {
        let mut record = esp_record();
        record.len = 9000;
        let frame = Frame::of(&record);
        assert_eq!((frame.bytes.len(), frame.len), (120, 9020));
        assert_eq!(frame.bytes[2..4], 9020_u16.to_be_bytes());
        let bare = super::super::testing::record();
        assert_eq!(Frame::of(&bare).bytes, *bare.packet);
        // Longer than IP can be: as it is.
        record.len = 70_000;
        assert_eq!(Frame::of(&record).bytes, *record.packet);
    }

    #[test]
    fn what_is_recorded_inside_is_shown_as_it_is() {
        let record = record();
        assert_eq!(Frame::of(&record), Frame { bytes: record.packet.to_vec(), len: record.len });
    }
}
