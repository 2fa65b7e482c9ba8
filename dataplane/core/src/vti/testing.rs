//! A laboratory for tests and benches: a VTI with everything right, to be spoilt one thing at a time.

use crate::device::{Device, DeviceId, LinkKind, LinkSpec};
use crate::esp::Header;
use crate::packet::{Buf, Incoming, Outer, UdpPorts};
use crate::route::{Answer, Route, RouteKey};
use crate::tables::{Context, Op, Settings, Snapshot};
use crate::vti::{RxSlot, TxSlot};
use crate::xfrm::{
    Action, AlgAead, AlgAuth, AlgEnc, Algorithms, Direction, Family, Key, Level, Limits, Mark, Mode,
    PolicyFlags, PolicySpec, Proto, Sa, Selector, Spi, StateFlags, StateSpec, Template,
};
use std::net::IpAddr;
use std::sync::Arc;

/// The SA and the policy for output, in [`Lab::states`] and [`Lab::policies`].
pub const OUT: usize = 0;
/// Those for input.
pub const IN: usize = 1;
/// Mark of policies, key of the device.
pub const KEY: u32 = 1;
/// `if_id` of an xfrm interface, and of its SAs and policies.
pub const IF_ID: u32 = 5;
/// Request id of SAs and templates.
pub const REQID: u32 = 1;
/// SPI of the SA for output.
pub const SPI_OUT: Spi = Spi(0x100);
/// SPI of the SA for input.
pub const SPI_IN: Spi = Spi(0x200);
/// Interface index of the VTI.
pub const VTI: u32 = 10;
/// Interface index of the device below.
pub const BELOW: u32 = 2;
/// Seconds since the Unix epoch at which everything happens.
pub const NOW: u64 = 1_700_000_000;

/// One end of a tunnel, as lists of what was configured.
#[derive(Clone, Debug)]
pub struct Lab {
    /// Devices; the first is `vti0`.
    pub devices: Vec<Device>,
    /// States, [`OUT`] and [`IN`] first.
    pub states: Vec<StateSpec>,
    /// Policies, [`OUT`] and [`IN`] first.
    pub policies: Vec<PolicySpec>,
    /// Outer routes; the first is that of the tunnel.
    pub routes: Vec<(RouteKey, Answer)>,
    /// Default policies that are block.
    pub block_by_default: Vec<Direction>,
    /// This host's addresses.
    pub addresses: Vec<IpAddr>,
    /// How many workers share the SAs.
    pub workers: u16,
    /// SPIs reserved for SAs to come.
    pub reserved: Vec<StateSpec>,
    /// Sysctls.
    pub settings: Settings,
}

/// An address.
///
/// # Panics
/// If it does not parse.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// AES-128-GCM with a 16-byte ICV.
pub fn aes_gcm() -> Algorithms {
    aead("rfc4106(gcm(aes))", 20)
}

/// ChaCha20-Poly1305.
pub fn chacha20_poly1305() -> Algorithms {
    aead("rfc7539esp(chacha20,poly1305)", 36)
}

/// AES-128-CBC with HMAC-SHA-1-96.
pub fn aes_cbc_hmac_sha1() -> Algorithms {
    let key = |len| Key::new((0..len).collect());
    let auth = AlgAuth { name: "hmac(sha1)".into(), key: key(20), trunc_bits: None };
    Algorithms { aead: None, enc: Some(AlgEnc { name: "cbc(aes)".into(), key: key(16) }), auth: Some(auth) }
}

fn aead(name: &str, key_and_salt: u8) -> Algorithms {
    let key = Key::new((0..key_and_salt).collect());
    let aead = AlgAead { name: name.into(), key, icv_bits: 128 };
    Algorithms { aead: Some(aead), ..Algorithms::default() }
}

/// A VTI that is up.
pub fn device(name: &str, ifindex: u32, local: IpAddr, remote: IpAddr, key: u32) -> Device {
    let (kind, mtu) = if local.is_ipv4() { (LinkKind::Vti, 1480) } else { (LinkKind::Vti6, 1460) };
    let spec = LinkSpec { local, remote, ikey: key, okey: key, ..LinkSpec::new(name, kind) };
    let id = DeviceId(ifindex);
    Device {
        id,
        spec,
        ifindex,
        mtu,
        up: true,
        txqlen: 1000,
        disable_xfrm: false,
        no_policy: false,
        disable_policy: [false; 2],
        local_not_ours: false,
        remote_is_ours: false,
    }
}

/// An xfrm interface that is up.
pub fn interface(name: &str, ifindex: u32, if_id: u32) -> Device {
    let spec = LinkSpec { if_id, ..LinkSpec::new(name, LinkKind::Xfrm) };
    let any = IpAddr::from([0; 4]);
    Device { spec, mtu: 1500, ..device(name, ifindex, any, any, 0) }
}

/// A policy for all packets of both families between these outer addresses.
pub fn policy(dir: Direction, mark: u32, src: IpAddr, dst: IpAddr) -> PolicySpec {
    let template = Template {
        src,
        dst,
        proto: Proto::Esp,
        spi: Spi(0),
        mode: Mode::Tunnel,
        reqid: REQID,
        level: Level::Required,
    };
    PolicySpec {
        sel: Selector { family: None, ..Selector::any(Family::V4) },
        dir,
        mark: Mark::exact(mark),
        if_id: 0,
        priority: 0,
        action: Action::Allow,
        flags: PolicyFlags::default(),
        index: 0,
        limits: Limits::NONE,
        templates: vec![template],
    }
}

