//! A dataplane in memory, with the real tables, behind the real control socket.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use uvti::explain::Query;
use uvti::ip::system::{Output, System};
use uvti::protocol::{
    Breakdown, By, CheckReport, Counts, DropHistory, DropsPage, DropsQuery, Queue, Rejected, Reloaded, Totals,
};
use uvti::server::{Dataplane, Server, wake};
use uvti_core::device::{LinkInfo, LinkKind, LinkSpec};
use uvti_core::reason::{LinkStats, Mib};
use uvti_core::tables::{Context, Errno, Op, Policy, Refusal, Snapshot};
use uvti_core::vti::explain::Explanation;
use uvti_core::xfrm::{
    Action, AlgAead, Algorithms, Direction, Key, Level, PolicyId, PolicyInfo, PolicySpec, Proto, Sa, SaId,
    StateInfo, StateSpec, Template,
};
use uvti_dataplane::engine::{Monitor, Monitors, Topics, note};

/// What the device had counted when iproute2's output was recorded.
pub(crate) fn recorded_stats() -> LinkStats {
    LinkStats {
        rx_packets: 1,
        rx_bytes: 100,
        rx_errors: 1,
        rx_dropped: 1,
        tx_packets: 5,
        tx_bytes: 500,
        ..LinkStats::default()
    }
}

/// Exit code of a command that the system's `ip` would have run.
pub(crate) const SYSTEM: u8 = 200;

#[derive(Clone, Default)]
pub(crate) struct Tables {
    pub(crate) tables: Snapshot,
    pub(crate) links: Vec<LinkInfo>,
    /// States are keyed with the algorithms that they name.
    pub(crate) own_algorithms: bool,
    /// States as they were written: the tables hold them with an algorithm that they can key.
    written: HashMap<SaId, StateSpec>,
    /// Policies likewise: the tables take one template only.
    templates: Vec<(PolicySpec, Vec<Template>)>,
    pub(crate) next_ifindex: u32,
    pub(crate) now: u64,
}

impl Tables {
    fn apply(&mut self, op: &Op) -> Result<(), Refusal> {
        match op {
            Op::LinkAdd(spec) => self.add_link(spec),
            Op::LinkChange(spec) => match self.links.iter_mut().find(|l| l.spec.name == spec.name) {
                Some(link) => {
                    link.spec = spec.clone();
                    Ok(())
                }
                None => Err(Refusal::errno(Errno::NoDevice)),
            },
            Op::LinkDel { name } => match self.links.iter().position(|l| l.spec.name == *name) {
                Some(at) => {
                    self.links.remove(at);
                    Ok(())
                }
                None => Err(Refusal::errno(Errno::NoDevice)),
            },
            Op::StateAdd(spec) if !self.own_algorithms => {
                let mut keyed = spec.clone();
                let aead =
                    AlgAead { name: "rfc4106(gcm(aes))".into(), key: Key::new(vec![1; 20]), icv_bits: 128 };
                keyed.algs = Algorithms { aead: Some(aead), enc: None, auth: None };
                keyed.proto = Proto::Esp;
                let id = keyed.id();
                self.change(&Op::StateAdd(keyed))?;
                self.written.insert(id, (**spec).clone());
                Ok(())
            }
            Op::PolicyAdd(spec) if spec.templates.len() > 1 => {
                let mut single = spec.clone();
                // The one that may be refused.
                let at = single.templates.iter().position(|t| t.level == Level::Use).unwrap_or(0);
                single.templates = vec![spec.templates[at].clone()];
                self.templates.push(((*single).clone(), spec.templates.clone()));
                self.change(&Op::PolicyAdd(single))
            }
            other => self.change(other),
        }
    }

    fn change(&mut self, op: &Op) -> Result<(), Refusal> {
        self.tables.apply(op, &mut Context { now: self.now, random: &mut || 1 })
    }

