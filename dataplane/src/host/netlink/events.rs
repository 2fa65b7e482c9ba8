//! Following what changes in the namespace.

use super::messages;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// kernel: include/uapi/linux/rtnetlink.h enum rtnetlink_groups: links, IPv4 addresses, routes and rules, IPv6 ones,
/// and what is configured of forwarding and rp_filter
const GROUPS: [u32; 9] = [1, 5, 7, 8, 9, 11, 19, 24, 25];
/// kernel: include/uapi/linux/rtnetlink.h
const RTM_NEWNETCONF: u16 = 80;
/// The kernel's messages are at most a page and a bit; several fit in.
const DATAGRAM: usize = 64 << 10;

/// What changed since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Links added, removed or changed.
    pub links: bool,
    /// Addresses.
    pub addresses: bool,
    /// Routes.
    pub routes: bool,
    /// Routing rules.
    pub rules: bool,
    /// Forwarding, or the filter of sources.
    pub forwarding: bool,
    /// Events were lost: the kernel had no room for them. Everything else is set too.
    pub lost: bool,
}

impl Changes {
    /// Everything may have changed.
    pub const ALL: Self =
        Self { links: true, addresses: true, routes: true, rules: true, forwarding: true, lost: true };

    /// Whether anything did.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Notes all messages of a datagram.
    pub(super) fn note_all(&mut self, datagram: &[u8]) {
        let kind = |message: &[u8]| Some(u16::from_ne_bytes(*message.get(4..)?.first_chunk()?));
        messages(datagram).filter_map(kind).for_each(|kind| self.note(kind));
    }

    fn note(&mut self, message_type: u16) {
        match message_type {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.links = true,
            libc::RTM_NEWADDR | libc::RTM_DELADDR => self.addresses = true,
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.routes = true,
            libc::RTM_NEWRULE | libc::RTM_DELRULE => self.rules = true,
            RTM_NEWNETCONF => self.forwarding = true,
            _ => {}
        }
    }
}

/// A subscription to the changes in the namespace of the thread that opened it.
pub struct Events {
    socket: Socket,
    datagram: Vec<u8>,
}

impl Events {
    /// Subscribes. What changes from now on is seen.
    pub fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Takes all that waits, without blocking.
    pub fn drain(&mut self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, 0) {
                Ok(_) => changes.note_all(&self.datagram),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes = Changes::ALL,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
