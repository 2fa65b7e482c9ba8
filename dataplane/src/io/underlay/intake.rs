//! What all receiving sockets share: batches, buffers, losses, and exemption from the kernel's policies.

use super::udp::UDP_GRO;
use super::{Fault, Received};
use crate::io::{Burst, Errno, Pool};
use crate::sys::mmsg::{BATCH, Datagram, Receiver};
use crate::sys::sockopt;
use socket2::Socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use uvti_core::packet::Buf;

/// Receive buffer, bytes; what the host does not allow is cut to its limit.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// Whether the host joins packets for a socket (UDP_GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// What is received may be many packets: it is taken apart by copying.
    Some,
    /// What is received is one packet, and stays where it is.
    Never,
}

/// A socket, and the batch it receives with.
pub(super) struct Intake {
    socket: Socket,
    joins: Joins,
    batch: Receiver,
    /// Buffers of the pool during a call; kept for its memory only.
    staged: Vec<Buf>,
    /// Losses as the socket counted them last: 32 bits that wrap.
    dropped: u32,
    overflow: u64,
    /// Packets in the fullest datagrams of late: how many one may bring.
    dense: usize,
}

impl Intake {
    pub(super) fn new(socket: Socket, v6: bool, joins: Joins) -> io::Result<Self> {
        if sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
            sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
        }
        sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        // Policies in the kernel are not about what we do; an unmarked IN policy would keep every packet from us.
        // A host without xfrm has none; a caller without CAP_NET_ADMIN cannot ask.
        match bypass_policies(&socket, v6) {
            Err(Errno::PERM | Errno::NOPROTOOPT | Errno::OPNOTSUPP) | Ok(()) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self {
            socket,
            joins,
            batch: Receiver::new(),
            staged: Vec::with_capacity(BATCH),
            dropped: 0,
            overflow: 0,
            dense: 1,
        })
    }

    /// Receives up to `max` datagrams; `judge` says what one is.
    pub(super) fn recv(
        &mut self,
        into: &mut Vec<Received>,
        pool: &mut Pool,
        max: usize,
        judge: impl Fn(Buf, &Datagram<'_>) -> Received,
    ) -> io::Result<Burst> {
        let mut burst = Burst::default();
        while burst.received < max {
            let wanted = BATCH.min((max - burst.received).div_ceil(self.dense));
            self.stage(pool, wanted);
            if self.staged.is_empty() {
                burst.starved = true;
                break;
            }
            let offered = self.staged.len();
            let received = self.batch.receive(self.socket.as_fd(), &mut self.staged, 0);
            let taken = received.unwrap_or(0);
            let before = into.len();
            self.take(taken, into, pool, &judge);
            burst.received += into.len() - before;
            // All go back: buffers kept here would starve the other sockets of the pool.
            let unused = self.staged.drain(..);
            match self.joins {
                Joins::Some => unused.for_each(|buf| pool.put_large(buf)),
                Joins::Never => unused.for_each(|buf| pool.put(buf)),
            }
            match received {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) if taken < offered => break,
                Ok(_) => {}
            }
        }
        Ok(burst)
    }

    /// Gets buffers for up to `wanted` datagrams.
    fn stage(&mut self, pool: &mut Pool, wanted: usize) {
        match self.joins {
            // Each will be cut into as many buffers of the pool as the densest had packets.
            Joins::Some => {
                let wanted = wanted.min(pool.available() / self.dense);
                self.staged.extend((0..wanted).map(|_| pool.take_large()));
            }
            Joins::Never => self.staged.extend((0..wanted).map_while(|_| pool.take())),
        }
    }

    /// Takes what was received out of the first `n` of the buffers staged.
    fn take(
        &mut self,
        n: usize,
        into: &mut Vec<Received>,
        pool: &mut Pool,
        judge: &impl Fn(Buf, &Datagram<'_>) -> Received,
    ) {
        if n > 0 {
            // Not at once: between super-packets come acknowledgements.
            self.dense = (self.dense / 2).max(1);
        }
        for (i, mut buf) in self.staged.drain(..n).enumerate() {
            let datagram = self.batch.datagram(i);
            buf.set_len(datagram.len);
            let before = into.len();
            if let Some(count) = overflow(&datagram) {
                self.overflow += u64::from(count.wrapping_sub(self.dropped));
                self.dropped = count;
            }
            if datagram.truncated {
                let from = datagram.source.map(|s| s.ip());
                into.push(Received::Damaged { buf, from, fault: Fault::Truncated });
                continue;
            }
            if self.joins == Joins::Never {
                into.push(judge(buf, &datagram));
                continue;
            }
            let mut copy = |part: &[u8]| {
                // One that the pool lacks is allocated, and not kept.
                let mut copy = pool.take_or_make();
                copy.fill(part);
                into.push(judge(copy, &datagram));
            };
            match joined_size(&datagram) {
                Some(size) if size < buf.len() => buf.bytes().chunks(size).for_each(copy),
                _ => copy(buf.bytes()),
            }
            pool.put_large(buf);
            self.dense = self.dense.max(into.len() - before);
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Datagrams that found the receive buffer full, as of the last one received.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }
}

/// The socket's count of losses before this datagram.
fn overflow(datagram: &Datagram<'_>) -> Option<u32> {
    datagram.control.iter().find(|c| c.is(libc::SOL_SOCKET, libc::SO_RXQ_OVFL))?.number()
}

/// The size of each packet but the last of a datagram that the host joined (UDP_GRO).
fn joined_size(datagram: &Datagram<'_>) -> Option<usize> {
    let size = datagram.control.iter().find(|c| c.is(libc::SOL_UDP, UDP_GRO))?.number()? as usize;
    (size > 0).then_some(size)
}

/// Exempts a socket from the kernel's xfrm policies, in and out.
///
/// kernel: include/uapi/linux/xfrm.h struct xfrm_userpolicy_info: all zero but family (byte 40 of the selector)
/// and direction (byte 160) allows everything.
pub(super) fn bypass_policies(socket: &Socket, v6: bool) -> Result<(), Errno> {
    const LEN: usize = 168;
    const FAMILY: usize = 40;
    const DIRECTION: usize = 160;
    const IN: u8 = 0;
    const OUT: u8 = 1;
    const IPV6_XFRM_POLICY: i32 = 35;
    let (level, option, family) = match v6 {
        false => (libc::SOL_IP, libc::IP_XFRM_POLICY, libc::AF_INET),
        true => (libc::SOL_IPV6, IPV6_XFRM_POLICY, libc::AF_INET6),
    };
    for direction in [IN, OUT] {
        let mut policy = [0; LEN];
        policy[FAMILY..FAMILY + 2].copy_from_slice(&(family as u16).to_ne_bytes());
        policy[DIRECTION] = direction;
        sockopt::set_bytes(socket, level, option, &policy)?;
    }
    Ok(())
}