    fn add_link(&mut self, spec: &LinkSpec) -> Result<(), Refusal> {
        let same = |l: &LinkInfo| {
            let ends = |l: &LinkSpec| (l.kind == LinkKind::Xfrm, l.local, l.remote, l.if_id);
            l.spec.name == spec.name || ends(&l.spec) == ends(spec)
        };
        if self.links.iter().any(same) {
            return Err(Refusal::errno(Errno::Exists));
        }
        let mtu = spec.mtu.unwrap_or(match spec.kind {
            LinkKind::Vti => 1480,
            LinkKind::Vti6 => 1428,
            LinkKind::Xfrm => 1500,
        });
        let (ifindex, stats) = (5 + self.next_ifindex, LinkStats::default());
        self.next_ifindex += 1;
        self.links.push(LinkInfo { spec: spec.clone(), ifindex, up: false, mtu, txqlen: 1000, stats });
        Ok(())
    }

    fn policy(&self, policy: &Policy) -> PolicyInfo {
        let mut info = policy.info();
        let single = PolicySpec { index: 0, ..info.spec.clone() };
        if let Some((_, templates)) = self.templates.iter().find(|(known, _)| *known == single) {
            info.spec.templates = templates.clone();
        }
        info
    }

    fn info(&self, sa: &Sa) -> StateInfo {
        let mut info = sa.info();
        if let Some(written) = self.written.get(&sa.spec.id()) {
            info.spec.algs = written.algs.clone();
            info.spec.proto = written.proto;
        }
        info
    }
}

#[derive(Default)]
pub(crate) struct Lab {
    tables: Mutex<Tables>,
    pub(crate) monitors: Mutex<Monitors>,
}

impl Lab {
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }
}

impl Dataplane for Lab {
    fn explain(&self, query: &Query) -> Result<Explanation, String> {
        uvti::explain::answer(&self.tables().tables, query)
    }
    /// There is no host to look at.
    fn refresh(&self) {}
    fn sysctl(&self, name: &str, _value: Option<&str>) -> Result<String, String> {
        Err(format!("{name}: none here"))
    }
    fn apply(&self, ops: &[Op]) -> Result<(), Rejected> {
        let mut tables = self.tables();
        let mut next = tables.clone();
        let mut notices = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let before = next.tables.clone();
            next.apply(op).map_err(|refusal| Rejected { index, refusal })?;
            note(op, &before, &next.tables, &mut notices);
        }
        *tables = next;
        notices.iter().for_each(|notice| self.monitors.lock().unwrap().tell(notice));
        Ok(())
    }
    fn links(&self) -> Vec<LinkInfo> {
        self.tables().links.clone()
    }
    fn states(&self) -> Vec<StateInfo> {
        let tables = self.tables();
        let larvals = tables.tables.states.larvals.iter().map(|l| l.info());
        let states = tables.tables.states.newest_first().into_iter().map(|sa| tables.info(sa));
        larvals.chain(states).collect()
    }
    fn state(&self, id: SaId) -> Option<StateInfo> {
        let tables = self.tables();
        let larval = tables.tables.states.larvals.named(&id).map(|l| l.info());
        tables.tables.states.named(&id).map(|sa| tables.info(sa)).or(larval)
    }
    fn policies(&self) -> Vec<PolicyInfo> {
        let tables = self.tables();
        tables.tables.policies.newest_first().into_iter().map(|p| tables.policy(p)).collect()
    }
    fn policy(&self, id: &PolicyId) -> Option<PolicyInfo> {
        let tables = self.tables();
        tables.tables.policies.named(id).map(|p| tables.policy(p))
    }
    fn counts(&self) -> Counts {
        let tables = self.tables();
        let policies = Direction::ALL.map(|dir| tables.tables.policies.count(dir) as u32);
        let states = tables.tables.states.len() as u32;
        Counts { states, state_buckets: 8, state_buckets_max: 1_048_576, policies }
    }
    fn policy_defaults(&self) -> [Action; 3] {
        self.tables().tables.policies.defaults
    }
    fn totals(&self) -> Totals {
        Totals::default()
    }
    fn drops(&self, by: By) -> Result<Breakdown, String> {
        Ok(Breakdown { by, lines: Vec::new(), total: 0 })
    }
    fn queues(&self) -> Result<Vec<Queue>, String> {
        Ok(Vec::new())
    }
    fn xfrm_stat(&self) -> Vec<(Mib, u64)> {
        Vec::new()
    }
    fn check(&self) -> CheckReport {
        CheckReport::default()
    }
    fn reload(&self, _: &str, _: &str) -> Reloaded {
        Reloaded::default()
    }
    fn recorded(&self, _: &DropsQuery) -> DropsPage {
        DropsPage::default()
    }
    fn allocate(&self, spec: &StateSpec, range: (u32, u32)) -> Result<StateInfo, Refusal> {
        let mut tables = self.tables();
        let now = tables.now;
        tables.tables.settings.acq_expires = 30;
        let mut cx = Context { now, random: &mut || 1 };
        tables.tables.allocate(spec, range, &mut cx).map(|larval| larval.info())
    }
    fn monitor(&self, topics: Topics) -> Monitor {
        self.monitors.lock().unwrap().listen(topics)
    }
    fn drop_history(&self) -> DropHistory {
        DropHistory::default()
    }
    fn ledgers(&self) -> Vec<uvti_core::vti::ledger::Ledger> {
        Vec::new()
    }
}

