//! Creating a TUN device and dressing it up as a VTI or an xfrm interface.

use crate::host::netlink::{Netlink, NetlinkError};
use crate::sys;
use rustix::fs::{Mode as FsMode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tun_tap::{Iface, Mode};

/// Longest interface name, bytes. kernel: include/uapi/linux/if.h IFNAMSIZ, less the final zero
const NAME_MAX: usize = 15;
/// Less than the 1280 bytes of RFC 8200 §5.
const TOO_SMALL_FOR_IPV6: u32 = 1000;
/// `link/ipip`, as a kernel VTI has. kernel: include/uapi/linux/if_arp.h ARPHRD_TUNNEL
///
/// It also keeps IPv6 from configuring the device by itself: a fresh TUN sends router solicitations.
pub const LINK_TUNNEL: u16 = 768;
/// `link/none`, as a fresh TUN and a kernel's xfrm interface have: IPv6 gives such a device an address of its own.
/// kernel: include/uapi/linux/if_arp.h ARPHRD_NONE
pub const LINK_NONE: u16 = 0xfffe;

/// How a device is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Largest inner packet, bytes.
    pub mtu: u32,
    /// Packets that the kernel queues for us.
    pub txqlen: u32,
    /// `ARPHRD_*`.
    pub link_type: u16,
    /// Whether the device, and with it the host's routes, outlives the process.
    pub persistent: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { mtu: 1480, txqlen: 1000, link_type: LINK_TUNNEL, persistent: true }
    }
}

/// Why a device could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is no interface name.
    #[error("{name:?} is not a valid interface name: {why}")]
    InvalidName {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The kernel or container has no TUN driver.
    #[error("/dev/net/tun is missing: load the tun module (modprobe tun), or give the container the device")]
    NoDriver,
    /// Not allowed to open the driver or to create devices.
    #[error(
        "no permission to create {0}: needs CAP_NET_ADMIN in this network namespace and access to /dev/net/tun"
    )]
    NoPrivilege(String),
    /// A TUN device that another process has open.
    #[error("{0} is in use by another process")]
    Busy(String),
    /// A device of another kind has the name.
    #[error("{name} exists and is not a TUN device but {kind}")]
    NotTun {
        /// Interface name.
        name: String,
        /// Kind of the device in the way.
        kind: String,
    },
    /// Another system call failed.
    #[error("{name}: {step}: {errno}")]
    Kernel {
        /// Interface name.
        name: String,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The link could not be looked at or set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Accepts what the kernel takes as a literal interface name.
///
/// `tun-tap` cuts longer names silently, and the kernel takes `%d` for a template.
pub fn check_name(name: &str) -> Result<(), CreateError> {
    // kernel: net/core/dev.c dev_valid_name()
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX {
        "it is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "it names a directory"
    } else if name
        .bytes()
        .any(|b| matches!(b, b'/' | b':' | b'%' | 0) || b.is_ascii_whitespace() || b == 0x0b)
    {
        "it has a slash, a colon, a percent sign or a blank"
    } else {
        return Ok(());
    };
    Err(CreateError::InvalidName { name: name.to_owned(), why })
}

/// A device for one packet a system call.
pub(super) fn create(name: &str, options: Options) -> Result<(Iface, u32), CreateError> {
    check_name(name)?;
    let mut netlink = Netlink::open()?;
    let iface = Iface::new(name, Mode::Tun)
        .map_err(|error| explain(name, Errno::from_io_error(&error), &mut netlink))?;
    // A persistent device keeps the offloads of its last owner; without vnet_hdr they would reach us as packets
    // longer than the MTU.
    let (ifindex, _) = dress(fd_of(&iface), name, options, &[0], &mut netlink)?;
    Ok((iface, ifindex))
}

/// A device with `IFF_VNET_HDR` and packet information, and the first of `features` (`TUN_F_*`) that the kernel knows all of.
pub(super) fn create_offload(
    name: &str,
    options: Options,
    features: &[u32],
) -> Result<(OwnedFd, u32, u32), CreateError> {
    check_name(name)?;
    let mut netlink = Netlink::open()?;
    let fd = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, FsMode::empty())
        .and_then(|fd| sys::tun::attach_vnet(&fd, name).map(|()| fd))
        .map_err(|errno| explain(name, Some(errno), &mut netlink))?;
    let (ifindex, got) = dress(fd.as_fd(), name, options, features, &mut netlink)?;
    Ok((fd, ifindex, got))
}

