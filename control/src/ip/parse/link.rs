//! `ip link` for devices of type vti, vti6 and xfrm.

use super::{Asker, Change, Command, Names, interface};
use crate::ip::parse::fields::unspecified;
use crate::ip::words::{Fail, Words, address, begins, number, tunnel_key};
use uvti_core::device::{LinkKind, LinkSpec, TunnelHeader};
use uvti_core::tables::{Errno, Op, Refusal};
use uvti_core::xfrm::Family;

/// Longest interface name, bytes. kernel: include/uapi/linux/if.h IFNAMSIZ without its zero
pub(super) const MAX_NAME: usize = 15;

/// `None` is for the system's `ip`.
pub(super) fn parse(words: &[String], names: &dyn Names) -> Result<Option<Command>, Fail> {
    let Some(verb) = words.first().filter(|v| !v.is_empty()) else { return Ok(Some(show(&[], words))) };
    let rest = &words[1..];
    let is = |whole: &str| begins(verb, whole);
    let command = if is("add") {
        add(rest, names)
    } else if is("set") || is("change") {
        change(rest, names)
    } else if is("replace") {
        match type_of(rest) {
            Some(kind) if find(rest, names).is_some() => change_of(kind, rest, names).map(Some),
            _ => add(rest, names),
        }
    } else if is("delete") {
        delete(rest, names)
    } else if is("show") || is("lst") || is("list") {
        return Ok(Some(show(rest, words)));
    } else {
        Ok(None)
    };
    command.map_err(|f| f.behind(1))
}

/// The kind behind `type`, if it is one of ours.
fn type_of(words: &[String]) -> Option<LinkKind> {
    let at = words.iter().position(|w| w == "type")?;
    kind_of(words.get(at + 1)?)
}

pub(super) fn kind_of(name: &str) -> Option<LinkKind> {
    LinkKind::from_name(name)
}

/// The device of ours that the command names, if any.
fn find(words: &[String], names: &dyn Names) -> Option<LinkSpec> {
    let name = words.iter().find(|w| !matches!(w.as_str(), "dev" | "name"))?;
    names.link(name)
}

/// Family of its ends.
pub(super) const fn family_of(kind: LinkKind) -> Family {
    match kind {
        LinkKind::Vti | LinkKind::Xfrm => Family::V4,
        LinkKind::Vti6 => Family::V6,
    }
}

fn add(words: &[String], names: &dyn Names) -> Result<Option<Command>, Fail> {
    let Some(kind) = type_of(words) else { return Ok(None) };
    let mut rest = Words::new(words);
    let mut generic = Generic::default();
    generic.take(&mut rest)?;
    let name = match generic.name {
        Some(name) if name.is_empty() || name.len() > MAX_NAME => {
            return Err(Fail::refused(Refusal::message(
                Errno::Invalid,
                "Attribute failed policy validation",
            )));
        }
        Some(name) => name,
        None => names.free_name(kind.name()),
    };
    let mut spec = LinkSpec { mtu: generic.mtu, ..LinkSpec::new(name.clone(), kind) };
    match kind {
        LinkKind::Xfrm => interface::options(&mut rest, &mut spec, names)?,
        LinkKind::Vti | LinkKind::Vti6 => options(&mut rest, &mut spec, names)?,
    }
    let then = generic.then.into_iter().map(|set| set_words(&name, set)).collect();
    Ok(Some(Command::Apply(Change { ops: vec![Op::LinkAdd(spec)], asker: Asker::Netlink, then })))
}

fn set_words(name: &str, set: Vec<String>) -> Vec<String> {
    ["link", "set", "dev", name].map(str::to_owned).into_iter().chain(set).collect()
}

/// What stands in front of `type KIND` in `link add`.
#[derive(Default)]
struct Generic {
    name: Option<String>,
    mtu: Option<u32>,
    /// Settings that the system's `ip` makes on the finished device.
    then: Vec<Vec<String>>,
}

impl Generic {
    /// Takes the words up to and with `type KIND`.
    fn take(&mut self, words: &mut Words<'_>) -> Result<(), Fail> {
        while let Some(word) = words.next() {
            match word {
                "type" => {
                    words.need()?;
                    return Ok(());
                }
                "name" | "dev" => {
                    let name = words.need()?.to_owned();
                    if self.name.replace(name).is_some() {
                        return Err(words.duplicate("dev"));
                    }
                }
                "mtu" => {
                    let mtu = words.need()?;
                    if self.mtu.is_some() {
                        return Err(words.duplicate("mtu"));
                    }
                    self.mtu = Some(number(mtu).ok_or_else(|| words.wrong("Invalid \"mtu\" value\n"))?);
                }
                "up" | "down" => self.then.push(vec![word.to_owned()]),
                "txqueuelen" | "txqlen" | "qlen" => {
                    let length = words.need()?.to_owned();
                    self.then.push(vec!["txqueuelen".to_owned(), length]);
                }
                "alias" | "netns" | "master" | "vrf" | "group" => {
                    let value = words.need()?.to_owned();
                    self.then.push(vec![word.to_owned(), value]);
                }
                "index" | "address" | "broadcast" | "brd" | "numtxqueues" | "numrxqueues" | "link"
                | "link-netnsid" | "gso_max_size" | "gso_max_segs" | "addrgenmode" => {
                    return Err(words.unsupported());
                }
                _ if self.name.is_some() => return Err(words.garbage("dev")),
                _ => self.name = Some(word.to_owned()),
            }
        }
        Ok(())
    }
}

