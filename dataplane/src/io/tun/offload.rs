//! The backend with offload: super-packets from the host are cut, packets for it are joined.
//!
//! What it hands out and what it counts is the same as without: single packets, in order. A super-packet is cut where it
//! is read, and all of it at once, with one copy; packets are joined by gathering, with none.

use super::create::{self, CreateError, Options};
use super::{Device, FromHost, Kind, TunQueue, info, vnet};
use crate::io::{Burst, Errno, Outcome, Pool};
use crate::sys;
use rustix::io::{IoSlice, IoSliceMut, readv, writev};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uvti_core::packet::coalesce::{Allow, Coalescer, Group, MOST};
use uvti_core::packet::segment::{Segments, finish_checksum};
use uvti_core::packet::{Buf, EtherType, Transport};

/// kernel: include/uapi/linux/if_tun.h
const CSUM: u32 = 0x01;
const TSO: u32 = 0x02 | 0x04 | 0x08;
const USO: u32 = 0x20 | 0x40;

/// Buffers that must be there before a packet is read: a super-packet of the usual size becomes 46 packets.
const RESERVE: usize = 64;

/// Which offloads are used, where the kernel has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// The host hands over TCP super-packets.
    pub tso: bool,
    /// The host hands over UDP super-packets, and takes them.
    pub uso: bool,
    /// Packets for the host are joined.
    pub gro: bool,
}

impl Offloads {
    /// Every one.
    pub const ALL: Self = Self { tso: true, uso: true, gro: true };
    /// None: what is left is one packet a system call.
    pub const NONE: Self = Self { tso: false, uso: false, gro: false };

    /// What to ask of the device, the best first. Without any super-packet the host may as well do the checksums.
    fn candidates(self) -> [u32; 3] {
        let tso = if self.tso { CSUM | TSO } else { 0 };
        let uso = if self.uso { CSUM | USO } else { 0 };
        [tso | uso, tso, 0]
    }
}

/// A TUN device with one queue, packet information and `IFF_VNET_HDR`. As with [`SimpleTun`](super::SimpleTun), dropping it leaves the
/// device in place.
#[derive(Debug)]
pub struct OffloadTun {
    name: String,
    fd: OwnedFd,
    ifindex: u32,
    /// What may be joined: until the kernel refuses it once.
    join_tcp: AtomicBool,
    join_udp: AtomicBool,
}

impl OffloadTun {
    /// Creates the device, or takes over one that a process left behind, in the calling thread's namespace.
    pub fn create(name: &str, options: Options, offloads: Offloads) -> Result<Arc<Self>, CreateError> {
        let (fd, ifindex, got) = create::create_offload(name, options, &offloads.candidates())?;
        if got != offloads.candidates()[0] {
            tracing::info!(name, features = got, "the kernel's TUN has fewer offloads than asked for");
        }
        // A kernel that hands over UDP super-packets is one that takes them: both are of Linux 6.2.
        let udp = offloads.gro && got & USO != 0;
        let (join_tcp, join_udp) = (AtomicBool::new(offloads.gro), AtomicBool::new(udp));
        Ok(Arc::new(Self { name: name.to_owned(), fd, ifindex, join_tcp, join_udp }))
    }

