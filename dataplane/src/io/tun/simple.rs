//! The backend without offload: the `tun-tap` crate, one packet a system call.

use super::create::{self, CreateError, Options};
use super::{Device, FromHost, Kind, TunQueue, info};
use crate::io::{Burst, Errno, Outcome, Pool};
use crate::sys;
use rustix::io::{IoSlice, IoSliceMut, readv, writev};
use std::io;
use std::os::fd::BorrowedFd;
use tun_tap::Iface;
use uvti_core::packet::Buf;

/// A TUN device with one queue.
///
/// Dropping it leaves the device in place, so that the host's routes go on pointing to it and the kernel drops
/// what nobody reads: when the device of a dead process vanished, the host would send the inner packets out of its
/// default route in the clear. [`Device::destroy`] removes it.
#[derive(Debug)]
pub struct SimpleTun {
    iface: Iface,
    ifindex: u32,
}

impl SimpleTun {
    /// Creates the device, or takes over one that a process left behind, in the calling thread's namespace.
    pub fn create(name: &str, options: Options) -> Result<Self, CreateError> {
        let (iface, ifindex) = create::create(name, options)?;
        Ok(Self { iface, ifindex })
    }

    /// Its name when it was created (a rename is not followed).
    pub fn name(&self) -> &str {
        self.iface.name()
    }

    /// Reads one packet; `None` if there is none.
    fn recv(&self, buf: &mut Buf) -> io::Result<Option<Kind>> {
        let space = buf.space_mut();
        let capacity = space.len();
        let mut what = [0; info::LEN];
        match readv(self.descriptor(), &mut [IoSliceMut::new(&mut what), IoSliceMut::new(space)]) {
            // kernel: drivers/net/tun.c tun_chr_read_iter() returns at most the buffer's length, and no error.
            // The pool's buffers are a byte longer than any packet, so a full one was too short.
            Ok(n) => {
                let n = n.saturating_sub(info::LEN);
                buf.set_len(n);
                buf.protocol = info::read(what);
                Ok(Some(if n == capacity { Kind::Truncated } else { Kind::Packet }))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl SimpleTun {
    /// As [`TunQueue::recv_burst`]; the device may be shared.
    pub fn receive(&self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        let mut burst = Burst::default();
        while burst.received < max {
            let Some(mut buf) = pool.take() else {
                burst.starved = true;
                break;
            };
            match self.recv(&mut buf) {
                Ok(Some(kind)) => {
                    into.push(FromHost { buf, kind });
                    burst.received += 1;
                }
                Ok(None) => {
                    pool.put(buf);
                    break;
                }
                Err(error) => {
                    pool.put(buf);
                    return Err(error);
                }
            }
        }
        Ok(burst)
    }

    /// As [`TunQueue::send_burst`]; the device may be shared.
    pub fn send(&self, packets: &[Buf], outcomes: &mut Vec<Outcome>) {
        outcomes.extend(packets.iter().map(|packet| {
            let packet = packet.bytes();
            // kernel: drivers/net/tun.c tun_get_user() takes a packet whole or not at all.
            let written = info::of(packet)
                .and_then(|what| writev(self.descriptor(), &[&what[..], packet].map(IoSlice::new)));
            written.map_or_else(Outcome::from_errno, |_| Outcome::Sent)
        }));
    }

    /// As [`TunQueue::fd`].
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        create::fd_of(&self.iface)
    }
}

impl Device for SimpleTun {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn destroy(&self) -> io::Result<()> {
        Ok(sys::tun::set_persistent(create::fd_of(&self.iface), false)?)
    }
}

impl TunQueue for SimpleTun {
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        self.receive(into, pool, max)
    }

    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>) {
        self.send(packets, outcomes);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}
