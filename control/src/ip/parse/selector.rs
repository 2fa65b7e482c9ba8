//! SELECTOR: `[src P] [dst P] [dev D] [proto …]`.

use super::Names;
use super::fields::{SAME_FAMILY, unspecified};
use crate::ip::words::{Fail, Words, address, number, tunnel_key};
use ipnet::IpNet;
use uvti_core::xfrm::{Family, PortMatch, Selector};

/// A selector as written: what was not is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) src: Option<IpNet>,
    pub(super) dst: Option<IpNet>,
    pub(super) dev: Option<String>,
    pub(super) proto: u8,
    pub(super) sport: PortMatch,
    pub(super) dport: PortMatch,
}

impl Written {
    /// Takes the words of a selector; stops at the first other word. Returns whether there was one at all.
    pub(super) fn take(
        words: &mut Words<'_>,
        family: Option<Family>,
        names: &dyn Names,
    ) -> Result<Option<Self>, Fail> {
        let mut this = Self::default();
        let mut any = false;
        while let Some(
            word @ ("src" | "dst" | "dev" | "proto" | "sport" | "dport" | "type" | "code" | "key"),
        ) = words.peek()
        {
            any = true;
            match word {
                "src" | "dst" => {
                    words.next();
                    let net = prefix(words, word, family)?;
                    if word == "src" { this.src = Some(net) } else { this.dst = Some(net) }
                }
                "dev" => {
                    words.next();
                    let dev = words.need()?;
                    if !names.device(dev) {
                        return Err(words.wrong("DEV value is invalid"));
                    }
                    this.dev = Some(dev.to_owned());
                }
                _ => this.upper(words)?,
            }
        }
        if let (Some(src), Some(dst)) = (this.src, this.dst)
            && Family::of(src.addr()) != Family::of(dst.addr())
        {
            return Err(words.wrong(SAME_FAMILY));
        }
        Ok(any.then_some(this))
    }

    /// The upper-layer part: protocol, ports, ICMP type and code, GRE key.
    fn upper(&mut self, words: &mut Words<'_>) -> Result<(), Fail> {
        let (mut ports, mut icmp, mut gre) = (false, false, false);
        while let Some(word @ ("proto" | "sport" | "dport" | "type" | "code" | "key")) = words.peek() {
            words.next();
            match word {
                "proto" => self.proto = protocol(words)?,
                "sport" | "type" => self.sport = PortMatch::exact(half(words, word)?),
                "dport" | "code" => self.dport = PortMatch::exact(half(words, word)?),
                _ => {
                    let key = words.need()?;
                    let key = tunnel_key(key)
                        .ok_or_else(|| words.say("value after \"key\" is invalid\n".to_owned(), 255))?;
                    // kernel: net/xfrm flow keys: the ports hold the two halves of a GRE key.
                    self.sport = PortMatch::exact((key >> 16) as u16);
                    self.dport = PortMatch::exact(key as u16);
                }
            }
            ports |= matches!(word, "sport" | "dport");
            icmp |= matches!(word, "type" | "code");
            gre |= word == "key";
        }
        self.check(words, ports, icmp, gre)
    }

    fn check(&self, words: &Words<'_>, ports: bool, icmp: bool, gre: bool) -> Result<(), Fail> {
        let name = protocol_name(self.proto);
        let invalid = |what: &str, verb: &str| {
            Err(words.say(format!("{what} {verb} invalid with PROTO value \"{name}\"\n"), 1))
        };
        if ports && !matches!(self.proto, 0 | TCP | UDP | DCCP | SCTP) {
            return invalid("\"sport\" and \"dport\"", "are");
        }
        if icmp && !matches!(self.proto, ICMP | ICMPV6 | MOBILITY) {
            return invalid("\"type\" and \"code\"", "are");
        }
        if gre && self.proto != GRE {
            return invalid("\"key\"", "is");
        }
        Ok(())
    }

