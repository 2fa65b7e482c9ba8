//! The engine behind the control socket.

use crate::drops::recorded;
use crate::explain::{self, Query};
use crate::ip::parse::Names;
use crate::ip::{batch, difference};
use crate::protocol::{
    Breakdown, By, CheckReport, CheckRow, Counts, DeviceTotals, DropHistory, DropsPage, DropsQuery, Rejected,
    Reloaded, Totals,
};
use crate::server::Dataplane;
use std::sync::Arc;
use uvti_core::device::{LinkInfo, LinkKind, LinkSpec};
use uvti_core::reason::{Mib, Reason};
use uvti_core::tables::{Op, Refusal};
use uvti_core::vti::explain::Explanation;
use uvti_core::vti::ledger::Ledger;
use uvti_core::xfrm::{Action, Direction, PolicyId, PolicyInfo, SaId, StateInfo, StateSpec};
use uvti_dataplane::account::Cells;
use uvti_dataplane::engine::{Engine, Identity, Monitor, Queue, Topics, Totals as EngineTotals};
use uvti_dataplane::host::netlink::Netlink;
use uvti_dataplane::host::pmtu::Listener;
use uvti_dataplane::inject::Injector;

/// The names that a batch file may mention when it is applied here.
pub(crate) struct Running<'a>(pub(crate) &'a [LinkInfo]);

impl Names for Running<'_> {
    fn device(&self, name: &str) -> bool {
        self.link(name).is_some() || Netlink::open().is_ok_and(|mut n| n.link_by_name(name).is_ok())
    }

    fn link(&self, name: &str) -> Option<LinkSpec> {
        self.0.iter().find(|l| l.spec.name == name).map(|l| l.spec.clone())
    }
}

/// Answers the control socket's questions.
pub(crate) struct Service(
    pub(crate) Arc<Engine>,
    /// Where faults are allowed.
    pub(crate) Option<Injector>,
    /// Hears what routers report of paths.
    pub(crate) Listener,
);

impl Service {
    /// Takes what routers have reported of paths by now.
    pub(crate) fn hear(&self) {
        if let Err(error) = self.2.hear(|report| _ = self.0.hear(report)) {
            tracing::warn!(%error, "cannot hear of path MTUs");
        }
    }

    /// States that were configured: no larval ones.
    pub(crate) fn configured(&self) -> Vec<StateInfo> {
        self.0.tables().states.newest_first().into_iter().map(|sa| sa.info()).collect()
    }

    /// Totals; none while a worker hangs, which `check` reports.
    fn engine_totals(&self) -> Option<EngineTotals> {
        self.0.totals().inspect_err(|error| tracing::error!(%error, "no totals")).ok()
    }
}

impl Dataplane for Service {
    fn apply(&self, ops: &[Op]) -> Result<(), Rejected> {
        self.0.apply(ops).map_err(|(index, refusal)| Rejected { index, refusal })
    }

    fn links(&self) -> Vec<LinkInfo> {
        self.0.links().unwrap_or_default()
    }

    fn states(&self) -> Vec<StateInfo> {
        self.0.tables().state_infos()
    }

    fn state(&self, id: SaId) -> Option<StateInfo> {
        self.0.tables().state_info(&id)
    }

    fn policies(&self) -> Vec<PolicyInfo> {
        self.0.tables().policies.newest_first().into_iter().map(|p| p.info()).collect()
    }

    fn policy(&self, id: &PolicyId) -> Option<PolicyInfo> {
        self.0.tables().policies.named(id).map(|p| p.info())
    }

    fn counts(&self) -> Counts {
        let tables = self.0.tables();
        let states = tables.state_infos().len() as u32;
        Counts {
            states,
            // kernel: net/xfrm/xfrm_hash.c: 8 buckets at first, doubled when there are more states than buckets.
            state_buckets: states.max(8).next_power_of_two(),
            state_buckets_max: 1 << 20,
            policies: Direction::ALL.map(|d| tables.policies.count(d) as u32),
        }
    }

    fn policy_defaults(&self) -> [Action; 3] {
        self.0.tables().policies.defaults
    }

    fn totals(&self) -> Totals {
        let Some(totals) = self.engine_totals() else { return Totals::default() };
        let tables = self.0.tables();
        let kind = |id| tables.devices.get(id).map(|d| d.spec.kind);
        let mut devices: Vec<DeviceTotals> =
            totals.devices.iter().map(|(id, name, cells)| device_totals(name, kind(*id), cells)).collect();
        devices.push(device_totals("-", None, &totals.nowhere));
        Totals { devices, xfrm: mibs(&totals.all) }
    }

