//! The few system calls for which neither the standard library, rustix nor socket2 has a safe wrapper.
#![allow(unsafe_code, reason = "each block says why it is sound")]

use rustix::thread::UnshareFlags;
use socket2::{SockAddr, Socket};
use std::io;
use std::os::fd::AsRawFd;

/// Moves the calling thread into a new, empty network namespace.
pub fn unshare_net() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET changes neither the file table nor the memory that threads share; sockets that are
    // open stay in the namespace they were made in.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Which way a captured frame went, seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Received by the interface.
    In,
    /// Sent through the interface.
    Out,
}

/// The address of an AF_PACKET socket: every protocol, on the interface of that index.
pub fn packet_address(index: u32) -> io::Result<SockAddr> {
    // SAFETY: the storage is large enough for sockaddr_ll, all of whose bit patterns are valid, and the length
    // that is set is that of sockaddr_ll.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            (*link).sll_ifindex = index as i32;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// Receives a frame from an AF_PACKET socket: how long it is (never more than the buffer), and which way it went.
pub fn receive_frame(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Way)> {
    // SAFETY: all bit patterns of sockaddr_ll are valid, zeroes among them.
    let mut link: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the buffer and the address are valid for writes of the lengths given with them.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut link).cast(),
            &raw mut length,
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let way = if link.sll_pkttype == libc::PACKET_OUTGOING { Way::Out } else { Way::In };
    Ok((received, way))
}

/// How many frames an AF_PACKET socket has lost since it was asked last.
pub fn packet_losses(socket: &Socket) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: both pointers are valid for the call, and `length` is the size of what `stats` points to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(stats.tp_drops) } else { Err(io::Error::last_os_error()) }
}

/// Makes a UDP socket take ESP in UDP: the kernel hands what it receives to the kernel's xfrm.
pub fn encapsulate_esp(socket: &impl AsRawFd) -> io::Result<()> {
    const UDP_ENCAP: i32 = 100;
    const UDP_ENCAP_ESPINUDP: i32 = 2;
    set(socket, libc::IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
}

/// Lets an IPv4 socket set the don't-fragment bit (`true`), or never set it.
pub fn set_dont_fragment(socket: &Socket, df: bool) -> io::Result<()> {
    let value = if df { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
}

fn set(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to an int that outlives the call, and the length is an int's.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
