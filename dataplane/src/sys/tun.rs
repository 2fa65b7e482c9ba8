//! Ioctls of TUN devices. kernel: include/uapi/linux/if_tun.h

use super::check;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

fn set(fd: impl AsFd, request: libc::Ioctl, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the requests below take their argument by value; the kernel follows no pointer.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, value) })?;
    Ok(())
}

/// Bytes of `struct ifreq`: a name of 16, and a union.
const IFREQ: usize = 40;

/// Attaches an open `/dev/net/tun` to the TUN device `name` (at most 15 bytes), or creates it, with
/// `struct tun_pi` and `struct virtio_net_hdr` (4 and 10 bytes) in front of each packet.
pub(crate) fn attach_vnet(fd: impl AsFd, name: &str) -> Result<(), Errno> {
    let flags = (libc::IFF_TUN | libc::IFF_VNET_HDR) as u16;
    let mut request = [0u8; IFREQ];
    let bytes = name.as_bytes();
    request
        .get_mut(..bytes.len().min(15))
        .ok_or(Errno::INVAL)?
        .copy_from_slice(&bytes[..bytes.len().min(15)]);
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes one `struct ifreq`, which is as long as `request`.
    check(unsafe { libc::ioctl(number, libc::TUNSETIFF, request.as_mut_ptr()) })?;
    // A persistent device keeps what its last owner set.
    let length: libc::c_int = 10;
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::ioctl(number, libc::TUNSETVNETHDRSZ, &raw const length) })?;
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