    fn drops(&self, by: By) -> Result<Breakdown, String> {
        let drops = self.0.drops().map_err(|stuck| stuck.to_string())?;
        Ok(Breakdown::new(&drops, by, &self.0.tables()))
    }

    fn queues(&self) -> Result<Vec<Queue>, String> {
        self.0.queues().map_err(|stuck| stuck.to_string())
    }

    fn xfrm_stat(&self) -> Vec<(Mib, u64)> {
        self.engine_totals().map(|t| mibs(&t.all)).unwrap_or_default()
    }

    fn check(&self) -> CheckReport {
        match self.0.check() {
            Ok(identities) => CheckReport { rows: identities.iter().map(row).collect() },
            Err(stuck) => {
                // A worker that does not answer is a place where packets are missing.
                let row = CheckRow { place: stuck.to_string(), input: 1, ..CheckRow::default() };
                CheckReport { rows: vec![row] }
            }
        }
    }

    fn explain(&self, query: &Query) -> Result<Explanation, String> {
        explain::answer(&self.0.tables(), query)
    }

    fn refresh(&self) {
        self.hear();
        self.0.refresh();
    }

    fn injector(&self) -> Option<&Injector> {
        self.1.as_ref()
    }

    fn sysctl(&self, name: &str, value: Option<&str>) -> Result<String, String> {
        if let Some(value) = value {
            self.0.set_sysctl(name, value).map_err(|error| error.to_string())?;
        }
        self.0.sysctl(name).map_err(|error| error.to_string())
    }

    fn reload(&self, text: &str, file: &str) -> Reloaded {
        let links = self.links();
        let plan = match batch::plan(file, text, &Running(&links)) {
            Ok(plan) => plan,
            Err(errors) => {
                return Reloaded { changes: 0, errors: errors.iter().map(ToString::to_string).collect() };
            }
        };
        let wanted: Vec<Op> = plan
            .into_iter()
            .flat_map(|line| match line.kind {
                batch::Kind::Owned(ops) => ops,
                batch::Kind::System(_) => Vec::new(),
            })
            .collect();
        let mut ops = difference::difference((&links, &self.configured(), &self.policies()), &wanted);
        ops.extend(difference::defaults(self.policy_defaults(), &wanted));
        match self.0.apply(&ops) {
            Ok(()) => Reloaded { changes: ops.len(), errors: Vec::new() },
            Err((_, refusal)) => Reloaded { changes: 0, errors: vec![format!("{file}: {refusal}")] },
        }
    }

    fn recorded(&self, query: &DropsQuery) -> DropsPage {
        recorded::page(&self.0, query)
    }

    fn allocate(&self, spec: &StateSpec, range: (u32, u32)) -> Result<StateInfo, Refusal> {
        self.0.allocate(spec, range)
    }

    fn monitor(&self, topics: Topics) -> Monitor {
        self.0.monitor(topics)
    }

    fn drop_history(&self) -> DropHistory {
        recorded::history(&self.0)
    }

    fn ledgers(&self) -> Vec<Ledger> {
        self.0.ledgers()
    }
}

fn device_totals(name: &str, kind: Option<LinkKind>, cells: &Cells) -> DeviceTotals {
    let drops = Reason::ALL
        .iter()
        .map(|r| (r.row().name.to_owned(), cells.dropped(*r)))
        .filter(|(_, n)| *n > 0)
        .collect();
    DeviceTotals {
        name: name.to_owned(),
        kind: kind.map_or("-", LinkKind::name).to_owned(),
        stats: cells.link_stats(kind),
        tx_unmarked: cells.of(uvti_core::reason::Way::Tx, uvti_dataplane::account::Count::OutUnmarked),
        drops,
    }
}

fn mibs(all: &Cells) -> Vec<(Mib, u64)> {
    Mib::ALL.iter().map(|m| (*m, all.mib(*m))).collect()
}

fn row(i: &Identity) -> CheckRow {
    CheckRow {
        place: i.place.to_string(),
        input: i.input,
        hop_in: i.hop_in,
        output: i.output,
        consumed: 0,
        drops: i.drops,
        hop_out: i.hop_out,
        held: i.held as i64,
    }
}
