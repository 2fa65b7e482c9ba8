//! Packets in words, in the manner of iproute2: keywords may be cut short.

use super::Query;
use crate::ip::parse::protocol_number;
use crate::ip::words::{Fail, Words, address, begins};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::net::IpAddr;
use uvti_core::packet::proto;
use uvti_core::vti::explain::Flow;

pub(super) const HELP: &str = "\
FLOW, with --dev:  from ADDR to ADDR [proto PROTO] [sport N] [dport N] [type N] [code N]
                   [len N] [df] [tos N]          (PROTO is udp, and len 100, unless given)
FLOW, with --rx:   from OUTER to OUTER spi SPI seq N [udp] [inner FLOW]
                   Explained up to the decryption, and with an inner flow on from there.

  uvti explain --dev vti0 from 10.1.0.2 to 10.2.0.2 proto udp dport 5000 len 1400 df
  uvti explain --rx from 198.51.100.2 to 198.51.100.1 spi 0x1001 seq 4711
  uvti explain --dev vti0 --pcap FILE --packet 3

Exit status: 0 the packet would pass, 1 it would be dropped, 2 that cannot be said.";

/// The longest packet, bytes: what a length field of 16 bits can say.
const LONGEST: usize = 65_535;

/// `4500…`, with or without blanks and colons.
pub(super) fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text
        .trim()
        .trim_start_matches("0x")
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| {
            c.to_digit(16).map(|d| d as u8).with_context(|| format!("--hex: '{c}' is no hexadecimal digit"))
        })
        .collect::<Result<_>>()?;
    ensure!(digits.len().is_multiple_of(2), "--hex: half a byte at its end");
    ensure!(digits.len() / 2 <= LONGEST, "--hex: longer than an IP packet can be");
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The packet of a flow.
pub(super) fn flow(words: &[String]) -> Result<Vec<u8>> {
    inner(&mut Words::new(words))
}

fn inner(words: &mut Words<'_>) -> Result<Vec<u8>> {
    let mut flow = Written::default();
    while let Some(word) = words.next() {
        flow.take(word, words).map_err(|fail| said(&fail))?;
    }
    Ok(flow.finish()?.packet()?)
}

/// The header of an ESP packet, and what may be in it.
pub(super) fn received(words: &[String]) -> Result<Query> {
    let words = &mut Words::new(words);
    let (mut src, mut dst, mut spi, mut seq) = (None, None, None, None);
    let (mut udp, mut carried) = (None, None);
    while let Some(word) = words.next() {
        let is = |keyword: &str| begins(word, keyword);
        if is("from") {
            src = Some(ip(words).map_err(|fail| said(&fail))?);
        } else if is("to") {
            dst = Some(ip(words).map_err(|fail| said(&fail))?);
        } else if is("spi") {
            spi = Some(words.number("SPI value is invalid").map_err(|fail| said(&fail))?);
        } else if is("seq") {
            seq = Some(words.number("sequence number is invalid").map_err(|fail| said(&fail))?);
        } else if is("udp") {
            udp = Some((4500, 4500));
        } else if is("inner") {
            carried = Some(inner(words)?);
        } else {
            return Err(said(&words.wrong("unknown")));
        }
    }
    let (Some(src), Some(dst), Some(spi), Some(seq)) = (src, dst, spi, seq) else {
        bail!("--rx wants all of: from OUTER to OUTER spi SPI seq N (or --hex, or --pcap)");
    };
    ensure!(IpAddr::is_ipv4(&src) == IpAddr::is_ipv4(&dst), "the outer addresses are of different families");
    Ok(Query::Header { src, dst, udp, spi, seq, inner: carried })
}

fn ip(words: &mut Words<'_>) -> Result<IpAddr, Fail> {
    let word = words.need()?;
    address(word, None).ok_or_else(|| words.wrong("not an address"))
}

/// iproute2's complaint, as one line.
fn said(fail: &Fail) -> anyhow::Error {
    anyhow!("{}", fail.text.trim_end().trim_start_matches("Error: "))
}

/// A flow as far as it is written.
#[derive(Default)]
struct Written {
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    proto: Option<u8>,
    first: u16,
    second: u16,
    len: Option<u16>,
    df: bool,
    tos: u8,
}