/// An SA for both inner families.
pub fn state(src: IpAddr, dst: IpAddr, spi: Spi, algs: Algorithms) -> StateSpec {
    let flags = StateFlags(StateFlags::AF_UNSPEC);
    StateSpec { reqid: REQID, flags, ..StateSpec::tunnel(src, dst, spi, algs) }
}

impl Lab {
    /// `vti0` from 198.51.100.1 to 198.51.100.2 with AES-GCM.
    pub fn vti() -> Self {
        Self::between(ip("198.51.100.1"), ip("198.51.100.2"), aes_gcm())
    }

    /// The same over IPv6.
    pub fn vti6() -> Self {
        Self::between(ip("2001:db8:ff::1"), ip("2001:db8:ff::2"), aes_gcm())
    }

    /// `xfrm0` between the same addresses as `vti0`, with policies in the order out, in, fwd. 10.1.0.1 is ours.
    pub fn xfrm() -> Self {
        Self::vti().with_interface()
    }

    /// The same over IPv6.
    pub fn xfrm6() -> Self {
        Self::vti6().with_interface()
    }

    fn with_interface(mut self) -> Self {
        self.devices = vec![interface("xfrm0", VTI, IF_ID)];
        self.policies.push(PolicySpec { dir: Direction::Fwd, ..self.policies[IN].clone() });
        self.policies.iter_mut().for_each(|p| (p.mark, p.if_id) = (Mark::default(), IF_ID));
        self.states.iter_mut().for_each(|s| s.if_id = IF_ID);
        self.addresses = vec![self.states[OUT].src, ip("10.1.0.1")];
        self
    }

    /// One end between these outer addresses.
    pub fn between(local: IpAddr, remote: IpAddr, algs: Algorithms) -> Self {
        let route = Route { ifindex: BELOW, mtu: 1500 };
        Self {
            devices: vec![device("vti0", VTI, local, remote, KEY)],
            states: vec![state(local, remote, SPI_OUT, algs.clone()), state(remote, local, SPI_IN, algs)],
            policies: vec![
                policy(Direction::Out, KEY, local, remote),
                policy(Direction::In, KEY, remote, local),
            ],
            routes: vec![(RouteKey { src: local, dst: remote, mark: 0 }, Some(route))],
            block_by_default: vec![],
            addresses: vec![],
            workers: 1,
            reserved: vec![],
            settings: Settings::default(),
        }
    }

    /// The tables, with the same salts every time.
    ///
    /// # Panics
    /// If the tables refuse a part.
    pub fn tables(&self) -> Arc<Snapshot> {
        let mut tables = Snapshot::new(self.workers);
        let mut salt = 0x5a17_0000_0000_0000;
        let mut random = || {
            salt += 1;
            salt
        };
        self.devices.iter().for_each(|d| tables.put_device(d.clone()));
        tables.settings = self.settings;
        tables.addresses = Arc::new(self.addresses.iter().copied().collect());
        for s in &self.reserved {
            let mut cx = Context { now: NOW, random: &mut random };
            tables.allocate(s, (s.spi.0, s.spi.0), &mut cx).expect("a free SPI");
        }
        let mut apply = |tables: &mut Snapshot, op: Op| {
            tables.apply(&op, &mut Context { now: NOW, random: &mut random }).expect("a fine operation");
        };
        self.states.iter().for_each(|s| apply(&mut tables, Op::StateAdd(Box::new(s.clone()))));
        self.policies.iter().for_each(|p| apply(&mut tables, Op::PolicyAdd(Box::new(p.clone()))));
        for dir in &self.block_by_default {
            apply(&mut tables, Op::PolicyDefault { dir: *dir, action: Action::Block });
        }
        self.routes.iter().for_each(|(key, answer)| tables.routes.insert(*key, *answer));
        Arc::new(tables)
    }

    /// What the far end would send by the SA for input.
    pub fn peer(&self) -> Peer {
        let spec = &self.states[IN];
        let lab = Lab { states: vec![spec.clone()], policies: vec![], ..self.clone() };
        let tables = lab.tables();
        let sa = tables.states.newest_first()[0].clone();
        let outer = Outer { src: spec.src, dst: spec.dst, tos: 0, udp: None };
        Peer { sa, outer, next_header: 4 }
    }
}

/// The far end of a tunnel: seals whatever it is told to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The SA that our end has for input.
    pub sa: Arc<Sa>,
    /// Outer header of its packets.
    pub outer: Outer,
    /// Next header of its packets.
    pub next_header: u8,
}

impl Peer {
    /// ESP around anything, from the SPI on.
    ///
    /// # Panics
    /// If it is too long for ESP.
    pub fn esp(&self, seq: u64, inner: &[u8]) -> Buf {
        let mut buf = Buf::from_packet(inner);
        let spec = &self.sa.spec;
        let header = Header { spi: spec.spi, seq, esn: spec.flags.has(StateFlags::ESN) };
        self.sa
            .crypter
            .seal(&mut buf, header, seq, self.next_header, spec.tfcpad as usize)
            .expect("room for ESP");
        buf
    }

    /// The same as a received packet.
    pub fn slot(&self, seq: u64, inner: &[u8]) -> RxSlot {
        self.received(self.esp(seq, inner))
    }

    /// Bytes from this peer, as received.
    pub fn received(&self, buf: Buf) -> RxSlot {
        RxSlot::new(Incoming { buf, outer: self.outer })
    }

    /// The same peer behind a NAT.
    pub fn in_udp(mut self) -> Self {
        self.outer.udp = Some(UdpPorts { src: 4500, dst: 4500 });
        self
    }
}

/// Packets as read from a device.
pub fn tx_burst(packets: &[Vec<u8>]) -> Vec<TxSlot> {
    packets.iter().map(|p| TxSlot::new(Buf::from_packet(p))).collect()
}
