//! Drops by one of the things they have in common. Whichever it is, the lines add up to all drops.

mod text;

#[cfg(test)]
mod tests;

pub(crate) use text::{policy, sa, text};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use uvti_core::device::DeviceId;
use uvti_core::reason::Reason;
use uvti_core::tables::Snapshot;
use uvti_dataplane::account::{Party, PolicyName, SaName};
use uvti_dataplane::engine::Drops;

/// Lines an answer has at most: what is behind them goes into [`Subject::Other`].
const MAX_LINES: usize = 20_000;

/// What drops are added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// By reason, and of which device.
    Reason,
    /// By SA, and for which reason.
    Sa,
    /// By policy, and for which reason.
    Policy,
    /// By device, and for which reason.
    Device,
    /// By worker, and for which reason.
    Worker,
}

/// What the drops of a line have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The reason, by name.
    Reason(String),
    /// The SA.
    Sa {
        /// What names it.
        name: SaName,
        /// It is not in the tables any more.
        deleted: bool,
    },
    /// They did not come as far as an SA.
    NoSa,
    /// The policy.
    Policy {
        /// What names it.
        name: PolicyName,
        /// It is not in the tables any more.
        deleted: bool,
    },
    /// They did not come as far as a policy.
    NoPolicy,
    /// The device.
    Device {
        /// Its name.
        name: String,
        /// It is gone.
        deleted: bool,
    },
    /// They met no device.
    NoDevice,
    /// The worker, by number.
    Worker(usize),
    /// Their SA or policy found no row left (`uvti run --attribution-rows`).
    Other,
}

/// One line: drops that have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What.
    pub subject: Subject,
    /// How many.
    pub packets: u64,
    /// Of which so many by reason, or by device where the line is a reason. The most first.
    pub parts: Vec<(String, u64)>,
    /// Of an SA that is still there: sequence numbers that left its replay window unseen. They are no drops of ours.
    pub lost: Option<u64>,
}

/// All drops, by something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakdown {
    /// By what.
    pub by: By,
    /// The most packets first.
    pub lines: Vec<Line>,
    /// All packets.
    pub total: u64,
}

impl Breakdown {
    /// Adds drops up. `tables` say what is still there, and what SAs have lost.
    pub(crate) fn new(drops: &Drops, by: By, tables: &Snapshot) -> Self {
        let mut sums = sums(drops, by);
        let names = Names::new(drops, tables);
        if by == By::Sa {
            let lossy = names.sas.iter().filter(|(_, sa)| sa.lost.is_some_and(|n| n > 0));
            lossy.for_each(|(number, _)| _ = sums.entry(Group::Sa(Some(*number))).or_default());
        }
        let mut lines: Vec<Line> = sums.into_iter().map(|(group, parts)| names.line(group, parts)).collect();
        lines.sort_by_key(|line| Reverse((line.packets, line.lost)));
        fold(&mut lines);
        let total = lines.iter().map(|l| l.packets).sum();
        Self { by, lines, total }
    }
}

/// What stands in a line, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Reason(Reason),
    Sa(Option<NonZeroU64>),
    Policy(Option<NonZeroU64>),
    Device(DeviceId),
    Worker(usize),
    Other,
}

/// What the drops of a line consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Reason(Reason),
    Device(DeviceId),
}

type Parts = BTreeMap<Part, u64>;

fn sums(drops: &Drops, by: By) -> BTreeMap<Group, Parts> {
    let mut sums: BTreeMap<Group, Parts> = BTreeMap::new();
    let mut add = |group, part, n| *sums.entry(group).or_default().entry(part).or_default() += n;
    let dense = drops.rows.iter().flat_map(|row| {
        let counted = move |reason: &Reason| (row, *reason, row.cells.dropped(*reason));
        Reason::ALL.iter().map(counted).filter(|(.., n)| *n > 0)
    });
    match by {
        By::Reason => dense.for_each(|(row, r, n)| add(Group::Reason(r), Part::Device(row.device), n)),
        By::Device => dense.for_each(|(row, r, n)| add(Group::Device(row.device), Part::Reason(r), n)),
        By::Worker => dense.for_each(|(row, r, n)| add(Group::Worker(row.worker), Part::Reason(r), n)),
        By::Sa | By::Policy => {
            for row in &drops.attributed {
                let group = match row.key.party {
                    Party::Known { sa, .. } if by == By::Sa => Group::Sa(sa),
                    Party::Known { policy, .. } => Group::Policy(policy),
                    Party::Other => Group::Other,
                };
                add(group, Part::Reason(row.key.reason), row.packets);
            }
        }
    }
    sums
}

