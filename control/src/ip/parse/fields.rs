//! The parts that states, policies and templates share: ID, mode, limits, flags.

use crate::ip::words::{Fail, Words, address, begins, number};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uvti_core::xfrm::{Family, Limits, Mode, Proto, Spi};

/// `[src A] [dst B] [proto P] [spi N]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) src: Option<IpAddr>,
    pub(super) dst: Option<IpAddr>,
    pub(super) proto: Option<Proto>,
    pub(super) spi: Option<Spi>,
}

impl Id {
    /// Takes the words of an ID, which stand together; stops at the first other word. Returns whether there
    /// was one at all.
    pub(super) fn take(&mut self, words: &mut Words<'_>, family: Option<Family>) -> Result<bool, Fail> {
        let mut any = false;
        while let Some(word @ ("src" | "dst" | "proto" | "spi")) = words.peek() {
            words.next();
            any = true;
            match word {
                "src" => self.src = Some(outer_address(words, family)?),
                "dst" => self.dst = Some(outer_address(words, family)?),
                "proto" => self.proto = Some(proto(words)?),
                _ => self.spi = Some(Spi(words.number("SPI value is invalid")?)),
            }
        }
        if let (Some(src), Some(dst)) = (self.src, self.dst)
            && Family::of(src) != Family::of(dst)
        {
            return Err(words.wrong(SAME_FAMILY));
        }
        if let (Some(proto @ (Proto::Route2 | Proto::Hao)), Some(_)) = (self.proto, self.spi) {
            let text = format!("\"spi\" is invalid with XFRM-PROTO value \"{}\"\n", proto.name());
            return Err(words.say(text, 1));
        }
        Ok(any)
    }

    pub(super) fn family(&self) -> Option<Family> {
        self.src.or(self.dst).map(Family::of)
    }

    /// Both addresses, the absent one unspecified.
    pub(super) fn addresses(&self, family: Family) -> (IpAddr, IpAddr) {
        (self.src.unwrap_or(unspecified(family)), self.dst.unwrap_or(unspecified(family)))
    }
}

pub(super) const SAME_FAMILY: &str =
    "the same address family is required between values after \"src\" and \"dst\"";

pub(super) const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn outer_address(words: &mut Words<'_>, family: Option<Family>) -> Result<IpAddr, Fail> {
    let word = words.need()?;
    address(word, family)
        .ok_or_else(|| words.say(format!("Error: any valid prefix is expected rather than \"{word}\".\n"), 1))
}

/// XFRM-PROTO, by its full name.
pub(super) fn proto(words: &mut Words<'_>) -> Result<Proto, Fail> {
    let word = words.need()?;
    [Proto::Esp, Proto::Ah, Proto::Comp, Proto::Route2, Proto::Hao, Proto::Any]
        .into_iter()
        .find(|p| p.name() == word)
        .ok_or_else(|| words.wrong("XFRM-PROTO value is invalid"))
}

/// MODE, which may be cut short.
pub(super) fn mode(words: &mut Words<'_>) -> Result<Mode, Fail> {
    let word = words.need()?;
    [Mode::Transport, Mode::Tunnel, Mode::RouteOptimization, Mode::InTrigger, Mode::Beet]
        .into_iter()
        .find(|m| begins(word, m.name()))
        .ok_or_else(|| words.wrong("MODE value is invalid"))
}

/// LIMIT, behind the keyword `limit`.
pub(super) fn limit(words: &mut Words<'_>, limits: &mut Limits) -> Result<(), Fail> {
    let word = words.need()?;
    let field = match word {
        "time-soft" => &mut limits.soft_add_seconds,
        "time-hard" => &mut limits.hard_add_seconds,
        "time-use-soft" => &mut limits.soft_use_seconds,
        "time-use-hard" => &mut limits.hard_use_seconds,
        "byte-soft" => &mut limits.soft_bytes,
        "byte-hard" => &mut limits.hard_bytes,
        "packet-soft" => &mut limits.soft_packets,
        "packet-hard" => &mut limits.hard_packets,
        _ => return Err(words.wrong("LIMIT value is invalid")),
    };
    *field = words.number(&format!("value after \"{word}\" is invalid"))?;
    Ok(())
}

/// FLAG-LIST behind the keyword: names from `table`, or one number in hexadecimal. Stops at the first other word.
pub(super) fn flags<T>(words: &mut Words<'_>, table: &[(&str, T)], what: &str) -> Result<T, Fail>
where
    T: Copy + Default + std::ops::BitOrAssign + TryFrom<u64>,
{
    let first = words.need()?;
    if first.starts_with("0x") {
        return number(first).ok_or_else(|| words.wrong(&format!("{what} value is invalid")));
    }
    let mut all = T::default();
    let mut word = Some(first);
    let mut known = 0;
    while let Some((_, bit)) = word.and_then(|w| table.iter().find(|(name, _)| *name == w)) {
        all |= *bit;
        if known > 0 {
            words.next();
        }
        known += 1;
        word = words.peek();
    }
    // None of the names: iproute2 takes the word for the next keyword, and finds that it is none.
    if known == 0 { Err(words.wrong("unknown")) } else { Ok(all) }
}
