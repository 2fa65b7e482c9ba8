//! Where the bytes of a path's MTU go: headers, algorithms, and the largest inner packet that is left.

use super::transmit::{largest_inner, route_key};
use crate::device::Device;
use crate::packet::{OuterHeader, UDP_HEADER};
use crate::tables::Snapshot;
use crate::xfrm::{Family, Mode, Sa, SaDirection, Spi};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// TCP and IPv4 headers without options, bytes.
const TCP_V4: u32 = 40;
/// TCP and IPv6 headers without options, bytes.
const TCP_V6: u32 = 60;

/// The bytes of the packets of one SA that leave by a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The device.
    pub device: String,
    /// The device's own MTU.
    pub device_mtu: u32,
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// SPI.
    pub spi: Spi,
    /// Outer IP header.
    pub outer: u32,
    /// UDP header, or 0.
    pub udp: u32,
    /// SPI and sequence number.
    pub esp: u32,
    /// Explicit IV.
    pub iv: u32,
    /// The most padding that a packet may need.
    pub pad_worst: u32,
    /// Pad length and next header.
    pub trailer: u32,
    /// Integrity check value.
    pub icv: u32,
    /// The path, if there is a route.
    pub path: Option<Path>,
}

/// What the path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Its MTU.
    pub mtu: u32,
    /// How that is known.
    pub source: Source,
    /// The largest inner packet that fits, whatever the device's MTU.
    pub largest_inner: u32,
    /// The path's bytes that not even the largest packet uses: less than a block of the cipher.
    pub unused: u32,
    /// The largest TCP segment in it over IPv4.
    pub mss_v4: u32,
    /// The same over IPv6.
    pub mss_v6: u32,
}

/// Where a path's MTU is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It is that of the device below.
    Device,
    /// The route has its own.
    Route,
    /// A router reported it.
    Learned {
        /// Seconds until it is forgotten.
        expires_in: u64,
    },
}

impl Ledger {
    /// The MTU to give the device, if it lets packets in that are too big for the path.
    pub fn advice(&self) -> Option<u32> {
        self.path.map(|path| path.largest_inner).filter(|largest| self.device_mtu > *largest)
    }
}

/// The ledgers of the SAs that may leave by each device, at `now`. `below` is asked for the MTU of a device of the host.
pub fn ledgers(tables: &Snapshot, now: u64, below: &mut dyn FnMut(u32) -> Option<u32>) -> Vec<Ledger> {
    let states = tables.states.newest_first();
    let mut ledgers = Vec::new();
    for device in tables.devices.iter() {
        let own = states.iter().filter(|sa| is_used_by(tables, sa, device));
        ledgers.extend(own.map(|sa| ledger(tables, device, sa, now, below)));
    }
    ledgers
}

/// Whether an SA may carry what leaves by a device.
///
/// kernel: net/ipv4/ip_vti.c vti_state_check(), net/xfrm/xfrm_state.c xfrm_state_find()
fn is_used_by(tables: &Snapshot, sa: &Sa, device: &Device) -> bool {
    let (spec, ends) = (&sa.spec, &device.spec);
    if device.is_xfrm() {
        let leaves = spec.dir != Some(SaDirection::In) && !tables.is_for_us(spec.dst);
        return leaves && spec.if_id == ends.if_id && spec.mode == Mode::Tunnel;
    }
    let is_end = |end: IpAddr, address| end.is_unspecified() || end == address;
    spec.mode == Mode::Tunnel
        && spec.dir != Some(SaDirection::In)
        && Some(Family::of(spec.dst)) == device.family()
        && is_end(ends.local, spec.src)
        && is_end(ends.remote, spec.dst)
        && spec.mark.matches(ends.okey)
}

