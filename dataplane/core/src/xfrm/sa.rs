//! A running SA: what was configured, its keyed cipher, and what changes per packet.

use super::{ExtraFlags, Lifetime, ReplayCounters, Selector, StateFlags, StateInfo, StateSpec, StateStats};
use crate::esp::{Crypter, OutSeq, Replay};
use crate::packet::{NoRoom, OuterHeader, UdpPorts};
use crate::reason::SaStat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};

/// A state in the tables. Immutable: a change makes a new one that shares [`Runtime`] and cipher.
#[derive(Debug)]
pub struct Sa {
    /// As configured.
    pub spec: StateSpec,
    /// The selector in force.
    pub selector: Selector,
    /// What goes in front of its packets when it sends.
    pub header: OuterHeader,
    /// Keyed algorithms.
    pub crypter: Arc<Crypter>,
    /// Order of creation: among equals the newest is chosen, and lists are newest first.
    pub number: u64,
    /// The worker that alone hands out sequence numbers and advances the window.
    pub home: u16,
    /// What changes per packet. It survives every snapshot that names it.
    pub run: Arc<Runtime>,
}

/// What changes per packet. One writer, the SA's home worker, by plain loads and stores; anybody may read.
#[derive(Debug)]
pub struct Runtime {
    /// Sequence numbers sent.
    pub out: OutSeq,
    /// Replay window.
    pub window: Replay,
    salt: AtomicU64,
    bytes: AtomicU64,
    packets: AtomicU64,
    add_time: u64,
    use_time: AtomicU64,
    replay_window: AtomicU64,
    replay: AtomicU64,
    integrity_failed: AtomicU64,
    lost: AtomicU64,
    dead: AtomicBool,
    /// A soft limit was reached, and whether key managers were told.
    dying: AtomicBool,
    told: AtomicBool,
    ip_id: AtomicU16,
}

