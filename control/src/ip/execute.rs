//! Running a command: by the dataplane what is uvti's, by the system's `ip` the rest.

use super::parse::{Asker, Change, Command, Options, PolicyMatch, parse};
use super::session::Session;
use super::show::{self, link};
use super::words::Fail;
use super::{batch, system};
use crate::client::{Client, ClientError};
use crate::protocol::Rejected;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use uvti_core::device::LinkInfo;
use uvti_core::tables::{Errno, Op, StateMatch};
use uvti_core::xfrm::{Family, PolicyId, PolicyInfo, StateInfo};

/// `uvti ip WORDS`: returns the exit code, iproute2's where it has one.
pub fn run(words: &[String], control: Option<&Path>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (options, used) = match Options::parse(words) {
        Ok(parsed) => parsed,
        Err(fail) => return report(&fail, err),
    };
    if options.foreign {
        return system::run(words, err);
    }
    let session = Session::new(control, options.namespace.as_deref());
    match &options.batch {
        Some(file) => batch::run(file, &options, &session, out, err),
        None => {
            execute(&words[used..], &options, &session, out, err).unwrap_or_else(|fail| report(&fail, err))
        }
    }
}

fn report(fail: &Fail, err: &mut dyn Write) -> u8 {
    let _ = err.write_all(fail.text.as_bytes());
    fail.code
}

impl From<ClientError> for Fail {
    fn from(error: ClientError) -> Self {
        Fail::plain(format!("{error}\n"))
    }
}