struct NamedSa {
    name: SaName,
    /// What it has lost, if it is still there.
    lost: Option<u64>,
}

struct NamedPolicy {
    name: PolicyName,
    deleted: bool,
}

/// What the numbers stand for.
struct Names<'a> {
    drops: &'a Drops,
    tables: &'a Snapshot,
    sas: HashMap<NonZeroU64, NamedSa>,
    policies: HashMap<NonZeroU64, NamedPolicy>,
}

impl<'a> Names<'a> {
    fn new(drops: &'a Drops, tables: &'a Snapshot) -> Self {
        let (mut sas, mut policies) = (HashMap::new(), HashMap::new());
        for row in &drops.attributed {
            let Party::Known { sa, policy } = row.key.party else { continue };
            if let (Some(number), Some(name)) = (sa, row.sa) {
                sas.insert(number, NamedSa { name, lost: None });
            }
            if let (Some(number), Some(name)) = (policy, &row.policy) {
                policies.insert(number, NamedPolicy { name: name.clone(), deleted: true });
            }
        }
        // As they are now: an update may have changed them.
        for sa in tables.states.iter() {
            if let Some(number) = NonZeroU64::new(sa.number) {
                sas.insert(number, NamedSa { name: SaName::from(&**sa), lost: Some(sa.run.lost()) });
            }
        }
        for policy in tables.policies.newest_first() {
            if let Some(number) = NonZeroU64::new(policy.number) {
                policies.insert(number, NamedPolicy { name: PolicyName::from(&**policy), deleted: false });
            }
        }
        Self { drops, tables, sas, policies }
    }

    fn line(&self, group: Group, parts: Parts) -> Line {
        let sa = |number: Option<NonZeroU64>| number.and_then(|n| self.sas.get(&n));
        let (subject, lost) = match group {
            Group::Reason(reason) => (Subject::Reason(reason.row().name.to_owned()), None),
            Group::Sa(number) => match sa(number) {
                Some(sa) => (Subject::Sa { name: sa.name, deleted: sa.lost.is_none() }, sa.lost),
                None => (Subject::NoSa, None),
            },
            Group::Policy(number) => match number.and_then(|n| self.policies.get(&n)) {
                Some(p) => (Subject::Policy { name: p.name.clone(), deleted: p.deleted }, None),
                None => (Subject::NoPolicy, None),
            },
            Group::Device(DeviceId::NONE) => (Subject::NoDevice, None),
            Group::Device(id) => {
                let deleted = self.tables.devices.get(id).is_none();
                (Subject::Device { name: self.device(id), deleted }, None)
            }
            Group::Worker(number) => (Subject::Worker(number), None),
            Group::Other => (Subject::Other, None),
        };
        let packets = parts.values().sum();
        let mut parts: Vec<(String, u64)> = parts.into_iter().map(|(part, n)| (self.part(part), n)).collect();
        parts.sort_by_key(|(_, n)| Reverse(*n));
        Line { subject, packets, parts, lost }
    }

    fn part(&self, part: Part) -> String {
        match part {
            Part::Reason(reason) => reason.row().name.to_owned(),
            Part::Device(id) => self.device(id),
        }
    }

    fn device(&self, id: DeviceId) -> String {
        match id {
            DeviceId::NONE => "-".to_owned(),
            id => self.drops.names.get(&id).cloned().unwrap_or_else(|| format!("device {}", id.0)),
        }
    }
}

/// Makes one line of the last ones, if there are too many for an answer.
fn fold(lines: &mut Vec<Line>) {
    if lines.len() <= MAX_LINES {
        return;
    }
    let (mut parts, mut packets) = (BTreeMap::<String, u64>::new(), 0);
    let tail = lines.split_off(MAX_LINES - 1);
    // There may be such a line among the first ones.
    let other = lines.iter().position(|l| l.subject == Subject::Other).map(|at| lines.remove(at));
    for line in tail.into_iter().chain(other) {
        packets += line.packets;
        line.parts.into_iter().for_each(|(name, n)| *parts.entry(name).or_default() += n);
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(_, n)| Reverse(*n));
    lines.push(Line { subject: Subject::Other, packets, parts, lost: None });
}
