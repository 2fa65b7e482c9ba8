//! `ip link show` and `ip tunnel show`: our devices among the system's.

use super::execute::{Session, of_client, print};
use super::merge::{self, Ours};
use super::names;
use super::parse::names_mode;
use super::show::{self, link::HostDetail};
use super::system::Output;
use super::words::Fail;
use serde_json::Value;
use std::io::Write;
use uvti_core::device::LinkInfo;

/// Which devices `link show` is about.
pub(super) struct Which {
    /// This one only.
    pub(super) name: Option<String>,
    /// Of this kind.
    pub(super) kind: Option<String>,
    /// That are up.
    pub(super) up: bool,
}

impl Which {
    fn matches(&self, link: &LinkInfo) -> bool {
        self.name.as_ref().is_none_or(|n| *n == link.spec.name)
            && self.kind.as_ref().is_none_or(|k| k == link.spec.kind.name())
            && (!self.up || link.up)
    }
}

/// `link show`: one device of ours is printed by us alone, a list is the system's with our devices replaced.
pub(super) fn links(
    session: &mut Session<'_>,
    which: &Which,
    words: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Fail> {
    let links = names::links(session).map_err(|e| of_client(&e))?;
    let named = which.name.as_ref().map(|name| links.iter().any(|l| l.spec.name == *name));
    if links.is_empty() || named == Some(false) {
        return Ok(session.pass(words, out, err));
    }
    let system = match named {
        Some(_) => None,
        None => session.system.capture(&session.with_options(words)),
    };
    let system = system.unwrap_or_default();
    let _ = err.write_all(system.err.as_bytes());
    if system.code != 0 {
        print(out, [system.out])?;
        return Ok(system.code);
    }
    print(out, [merged(session, which, &links, &system)?])
}

fn merged(session: &Session<'_>, which: &Which, links: &[LinkInfo], system: &Output) -> Result<String, Fail> {
    let options = session.options;
    let style =
        show::link::Style { stats: options.stats, details: options.details, oneline: options.oneline };
    let told = host_details(session, which);
    let host = |link: &LinkInfo| host_detail(&told, link);
    if !options.json {
        let text = |link: &LinkInfo| match options.brief {
            true => show::link::brief(link),
            false => show::link::text(link, &host(link), style),
        };
        let ours = ours(which, links, text);
        return Ok(if options.brief {
            merge::brief(&system.out, &ours)
        } else {
            merge::text(&system.out, &ours)
        });
    }
    let value = |link: &LinkInfo| match options.brief {
        true => show::link::brief_value(link),
        false => show::link::value(link, &host(link), style),
    };
    let all = merge::json(&system.out, &ours(which, links, value))
        .ok_or_else(|| Fail::plain("uvti: the system's `ip -json link show` printed no JSON\n"))?;
    let all = Value::Array(all);
    Ok(if options.pretty { merge::pretty(&all) } else { all.to_string() } + "\n")
}

/// What the system knows of the TUNs, in whatever namespace they are: asked once, by `-d` alone.
fn host_details(session: &Session<'_>, which: &Which) -> Vec<Value> {
    if !session.options.details || session.options.brief {
        return Vec::new();
    }
    let named = which.name.iter().flat_map(|name| ["dev".to_owned(), name.clone()]);
    let words: Vec<String> = ["-json", "link", "show"].map(str::to_owned).into_iter().chain(named).collect();
    let told = session.system.capture(&session.with_options(&words));
    told.and_then(|told| serde_json::from_str(&told.out).ok()).unwrap_or_default()
}

fn host_detail(told: &[Value], link: &LinkInfo) -> HostDetail {
    let name = link.spec.name.as_str();
    let tun = told.iter().find(|tun| tun["ifname"] == name);
    HostDetail { addr_gen_mode: tun.and_then(|t| t["inet6_addr_gen_mode"].as_str()).map(str::to_owned) }
}

fn ours<T>(which: &Which, links: &[LinkInfo], show: impl Fn(&LinkInfo) -> T) -> Vec<Ours<T>> {
    let one = |link: &LinkInfo| Ours {
        ifindex: link.ifindex,
        name: link.spec.name.clone(),
        shown: which.matches(link).then(|| show(link)),
    };
    links.iter().map(one).collect()
}

/// `tunnel show`: ours behind the system's. iproute2 prints it as text whatever `-j` and `-o` say.
pub(super) fn tunnels(
    session: &mut Session<'_>,
    name: Option<&str>,
    words: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Fail> {
    let mut links = names::links(session).map_err(|e| of_client(&e))?;
    let kind = session.tunnel_kind();
    // iproute2 asks for a tunnel of known mode alone, and then shows no counters; a name may tell the mode.
    let alone = name.is_some_and(|n| words.iter().any(|w| w == "mode") || names_mode(n));
    let stats = session.options.stats > 0 && !alone;
    links.retain(|l| l.spec.kind == kind && name.is_none_or(|n| n == l.spec.name));
    let shown = links.iter().map(|l| show::tunnel::tunnel(l, stats));
    if links.is_empty() {
        return Ok(session.pass(words, out, err));
    }
    if name.is_none()
        && let Some(system) = session.system.capture(&session.with_options(words))
    {
        // Our TUNs have the link type of a tunnel, and the system's `ip` complains that they are none of its own.
        let about_ours = |line: &str| links.iter().any(|l| line.contains(&format!("\"{}\"", l.spec.name)));
        let complaints: String = system.err.split_inclusive('\n').filter(|line| !about_ours(line)).collect();
        let _ = err.write_all(complaints.as_bytes());
        print(out, [system.out])?;
        if system.code != 0 {
            return Ok(system.code);
        }
    }
    print(out, shown)
}