    /// Reads one packet into `buf`; `None` if there is none.
    fn read(&self, buf: &mut Buf) -> io::Result<Option<Read>> {
        let (mut what, mut header) = ([0; info::LEN], [0; vnet::LEN]);
        let space = buf.space_mut();
        let capacity = space.len();
        let mut pieces = [&mut what[..], &mut header, space].map(IoSliceMut::new);
        match readv(&self.fd, &mut pieces) {
            Ok(n) => {
                let n = n.saturating_sub(info::LEN + vnet::LEN);
                buf.set_len(n);
                buf.protocol = info::read(what);
                Ok(Some(if n == capacity { Read::Truncated } else { Read::Whole(vnet::read(header)) }))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes a packet as it is.
    fn write(&self, packet: &[u8]) -> Outcome {
        let header = [0; vnet::LEN];
        // kernel: drivers/net/tun.c tun_get_user() takes a packet whole or not at all.
        let written = info::of(packet)
            .and_then(|what| writev(&self.fd, &[&what[..], &header, packet].map(IoSlice::new)));
        written.map_or_else(Outcome::from_errno, |_| Outcome::Sent)
    }

    fn allow(&self) -> Allow {
        Allow { tcp: self.join_tcp.load(Ordering::Relaxed), udp: self.join_udp.load(Ordering::Relaxed) }
    }

    /// The kernel takes single packets, but not this kind of super-packet.
    fn join_no_more(&self, transport: Transport, errno: Errno) {
        let flag = match transport {
            Transport::Tcp => &self.join_tcp,
            Transport::Udp => &self.join_udp,
        };
        if flag.swap(false, Ordering::Relaxed) {
            let name = &self.name;
            tracing::warn!(name, ?transport, %errno, "the kernel refuses super-packets: joining is off from now on");
        }
    }
}

impl Device for OffloadTun {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn destroy(&self) -> io::Result<()> {
        Ok(sys::tun::set_persistent(&self.fd, false)?)
    }
}

pub(super) enum Read {
    Whole(vnet::Task),
    Truncated,
}

/// A worker's way to the device: one reads, all write.
#[derive(Debug)]
pub struct OffloadQueue {
    tun: Arc<OffloadTun>,
    coalescer: Coalescer,
    header: Vec<u8>,
}

impl OffloadQueue {
    /// Of this device.
    pub fn new(tun: Arc<OffloadTun>) -> Self {
        Self { tun, coalescer: Coalescer::default(), header: Vec::new() }
    }
}

impl TunQueue for OffloadQueue {
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        let mut burst = Burst::default();
        while burst.received < max {
            if pool.available() <= RESERVE {
                burst.starved = true;
                break;
            }
            let mut buf = pool.take_large();
            match self.tun.read(&mut buf) {
                Ok(Some(read)) => {
                    burst.received += take_in(read, &mut buf, into, pool);
                    pool.put_large(buf);
                }
                Ok(None) => {
                    pool.put_large(buf);
                    break;
                }
                Err(error) => {
                    pool.put_large(buf);
                    return Err(error);
                }
            }
        }
        Ok(burst)
    }

    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>) {
        let Self { tun, coalescer, header } = self;
        let base = outcomes.len();
        outcomes.resize(base + packets.len(), Outcome::Sent);
        let groups = coalescer.run(packets, tun.allow()).len();
        for i in 0..groups {
            let group = coalescer.group(i);
            let joined = group.joined();
            let sent = match joined {
                None => Ok(()),
                Some(_) => write_joined(tun, coalescer, &group, packets, header),
            };
            let mut single = false;
            for member in coalescer.members(&group) {
                outcomes[base + member] = match sent {
                    Ok(()) if joined.is_some() => Outcome::Sent,
                    // No room for all is no room for one, and what follows must not overtake.
                    Err(errno @ (Errno::AGAIN | Errno::NOBUFS)) => Outcome::from_errno(errno),
                    Ok(()) | Err(_) => tun.write(packets[member].bytes()),
                };
                single |= outcomes[base + member] == Outcome::Sent;
            }
            if let (Err(errno), Some((layout, _)), true) = (sent, joined, single) {
                tun.join_no_more(layout.transport, errno);
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tun.fd.as_fd()
    }
}

/// Finishes what was read, cuts it if it is a super-packet, and appends what it became, copied. How many packets.
pub(super) fn take_in(read: Read, buf: &mut Buf, into: &mut Vec<FromHost>, pool: &mut Pool) -> usize {
    let kind = match read {
        Read::Truncated => Kind::Truncated,
        Read::Whole(vnet::Task::Whole) => Kind::Packet,
        Read::Whole(vnet::Task::Unknown) => Kind::Misfit,
        Read::Whole(vnet::Task::Checksum { start, offset }) => {
            match finish_checksum(buf.bytes_mut(), start.into(), offset.into()) {
                Ok(()) => Kind::Packet,
                Err(_) => Kind::Misfit,
            }
        }
        Read::Whole(vnet::Task::Segments { transport, size, start }) => {
            match Segments::new(buf.bytes(), transport, size, start.into()) {
                Ok(segments) => return cut(&segments, buf.protocol, into, pool),
                Err(_) => Kind::Misfit,
            }
        }
    };
    let mut copy = pool.take_or_make();
    copy.fill(buf.bytes());
    copy.protocol = buf.protocol;
    into.push(FromHost { buf: copy, kind });
    1
}

/// Appends every packet of a super-packet: one that is left over would wait for a device that has nothing to read.
/// A super-packet with more of them than the pool has buffers gets new ones, which the pool does not keep.
fn cut(segments: &Segments<'_>, protocol: EtherType, into: &mut Vec<FromHost>, pool: &mut Pool) -> usize {
    for i in 0..segments.count() {
        let mut buf = pool.take_or_make();
        let kind = if segments.write(i, &mut buf) { Kind::Packet } else { Kind::Misfit };
        buf.protocol = protocol;
        into.push(FromHost { buf, kind });
    }
    segments.count()
}

/// Writes a group as one super-packet, gathered from where its packets are.
fn write_joined(
    tun: &OffloadTun,
    coalescer: &Coalescer,
    group: &Group,
    packets: &[Buf],
    header: &mut Vec<u8>,
) -> Result<(), Errno> {
    let Some((layout, size)) = group.joined() else { return Err(Errno::INVAL) };
    group.header(packets, header);
    let vnet =
        vnet::super_packet(layout.transport, layout.v6, size, layout.header as u16, layout.payload as u16);
    let what = info::of(header)?;
    let mut pieces = [IoSlice::new(&[]); MOST + 3];
    pieces[0] = IoSlice::new(&what);
    pieces[1] = IoSlice::new(&vnet);
    pieces[2] = IoSlice::new(header);
    let payloads = coalescer.members(group).map(|i| &packets[i].bytes()[layout.payload..]);
    for (piece, payload) in pieces[3..].iter_mut().zip(payloads) {
        *piece = IoSlice::new(payload);
    }
    writev(&tun.fd, &pieces[..3 + group.count]).map(|_| ())
}