/// The options behind `type vti`.
fn options(words: &mut Words<'_>, spec: &mut LinkSpec, names: &dyn Names) -> Result<(), Fail> {
    let family = family_of(spec.kind);
    let inet = if family == Family::V4 { "inet" } else { "inet6" };
    while let Some(word) = words.next() {
        match word {
            "remote" | "local" => {
                let value = words.need()?;
                let addr = match value {
                    "any" | "default" | "all" => unspecified(family),
                    _ => address(value, Some(family)).ok_or_else(|| {
                        words.say(format!("Error: {inet} address is expected rather than \"{value}\".\n"), 1)
                    })?,
                };
                if word == "remote" { spec.remote = addr } else { spec.local = addr }
            }
            "key" | "ikey" | "okey" => keys(words, word, spec)?,
            "dev" => {
                let dev = words.need()?;
                if !names.device(dev) {
                    return Err(words.say(format!("Cannot find device \"{dev}\"\n"), 255));
                }
                spec.dev = Some(dev.to_owned());
            }
            "fwmark" => spec.fwmark = words.number("invalid fwmark\n")?,
            _ => return Err(words.say(usage(spec.kind), 1)),
        }
    }
    Ok(())
}

/// `key K`, `ikey K`, `okey K`.
pub(super) fn keys(words: &mut Words<'_>, word: &str, spec: &mut LinkSpec) -> Result<(), Fail> {
    let value = words.need()?;
    let key = tunnel_key(value).ok_or_else(|| {
        let text = format!("invalid value for \"{word}\": \"{value}\"; it should be an unsigned integer\n");
        words.say(text, 255)
    })?;
    if word != "okey" {
        spec.ikey = key;
    }
    if word != "ikey" {
        spec.okey = key;
    }
    Ok(())
}

/// `link change|set NAME type vti …`; without `type` it is the system's.
fn change(words: &[String], names: &dyn Names) -> Result<Option<Command>, Fail> {
    match type_of(words) {
        Some(kind) => change_of(kind, words, names).map(Some),
        None => Ok(None),
    }
}

fn change_of(kind: LinkKind, words: &[String], names: &dyn Names) -> Result<Command, Fail> {
    let mut rest = Words::new(words);
    let mut generic = Generic::default();
    generic.take(&mut rest)?;
    let name = generic.name.unwrap_or_default();
    let mut spec = match names.link(&name) {
        Some(spec) if spec.kind == kind => spec,
        None if !names.device(&name) => return Err(Fail::plain(format!("Cannot find device \"{name}\"\n"))),
        // iproute2 does not ask for what there is of an xfrm interface: the kernel refuses.
        _ if kind == LinkKind::Xfrm => return Err(Fail::refused(Refusal::errno(Errno::NotSupported))),
        _ => return Err(Fail::plain("Failed to get existing tunnel info.\n")),
    };
    spec.mtu = generic.mtu.or(spec.mtu);
    // kernel: net/ipv4/ip_vti.c vti_changelink() starts from empty parameters
    spec.header = TunnelHeader { by_ioctl: spec.header.by_ioctl, ..TunnelHeader::default() };
    match kind {
        LinkKind::Xfrm => interface::options(&mut rest, &mut spec, names)?,
        LinkKind::Vti | LinkKind::Vti6 => options(&mut rest, &mut spec, names)?,
    }
    let then = generic.then.into_iter().map(|set| set_words(&name, set)).collect();
    Ok(Command::Apply(Change { ops: vec![Op::LinkChange(spec)], asker: Asker::Netlink, then }))
}

fn delete(words: &[String], names: &dyn Names) -> Result<Option<Command>, Fail> {
    let Some(link) = find(words, names) else { return Ok(None) };
    let mut rest = Words::new(words);
    let mut generic = Generic::default();
    generic.take(&mut rest)?;
    if rest.next().is_some() {
        return Err(rest.say(usage(link.kind), 1));
    }
    if type_of(words).is_some_and(|kind| kind != link.kind) {
        return Err(Fail::refused(Refusal::errno(Errno::Invalid)));
    }
    Ok(Some(Change::one(Op::LinkDel { name: link.name }, Asker::Netlink)))
}

/// `link show`, all words of which the system's `ip` checks.
fn show(words: &[String], all: &[String]) -> Command {
    let (mut name, mut kind, mut up) = (None, None, false);
    let mut rest = Words::new(words);
    while let Some(word) = rest.next() {
        match word {
            "up" => up = true,
            "dev" => name = rest.next().map(str::to_owned),
            "type" => kind = rest.next().map(str::to_owned),
            "group" | "master" | "vrf" => {
                // None of ours is in a group or a master of its own: whatever matches is the system's.
                kind = kind.or(Some(String::new()));
                rest.next();
            }
            _ => name = Some(word.to_owned()),
        }
    }
    let words = std::iter::once("link".to_owned()).chain(all.iter().cloned()).collect();
    Command::LinkShow { name, kind, up, words }
}

fn usage(kind: LinkKind) -> String {
    let (head, addr) = match kind {
        LinkKind::Xfrm => return interface::USAGE.to_owned(),
        LinkKind::Vti => ("vti ", "IP_ADDRESS"),
        LinkKind::Vti6 => ("vti6", "IPV6_ADDRESS"),
    };
    format!(
        "Usage: ... {head}\t[ remote ADDR ]\n\t\t[ local ADDR ]\n\t\t[ [i|o]key KEY ]\n\t\t[ dev PHYS_DEV ]\n\
         \t\t[ fwmark MARK ]\n\nWhere:\tADDR := {{ {addr} }}\n\tKEY  := {{ DOTTED_QUAD | NUMBER }}\n\
         \tMARK := {{ 0x0..0xffffffff }}\n"
    )
}