    /// The family that its addresses say.
    pub(super) fn family(&self) -> Option<Family> {
        self.src.or(self.dst).map(|net| Family::of(net.addr()))
    }

    /// As a selector; `outer` is the family when the words do not say one.
    pub(super) fn selector(self, outer: Family) -> Selector {
        let family = self.family().unwrap_or(outer);
        let any = Selector::any(family);
        Selector {
            family: Some(family),
            src: self.src.unwrap_or(any.src),
            dst: self.dst.unwrap_or(any.dst),
            proto: self.proto,
            sport: self.sport,
            dport: self.dport,
            dev: self.dev,
        }
    }
}

/// `ADDR[/PLEN]`, the host bits kept as given, as iproute2 keeps them.
fn prefix(words: &mut Words<'_>, keyword: &str, family: Option<Family>) -> Result<IpNet, Fail> {
    let word = words.need()?;
    if matches!(word, "any" | "default" | "all") {
        return match family {
            Some(family) => Ok(IpNet::new(unspecified(family), 0).expect("0 is a length")),
            None => {
                Err(words.wrong(&format!("value after \"{keyword}\" has an unrecognized address family")))
            }
        };
    }
    let parse = || {
        let (addr, len) = match word.split_once('/') {
            Some((addr, len)) => (addr, Some(number::<u8>(len)?)),
            None => (word, None),
        };
        let addr = address(addr, family)?;
        IpNet::new(addr, len.unwrap_or(if addr.is_ipv4() { 32 } else { 128 })).ok()
    };
    parse()
        .ok_or_else(|| words.say(format!("Error: any valid prefix is expected rather than \"{word}\".\n"), 1))
}

/// A port, or an ICMP type or code.
fn half(words: &mut Words<'_>, keyword: &str) -> Result<u16, Fail> {
    let why = format!("value after \"{keyword}\" is invalid");
    if matches!(keyword, "type" | "code") {
        return words.number::<u8>(&why).map(u16::from);
    }
    words.number(&why)
}

fn protocol(words: &mut Words<'_>) -> Result<u8, Fail> {
    let word = words.need()?;
    if word == "any" {
        return Ok(0);
    }
    protocol_number(word).ok_or_else(|| words.wrong("PROTO value is invalid"))
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const MOBILITY: u8 = 135;

/// The number of an IP protocol, by its name in /etc/protocols or as a number.
pub(crate) fn protocol_number(word: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(_, name)| *name == word);
    named.map(|(number, _)| *number).or_else(|| number(word))
}

/// The name of an IP protocol in /etc/protocols, or its number.
pub(crate) fn protocol_name(number: u8) -> String {
    PROTOCOLS
        .iter()
        .find(|(n, _)| *n == number)
        .map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// The protocols that /etc/protocols names everywhere.
const PROTOCOLS: &[(u8, &str)] = &[
    (0, "ip"),
    (ICMP, "icmp"),
    (2, "igmp"),
    (4, "ipencap"),
    (TCP, "tcp"),
    (8, "egp"),
    (9, "igp"),
    (UDP, "udp"),
    (DCCP, "dccp"),
    (41, "ipv6"),
    (43, "ipv6-route"),
    (44, "ipv6-frag"),
    (46, "rsvp"),
    (GRE, "gre"),
    (50, "esp"),
    (51, "ah"),
    (ICMPV6, "ipv6-icmp"),
    (59, "ipv6-nonxt"),
    (60, "ipv6-opts"),
    (88, "eigrp"),
    (89, "ospf"),
    (94, "ipip"),
    (97, "etherip"),
    (98, "encap"),
    (103, "pim"),
    (108, "ipcomp"),
    (112, "vrrp"),
    (115, "l2tp"),
    (124, "isis"),
    (SCTP, "sctp"),
    (MOBILITY, "mobility-header"),
    (136, "udplite"),
    (137, "mpls-in-ip"),
    (139, "hip"),
];
