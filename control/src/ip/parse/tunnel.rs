//! `ip tunnel` for tunnels of mode vti and vti6.

use super::fields::unspecified;
use super::link::{MAX_NAME, family_of, keys, kind_of};
use super::{Asker, Change, Command, Names};
use crate::ip::dsfield;
use crate::ip::words::{Fail, Words, address, begins, number};
use uvti_core::device::{LinkKind, LinkSpec, TunnelHeader};
use uvti_core::tables::Op;
use uvti_core::xfrm::Family;

/// `None` is for the system's `ip`.
pub(super) fn parse(
    words: &[String],
    family: Option<Family>,
    names: &dyn Names,
) -> Result<Option<Command>, Fail> {
    let show = |rest: &[String]| {
        let (name, mode) = (own_name(rest).map(str::to_owned), rest.iter().any(|w| w == "mode"));
        // `tunnel show mode vti` without a name shows the fallback device alone, which uvti has not: measured.
        if name.is_none() && mode && family != Some(Family::V6) {
            return Ok(None);
        }
        let words = std::iter::once("tunnel".to_owned()).chain(words.iter().cloned()).collect();
        Ok(Some(Command::TunnelShow { name, words }))
    };
    let Some(verb) = words.first().filter(|v| !v.is_empty()) else { return show(&[]) };
    let rest = &words[1..];
    let is = |whole: &str| begins(verb, whole);
    let command = if is("add") {
        add(rest, family, names)
    } else if is("change") {
        change(rest, names)
    } else if is("delete") {
        Ok(ours(rest, names).map(|link| Change::one(Op::LinkDel { name: link.name }, Asker::Tunnel)))
    } else if is("show") || is("lst") || is("list") {
        return show(rest);
    } else {
        Ok(None)
    };
    command.map_err(|f| f.behind(1))
}

/// The device that a command is about: the first word that is no keyword and no keyword's value.
fn own_name(words: &[String]) -> Option<&str> {
    let mut rest = Words::new(words);
    while let Some(word) = rest.next() {
        match word {
            "name" => return rest.next(),
            "pmtudisc" | "nopmtudisc" => {}
            "mode" | "local" | "remote" | "key" | "ikey" | "okey" | "dev" | "ttl" | "hoplimit" | "tos"
            | "dsfield" => {
                rest.next();
            }
            name => return Some(name),
        }
    }
    None
}

/// The kind by `mode`; without one, `vti` is meant by a name that begins so.
fn mode_of(words: &[String], family: Option<Family>) -> Option<LinkKind> {
    match words.iter().position(|w| w == "mode") {
        Some(at) => tunnel_kind(words.get(at + 1)?),
        None if family == Some(Family::V6) => None,
        None => own_name(words).is_some_and(names_mode).then_some(LinkKind::Vti),
    }
}

/// An xfrm interface is none of `ip tunnel`.
fn tunnel_kind(name: &str) -> Option<LinkKind> {
    kind_of(name).filter(|kind| *kind != LinkKind::Xfrm)
}

/// The tunnel of ours that a command is about.
fn ours(words: &[String], names: &dyn Names) -> Option<LinkSpec> {
    names.link(own_name(words)?).filter(|link| link.kind != LinkKind::Xfrm)
}

/// Whether iproute2 takes the name of a tunnel for its mode.
pub(crate) fn names_mode(name: &str) -> bool {
    name.starts_with("vti")
}

fn add(words: &[String], family: Option<Family>, names: &dyn Names) -> Result<Option<Command>, Fail> {
    let Some(kind) = mode_of(words, family) else { return Ok(None) };
    let mut spec = LinkSpec::new(String::new(), kind);
    spec.header = TunnelHeader { by_ioctl: true, df: true, ..TunnelHeader::default() };
    arguments(words, &mut spec, names)?;
    if spec.name.is_empty() {
        spec.name = names.free_name(kind.name());
    }
    Ok(Some(Change::one(Op::LinkAdd(spec), Asker::Tunnel)))
}

fn change(words: &[String], names: &dyn Names) -> Result<Option<Command>, Fail> {
    let Some(mut spec) = ours(words, names) else { return Ok(None) };
    arguments(words, &mut spec, names)?;
    Ok(Some(Change::one(Op::LinkChange(spec), Asker::Tunnel)))
}

/// All arguments. `ttl inherit` leaves a ttl that was set before, as iproute2 does.
fn arguments(words: &[String], spec: &mut LinkSpec, names: &dyn Names) -> Result<(), Fail> {
    let family = family_of(spec.kind);
    let mut named = false;
    let mut words = Words::new(words);
    while let Some(word) = words.next() {
        match word {
            "mode" => {
                let mode = words.need()?;
                if tunnel_kind(mode) != Some(spec.kind) {
                    return Err(words.say(format!("Unknown tunnel mode \"{mode}\"\n"), 255));
                }
            }
            "local" | "remote" => {
                let value = words.need()?;
                let addr = endpoint(value, family).ok_or_else(|| {
                    words.say(format!("Error: an IP address is expected rather than \"{value}\"\n"), 1)
                })?;
                if word == "local" { spec.local = addr } else { spec.remote = addr }
            }
            "key" | "ikey" | "okey" => keys(&mut words, word, spec)?,
            "dev" => {
                let dev = words.need()?;
                if !names.device(dev) {
                    return Err(words.say(format!("Cannot find device \"{dev}\"\n"), 1));
                }
                spec.dev = Some(dev.to_owned());
            }
            "ttl" | "hoplimit" | "hlim" => {
                let ttl = words.need()?;
                if ttl != "inherit" {
                    spec.header.ttl = number(ttl).ok_or_else(|| words.wrong("invalid TTL\n"))?;
                }
            }
            "tos" | "tclass" | "tc" | "dsfield" => {
                let tos = words.need()?;
                spec.header.tos = dsfield::parse(tos).ok_or_else(|| {
                    let shown = tos.split('/').next().unwrap_or(tos);
                    words.say(format!("Error: argument \"{shown}\" is wrong: bad TOS value\n"), 255)
                })?;
            }
            "pmtudisc" | "nopmtudisc" => spec.header.df = word == "pmtudisc",
            "iseq" | "oseq" | "seq" | "icsum" | "ocsum" | "csum" | "external" | "fwmark" => {
                return Err(words.unsupported());
            }
            _ => {
                let name = if word == "name" { words.need()? } else { word };
                if named {
                    return Err(words.garbage("name"));
                }
                if name.is_empty() || name.len() > MAX_NAME {
                    return Err(words.wrong("\"name\" not a valid ifname"));
                }
                named = true;
                spec.name = name.to_owned();
            }
        }
    }
    if spec.kind == LinkKind::Vti && spec.header.ttl != 0 && !spec.header.df {
        return Err(Fail::plain("ttl != 0 and nopmtudisc are incompatible\n"));
    }
    Ok(())
}

fn endpoint(word: &str, family: Family) -> Option<std::net::IpAddr> {
    match word {
        "any" | "all" | "default" => Some(unspecified(family)),
        _ => address(word, Some(family)),
    }
}