impl Written {
    fn take(&mut self, word: &str, words: &mut Words<'_>) -> Result<(), Fail> {
        const KEYWORDS: &[&str] =
            &["from", "to", "proto", "sport", "dport", "type", "code", "len", "df", "tos"];
        match KEYWORDS.iter().copied().find(|keyword| begins(word, keyword)) {
            _ if word == "df" => self.df = true,
            Some("from") => self.src = Some(ip(words)?),
            Some("to") => self.dst = Some(ip(words)?),
            Some("proto") => {
                let name = words.need()?;
                self.proto =
                    Some(protocol_number(name).ok_or_else(|| words.wrong("PROTO value is invalid"))?);
            }
            Some("sport") => self.first = words.number("port is invalid")?,
            Some("dport") => self.second = words.number("port is invalid")?,
            Some("type") => self.first = words.number::<u8>("type is invalid")?.into(),
            Some("code") => self.second = words.number::<u8>("code is invalid")?.into(),
            Some("len") => self.len = Some(words.number("length is invalid")?),
            Some("df") => self.df = true,
            Some("tos") => self.tos = words.number("TOS is invalid")?,
            _ => return Err(words.wrong("unknown")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Flow> {
        let (Some(src), Some(dst)) = (self.src, self.dst) else {
            bail!("a flow wants both: from ADDR to ADDR (or give the packet by --hex or --pcap)");
        };
        let proto = self.proto.unwrap_or(proto::UDP);
        let len = self.len.unwrap_or(100);
        let (sport, dport, df, tos) = (self.first, self.second, self.df, self.tos);
        Ok(Flow { src, dst, proto, sport, dport, len, df, tos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uvti_core::packet::Inner;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_flow_becomes_its_packet() {
        let text = "from 10.1.0.2 to 10.2.0.2 proto udp sport 4000 dport 5000 len 1400 df tos 0xb8";
        let packet = flow(&words(text)).unwrap();
        let inner = Inner::dissect(&packet).unwrap();
        assert_eq!((packet.len(), inner.df, inner.tos), (1400, true, 0xb8));
        assert_eq!((inner.flow.sport, inner.flow.dport, inner.flow.proto), (4000, 5000, 17));
        assert_eq!(
            packet,
            flow(&words("f 10.1.0.2 t 10.2.0.2 p 17 s 4000 dp 5000 l 1400 df tos 184")).unwrap()
        );
        let six = flow(&words("from 2001:db8::1 to 2001:db8::2 proto tcp dport 80")).unwrap();
        assert_eq!(Inner::dissect(&six).unwrap().flow.dport, 80);
        let ping = flow(&words("from 10.1.0.2 to 10.2.0.2 proto icmp type 8")).unwrap();
        assert_eq!(Inner::dissect(&ping).unwrap().flow.sport, 8);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let complaint = |text| flow(&words(text)).unwrap_err().to_string();
        assert_eq!(complaint("from nobody"), "argument \"nobody\" is wrong: not an address");
        assert_eq!(complaint("from 10.1.0.2 to 10.2.0.2 color red"), "argument \"color\" is wrong: unknown");
        assert!(complaint("from 10.1.0.2").starts_with("a flow wants both"));
        assert_eq!(complaint("from 10.1.0.2 to ::1"), "the addresses are of different families");
        assert_eq!(
            complaint("from 10.1.0.2 to 10.2.0.2 len 27"),
            "len 27 is too short for the headers, which take 28 bytes"
        );
        assert!(received(&words("from 10.1.0.2 to 10.2.0.2 spi 0x1001")).is_err());
        assert_eq!(hex("0x45 0:0").unwrap(), [0x45, 0]);
        assert!(hex("450").is_err() && hex("4g").is_err());
    }

    #[test]
    fn a_header_and_what_is_in_it() {
        let text =
            "from 198.51.100.2 to 198.51.100.1 spi 0x1001 seq 4711 udp inner from 10.2.0.2 to 10.1.0.2";
        let Query::Header { udp, spi, seq, inner, .. } = received(&words(text)).unwrap() else { panic!() };
        assert_eq!((udp, spi, seq, inner.map(|p| p.len())), (Some((4500, 4500)), 0x1001, 4711, Some(100)));
    }
}
