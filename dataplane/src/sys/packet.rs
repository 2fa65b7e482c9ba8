//! Addresses of AF_PACKET sockets, which socket2 does not know.

use socket2::SockAddr;
use std::io;

/// The address of an interface, for packets of an EtherType.
pub(crate) fn address(index: u32, ethertype: u16) -> io::Result<SockAddr> {
    // SAFETY: the storage is large enough for sockaddr_ll, all of whose bit patterns are valid, and the length
    // that is set is that of sockaddr_ll.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = ethertype.to_be();
            (*link).sll_ifindex = index as i32;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