fn ledger(
    tables: &Snapshot,
    device: &Device,
    sa: &Sa,
    now: u64,
    below: &mut dyn FnMut(u32) -> Option<u32>,
) -> Ledger {
    let (spec, overhead) = (&sa.spec, sa.crypter.overhead());
    let headers = OuterHeader::len(spec.src, spec.encap.is_some()) as u32;
    let udp = if spec.encap.is_some() { UDP_HEADER as u32 } else { 0 };
    let route = tables.routes.find(&route_key(sa)).copied().flatten();
    let path = route.map(|route| {
        let learned = tables.learned.find(spec.src, spec.dst).filter(|path| path.mtu == route.mtu);
        let source = match learned {
            Some(path) => Source::Learned { expires_in: path.until.saturating_sub(now) },
            None if below(route.ifindex) == Some(route.mtu) => Source::Device,
            None => Source::Route,
        };
        let largest = largest_inner(sa, route);
        let used = headers + overhead.esp_len(largest as usize) as u32;
        Path {
            mtu: route.mtu,
            source,
            largest_inner: largest,
            unused: route.mtu.saturating_sub(used),
            mss_v4: largest.saturating_sub(TCP_V4),
            mss_v6: largest.saturating_sub(TCP_V6),
        }
    });
    Ledger {
        device: device.spec.name.clone(),
        device_mtu: device.mtu,
        src: spec.src,
        dst: spec.dst,
        spi: spec.spi,
        outer: headers - udp,
        udp,
        esp: 8,
        iv: overhead.iv as u32,
        pad_worst: overhead.block as u32 - 1,
        trailer: 2,
        icv: overhead.icv as u32,
        path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Hearsay;
    use crate::vti::testing::{BELOW, Lab, NOW, OUT, SPI_OUT, aes_cbc_hmac_sha1};

    fn only(lab: &Lab, spoil: impl Fn(&mut Snapshot)) -> Ledger {
        let mut tables = (*lab.tables()).clone();
        spoil(&mut tables);
        let mut all = ledgers(&tables, NOW, &mut |ifindex| (ifindex == BELOW).then_some(1500));
        assert_eq!(all.len(), 1, "the SA for input does not leave by the device");
        all.remove(0)
    }

    /// The bytes add up to the path's MTU.
    fn adds_up(l: &Ledger) {
        let path = l.path.unwrap();
        let sum = l.outer + l.udp + l.esp + l.iv + path.largest_inner + l.trailer + l.icv + path.unused;
        assert_eq!(sum, path.mtu);
        assert!(path.unused <= l.pad_worst);
    }

    #[test]
    fn the_bytes_add_up() {
        let gcm = only(&Lab::vti(), |_| ());
        adds_up(&gcm);
        assert_eq!((gcm.spi, gcm.outer, gcm.udp, gcm.iv, gcm.icv, gcm.pad_worst), (SPI_OUT, 20, 0, 8, 16, 3));
        let path = gcm.path.unwrap();
        assert_eq!((path.largest_inner, path.mss_v4, path.mss_v6), (1446, 1406, 1386));
        assert_eq!(path.source, Source::Device);

        let mut cbc = Lab::vti();
        cbc.states[OUT].algs = aes_cbc_hmac_sha1();
        let cbc = only(&cbc, |_| ());
        adds_up(&cbc);
        assert_eq!((cbc.path.unwrap().largest_inner, cbc.path.unwrap().unused), (1438, 4));
    }

    #[test]
    fn it_says_where_the_paths_mtu_is_from() {
        let key = |tables: &Snapshot| *tables.routes.iter().next().unwrap().0;
        let route = only(&Lab::vti(), |t| {
            let route = crate::route::Route { ifindex: BELOW, mtu: 1400 };
            t.put_route(key(t), Some(route));
        });
        assert_eq!(route.path.unwrap().source, Source::Route);
        let learned = only(&Lab::vti(), |t| {
            assert!(t.learn(key(t), &Hearsay { mtu: 1300, now: NOW, keep: 600, min_v4: 552 }));
        });
        adds_up(&learned);
        let path = learned.path.unwrap();
        assert_eq!((path.largest_inner, path.source), (1246, Source::Learned { expires_in: 600 }));
        assert_eq!(only(&Lab::vti(), |t| _ = t.put_route(key(t), None)).path, None);
    }

    #[test]
    fn a_device_that_lets_too_much_in_is_told() {
        let mut lab = Lab::vti();
        lab.devices[0].mtu = 1480;
        assert_eq!(only(&lab, |_| ()).advice(), Some(1446));
        lab.devices[0].mtu = 1446;
        assert_eq!(only(&lab, |_| ()).advice(), None);
    }
}
