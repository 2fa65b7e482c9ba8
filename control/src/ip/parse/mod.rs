//! Words to [`Command`]s: iproute2's grammar as far as uvti owns it.

mod allocspi;
mod fields;
mod interface;
mod link;
mod monitor;
mod options;
mod policy;
mod selector;
mod state;
mod tunnel;

pub use options::Options;
pub(crate) use policy::FLAGS as POLICY_FLAGS;
pub use policy::PolicyMatch;
pub(crate) use selector::{protocol_name, protocol_number};
pub(crate) use state::{EXTRA_FLAGS, FLAGS as STATE_FLAGS};
pub(crate) use tunnel::names_mode;

use super::words::{Fail, begins};
use uvti_core::device::LinkSpec;
use uvti_core::tables::{Op, StateMatch};
use uvti_core::xfrm::{Family, PolicyId, SaId, StateSpec};
use uvti_dataplane::engine::Topics;

/// What a command means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Not uvti's: for the system's `ip`, object first, options apart.
    System(Vec<String>),
    /// Changes, as one transaction.
    Apply(Change),
    /// `xfrm state list`.
    StateList {
        /// Which.
        which: StateMatch,
        /// Do not print keys.
        nokeys: bool,
    },
    /// `xfrm state get`.
    StateGet(SaId),
    /// `xfrm state allocspi`.
    StateAlloc {
        /// The state to come.
        spec: Box<StateSpec>,
        /// Lowest and highest SPI.
        range: (u32, u32),
    },
    /// `xfrm state deleteall`.
    StateDeleteAll(StateMatch),
    /// `xfrm state count`.
    StateCount,
    /// `xfrm policy list`.
    PolicyList(PolicyMatch),
    /// `xfrm policy get`.
    PolicyGet(PolicyId),
    /// `xfrm policy deleteall`.
    PolicyDeleteAll(PolicyMatch),
    /// `xfrm policy count`.
    PolicyCount,
    /// `xfrm policy getdefault`.
    PolicyDefaults,
    /// `xfrm monitor`.
    Monitor {
        /// Of what.
        topics: Topics,
        /// Do not print keys.
        nokeys: bool,
    },
    /// `link show`: our devices in it are printed by us.
    LinkShow {
        /// One device only.
        name: Option<String>,
        /// `type`.
        kind: Option<String>,
        /// `up`.
        up: bool,
        /// The command itself, for the system's devices.
        words: Vec<String>,
    },
    /// `tunnel show`.
    TunnelShow {
        /// One device only.
        name: Option<String>,
        /// The command itself, for the system's tunnels.
        words: Vec<String>,
    },
}

/// Changes to the dataplane, with what makes their errors read as iproute2's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The transaction.
    pub ops: Vec<Op>,
    /// Who asks, for the words of a refusal.
    pub asker: Asker,
    /// Commands for the system's `ip` once it is done (`link add … up`).
    pub then: Vec<Vec<String>>,
}

impl Change {
    fn one(op: Op, asker: Asker) -> Command {
        Command::Apply(Change { ops: vec![op], asker, then: Vec::new() })
    }
}

/// Which part of iproute2 a change came from: they report a refusal in different words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Netlink: `RTNETLINK answers: …` or `Error: ….`, exit code 2.
    Netlink,
    /// `ip tunnel` by ioctl: `add tunnel "ip_vti0" failed: …`, exit code 1.
    Tunnel,
}

/// Look-ups that a command needs to be understood.
pub trait Names {
    /// Whether a network device of this name exists (a device of ours or of the system).
    fn device(&self, name: &str) -> bool;
    /// The VTI of ours with this name.
    fn link(&self, name: &str) -> Option<LinkSpec>;
    /// A free name `vtiN`, for `link add` without one.
    fn free_name(&self, prefix: &str) -> String {
        (0..u32::MAX)
            .map(|n| format!("{prefix}{n}"))
            .find(|name| !self.device(name) && self.link(name).is_none())
            .unwrap_or_else(|| prefix.to_owned())
    }
}

/// Parses a command without its options: object, verb, arguments.
pub fn parse(words: &[String], options: &Options, names: &dyn Names) -> Result<Command, Fail> {
    let system = || Ok(Command::System(words.to_vec()));
    let Some(object) = words.first().filter(|w| !w.is_empty()) else { return system() };
    let rest = &words[1..];
    let command = if begins(object, "link") {
        link::parse(rest, names)
    } else if begins(object, "tunnel") || begins(object, "tunl") {
        tunnel::parse(rest, options.family, names)
    } else if begins(object, "xfrm") {
        return xfrm(rest, options.family, names).map_err(|f| f.behind(1));
    } else {
        return system();
    };
    match command.map_err(|f| f.behind(1))? {
        Some(command) => Ok(command),
        None => system(),
    }
}

const XFRM_USAGE: &str = "Usage: ip xfrm XFRM-OBJECT { COMMAND | help }\n\
                          where  XFRM-OBJECT := state | policy | monitor\n";

fn xfrm(words: &[String], family: Option<Family>, names: &dyn Names) -> Result<Command, Fail> {
    let Some(object) = words.first().filter(|w| !w.is_empty()) else {
        return Err(Fail::usage(XFRM_USAGE, None));
    };
    let rest = &words[1..];
    if begins(object, "state") || begins(object, "sa") {
        state::parse(rest, family, names).map_err(|f| f.behind(1))
    } else if begins(object, "policy") {
        policy::parse(rest, family, names).map_err(|f| f.behind(1))
    } else if begins(object, "monitor") {
        monitor::parse(rest).map_err(|f| f.behind(1))
    } else {
        Err(Fail::usage(XFRM_USAGE, Some(0)))
    }
}

/// A verb that iproute2 does not know.
fn unknown_verb(verb: &str, object: &str, end: &str) -> Fail {
    Fail::usage(format!("Command \"{verb}\" is unknown, try \"ip {object} help\"{end}\n"), Some(0))
}