/// Sets up an attached device. Returns its index, and the features that it got.
fn dress(
    fd: BorrowedFd<'_>,
    name: &str,
    options: Options,
    features: &[u32],
    netlink: &mut Netlink,
) -> Result<(u32, u32), CreateError> {
    let fail = |step| move |errno| CreateError::Kernel { name: name.to_owned(), step, errno };
    let mut wanted = features.iter().copied().peekable();
    let got = loop {
        let features = wanted.next().unwrap_or(0);
        match sys::tun::set_offload(fd, features) {
            Ok(()) => break features,
            Err(Errno::INVAL) if wanted.peek().is_some() => {}
            Err(errno) => return Err(fail("setting offloads")(errno)),
        }
    };
    let link = netlink.link_by_name(name)?;
    if link.link_type == options.link_type {
        // A fresh TUN is of that type, and not up.
        if options.link_type == LINK_NONE && !link.up {
            leave_all_routers(netlink, link.index)?;
        }
    } else {
        // EBUSY if it is up: a device made by somebody else. Its routes matter more than its looks.
        match sys::tun::set_link_type(fd, options.link_type) {
            Err(Errno::BUSY) => tracing::warn!(name, "is up already and keeps its link type"),
            result => {
                result.map_err(fail("setting the link type"))?;
                leave_all_routers(netlink, link.index)?;
            }
        }
    }
    sys::tun::set_persistent(fd, options.persistent).map_err(fail("making it persistent"))?;
    netlink.set_mtu(link.index, options.mtu)?;
    netlink.set_txqlen(link.index, options.txqlen)?;
    rustix::io::ioctl_fionbio(fd, true).map_err(fail("making it non-blocking"))?;
    Ok((link.index, got))
}

/// A kernel's tunnel is no multicast device. A TUN is one when it is made: with IPv6 forwarding it joins ff02::2 at once,
/// and the host sends MLD reports into it when it comes up. An MTU too small for IPv6 makes IPv6 forget the device,
/// and the MTU that is set next makes it begin anew.
///
/// kernel: net/ipv6/addrconf.c ipv6_add_dev(), addrconf_notify()
fn leave_all_routers(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    netlink.clear_multicast(index)?;
    netlink.set_mtu(index, TOO_SMALL_FOR_IPV6)
}

/// The meaning of a failed attach.
fn explain(name: &str, errno: Option<Errno>, netlink: &mut Netlink) -> CreateError {
    let name = name.to_owned();
    match errno.unwrap_or(Errno::IO) {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => CreateError::NoDriver,
        Errno::PERM | Errno::ACCESS => CreateError::NoPrivilege(name),
        Errno::BUSY => CreateError::Busy(name),
        // kernel: drivers/net/tun.c tun_set_iff() answers EINVAL for a name held by a device of another kind.
        Errno::INVAL => match netlink.link_by_name(&name) {
            Ok(link) => {
                let kind = link.kind.unwrap_or_else(|| "a physical or loopback device".to_owned());
                CreateError::NotTun { name, kind }
            }
            Err(_) => CreateError::Kernel { name, step: "attaching", errno: Errno::INVAL },
        },
        errno => CreateError::Kernel { name, step: "attaching", errno },
    }
}

/// The interface's descriptor, for as long as the interface is borrowed.
pub(super) fn fd_of(iface: &Iface) -> BorrowedFd<'_> {
    sys::tun::borrow_fd(iface)
}

impl From<CreateError> for io::Error {
    fn from(error: CreateError) -> Self {
        io::Error::other(error)
    }
}
