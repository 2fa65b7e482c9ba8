//! Ioctls of TUN devices. kernel: include/uapi/linux/if_tun.h

use super::check;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

fn set(fd: impl AsFd, request: libc::Ioctl, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the requests below take their argument by value; the kernel follows no pointer.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, value) })?;
    Ok(())
}

/// Which offloads (`TUN_F_*`) the reader of the device takes.
pub(crate) fn set_offload(fd: impl AsFd, features: u32) -> Result<(), Errno> {
    set(fd, libc::TUNSETOFFLOAD, features.into())
}

/// The device's link type (`ARPHRD_*`); `EBUSY` while it is up.
pub(crate) fn set_link_type(fd: impl AsFd, arphrd: u16) -> Result<(), Errno> {
    set(fd, libc::TUNSETLINK, arphrd.into())
}

/// Whether the device outlives its last file descriptor.
pub(crate) fn set_persistent(fd: impl AsFd, persistent: bool) -> Result<(), Errno> {
    set(fd, libc::TUNSETPERSIST, persistent.into())
}

/// The descriptor of an interface; `tun_tap` offers only the number.
pub(crate) fn borrow_fd(iface: &tun_tap::Iface) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the interface owns the descriptor and keeps it open while it is borrowed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(iface.as_raw_fd()) }
}
