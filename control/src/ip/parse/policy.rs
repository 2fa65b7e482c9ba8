//! `ip xfrm policy`.

use super::fields::{Id, flags, limit, mode};
use super::selector::Written;
use super::{Asker, Change, Command, Names, unknown_verb};
use crate::ip::words::{Fail, Words, begins};
use ipnet::IpNet;
use std::net::IpAddr;
use uvti_core::tables::{Errno, Op, Refusal};
use uvti_core::xfrm::{
    Action, Direction, Family, Level, Limits, MAX_TEMPLATES, Mark, PolicyFlags, PolicyId, PolicyInfo,
    PolicySpec, PortMatch, Proto, Template,
};

/// Which policies `list` and `deleteall` mean; absent fields match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyMatch {
    /// The policy's source begins with this prefix's bits.
    pub src: Option<IpNet>,
    /// The same for its destination.
    pub dst: Option<IpNet>,
    /// Device of the selector.
    pub dev: Option<String>,
    /// Upper protocol.
    pub proto: Option<u8>,
    /// Source port.
    pub sport: PortMatch,
    /// Destination port.
    pub dport: PortMatch,
    /// Direction.
    pub dir: Option<Direction>,
    /// Index.
    pub index: Option<u32>,
    /// Action.
    pub action: Option<Action>,
    /// Priority.
    pub priority: Option<u32>,
    /// Flags, one of which must be set.
    pub flags: Option<PolicyFlags>,
}

impl PolicyMatch {
    /// Whether a policy is meant.
    pub fn matches(&self, policy: &PolicyInfo) -> bool {
        let spec = &policy.spec;
        let (sel, is) = (&spec.sel, |wanted: Option<u32>, value| wanted.is_none_or(|w| w == value));
        self.src.is_none_or(|net| begins_with(sel.src.addr(), net))
            && self.dst.is_none_or(|net| begins_with(sel.dst.addr(), net))
            && (self.dev.is_none() || self.dev == sel.dev)
            && self.proto.is_none_or(|p| p == sel.proto)
            && (self.sport.mask == 0 || self.sport == sel.sport)
            && (self.dport.mask == 0 || self.dport == sel.dport)
            && self.dir.is_none_or(|d| d == spec.dir)
            && is(self.index, spec.index)
            && self.action.is_none_or(|a| a == spec.action)
            && is(self.priority, spec.priority)
            && self.flags.is_none_or(|f| f.0 & spec.flags.0 != 0)
    }
}

/// iproute2 compares the bits of the filter's prefix and nothing else: `src 10.0.0.0/23` also lists 10.0.0.0/8.
fn begins_with(addr: IpAddr, net: IpNet) -> bool {
    net.prefix_len() == 0 && Family::of(addr) == Family::of(net.addr()) || net.trunc().contains(&addr)
}

pub(super) fn parse(words: &[String], family: Option<Family>, names: &dyn Names) -> Result<Command, Fail> {
    let Some(verb) = words.first() else { return Ok(Command::PolicyList(PolicyMatch::default())) };
    let mut rest = Words::new(words);
    rest.next();
    let is = |whole: &str| begins(verb, whole);
    if is("add") {
        let spec = build(&mut rest, family, names)?;
        Ok(Change::one(Op::PolicyAdd(Box::new(spec)), Asker::Netlink))
    } else if is("update") {
        let spec = build(&mut rest, family, names)?;
        Ok(Change::one(Op::PolicyUpdate(Box::new(spec)), Asker::Netlink))
    } else if is("delete") {
        Ok(Change::one(Op::PolicyDel(id(&mut rest, family, names)?), Asker::Netlink))
    } else if is("deleteall") || is("delall") {
        Ok(Command::PolicyDeleteAll(matching(&mut rest, family, names)?))
    } else if is("list") || is("show") || is("lst") {
        Ok(Command::PolicyList(matching(&mut rest, family, names)?))
    } else if is("get") {
        Ok(Command::PolicyGet(id(&mut rest, family, names)?))
    } else if is("flush") {
        flush(&mut rest)
    } else if is("count") {
        Ok(Command::PolicyCount)
    } else if is("set") {
        Err(rest.unsupported())
    } else if is("setdefault") {
        set_default(&mut rest)
    } else if is("getdefault") {
        Ok(Command::PolicyDefaults)
    } else if is("help") {
        Err(Fail::usage(USAGE, Some(0)))
    } else {
        Err(unknown_verb(verb, "xfrm policy", "."))
    }
}

