//! The grammar of packets: `send` for the inner side, `inject` for the far end of the tunnel.

use super::cursor::{Cursor, Problem};
use super::scenario::{Esp, Inject, Inner, Odd, Outer, Send, Udp, Via};
use std::net::IpAddr;

/// Most packets of a line.
const MAX_PACKETS: u64 = 1000;
/// Most bytes of a packet, padding and the rest apart.
const MAX_BYTES: u64 = 60_000;
/// The key of the SA towards the gateway in the common laboratory.
const KEY: &str = "2122232425262728292a2b2c2d2e2f3031323334";
/// Key and salt, bytes.
const KEY_BYTES: usize = 20;
/// Longest padding.
const MAX_PAD: u64 = 255;

/// `send N INNER [via forward|local|DEVICE [as ETHERTYPE]]`
pub(crate) fn send(words: &mut Cursor<'_>) -> Result<Send, Problem> {
    let count = words.number("a number of packets", 1, MAX_PACKETS)?;
    let what = inner(words)?;
    let via = match words.next() {
        None => Via::Forward,
        Some("via") => match words.need("forward, local or a device")? {
            "forward" => Via::Forward,
            "local" => Via::Local,
            device => Via::Device { name: device.to_owned(), ethertype: ethertype(words, &what)? },
        },
        Some(_) => return Err(words.wrong("no property of a packet")),
    };
    words.end()?;
    match (&via, &what) {
        (Via::Local, Inner::Bytes(_)) => Err(words.problem("a socket sends UDP only")),
        _ => Ok(Send { count, what, via }),
    }
}

fn ethertype(words: &mut Cursor<'_>, what: &Inner) -> Result<u16, Problem> {
    if words.peek() == Some("as") {
        words.next();
        return words.number("an EtherType", 1, 0xffff);
    }
    Ok(match what {
        Inner::Udp(udp) if udp.src.is_ipv6() => 0x86dd,
        _ => 0x0800,
    })
}

/// `from A to B [udp] …`, `zeros N` or `bytes HEX`. Ends at a word that is none of it.
fn inner(words: &mut Cursor<'_>) -> Result<Inner, Problem> {
    match words.need("from, zeros or bytes")? {
        "zeros" => Ok(Inner::Bytes(vec![0; words.number("a length", 0, MAX_BYTES)?])),
        "bytes" => Ok(Inner::Bytes(words.hex("a packet", MAX_BYTES as usize)?)),
        "from" => {
            let src = words.address()?;
            if words.need("to")? != "to" {
                return Err(words.wrong("`to` is expected"));
            }
            let dst = words.address()?;
            if src.is_ipv4() != dst.is_ipv4() {
                return Err(words.wrong("both addresses are of one family"));
            }
            udp(words, src, dst).map(Inner::Udp)
        }
        _ => Err(words.wrong("a packet is `from A to B …`, `zeros N` or `bytes HEX`")),
    }
}

fn udp(words: &mut Cursor<'_>, src: IpAddr, dst: IpAddr) -> Result<Udp, Problem> {
    let v4 = src.is_ipv4();
    let (headers, len) = if v4 { (28, 100) } else { (48, 120) };
    let mut udp =
        Udp { src, dst, sport: 4000, dport: 5000, len, df: None, tos: 0, ttl: 64, flow: 0, odd: None };
    while let Some(word) = words.peek() {
        let odd = udp.odd;
        match word {
            "udp" => words.next(),
            "sport" | "dport" | "len" | "df" | "nodf" | "tos" | "ttl" | "flow" => words.next(),
            "fragment" | "icmp-error" | "bad-checksum" if !v4 => {
                words.next();
                return Err(words.wrong("for IPv4 only"));
            }
            "fragment" | "icmp-error" | "bad-checksum" if odd.is_some() => {
                words.next();
                return Err(words.wrong("one oddity a packet"));
            }
            "fragment" | "icmp-error" | "bad-checksum" => words.next(),
            _ => break,
        };
        match word {
            "sport" => udp.sport = words.number("a port", 0, 65535)?,
            "dport" => udp.dport = words.number("a port", 0, 65535)?,
            "len" => udp.len = words.number("a length", headers, MAX_BYTES)?,
            "df" => udp.df = Some(true),
            "nodf" => udp.df = Some(false),
            "tos" => udp.tos = words.number("a TOS", 0, 255)?,
            "ttl" => udp.ttl = words.number("a TTL", 0, 255)?,
            "flow" => udp.flow = words.number("a flow label", 0, 0xf_ffff)?,
            "fragment" => udp.odd = Some(Odd::Fragment(words.number("an offset", 1, 0x1fff)?)),
            "icmp-error" => udp.odd = Some(Odd::IcmpError),
            "bad-checksum" => udp.odd = Some(Odd::Checksum),
            _ => {}
        }
    }
    Ok(udp)
}

