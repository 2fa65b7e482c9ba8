//! Small random configurations and packets: few values of each kind, so that they meet.

use crate::reference::{Arrival, Link, Shape};
use std::net::IpAddr;
use uvti_core::packet::Flow;
use uvti_core::vti::testing::{aes_gcm, ip};
use uvti_core::xfrm::{
    Action, Direction, Encap, EncapKind, Family, Level, Limits, Mark, Mode, PolicyFlags, PolicySpec,
    PortMatch, Proto, SaDirection, Selector, Spi, StateFlags, StateSpec, Template,
};

/// xorshift64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % n
    }

    /// Once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn of<T: Clone>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize].clone()
    }

    /// Outer addresses of one family: ours and the far end's.
    pub(crate) fn ends(&mut self) -> (IpAddr, IpAddr) {
        match self.below(8) {
            0 => (ip("2001:db8:ff::1"), ip("2001:db8:ff::2")),
            1 => (ip("198.51.100.1"), ip("198.51.100.4")),
            2 => (ip("198.51.100.3"), ip("198.51.100.2")),
            _ => (ip("198.51.100.1"), ip("198.51.100.2")),
        }
    }

    pub(crate) fn flow(&mut self) -> Flow {
        let (src, dst) = match self.below(6) {
            0 => (ip("2001:db8::1"), ip("2001:db8::2")),
            1 => (ip("10.1.1.2"), ip("10.2.0.2")),
            2 => (ip("10.1.0.2"), ip("10.2.1.2")),
            _ => (ip("10.1.0.2"), ip("10.2.0.2")),
        };
        Flow { src, dst, proto: 17, sport: 4000, dport: self.of(&[80, 5000]) }
    }

    fn selector(&mut self) -> Selector {
        let mut sel = Selector { family: None, ..Selector::any(Family::V4) };
        match self.below(8) {
            0 => sel = Selector::any(Family::V4),
            1 => sel = Selector::any(Family::V6),
            2 => (sel.family, sel.dst) = (Some(Family::V4), "10.2.0.0/24".parse().expect("a prefix")),
            3 => (sel.family, sel.src) = (Some(Family::V4), "10.1.0.2/32".parse().expect("a prefix")),
            4 => (sel.proto, sel.dport) = (17, PortMatch::exact(80)),
            5 => sel.dev = Some("vti0".to_owned()),
            _ => {}
        }
        sel
    }

    fn mark(&mut self) -> Mark {
        match self.below(6) {
            0 => Mark::default(),
            1 => Mark::exact(2),
            2 => Mark { value: 1, mask: 1 },
            _ => Mark::exact(1),
        }
    }

    pub(crate) fn state(&mut self) -> StateSpec {
        let (ours, theirs) = self.ends();
        let outwards = self.one_in(2);
        let (src, dst) = if outwards { (ours, theirs) } else { (theirs, ours) };
        let spi = Spi(if outwards { 0x100 } else { 0x200 } + self.below(3) as u32);
        let mut spec = StateSpec::tunnel(src, dst, spi, aes_gcm());
        spec.reqid = if self.one_in(6) { 2 } else { 1 };
        spec.mark = if self.one_in(4) { self.mark() } else { Mark::default() };
        spec.replay_window = self.of(&[0, 1, 32, 100]);
        spec.flags = StateFlags(if self.one_in(4) { 0 } else { StateFlags::AF_UNSPEC });
        if self.one_in(8) {
            // What transport mode looks for are the ends of the flow.
            spec.mode = Mode::Transport;
            if outwards && self.one_in(2) {
                (spec.src, spec.dst) = (ip("10.1.0.2"), ip("10.2.0.2"));
            }
        }
        if self.one_in(6) {
            spec.sel = Some(self.selector());
        }
        if self.one_in(5) {
            let (soft_packets, hard_packets) = (self.below(4), 2 + self.below(4));
            spec.limits = Limits { soft_packets, hard_packets, ..Limits::NONE };
        } else if self.one_in(6) {
            spec.limits = Limits { soft_bytes: 300, hard_bytes: 1000, ..Limits::NONE };
        }
        if self.one_in(5) {
            let original = if dst.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
            spec.encap = Some(Encap { kind: EncapKind::EspInUdp, sport: 4500, dport: 4500, original });
        }
        if self.one_in(12) {
            spec.replay.oseq = u32::MAX - self.below(3) as u32;
        }
        if self.one_in(12) {
            spec.output_mark = Mark::exact(7);
        }
        spec.dir = match self.below(10) {
            0 => Some(SaDirection::In),
            1 => Some(SaDirection::Out),
            _ => None,
        };
        spec
    }

    pub(crate) fn policy(&mut self) -> PolicySpec {
        let (ours, theirs) = self.ends();
        let dir = if self.one_in(2) { Direction::Out } else { Direction::In };
        let (src, dst) = if dir == Direction::Out { (ours, theirs) } else { (theirs, ours) };
        let mode = if self.one_in(8) { Mode::Transport } else { Mode::Tunnel };
        let template = Template {
            src,
            dst,
            proto: Proto::Esp,
            spi: Spi(if self.one_in(6) { 0x100 } else { 0 }),
            mode,
            reqid: if dir == Direction::In && self.one_in(4) { 0 } else { 1 },
            level: if mode == Mode::Transport && self.one_in(2) { Level::Use } else { Level::Required },
        };
        PolicySpec {
            sel: self.selector(),
            dir,
            mark: self.mark(),
            if_id: 0,
            priority: self.below(4) as u32,
            action: if self.one_in(10) { Action::Block } else { Action::Allow },
            flags: PolicyFlags::default(),
            index: 0,
            limits: Limits::NONE,
            templates: if self.one_in(8) { vec![] } else { vec![template] },
        }
    }

    /// One of four devices, each with its name, interface and endpoints for ever.
    pub(crate) fn link(&mut self) -> Link {
        let (name, ifindex, local, remote) = self.of(&[
            ("vti0", 10, ip("198.51.100.1"), ip("198.51.100.2")),
            ("vti1", 11, ip("198.51.100.1"), ip("0.0.0.0")),
            ("vti2", 12, ip("0.0.0.0"), ip("198.51.100.2")),
            ("vti3", 13, ip("2001:db8:ff::1"), ip("2001:db8:ff::2")),
        ]);
        let (key, mtu) = (self.of(&[1, 1, 1, 0, 2]), self.of(&[1480, 1480, 1300]));
        let (up, disable_xfrm, no_policy) = (!self.one_in(8), self.one_in(12), self.one_in(8));
        Link { name, ifindex, local, remote, key, mtu, up, disable_xfrm, no_policy }
    }

    pub(crate) fn arrival(&mut self) -> Arrival {
        let (dst, src) = self.ends();
        let shape = match self.below(12) {
            0 => Shape::Short,
            1 => Shape::Truncated,
            2 => Shape::BadIcv,
            3 => self.of(&[Shape::Dummy, Shape::NotTunnelled, Shape::HalfHeader, Shape::OtherVersion]),
            _ => Shape::Good,
        };
        let len = match shape {
            Shape::Dummy | Shape::HalfHeader => 10,
            _ => 60 + self.below(100) as usize,
        };
        let (udp, spi) = (self.one_in(6), 0x200 + self.below(3) as u32);
        Arrival { src, dst, udp, spi, seq: self.below(150) as u32, shape, flow: self.flow(), len }
    }
}