fn build(words: &mut Words<'_>, family: Option<Family>, names: &dyn Names) -> Result<PolicySpec, Fail> {
    let (mut dir, mut sel): (Option<Direction>, Option<Written>) = (None, None);
    let (mut mark, mut if_id, mut index, mut priority) = (Mark::default(), 0, 0, 0);
    let (mut action, mut policy_flags, mut limits) = (Action::Allow, PolicyFlags::default(), Limits::NONE);
    let mut templates = Vec::new();
    while let Some(word) = words.peek() {
        let mut ahead = words.clone();
        ahead.next();
        match word {
            "dir" if dir.is_some() => return Err(ahead.duplicate("dir")),
            "dir" => dir = Some(direction(&mut ahead)?),
            "mark" => mark = ahead.mark()?,
            "index" => index = ahead.number("INDEX value is invalid")?,
            "ptype" => ptype(&mut ahead)?,
            "action" => action = act(&mut ahead)?,
            "priority" => priority = ahead.number("PRIORITY value is invalid")?,
            "flag" => policy_flags = PolicyFlags(policy_flag(&mut ahead)?),
            "if_id" => if_id = ahead.number("IF_ID value is invalid")?,
            "limit" => limit(&mut ahead, &mut limits)?,
            "tmpl" => templates.push(template(&mut ahead, family)?),
            "ctx" | "offload" => return Err(ahead.unsupported()),
            _ => {
                let written = if sel.is_some() { None } else { Written::take(words, family, names)? };
                if written.is_none() {
                    return Err(ahead.duplicate("unknown"));
                }
                sel = written;
                continue;
            }
        }
        *words = ahead;
    }
    let Some(dir) = dir else { return Err(no_direction()) };
    let fallback = family.unwrap_or(Family::V4);
    let sel = sel.unwrap_or_default().selector(fallback);
    let templates = finish(templates, sel.family.unwrap_or(fallback))?;
    Ok(PolicySpec { sel, dir, mark, if_id, priority, action, flags: policy_flags, index, limits, templates })
}

/// A template as written: an ID whose protocol or addresses may be missing.
struct WrittenTemplate {
    id: Id,
    mode: uvti_core::xfrm::Mode,
    reqid: u32,
    level: Level,
}

/// `ID [mode M] [reqid N] [level L]`, behind the keyword `tmpl`.
fn template(words: &mut Words<'_>, family: Option<Family>) -> Result<WrittenTemplate, Fail> {
    if words.peek().is_none() {
        words.need()?;
    }
    let mut this =
        WrittenTemplate { id: Id::default(), mode: Default::default(), reqid: 0, level: Level::Required };
    let mut has_id = false;
    while let Some(word) = words.peek() {
        match word {
            "mode" => {
                words.next();
                this.mode = mode(words)?;
            }
            "reqid" => {
                words.next();
                this.reqid = words.number("REQID value is invalid")?;
            }
            "level" => {
                words.next();
                this.level = level(words)?;
            }
            "src" | "dst" | "proto" | "spi" if !has_id => {
                this.id.take(words, family)?;
                has_id = true;
            }
            _ => break,
        }
    }
    Ok(this)
}