/// `inject [N] esp …`, `ipip …`, `frag-needed …`
pub(crate) fn inject(words: &mut Cursor<'_>) -> Result<Inject, Problem> {
    let mut count = 1;
    if words.peek().is_some_and(|w| super::cursor::number(w).is_some()) {
        count = words.number("a number of packets", 1, MAX_PACKETS)?;
    }
    let kind = words.need("esp, ipip or frag-needed")?;
    let (src, dst) = (IpAddr::from([198, 51, 100, 2]), IpAddr::from([198, 51, 100, 1]));
    let what = Outer::Ipip(Inner::Bytes(Vec::new()));
    let mut inject = Inject { count, src, dst, tos: 0, bad_checksum: false, fragment: None, what };
    match kind {
        "esp" => esp(words, &mut inject)?,
        "ipip" => {
            outer(words, &mut inject)?;
            if words.need("inner")? != "inner" {
                return Err(words.wrong("`inner PACKET` is expected"));
            }
            inject.what = Outer::Ipip(inner(words)?);
        }
        "frag-needed" => {
            let mtu = words.number("an MTU", 68, 65535)?;
            if words.need("spi")? != "spi" {
                return Err(words.wrong("`spi SPI` is expected"));
            }
            inject.what = Outer::FragNeeded { mtu, spi: words.number("an SPI", 0, u64::from(u32::MAX))? };
        }
        _ => return Err(words.wrong("esp, ipip or frag-needed is expected")),
    }
    words.end()?;
    if inject.src.is_ipv4() != inject.dst.is_ipv4() {
        return Err(words.problem("both outer addresses are of one family"));
    }
    if inject.src.is_ipv6() && (inject.bad_checksum || inject.fragment.is_some()) {
        return Err(words.problem("outer fragments and checksums are those of IPv4"));
    }
    Ok(inject)
}

/// The outer header: `[from A] [to B] [outer-tos T] [outer-bad-checksum] [outer-fragment AT]`, in this order or another.
fn outer(words: &mut Cursor<'_>, inject: &mut Inject) -> Result<bool, Problem> {
    let Some(word) = words.peek() else { return Ok(false) };
    let known = ["from", "to", "outer-tos", "outer-bad-checksum", "outer-fragment"];
    if !known.contains(&word) {
        return Ok(false);
    }
    words.next();
    match word {
        "from" => inject.src = words.address()?,
        "to" => inject.dst = words.address()?,
        "outer-tos" => inject.tos = words.number("a TOS", 0, 255)?,
        "outer-bad-checksum" => inject.bad_checksum = true,
        _ => inject.fragment = Some(words.number::<u16>("a length", 8, MAX_BYTES)? / 8 * 8),
    }
    Ok(true)
}

fn esp(words: &mut Cursor<'_>, inject: &mut Inject) -> Result<(), Problem> {
    let mut key = Vec::new();
    let mut esp = Esp {
        spi: 0x200,
        sequences: vec![1],
        high: None,
        key: Vec::new(),
        next_header: None,
        inner: Inner::Udp(udp(
            &mut Cursor::new(&EMPTY, 0),
            IpAddr::from([10, 2, 0, 5]),
            IpAddr::from([10, 1, 0, 2]),
        )?),
        tfc: 0,
        pad: None,
        pad_length: None,
        bad_icv: false,
        cut: None,
    };
    while words.peek().is_some() {
        if outer(words, inject)? {
            continue;
        }
        match words.need("a property")? {
            "spi" => esp.spi = words.number("an SPI", 0, u64::from(u32::MAX))?,
            "seq" => esp.sequences = sequences(words)?,
            "high" => esp.high = Some(words.number("a number", 0, u64::from(u32::MAX))?),
            "key" => key = words.hex("key and salt", KEY_BYTES)?,
            "nh" => esp.next_header = Some(words.number("a next header", 0, 255)?),
            "tfc" => esp.tfc = words.number("a length", 0, 2000)?,
            "pad" => esp.pad = Some(vec![0; words.number("a length", 0, MAX_PAD)?]),
            "pad-bytes" => esp.pad = Some(words.hex("padding", MAX_PAD as usize)?),
            "pad-length" => esp.pad_length = Some(words.number("a pad length", 0, 255)?),
            "bad-icv" => esp.bad_icv = true,
            "cut" => esp.cut = Some(words.number("a length", 0, MAX_BYTES)?),
            "inner" => esp.inner = inner(words)?,
            _ => return Err(words.wrong("no property of an ESP packet")),
        }
    }
    if key.is_empty() {
        key = (0..KEY_BYTES).filter_map(|i| u8::from_str_radix(&KEY[2 * i..2 * i + 2], 16).ok()).collect();
    }
    if key.len() != KEY_BYTES {
        return Err(words.problem("a key has 16 bytes and 4 of salt: rfc4106(gcm(aes))"));
    }
    esp.key = key;
    inject.what = Outer::Esp(esp);
    Ok(())
}

/// A line without words.
static EMPTY: super::cursor::Line =
    super::cursor::Line { file: String::new(), words: Vec::new(), end: (0, 0) };

/// `1-5`, `100,69,68`
fn sequences(words: &mut Cursor<'_>) -> Result<Vec<u32>, Problem> {
    let text = words.need("sequence numbers")?;
    let one = |word: &str| super::cursor::number(word).and_then(|n| u32::try_from(n).ok());
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (one(first), one(last)) else {
            return Err(words.wrong("sequence numbers are like 1-5 or 100,69,68"));
        };
        if last < first || u64::from(last - first) + all.len() as u64 >= MAX_PACKETS {
            return Err(words.wrong(&format!("1 to {MAX_PACKETS} sequence numbers")));
        }
        all.extend(first..=last);
    }
    Ok(all)
}