/// Runs one command without its options; returns its exit code.
pub(super) fn execute(
    words: &[String],
    options: &Options,
    session: &Session<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Fail> {
    let text = match parse(words, options, session)? {
        Command::System(words) => return Ok(system::run(&with_options(options, &words), err)),
        Command::Apply(change) => {
            apply(&change, session)?;
            for words in &change.then {
                let code = system::run(&with_options(options, words), err);
                if code != 0 {
                    return Ok(code);
                }
            }
            String::new()
        }
        Command::StateList { which, nokeys } => {
            let style = style(options, nokeys);
            states(session, options, &which)?.iter().map(|s| show::state::state(s, style)).collect()
        }
        Command::StateGet(id) => match session.with(|c| c.state(id))? {
            Some(info) => show::state::state(&info, style(options, false)),
            None => {
                return Err(Fail::refused(format_args!("RTNETLINK answers: {}", Errno::NoProcess.text())));
            }
        },
        Command::StateDeleteAll(which) => {
            delete_states(session, options, &which)?;
            String::new()
        }
        Command::StateCount => show::state::count(&session.with(Client::counts)?, options.stats > 0),
        Command::PolicyList(which) => {
            let style = style(options, false);
            policies(session, options, &which)?.iter().map(|p| show::policy::policy(p, style)).collect()
        }
        Command::PolicyGet(id) => match session.with(|c| c.policy(id))? {
            Some(info) => show::policy::policy(&info, style(options, false)),
            None => return Err(Fail::refused(format_args!("RTNETLINK answers: {}", Errno::NoEntry.text()))),
        },
        Command::PolicyDeleteAll(which) => {
            delete_policies(session, options, &which)?;
            String::new()
        }
        Command::PolicyCount => show::policy::count(&session.with(Client::counts)?, options.stats > 0),
        Command::PolicyDefaults => show::policy::defaults(session.with(Client::defaults)?),
        Command::LinkShow { name, kind, up, words } => {
            return show_links(&Wanted { name, kind, up }, options, &words, session, out, err);
        }
        Command::TunnelShow { name, words } => {
            return show_tunnels(name.as_deref(), options, &words, session, out, err);
        }
    };
    let _ = out.write_all(text.as_bytes());
    Ok(0)
}

fn style(options: &Options, nokeys: bool) -> show::Style {
    show::Style { stats: options.stats > 0, oneline: options.oneline, nokeys }
}

fn with_options(options: &Options, words: &[String]) -> Vec<String> {
    options.words.iter().chain(words).cloned().collect()
}

fn apply(change: &Change, session: &Session<'_>) -> Result<(), Fail> {
    match session.with(|c| c.apply(change.ops.clone()))? {
        Ok(()) => Ok(()),
        Err(rejected) => Err(refused(change, &rejected)),
    }
}

/// iproute2 reports a kernel's refusal in the words of the way it asked.
fn refused(change: &Change, rejected: &Rejected) -> Fail {
    if change.asker == Asker::Netlink {
        return Fail::refused(&rejected.refusal);
    }
    let errno = rejected.refusal.errno.text();
    let text = match change.ops.get(rejected.index) {
        Some(Op::LinkDel { name }) => format!("delete tunnel \"{name}\" failed: {errno}\n"),
        Some(Op::LinkChange(spec)) => format!("change tunnel \"{}\" failed: {errno}\n", spec.name),
        // The device that the ioctl was made on.
        _ => format!("add tunnel \"ip_vti0\" failed: {errno}\n"),
    };
    Fail::plain(text)
}

fn states(session: &Session<'_>, options: &Options, which: &StateMatch) -> Result<Vec<StateInfo>, Fail> {
    let mut states = session.with(Client::states)?;
    states.retain(|s| which.matches(&s.spec) && of_family(options, s.spec.family()));
    Ok(states)
}

fn policies(session: &Session<'_>, options: &Options, which: &PolicyMatch) -> Result<Vec<PolicyInfo>, Fail> {
    let mut policies = session.with(Client::policies)?;
    policies.retain(|p| which.matches(p) && p.spec.sel.family.is_none_or(|f| of_family(options, f)));
    Ok(policies)
}

fn of_family(options: &Options, family: Family) -> bool {
    options.family.is_none_or(|f| f == family)
}

fn delete_states(session: &Session<'_>, options: &Options, which: &StateMatch) -> Result<(), Fail> {
    let ops: Vec<Op> = states(session, options, which)?.iter().map(|s| Op::StateDel(s.spec.id())).collect();
    delete_all(session, ops)
}

fn delete_policies(session: &Session<'_>, options: &Options, which: &PolicyMatch) -> Result<(), Fail> {
    let ops = policies(session, options, which)?
        .into_iter()
        .map(|p| {
            let (index, dir, mark, if_id) = (p.spec.index, p.spec.dir, p.spec.mark, p.spec.if_id);
            Op::PolicyDel(PolicyId::Index { index, dir, mark, if_id })
        })
        .collect();
    delete_all(session, ops)
}

fn delete_all(session: &Session<'_>, ops: Vec<Op>) -> Result<(), Fail> {
    if ops.is_empty() {
        return Ok(());
    }
    apply(&Change { ops, asker: Asker::Netlink, then: Vec::new() }, session)
}

/// Which links `link show` is about.
struct Wanted {
    name: Option<String>,
    kind: Option<String>,
    up: bool,
}

impl Wanted {
    fn includes(&self, l: &LinkInfo) -> bool {
        self.name.as_ref().is_none_or(|n| *n == l.spec.name)
            && self.kind.as_ref().is_none_or(|k| *k == l.spec.kind.name())
            && (!self.up || l.up)
    }
}

/// Ours alone if only ours are meant; else the system's list, with our devices as a kernel VTI would show them.
fn show_links(
    wanted: &Wanted,
    options: &Options,
    words: &[String],
    session: &Session<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Fail> {
    let all = session.links();
    let ours: Vec<&LinkInfo> = all.iter().filter(|l| wanted.includes(l)).collect();
    let named = wanted.name.as_ref().is_some_and(|n| all.iter().any(|l| l.spec.name == *n));
    let vti = wanted.kind.as_deref().is_some_and(|k| k == "vti" || k == "vti6");
    let style = link::Style { stats: options.stats, details: options.details, oneline: options.oneline };
    if ours.is_empty() && !named && !vti || options.brief {
        return Ok(system::run(&with_options(options, words), err));
    }
    let system = if named || vti { None } else { system::output(&with_options(options, words)) };
    let code = system.as_ref().and_then(|o| o.status.code()).unwrap_or(0) as u8;
    let stdout = system.as_ref().map_or(&[][..], |o| &o.stdout);
    if options.json {
        let text = merge_json(stdout, &ours, style, options.pretty);
        let _ = out.write_all(text.as_bytes());
    } else {
        let text = merge_text(&String::from_utf8_lossy(stdout), &ours, style);
        let _ = out.write_all(text.as_bytes());
    }
    Ok(code)
}

/// Replaces the blocks of our devices in the system's list, which is in the order of interface indexes.
fn merge_text(system: &str, ours: &[&LinkInfo], style: link::Style) -> String {
    let mut blocks: Vec<(u32, String)> = Vec::new();
    for line in system.split_inclusive('\n') {
        let index = line.split(':').next().and_then(|n| n.parse().ok());
        match (index, blocks.last_mut()) {
            (Some(index), _) => blocks.push((index, line.to_owned())),
            (None, Some((_, block))) => block.push_str(line),
            (None, None) => blocks.push((0, line.to_owned())),
        }
    }
    blocks.retain(|(index, _)| ours.iter().all(|l| l.ifindex != *index));
    blocks.extend(ours.iter().map(|l| (l.ifindex, link::text(l, style))));
    blocks.sort_by_key(|(index, _)| *index);
    blocks.into_iter().map(|(_, block)| block).collect()
}

fn merge_json(system: &[u8], ours: &[&LinkInfo], style: link::Style, pretty: bool) -> String {
    let mut all: Vec<Value> = serde_json::from_slice(system).unwrap_or_default();
    let index = |v: &Value| v["ifindex"].as_u64().unwrap_or(0);
    all.retain(|v| ours.iter().all(|l| u64::from(l.ifindex) != index(v)));
    all.extend(ours.iter().map(|l| link::value(l, style)));
    all.sort_by_key(index);
    let text = if pretty { serde_json::to_string_pretty(&all) } else { serde_json::to_string(&all) };
    text.unwrap_or_default() + "\n"
}

fn show_tunnels(
    name: Option<&str>,
    options: &Options,
    words: &[String],
    session: &Session<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Fail> {
    let ours: Vec<LinkInfo> =
        session.links().into_iter().filter(|l| name.is_none_or(|n| n == l.spec.name)).collect();
    if ours.is_empty() {
        return Ok(system::run(&with_options(options, words), err));
    }
    if name.is_none()
        && let Some(system) = system::output(&with_options(options, words))
    {
        let _ = out.write_all(&without(&system.stdout, &ours));
    }
    for l in &ours {
        let _ = out.write_all(show::tunnel::tunnel(l, options.stats > 0).as_bytes());
    }
    Ok(0)
}

/// The system's list without our devices, which it knows as TUNs if at all.
fn without(system: &[u8], ours: &[LinkInfo]) -> Vec<u8> {
    String::from_utf8_lossy(system)
        .split_inclusive('\n')
        .filter(|line| ours.iter().all(|l| !line.starts_with(&format!("{}:", l.spec.name))))
        .collect::<String>()
        .into_bytes()
}
