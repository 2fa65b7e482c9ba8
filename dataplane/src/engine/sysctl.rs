//! Sysctls: the host's where it has them, else held here.

use super::{Engine, State};
use crate::engine::host::Host;
use std::collections::{BTreeMap, HashMap};
use std::io;
use uvti_core::device::Device;
use uvti_core::route::RouteKey;
use uvti_core::tables::{Settings, Snapshot};
use uvti_core::xfrm::Family;

/// Those of the namespace, with the kernel's defaults. kernel: net/xfrm/xfrm_sysctl.c
const OF_XFRM: [(&str, &str); 4] = [
    ("net.core.xfrm_acq_expires", "30"),
    ("net.core.xfrm_aevent_etime", "10"),
    ("net.core.xfrm_aevent_rseqth", "2"),
    ("net.core.xfrm_larval_drop", "1"),
];
/// Those of a device.
const OF_DEVICES: [(&str, &str); 3] = [
    ("net.ipv4.conf.", ".disable_policy"),
    ("net.ipv4.conf.", ".disable_xfrm"),
    ("net.ipv6.conf.", ".disable_policy"),
];

/// Why a sysctl could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It is none of uvti's.
    #[error("{0}: not a sysctl of uvti: use the system's sysctl")]
    Foreign(String),
    /// The value is not a number.
    #[error("setting key \"{0}\": Invalid argument")]
    Invalid(String),
    /// The host refused.
    #[error("setting key \"{0}\": {1}")]
    Host(String, io::Error),
}

/// Values that the host lacks.
#[derive(Default)]
pub(super) struct Held(BTreeMap<String, String>);

impl Held {
    fn read(&self, host: &mut dyn Host, name: &str) -> Option<String> {
        let default = || OF_XFRM.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let held = || self.0.get(name).cloned();
        host.sysctl(name).or_else(held).or_else(|| default().map(str::to_owned))
    }

