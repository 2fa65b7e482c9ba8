//! One line of a scenario: configuration, waiting, or an expectation. Packets are [`super::traffic`]'s.

use super::cursor::{Cursor, Line, Problem, number};
use super::scenario::{Counts, Step};
use super::traffic;
use crate::counters;
use uvti_core::reason::Mib;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Step(Step),
    /// What is expected stands for the kernel.
    Recorded,
    Expect(Counts),
}

/// What is expected of the far ends, beside the counters of devices, SAs and XFRM.
const SEEN: &[&str] = &["wire", "delivered", "icmp", "errno", "received"];

/// Parses a line whose blocks are expanded.
pub(crate) fn parse(line: &Line) -> Result<Statement, Problem> {
    let mut words = Cursor::new(line, 0);
    let step = match words.need("a statement")? {
        "ip" => Step::Ip(ip(&mut words)?),
        "refused" => {
            if words.need("ip")? != "ip" {
                return Err(words.wrong("`refused ip …` is expected"));
            }
            Step::Refused(ip(&mut words)?)
        }
        "tc" => {
            if words.need("qdisc")? != "qdisc" {
                return Err(words.wrong("only `tc qdisc …`"));
            }
            Step::Tc([vec!["qdisc".to_owned()], words.rest()].concat())
        }
        "sysctl" => {
            let path = words.need("a path below /proc/sys/net")?.to_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-');
            if !path.starts_with("net/") || !path.chars().all(plain) {
                return Err(words.wrong("not a path below /proc/sys/net, as net/ipv4/ip_forward"));
            }
            let value = words.need("a value")?.to_owned();
            words.end()?;
            Step::Sysctl { path, value }
        }
        "listen" => {
            let (address, port) = (words.address()?, words.number("a port", 1, 65535)?);
            words.end()?;
            Step::Listen { address, port }
        }
        "wait" => gone(&mut words)?,
        "send" => Step::Send(traffic::send(&mut words)?),
        "inject" => Step::Inject(traffic::inject(&mut words)?),
        "recorded" => {
            words.end()?;
            return Ok(Statement::Recorded);
        }
        "expect" => return Ok(Statement::Expect(expect(&mut words)?)),
        _ => {
            return Err(words.wrong(
                "no statement: ip, refused, tc, sysctl, listen, send, inject, wait, recorded, expect, use",
            ));
        }
    };
    Ok(Statement::Step(step))
}

/// The words behind `ip`, which may not leave the laboratory.
fn ip(words: &mut Cursor<'_>) -> Result<Vec<String>, Problem> {
    let object = words.need("an object")?;
    // `ip netns exec` and `ip vrf exec` run programs, options choose another namespace or a file.
    if !["address", "link", "neighbour", "neighbor", "route", "rule", "tunnel", "xfrm"]
        .iter()
        .any(|known| known.starts_with(object))
    {
        return Err(words.wrong("a scenario may use ip address, link, neigh, route, rule, tunnel, and xfrm"));
    }
    let all = [vec![object.to_owned()], words.rest()].concat();
    if all.iter().any(|w| w == "netns") {
        return Err(words.problem("a scenario may not name another namespace"));
    }
    Ok(all)
}

/// `wait sa SPI gone`
fn gone(words: &mut Cursor<'_>) -> Result<Step, Problem> {
    if words.need("sa")? != "sa" {
        return Err(words.wrong("`wait sa SPI gone` is expected"));
    }
    let spi = words.number("an SPI", 1, u64::from(u32::MAX))?;
    if words.need("gone")? != "gone" {
        return Err(words.wrong("`wait sa SPI gone` is expected"));
    }
    words.end()?;
    Ok(Step::Gone { spi })
}

/// `GROUP NAME +N [NAME +N]…`
fn expect(words: &mut Cursor<'_>) -> Result<Counts, Problem> {
    let mut group = words.need("what is expected")?.to_owned();
    if group == "nothing" {
        words.end()?;
        return Ok(Counts::new());
    }
    if group == "sa" {
        let spi: u32 = words.number("an SPI", 1, u64::from(u32::MAX))?;
        group = format!("sa {spi:#x}");
    }
    let mut counts = Counts::new();
    let mut name: Vec<&str> = Vec::new();
    loop {
        let Some(word) = words.next() else {
            if name.is_empty() && !counts.is_empty() {
                return Ok(counts);
            }
            return Err(words.wrong("a count (+N) is missing behind it"));
        };
        match word.strip_prefix('+') {
            None => name.push(word),
            Some(n) => {
                let n = number(n).ok_or_else(|| words.wrong("not a number"))?;
                let item = known(&group, &name).ok_or_else(|| words.wrong("there is no such counter"))?;
                counts.insert(format!("{group} {item}"), n);
                name.clear();
            }
        }
    }
}

/// The name of a counter as observations have it, if it can be one at all.
fn known(group: &str, name: &[&str]) -> Option<String> {
    let text = name.join(" ");
    let single = match name {
        [single] => Some(*single),
        _ => None,
    };
    match group {
        "xfrm" => Mib::ALL.iter().any(|m| Some(m.name()) == single).then_some(text),
        _ if group.starts_with("sa ") => {
            ["packets", "bytes", "replay-window", "replay", "failed"].contains(&single?).then_some(text)
        }
        _ if SEEN.contains(&group) => (!name.is_empty()).then_some(text),
        // A device.
        _ => counters::field(single?).map(str::to_owned),
    }
}
