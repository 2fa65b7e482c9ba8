//! Runs `uvti ip …`: asks the dataplane for what uvti owns, the system's `ip` for the rest.

use super::parse::{Asker, Change, Command, Options, PolicyMatch, parse};
use super::system::{Installed, System};
use super::words::Fail;
use super::{batch, listing, show};
use crate::client::{Client, ClientError};
use crate::ip::names::Known;
use crate::protocol::{Namespace, Rejected, Request, Topics};
use std::io::Write;
use std::path::Path;
use uvti_core::device::LinkKind;
use uvti_core::tables::{Errno, Op, Refusal, StateMatch};
use uvti_core::xfrm::{Family, PolicyId, PolicyInfo, StateInfo};

/// Runs the words behind `uvti ip`; returns the exit code that `ip` would have had. `control` is the socket to use
/// instead of the one of the namespace (`--control`, `UVTI_CONTROL`).
pub fn run(words: &[String], control: Option<&Path>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    run_with(words, control, &Installed, out, err)
}

/// The same with another `ip` in the place of the system's.
pub fn run_with(
    words: &[String],
    control: Option<&Path>,
    system: &dyn System,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (options, used) = match Options::parse(words) {
        Ok(parsed) => parsed,
        Err(fail) => return report(&fail, err),
    };
    if options.foreign {
        return system.pass(words, out, err);
    }
    let mut session = Session::new(&options, control, system);
    let code = match &options.batch {
        Some(file) => batch::run(file, &mut session, out, err),
        None => match session.command(&words[used..], out, err) {
            Ok(code) => code,
            Err(fail) => report(&fail, err),
        },
    };
    let _ = out.flush();
    code
}

pub(super) fn report(fail: &Fail, err: &mut dyn Write) -> u8 {
    let _ = err.write_all(fail.text.as_bytes());
    fail.code
}

/// What commands of one invocation share.
pub(super) struct Session<'a> {
    pub(super) options: &'a Options,
    pub(super) system: &'a dyn System,
    control: Option<&'a Path>,
    client: Option<Client>,
}

impl<'a> Session<'a> {
    fn new(options: &'a Options, control: Option<&'a Path>, system: &'a dyn System) -> Self {
        Self { options, system, control, client: None }
    }