/// Gives templates the policy's family, and refuses what a kernel does not take.
///
/// kernel: net/xfrm/xfrm_user.c validate_tmpl()
fn finish(written: Vec<WrittenTemplate>, family: Family) -> Result<Vec<Template>, Fail> {
    let refuse = |text: String| Err(Fail::refused(Refusal::message(Errno::Invalid, text)));
    if written.len() > MAX_TEMPLATES {
        return refuse(format!("Template count must be <= XFRM_MAX_DEPTH ({MAX_TEMPLATES})"));
    }
    if written.iter().any(|t| matches!(t.id.proto, None | Some(Proto::Any))) {
        return refuse("Invalid XFRM protocol in template".to_owned());
    }
    let template = |t: WrittenTemplate| {
        let (src, dst) = t.id.addresses(t.id.family().unwrap_or(family));
        let (proto, spi) = (t.id.proto.unwrap_or_default(), t.id.spi.unwrap_or_default());
        Template { src, dst, proto, spi, mode: t.mode, reqid: t.reqid, level: t.level }
    };
    Ok(written.into_iter().map(template).collect())
}

/// `{SELECTOR|index N} dir D [mark] [if_id]` of `get` and `delete`.
fn id(words: &mut Words<'_>, family: Option<Family>, names: &dyn Names) -> Result<PolicyId, Fail> {
    let (mut dir, mut index, mut sel): (Option<Direction>, Option<u32>, Option<Written>) = (None, None, None);
    let (mut mark, mut if_id) = (Mark::default(), 0);
    while let Some(word) = words.peek() {
        let mut ahead = words.clone();
        ahead.next();
        match word {
            "dir" if dir.is_some() => return Err(ahead.duplicate("dir")),
            "dir" => dir = Some(direction(&mut ahead)?),
            "mark" => mark = ahead.mark()?,
            "index" if index.is_some() => return Err(ahead.duplicate("index")),
            "index" => index = Some(ahead.number("INDEX value is invalid")?),
            "ptype" => ptype(&mut ahead)?,
            "if_id" => if_id = ahead.number("IF_ID value is invalid")?,
            "ctx" => return Err(ahead.unsupported()),
            _ => {
                let written = if sel.is_some() { None } else { Written::take(words, family, names)? };
                if written.is_none() {
                    return Err(ahead.wrong("unknown"));
                }
                sel = written;
                continue;
            }
        }
        *words = ahead;
    }
    let Some(dir) = dir else { return Err(no_direction()) };
    match (sel, index) {
        (Some(_), Some(_)) => {
            Err(Fail::usage("Error: either \"SELECTOR\" is duplicate, or \"INDEX\" is a garbage.\n", None))
        }
        (None, None) => Err(Fail::plain("Not enough information: either SELECTOR or INDEX is required.\n")),
        (None, Some(index)) => Ok(PolicyId::Index { index, dir, mark, if_id }),
        (Some(sel), None) => {
            let sel = sel.selector(family.unwrap_or(Family::V4));
            Ok(PolicyId::Selector { sel, dir, mark, if_id })
        }
    }
}

fn matching(words: &mut Words<'_>, family: Option<Family>, names: &dyn Names) -> Result<PolicyMatch, Fail> {
    let mut which = PolicyMatch::default();
    while let Some(word) = words.peek() {
        let mut ahead = words.clone();
        ahead.next();
        match word {
            "dir" => which.dir = Some(direction(&mut ahead)?),
            "index" => which.index = Some(ahead.number("INDEX value is invalid")?),
            "ptype" => ptype(&mut ahead)?,
            "action" => which.action = Some(act(&mut ahead)?),
            "priority" => which.priority = Some(ahead.number("PRIORITY value is invalid")?),
            "flag" => which.flags = Some(PolicyFlags(policy_flag(&mut ahead)?)),
            // Policies of sockets are not in the dataplane: there is none to leave out.
            "nosock" => {}
            _ => {
                let Some(sel) = Written::take(words, family, names)? else {
                    return Err(ahead.wrong("unknown"));
                };
                let Written { src, dst, dev, proto, sport, dport } = sel;
                let proto = (proto != 0).then_some(proto);
                which = PolicyMatch { src, dst, dev, proto, sport, dport, ..which };
                continue;
            }
        }
        *words = ahead;
    }
    Ok(which)
}

