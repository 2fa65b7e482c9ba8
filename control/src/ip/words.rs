//! Walking over the words of a command, and iproute2's complaints about them.

use std::net::IpAddr;
use uvti_core::xfrm::{Family, Mark};

/// A command that cannot be run: what to print, the exit code, and which word is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail {
    /// For standard error, as iproute2 writes it, with its line feeds.
    pub text: String,
    /// Exit code.
    pub code: u8,
    /// Index of the offending word in the command; `None` when something is missing at its end.
    pub word: Option<usize>,
}

impl Fail {
    /// With exit code 255 (`exit(-1)`), iproute2's usual one for words it does not like.
    pub fn usage(text: impl Into<String>, word: Option<usize>) -> Self {
        Self { text: text.into(), code: 255, word }
    }

    /// With exit code 1.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1, word: None }
    }

    /// What a kernel refuses: exit code 2.
    pub fn refused(text: impl std::fmt::Display) -> Self {
        Self { text: format!("{text}\n"), code: 2, word: None }
    }

    /// Moves the index of the offending word by the words in front of it.
    pub(crate) fn behind(mut self, words: usize) -> Self {
        self.word = self.word.map(|w| w + words);
        self
    }
}

/// A cursor over the words of a command.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    words: &'a [String],
    at: usize,
}

impl<'a> Words<'a> {
    pub(crate) fn new(words: &'a [String]) -> Self {
        Self { words, at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(String::as_str)
    }

    /// The next word, if it is there.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    /// Takes the next word if it is `word`.
    pub(crate) fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.at += usize::from(found);
        found
    }

    /// The next word, which the command cannot do without.
    pub(crate) fn need(&mut self) -> Result<&'a str, Fail> {
        self.next().ok_or_else(|| Fail::usage("Command line is not complete. Try option \"help\"\n", None))
    }

    /// The next word, or a complaint that the argument `what` is required.
    pub(crate) fn required(&mut self, what: &str) -> Result<&'a str, Fail> {
        self.next().ok_or_else(|| Fail::usage(format!("Error: argument \"{what}\" is required\n"), None))
    }

    /// A complaint about the word taken last.
    pub(crate) fn wrong(&self, why: &str) -> Fail {
        let at = self.at.saturating_sub(1);
        let word = self.words.get(at).map_or("", String::as_str);
        Fail::usage(format!("Error: argument \"{word}\" is wrong: {why}\n"), Some(at))
    }

    /// `what` was given before; the word taken last is the second.
    pub(crate) fn duplicate(&self, what: &str) -> Fail {
        let at = self.at.saturating_sub(1);
        let word = self.words.get(at).map_or("", String::as_str);
        Fail::usage(format!("Error: duplicate \"{what}\": \"{word}\" is the second value.\n"), Some(at))
    }

    /// `what` was given before, or the word taken last is nothing we know.
    pub(crate) fn garbage(&self, what: &str) -> Fail {
        let at = self.at.saturating_sub(1);
        let word = self.words.get(at).map_or("", String::as_str);
        Fail::usage(format!("Error: either \"{what}\" is duplicate, or \"{word}\" is a garbage.\n"), Some(at))
    }

    /// The kernel has it, a userspace dataplane has not: refused by name, never ignored.
    pub(crate) fn unsupported(&self) -> Fail {
        let at = self.at.saturating_sub(1);
        let word = self.words.get(at).map_or("", String::as_str);
        Fail { text: format!("uvti: \"{word}\": not supported in userspace\n"), code: 1, word: Some(at) }
    }

    /// A complaint of another form about the word taken last.
    pub(crate) fn say(&self, text: String, code: u8) -> Fail {
        Fail { text, code, word: Some(self.at.saturating_sub(1)) }
    }

    /// A number after a keyword.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, why: &str) -> Result<T, Fail> {
        let word = self.need()?;
        number(word).ok_or_else(|| self.wrong(why))
    }

    /// `MARK [mask MASK]`, behind the keyword `mark`.
    pub(crate) fn mark(&mut self) -> Result<Mark, Fail> {
        let value: u32 = self.number("MARK value is invalid\n")?;
        let mask = if self.take("mask") { self.number("MASK value is invalid\n")? } else { u32::MAX };
        // As shown by a kernel: `mark 300 mask 0xf` is 0xc/0xf.
        Ok(Mark { value: value & mask, mask })
    }
}

/// A number as strtoul(3) with base 0 reads it (0x is hexadecimal, 0 octal), if all of the word is one and it fits.
pub(crate) fn number<T: TryFrom<u64>>(word: &str) -> Option<T> {
    let word = word.strip_prefix('+').unwrap_or(word);
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&word[2..], 16),
        [b'0', _, ..] => (&word[1..], 8),
        _ => (word, 10),
    };
    if !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
        return None;
    }
    T::try_from(u64::from_str_radix(digits, radix).ok()?).ok()
}

/// Whether `word` is a beginning of `whole`: iproute2 lets keywords be cut short.
pub(crate) fn begins(word: &str, whole: &str) -> bool {
    whole.starts_with(word)
}

/// An address or its short form, of `family` if that is given: `10.1` is 10.1.0.0 as in iproute2.
pub(crate) fn address(word: &str, family: Option<Family>) -> Option<IpAddr> {
    let addr: IpAddr = match word.parse() {
        Ok(addr) => addr,
        Err(_) => short_v4(word)?.into(),
    };
    family.is_none_or(|f| f == Family::of(addr)).then_some(addr)
}

/// `10`, `10.1`, `10.1.2`: iproute2 fills the rest with zeros.
fn short_v4(word: &str) -> Option<std::net::Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = word.split('.');
    for octet in &mut octets {
        match parts.next() {
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => *octet = p.parse().ok()?,
            Some(_) => return None,
            None => break,
        }
    }
    parts.next().is_none().then(|| octets.into())
}

/// A tunnel key: a number, or four numbers with dots.
pub(crate) fn tunnel_key(word: &str) -> Option<u32> {
    if word.contains('.') {
        return word.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
    }
    number(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_strtoul() {
        assert_eq!(number::<u32>("0x10"), Some(16));
        assert_eq!(number::<u32>("010"), Some(8));
        assert_eq!(number::<u32>("0"), Some(0));
        assert_eq!(number::<u32>("4294967296"), None);
        assert_eq!(number::<u64>("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "x", "0x", "-1", "1 ", "08", "++1", "1é"] {
            assert_eq!(number::<u32>(bad), None, "{bad}");
        }
    }

    #[test]
    fn short_addresses_are_filled_with_zeros() {
        assert_eq!(address("10.1", None), Some("10.1.0.0".parse().unwrap()));
        assert_eq!(address("0", None), Some("0.0.0.0".parse().unwrap()));
        for bad in ["", "10.", "10.1.2.3.4", "300", "foo", "10.1.2.999"] {
            assert_eq!(address(bad, None), None, "{bad}");
        }
        assert_eq!(address("::1", Some(Family::V4)), None);
    }

    #[test]
    fn keys_are_numbers_or_dotted_quads() {
        assert_eq!(tunnel_key("0.0.0.42"), Some(42));
        assert_eq!(tunnel_key("0x2a"), Some(42));
        assert_eq!(tunnel_key("1.2"), None);
    }
}