    /// Runs one command without its options. A [`Fail`] has printed nothing yet.
    pub(super) fn command(
        &mut self,
        words: &[String],
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<u8, Fail> {
        let parsed = {
            let names = Known::new(self);
            let parsed = parse(words, names.options(), &names);
            // A look-up that failed must not pass for "not ours": the system's `ip` would get what is not its own.
            if let Some(error) = names.failed() {
                return Err(of_client(&error));
            }
            parsed?
        };
        match parsed {
            Command::System(words) => {
                let code = self.system_line(&words, out, err);
                self.refresh();
                code
            }
            Command::Apply(change) => self.apply(change, out, err),
            Command::StateList { which, nokeys } => {
                let (states, style) = (self.states(&which)?, self.keyed_style(nokeys)?);
                print(out, states.iter().map(|s| show::state::state(s, style)))
            }
            Command::StateGet(id) => {
                let style = self.keyed_style(false)?;
                match self.client()?.state(id).map_err(|e| of_client(&e))? {
                    Some(state) => print(out, [show::state::state(&state, style)]),
                    None => Err(Fail::refused(Refusal::errno(Errno::NoProcess))),
                }
            }
            Command::StateAlloc { spec, range } => {
                let state = self.client()?.allocate(spec, range).map_err(|e| of_client(&e))?;
                let state = state.map_err(|rejected| Fail::refused(rejected.refusal))?;
                print(out, [show::state::state(&state, self.style(false))])
            }
            Command::Monitor { topics, nokeys } => self.monitor(topics, nokeys, out, err),
            Command::StateDeleteAll(which) => {
                let ops = self.states(&which)?.iter().map(|s| Op::StateDel(s.spec.id())).collect();
                self.apply(Change { ops, asker: Asker::Netlink, then: Vec::new() }, out, err)
            }
            Command::StateCount => {
                let counts = self.client()?.counts().map_err(|e| of_client(&e))?;
                print(out, [show::state::count(&counts, self.options.stats > 0)])
            }
            Command::PolicyList(which) => {
                let policies = self.policies(&which)?;
                print(out, policies.iter().map(|p| show::policy::policy(p, self.style(false))))
            }
            Command::PolicyGet(id) => match self.client()?.policy(id).map_err(|e| of_client(&e))? {
                Some(policy) => print(out, [show::policy::policy(&policy, self.style(false))]),
                None => Err(Fail::refused(Refusal::errno(Errno::NoEntry))),
            },
            Command::PolicyDeleteAll(which) => {
                let ops = self.policies(&which)?.iter().map(|p| Op::PolicyDel(by_index(p))).collect();
                self.apply(Change { ops, asker: Asker::Netlink, then: Vec::new() }, out, err)
            }
            Command::PolicyCount => {
                let counts = self.client()?.counts().map_err(|e| of_client(&e))?;
                print(out, [show::policy::count(&counts, self.options.stats > 0)])
            }
            Command::PolicyDefaults => {
                let actions = self.client()?.defaults().map_err(|e| of_client(&e))?;
                print(out, [show::policy::defaults(actions)])
            }
            Command::LinkShow { name, kind, up, words } => {
                let which = listing::Which { name, kind, up };
                listing::links(self, &which, &words, out, err)
            }
            Command::TunnelShow { name, words } => listing::tunnels(self, name.as_deref(), &words, out, err),
        }
    }

    /// Hands a command to the system's `ip`, with the options we were given.
    pub(super) fn pass(&self, words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        self.system.pass(&self.with_options(words), out, err)
    }

    /// Hands a command to the system's `ip` that changes something; in a batch as a line of one.
    fn system_line(&self, words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Fail> {
        if self.options.batch.is_none() {
            return Ok(self.pass(words, out, err));
        }
        let ended = self.system.line(&self.options.words, words, out, err);
        match ended.at_once {
            // All was said.
            true => Err(Fail { text: String::new(), code: ended.code, word: None }),
            false => Ok(ended.code),
        }
    }

    /// What the system's `ip` changed holds for the dataplane when the command returns, not an event later.
    fn refresh(&mut self) {
        // Where no dataplane runs there is nothing to tell.
        if let Ok(client) = self.connect() {
            let _ = client.ask(&Request::Refresh);
        }
    }

    pub(super) fn with_options(&self, words: &[String]) -> Vec<String> {
        self.options.words.iter().chain(words).cloned().collect()
    }

    /// The connection, made when it is first needed.
    pub(super) fn client(&mut self) -> Result<&mut Client, Fail> {
        self.connect().map_err(|e| of_client(&e))
    }

    /// The same with the reason, for those to whom no dataplane is an answer too.
    pub(super) fn connect(&mut self) -> Result<&mut Client, ClientError> {
        if self.client.is_none() {
            let namespace = match &self.options.namespace {
                Some(name) => Namespace::Named(name.clone()),
                None => Namespace::Own,
            };
            self.client = Some(Client::connect(self.control, &namespace)?);
        }
        self.client.as_mut().ok_or(ClientError::Closed)
    }

    fn apply(&mut self, change: Change, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Fail> {
        if !change.ops.is_empty() {
            let refused = self.client()?.apply(change.ops.clone()).map_err(|e| of_client(&e))?;
            refused.map_err(|rejected| refusal(&change, &rejected))?;
        }
        for words in &change.then {
            let code = self.system_line(words, out, err)?;
            if code != 0 {
                return Ok(code);
            }
        }
        if !change.then.is_empty() {
            self.refresh();
        }
        Ok(0)
    }

    /// Prints what happens until nobody reads it any more.
    fn monitor(
        &mut self,
        topics: Topics,
        nokeys: bool,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<u8, Fail> {
        let style = self.keyed_style(nokeys)?;
        let client = self.client()?;
        client.monitor(topics).map_err(|e| of_client(&e))?;
        loop {
            let (notices, lost) = client.notices().map_err(|e| of_client(&e))?;
            for notice in &notices {
                let text = show::notice::notice(notice, style);
                if out.write_all(text.as_bytes()).is_err() {
                    return Ok(0);
                }
            }
            if out.flush().is_err() {
                return Ok(0);
            }
            if lost > 0 {
                let _ = writeln!(err, "uvti: {lost} events are lost: they came faster than they were read");
            }
        }
    }

    fn states(&mut self, which: &StateMatch) -> Result<Vec<StateInfo>, Fail> {
        let family = self.options.family;
        let mut states = self.client()?.states().map_err(|e| of_client(&e))?;
        states.retain(|s| which.matches(&s.spec) && family.is_none_or(|f| f == s.spec.family()));
        Ok(states)
    }

    fn policies(&mut self, which: &PolicyMatch) -> Result<Vec<PolicyInfo>, Fail> {
        let family = self.options.family;
        let mut policies = self.client()?.policies().map_err(|e| of_client(&e))?;
        policies.retain(|p| which.matches(p) && family.is_none_or(|f| Some(f) == p.spec.sel.family));
        Ok(policies)
    }

    /// How states are shown: without keys also where we are told none.
    fn keyed_style(&mut self, nokeys: bool) -> Result<show::Style, Fail> {
        let hidden = nokeys || self.client()?.is_read_only().map_err(|e| of_client(&e))?;
        Ok(self.style(hidden))
    }

    fn style(&self, nokeys: bool) -> show::Style {
        show::Style { stats: self.options.stats > 0, oneline: self.options.oneline, nokeys }
    }

    /// Which kind of tunnel `ip tunnel show` is about.
    pub(super) fn tunnel_kind(&self) -> LinkKind {
        match self.options.family {
            Some(Family::V6) => LinkKind::Vti6,
            _ => LinkKind::Vti,
        }
    }
}

fn by_index(policy: &PolicyInfo) -> PolicyId {
    let spec = &policy.spec;
    PolicyId::Index { index: spec.index, dir: spec.dir, mark: spec.mark, if_id: spec.if_id }
}

/// Prints objects one by one. A reader that went away (`| head`) is no error of ours.
pub(super) fn print(out: &mut dyn Write, texts: impl IntoIterator<Item = String>) -> Result<u8, Fail> {
    for text in texts {
        if out.write_all(text.as_bytes()).is_err() {
            break;
        }
    }
    Ok(0)
}

/// A refusal in the words of the part of iproute2 that asked.
fn refusal(change: &Change, rejected: &Rejected) -> Fail {
    let refusal = &rejected.refusal;
    if change.asker == Asker::Netlink {
        return Fail::refused(refusal);
    }
    let why = refusal.message.as_deref().unwrap_or(refusal.errno.text());
    Fail::plain(match change.ops.get(rejected.index) {
        // iproute2 names the fallback device, by way of which it adds: measured.
        Some(Op::LinkAdd(spec)) if spec.kind == LinkKind::Vti6 => {
            format!("add tunnel \"ip6_vti0\" failed: {why}\n")
        }
        Some(Op::LinkAdd(_)) => format!("add tunnel \"ip_vti0\" failed: {why}\n"),
        Some(Op::LinkChange(spec)) => format!("add tunnel \"{}\" failed: {why}\n", spec.name),
        Some(Op::LinkDel { name }) => format!("delete tunnel \"{name}\" failed: {why}\n"),
        _ => format!("{refusal}\n"),
    })
}

/// No dataplane, no namespace, no permission.
pub(super) fn of_client(error: &ClientError) -> Fail {
    let code = if matches!(error, ClientError::NoNamespace { .. }) { 255 } else { 1 };
    Fail { text: format!("{error}\n"), code, word: None }
}