    fn number(&self, host: &mut dyn Host, name: &str) -> u64 {
        self.read(host, name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// A flag of a device.
    fn of_device(&self, host: &mut dyn Host, (prefix, suffix): (&str, &str), device: &str) -> bool {
        self.number(host, &format!("{prefix}{}{suffix}", device.replace('.', "/"))) != 0
    }
}

impl Engine {
    /// The value of a sysctl.
    pub fn sysctl(&self, name: &str) -> Result<String, SysctlError> {
        let mut state = self.lock();
        let State { host, held, .. } = &mut *state;
        let value = held.read(host.as_mut(), check(name)?);
        Ok(value.unwrap_or_else(|| "0".into()))
    }

    /// Sets a sysctl, in the host if it has it; in force when this returns.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        let value = value.trim();
        check(name)?;
        value.parse::<u32>().map_err(|_| SysctlError::Invalid(name.into()))?;
        let mut state = self.lock();
        match state.host.set_sysctl(name, value) {
            Some(done) => done.map_err(|error| SysctlError::Host(name.into(), error))?,
            None => _ = state.held.0.insert(name.into(), value.into()),
        }
        drop(state);
        self.look();
        Ok(())
    }
}

fn check(name: &str) -> Result<&str, SysctlError> {
    let of_device = |(prefix, suffix): &(&str, &str)| {
        let device = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
        device.is_some_and(|d| !d.is_empty() && !d.contains('.') && !d.starts_with('/'))
    };
    match OF_XFRM.iter().any(|(known, _)| *known == name) || OF_DEVICES.iter().any(of_device) {
        true => Ok(name),
        false => Err(SysctlError::Foreign(name.into())),
    }
}

/// The settings in force.
pub(super) fn settings(state: &mut State, now: Settings) -> Settings {
    let State { host, held, .. } = state;
    Settings {
        larval_drop: held.number(host.as_mut(), "net.core.xfrm_larval_drop") != 0,
        acq_expires: held.number(host.as_mut(), "net.core.xfrm_acq_expires"),
        ..now
    }
}

/// What sysctls say about devices; asked once for those below, which many tunnels share.
#[derive(Default)]
pub(super) struct Flags {
    all: [Option<bool>; OF_DEVICES.len()],
    below: HashMap<(usize, u32), bool>,
}

impl Flags {
    /// Sets what they say about `device`. A flag of all devices is one of each.
    ///
    /// kernel: include/linux/inetdevice.h IN_DEV_ORCONF()
    pub(super) fn set(&mut self, state: &mut State, tables: &Snapshot, device: &mut Device) {
        const POLICY4: usize = 0;
        const XFRM4: usize = 1;
        const POLICY6: usize = 2;
        let State { host, held, .. } = state;
        let host = host.as_mut();
        let Self { all, below } = self;
        let mut of_all = |host: &mut dyn Host, flag: usize| {
            *all[flag].get_or_insert_with(|| held.of_device(host, OF_DEVICES[flag], "all"))
        };
        device.disable_xfrm =
            of_all(host, XFRM4) || held.of_device(host, OF_DEVICES[XFRM4], &device.spec.name);
        device.disable_policy = [POLICY4, POLICY6]
            .map(|flag| of_all(host, flag) || held.of_device(host, OF_DEVICES[flag], &device.spec.name));
        if device.is_xfrm() {
            // kernel: net/ipv4/route.c ip_route_input_slow() asks the device that the packet was decapsulated for.
            device.no_policy = device.disable_policy[0];
            return;
        }
        let flag = if device.family() == Some(Family::V4) { POLICY4 } else { POLICY6 };
        device.no_policy = of_all(host, flag)
            || index_below(host, tables, device).is_some_and(|index| {
                *below.entry((flag, index)).or_insert_with(|| {
                    let name = host.link(index).map(|link| link.name);
                    name.is_some_and(|name| held.of_device(host, OF_DEVICES[flag], &name))
                })
            });
    }
}

/// The device that packets of a tunnel come by, if its way back is its way there.
fn index_below(host: &mut dyn Host, tables: &Snapshot, device: &Device) -> Option<u32> {
    let key = RouteKey { src: device.spec.local, dst: device.spec.remote, mark: 0 };
    if key.dst.is_unspecified() {
        return None;
    }
    Some(tables.routes.find(&key).copied().unwrap_or_else(|| host.route(key).0)?.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{dropped, lab, tunnel, until};
    use crate::worker::tamper::Honest;
    use uvti_core::reason::Reason;

    #[test]
    fn what_the_host_lacks_is_held_and_in_force() {
        let a = lab(1, || Honest);
        a.engine.apply(&tunnel(1)).unwrap();
        assert_eq!(a.engine.sysctl("net.core.xfrm_acq_expires").unwrap(), "30");
        let name = "net.ipv4.conf.vti0.disable_xfrm";
        assert_eq!(a.engine.sysctl(name).unwrap(), "0");
        a.engine.set_sysctl(name, "1").unwrap();
        assert_eq!(a.engine.sysctl(name).unwrap(), "1");
        a.send(1, 1);
        until("it is in force", || dropped(&a.engine, Reason::TxXfrmDisabled) == 1);
        a.engine.set_sysctl("net.ipv4.conf.all.disable_policy", "1").unwrap();
        assert!(a.engine.tables().devices.iter().all(|d| d.no_policy));
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name() {
        let a = lab(1, || Honest);
        let foreign = [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.vti0.rp_filter",
            "net.ipv4.conf..disable_xfrm",
            "net.ipv4.conf./a.disable_xfrm",
            "net.core.xfrm_larval_drop/../x",
        ];
        for name in foreign {
            assert!(matches!(a.engine.set_sysctl(name, "1"), Err(SysctlError::Foreign(_))), "{name}");
        }
        let wrong = a.engine.set_sysctl("net.core.xfrm_larval_drop", "yes");
        assert!(matches!(wrong, Err(SysctlError::Invalid(_))));
    }
}