/// `a += n` by the one writer.
#[inline]
fn add(a: &AtomicU64, n: u64) {
    a.store(a.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Runtime {
    /// A fresh one for `spec`, created at `now` (seconds since the Unix epoch) with a random `salt`.
    pub fn new(spec: &StateSpec, now: u64, salt: u64) -> Self {
        let esn = spec.flags.has(StateFlags::ESN);
        Self {
            out: OutSeq::new(&spec.replay, esn, spec.extra_flags.has(ExtraFlags::OSEQ_MAY_WRAP)),
            window: Replay::new(spec.replay_window, esn, &spec.replay),
            salt: AtomicU64::new(salt),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            add_time: now,
            use_time: AtomicU64::new(0),
            replay_window: AtomicU64::new(0),
            replay: AtomicU64::new(0),
            integrity_failed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            told: AtomicBool::new(false),
            ip_id: AtomicU16::new(salt as u16),
        }
    }

    /// Goes on where an SA with the same key stopped, in this run of the program or an earlier one: after number `sent`,
    /// with its `salt`, and with nothing accepted at or below `received`. Only before the first packet.
    pub fn resume(&self, sent: u64, received: u64, salt: u64) {
        self.out.resume(sent);
        self.window.resume(received);
        self.salt.store(salt, Relaxed);
    }

    /// Random part of the IV: IV = salt xor sequence number, so that no nonce repeats.
    ///
    /// kernel: crypto/seqiv.c
    #[inline]
    pub fn salt(&self) -> u64 {
        self.salt.load(Relaxed)
    }

    /// Whether it may still be used: not deleted, not expired.
    #[inline]
    pub fn alive(&self) -> bool {
        !self.dead.load(Relaxed)
    }

    /// Ends its use, at once and for every snapshot that still names it.
    pub fn kill(&self) {
        self.dead.store(true, Relaxed);
    }

    /// Whether it has reached a soft limit: another one is preferred.
    #[inline]
    pub fn dying(&self) -> bool {
        self.dying.load(Relaxed)
    }

    /// Whether it is dying and nobody was told: true once.
    pub fn is_news(&self) -> bool {
        self.dying() && !self.told.swap(true, Relaxed)
    }

    /// What it has used.
    pub fn current(&self) -> Lifetime {
        Lifetime {
            bytes: self.bytes.load(Relaxed),
            packets: self.packets.load(Relaxed),
            add_time: self.add_time,
            use_time: self.use_time.load(Relaxed),
        }
    }

    /// Adds packets that were let through, at `now`.
    #[inline]
    pub fn consume(&self, packets: u64, bytes: u64, now: u64) {
        add(&self.packets, packets);
        add(&self.bytes, bytes);
        if packets > 0 {
            self.touch(now);
        }
    }

    /// Notes the first use.
    #[inline]
    pub fn touch(&self, now: u64) {
        if self.use_time.load(Relaxed) == 0 {
            self.use_time.store(now, Relaxed);
        }
    }

    /// Counts an error of this SA.
    pub fn count(&self, stat: SaStat) {
        match stat {
            SaStat::ReplayWindow => add(&self.replay_window, 1),
            SaStat::Replay => add(&self.replay, 1),
            SaStat::IntegrityFailed => add(&self.integrity_failed, 1),
        }
    }

    /// Counts sequence numbers that left the window unseen.
    #[inline]
    pub fn add_lost(&self, n: u64) {
        if n > 0 {
            add(&self.lost, n);
        }
    }

    /// Sequence numbers that left the window unseen.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Identification for the next outer IPv4 header without DF: counts up.
    ///
    /// kernel: net/ipv4/route.c __ip_select_ident()
    #[inline]
    pub fn next_ip_id(&self) -> u16 {
        let id = self.ip_id.load(Relaxed).wrapping_add(1).max(1);
        self.ip_id.store(id, Relaxed);
        id
    }

    /// Errors of this SA.
    pub fn stats(&self) -> StateStats {
        StateStats {
            replay_window: self.replay_window.load(Relaxed),
            replay: self.replay.load(Relaxed),
            integrity_failed: self.integrity_failed.load(Relaxed),
        }
    }
}

impl StateSpec {
    /// The outer header of its packets. The endpoints must be of one family.
    pub fn header(&self) -> Result<OuterHeader, NoRoom> {
        let ports = self.encap.map(|e| UdpPorts { src: e.sport, dst: e.dport });
        OuterHeader::new(self.src, self.dst, ports)
    }
}

impl Sa {
    /// The SA as `ip xfrm state` shows it.
    pub fn info(&self) -> StateInfo {
        let mut replay = ReplayCounters::default();
        self.run.window.snapshot(&mut replay);
        self.run.out.snapshot(&mut replay);
        // kernel: net/xfrm/xfrm_replay.c: a bitmap without ESN keeps the high halves, and never looks at them
        if self.spec.replay_window > 32 && !self.spec.flags.has(StateFlags::ESN) {
            let configured = &self.spec.replay;
            (replay.seq_hi, replay.oseq_hi) = (configured.seq_hi, configured.oseq_hi);
        }
        StateInfo { spec: self.spec.clone(), replay, current: self.run.current(), stats: self.run.stats() }
    }

    /// Whether `used` has reached a hard limit: tested before a packet is added.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_check_expire()
    #[inline]
    pub fn exhausted(&self, packets: u64, bytes: u64) -> bool {
        let l = &self.spec.limits;
        packets >= l.hard_packets || bytes >= l.hard_bytes
    }

    /// Makes it dying if `used` has reached a soft limit: tested before a packet is added. Whether it has become so.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_check_expire()
    #[inline]
    pub fn wear(&self, packets: u64, bytes: u64) -> bool {
        let l = &self.spec.limits;
        let worn = packets >= l.soft_packets || bytes >= l.soft_bytes;
        let first = worn && !self.run.dying();
        if first {
            self.run.dying.store(true, Relaxed);
        }
        first
    }

    /// Makes it dying if its time for that has come at `now`, seconds since the Unix epoch.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_timer_handler()
    pub fn age(&self, now: u64) {
        let l = &self.spec.limits;
        if self.is_over(l.soft_add_seconds, l.soft_use_seconds, now) {
            self.run.dying.store(true, Relaxed);
        }
    }

    /// Whether its time is over at `now`, seconds since the Unix epoch.
    pub fn outlived(&self, now: u64) -> bool {
        let l = &self.spec.limits;
        self.is_over(l.hard_add_seconds, l.hard_use_seconds, now)
    }

    fn is_over(&self, since_add: u64, since_use: u64, now: u64) -> bool {
        let c = self.run.current();
        let over = |limit: u64, since: u64| limit != 0 && since != 0 && now >= since.saturating_add(limit);
        over(since_add, c.add_time) || over(since_use, c.use_time)
    }
}
