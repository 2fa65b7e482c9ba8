//! What a real kernel counted for each scenario, recorded once and kept in `tests/data/kernel-6.12.jsonl`.

use crate::gateway::Counters;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The recording: Linux 6.12.117; Linux 6.1.176 counted the same.
const RECORDING: &str = include_str!("../data/kernel-6.12.jsonl");

/// Those of the xfrm interface: Linux 6.12.117.
const INTERFACE: &str = include_str!("../data/xfrmi-6.12.jsonl");

/// One recorded scenario: what was added to the counters.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    /// Its name.
    pub scenario: String,
    /// What it is about.
    pub desc: String,
    /// Packets sent into it.
    #[serde(default)]
    pub sent: u64,
    /// The link's counters.
    pub link: Counters,
    /// The XFRM MIB.
    pub xfrm: Counters,
    /// Frames seen on the wire, by kind (`esp4`, `esp4-frag`, …).
    #[serde(default)]
    pub wire: BTreeMap<String, u64>,
    /// The counters of other links.
    #[serde(default)]
    pub other_links: BTreeMap<String, Counters>,
    /// What each SA counted.
    #[serde(default)]
    pub sa_stats: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Packets the client got out of the tunnel, by kind (`ip4/17` is UDP).
    #[serde(default)]
    pub delivered: BTreeMap<String, u64>,
    /// ICMP errors the sender of the inner packets saw.
    #[serde(default)]
    pub icmp: BTreeMap<String, u64>,
}

/// The recording of one scenario.
pub fn recorded(scenario: &str) -> Result<Recorded> {
    all()?
        .into_iter()
        .find(|recorded| recorded.scenario == scenario)
        .with_context(|| format!("the kernel's results have no scenario {scenario}"))
}

/// All recorded scenarios of VTIs.
pub fn all() -> Result<Vec<Recorded>> {
    read(RECORDING)
}

/// All recorded scenarios of the xfrm interface.
pub fn of_interfaces() -> Result<Vec<Recorded>> {
    read(INTERFACE)
}

fn read(recording: &str) -> Result<Vec<Recorded>> {
    recording
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a recorded scenario: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_scenario_is_read() {
        let all = all().unwrap();
        assert!(all.len() > 200);
        assert_eq!(recorded("tx_nosa").unwrap().xfrm["XfrmOutNoStates"], 5);
    }

    /// The golden file of `uvti demo` says per packet what the recording says for all of them.
    #[test]
    fn the_demos_golden_file_agrees_with_the_recording() {
        let demo: serde_json::Value =
            serde_json::from_str(include_str!("../../control/src/demo/golden.json")).unwrap();
        for class in demo.as_array().unwrap() {
            let recorded = recorded(class["scenario"].as_str().unwrap()).unwrap();
            let dropped = class["dropped"].as_u64().unwrap();
            let times = |field: &str| -> Counters {
                let counters = class[field].as_object().unwrap();
                counters.iter().map(|(name, n)| (name.clone(), n.as_u64().unwrap() * dropped)).collect()
            };
            let mut link = recorded.link.clone();
            link.retain(|name, _| !name.ends_with("_packets") && !name.ends_with("_bytes"));
            assert_eq!((times("link"), times("xfrm")), (link, recorded.xfrm), "{}", recorded.scenario);
        }
    }
}