fn flush(words: &mut Words<'_>) -> Result<Command, Fail> {
    while let Some(word) = words.next() {
        match word {
            "ptype" => ptype(words)?,
            _ => return Err(words.wrong("unknown")),
        }
    }
    Ok(Change::one(Op::PolicyFlush, Asker::Netlink))
}

fn set_default(words: &mut Words<'_>) -> Result<Command, Fail> {
    let mut ops = Vec::new();
    while let Some(word) = words.next() {
        let dir = direction_of(word).ok_or_else(|| words.wrong("unknown direction"))?;
        let action = match words.need()? {
            "accept" => Action::Allow,
            "block" => Action::Block,
            _ => return Err(words.wrong(&format!("{} policy value is invalid", dir.name()))),
        };
        ops.push(Op::PolicyDefault { dir, action });
    }
    Ok(Command::Apply(Change { ops, asker: Asker::Netlink, then: Vec::new() }))
}

fn no_direction() -> Fail {
    Fail::plain("Not enough information: DIR is required.\n")
}

fn direction_of(word: &str) -> Option<Direction> {
    Direction::ALL.into_iter().find(|d| d.name() == word)
}

fn direction(words: &mut Words<'_>) -> Result<Direction, Fail> {
    let word = words.need()?;
    direction_of(word).ok_or_else(|| words.wrong("DIR value is invalid"))
}

fn act(words: &mut Words<'_>) -> Result<Action, Fail> {
    match words.need()? {
        "allow" => Ok(Action::Allow),
        "block" => Ok(Action::Block),
        _ => Err(words.wrong("ACTION value is invalid\n")),
    }
}

fn level(words: &mut Words<'_>) -> Result<Level, Fail> {
    match words.need()? {
        "required" => Ok(Level::Required),
        "use" => Ok(Level::Use),
        _ => Err(words.wrong("LEVEL value is invalid\n")),
    }
}

/// There is one policy table; the kernel's `sub` is for Mobile IPv6.
fn ptype(words: &mut Words<'_>) -> Result<(), Fail> {
    match words.need()? {
        "main" => Ok(()),
        "sub" => Err(words.unsupported()),
        _ => Err(words.wrong("PTYPE value is invalid")),
    }
}

fn policy_flag(words: &mut Words<'_>) -> Result<u8, Fail> {
    flags(words, FLAGS, "FLAG").map_err(|fail| match fail.text.ends_with("wrong: unknown\n") {
        // What is no flag is taken for a selector, and is none either.
        true => words.duplicate("unknown"),
        false => fail,
    })
}

/// FLAG names. kernel: include/uapi/linux/xfrm.h XFRM_POLICY_*
pub(crate) const FLAGS: &[(&str, u8)] = &[("localok", PolicyFlags::LOCALOK), ("icmp", PolicyFlags::ICMP)];

const USAGE: &str = "\
Usage: ip xfrm policy { add | update } SELECTOR dir DIR
\t[ mark MARK [ mask MASK ] ] [ index INDEX ] [ ptype PTYPE ]
\t[ action ACTION ] [ priority PRIORITY ] [ flag FLAG-LIST ]
\t[ if_id IF_ID ] [ LIMIT-LIST ] [ TMPL-LIST ]
Usage: ip xfrm policy { delete | get } { SELECTOR | index INDEX } dir DIR
\t[ mark MARK [ mask MASK ] ] [ ptype PTYPE ] [ if_id IF_ID ]
Usage: ip xfrm policy { deleteall | list } [ nosock ] [ SELECTOR ] [ dir DIR ]
\t[ index INDEX ] [ ptype PTYPE ] [ action ACTION ] [ priority PRIORITY ]
\t[ flag FLAG-LIST ]
Usage: ip xfrm policy flush [ ptype PTYPE ]
Usage: ip xfrm policy count
Usage: ip xfrm policy setdefault DIR ACTION [ DIR ACTION ] [ DIR ACTION ]
Usage: ip xfrm policy getdefault
";
