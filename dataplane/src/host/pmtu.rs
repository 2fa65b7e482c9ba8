//! Hearing of path MTUs: ICMP about packets that were too big for a router.
//!
//! Our own sockets take no part in the host's path MTU discovery, so that nobody can narrow the host's route with an ICMP
//! that quotes any SPI. These raw sockets get a copy of what the host receives.

use crate::sys::sockopt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uvti_core::vti::pmtu::Report;

/// kernel: include/uapi/linux/icmp.h ICMP_FILTER; a set bit keeps the type out: all but destination unreachable
const ICMP_FILTER: (i32, i32) = (1, !(1 << 3));
/// kernel: include/uapi/linux/icmpv6.h ICMPV6_FILTER: all but packet too big
const ICMPV6_FILTER: (i32, u32) = (1, !(1 << 2));
/// What a router quotes of a packet: RFC 1812 §4.3.2.3, RFC 4443 §3.2. What is cut beyond that is not looked at in
/// ICMPv6; an IPv4 message that was cut fails its checksum.
const LONGEST: usize = 2048;

/// Raw ICMP sockets in the namespace of the thread that opened them.
pub struct Listener {
    v4: Socket,
    /// Absent on a host without IPv6.
    v6: Option<Socket>,
    /// Whoever holds it reads: who comes later knows that what had arrived has been heard.
    buffer: Mutex<Vec<u8>>,
}

impl Listener {
    /// Opens the sockets. `EPERM` without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let v4 = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::ICMPV4))?;
        sockopt::set(&v4, libc::SOL_RAW, ICMP_FILTER.0, ICMP_FILTER.1)?;
        let v6 = match Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6)) {
            Ok(v6) => {
                let mut filter = [0xff; 32];
                filter[..4].copy_from_slice(&ICMPV6_FILTER.1.to_ne_bytes());
                sockopt::set_bytes(&v6, libc::SOL_ICMPV6, ICMPV6_FILTER.0, &filter)?;
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6, buffer: Mutex::new(vec![0; LONGEST]) })
    }

    /// Waits up to `patience` for ICMP.
    pub fn wait(&self, patience: Duration) -> io::Result<()> {
        let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        let sockets = std::iter::once(&self.v4).chain(&self.v6);
        let mut fds: Vec<_> = sockets.map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)).collect();
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Hands on what all ICMP that has come reports. What another thread took just before has been handed on, too,
    /// when this returns.
    pub fn hear(&self, mut hear: impl FnMut(&Report)) -> io::Result<()> {
        // Its contents do not matter when somebody panicked.
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        drain(&self.v4, &mut buffer, Report::from_ipv4, &mut hear)?;
        self.v6.iter().try_for_each(|v6| drain(v6, &mut buffer, Report::from_icmpv6, &mut hear))
    }
}

/// Reads until there is nothing more.
fn drain(
    mut socket: &Socket,
    buffer: &mut [u8],
    report: fn(&[u8]) -> Option<Report>,
    hear: &mut impl FnMut(&Report),
) -> io::Result<()> {
    loop {
        match socket.read(buffer) {
            Ok(n) => report(&buffer[..n]).iter().for_each(&mut *hear),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