/// The system's `ip` of the lab: it has `lo`, sets links up, and refuses all else with [`SYSTEM`].
pub(crate) struct Host<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) captured: Option<Output>,
    pub(crate) asked: AtomicU32,
}

impl System for Host<'_> {
    fn pass(&self, words: &[String], _: &mut dyn Write, err: &mut dyn Write) -> u8 {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut tables = self.lab.tables();
        let link = |name| move |l: &&mut LinkInfo| l.spec.name == name;
        match words[..] {
            ["link", "set", "dev", name, "up"] => {
                tables.links.iter_mut().find(link(name)).unwrap().up = true;
                0
            }
            ["link", "set", "dev", name, "txqueuelen", length] => {
                tables.links.iter_mut().find(link(name)).unwrap().txqlen = length.parse().unwrap();
                0
            }
            ["tunnel", "del", name] => {
                writeln!(err, "delete tunnel \"{name}\" failed: No such device").unwrap();
                1
            }
            ["link", "del", name] | ["link", "set", name, "up"] => {
                writeln!(err, "Cannot find device \"{name}\"").unwrap();
                1
            }
            _ => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                SYSTEM
            }
        }
    }
    fn capture(&self, _: &[String]) -> Option<Output> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.captured.clone()
    }
    fn device(&self, name: &str) -> bool {
        name == "lo"
    }
}

/// What a command printed, and its exit code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: u8,
    /// The system's `ip` was needed.
    pub(crate) system: bool,
}

/// A served lab.
pub(crate) struct Bench {
    pub(crate) lab: Arc<Lab>,
    pub(crate) socket: PathBuf,
    stop: Arc<AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lab.sock");
        let lab = Arc::new(Lab::default());
        let server = Server::bind(&socket).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (dataplane, flag): (Arc<dyn Dataplane>, _) = (lab.clone(), stop.clone());
        let server = Some(std::thread::spawn(move || server.run(&dataplane, &flag)));
        Self { lab, socket, stop, server, _dir: dir }
    }

    pub(crate) fn ip(&self, words: &[String]) -> Done {
        self.ip_with(words, None)
    }

    /// Runs with an `ip` of the system that prints this when it is captured.
    pub(crate) fn ip_with(&self, words: &[String], captured: Option<Output>) -> Done {
        let host = Host { lab: &self.lab, captured, asked: AtomicU32::new(0) };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        // A namespace is found by its name: then the socket is not given.
        let control = if words[0] == "-n" { None } else { Some(self.socket.as_path()) };
        let code = uvti::ip::run_with(words, control, &host, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { out: text(out), err: text(err), code, system: host.asked.into_inner() > 0 }
    }

    /// Runs a command that must succeed without a word.
    pub(crate) fn quiet(&self, command: &str) {
        let done = self.ip(&words(command));
        assert_eq!(done, Done::default(), "{command}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        wake(&self.socket);
        let _ = self.server.take().unwrap().join();
    }
}

/// The words of a command as a shell would make them.
pub(crate) fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(|w| w.trim_matches('\'').replace("\\(", "(").replace("\\)", ")")).collect()
}
