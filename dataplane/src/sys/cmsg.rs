//! Control messages (`man 3 cmsg`): written into and read from plain bytes, so that none of it is unsafe.

use std::net::{Ipv4Addr, Ipv6Addr};

const ALIGN: usize = size_of::<usize>();
/// `struct cmsghdr`: length (`size_t`), level and type (`int` each).
const HEADER: usize = size_of::<usize>() + 8;

/// Room for the control messages of one datagram.
#[derive(Clone)]
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; Control::SIZE],
    len: usize,
}

impl Control {
    /// Enough for what is asked of any socket here; the longest is an extended error with its offender (64 bytes).
    const SIZE: usize = 256;

    pub(crate) const fn new() -> Self {
        Self { bytes: [0; Self::SIZE], len: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// What has been written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Everything, for the kernel to write to.
    pub(crate) fn space_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// How much the kernel wrote.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(Self::SIZE);
    }

    /// Appends a message. One that does not fit is a mistake of the caller: `SIZE` is for it to choose.
    pub(crate) fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let (start, end) = (self.len, self.len + (HEADER + data.len()).next_multiple_of(ALIGN));
        let Some(room) = self.bytes.get_mut(start..end) else {
            debug_assert!(false, "control message of {} bytes does not fit", data.len());
            return;
        };
        room.fill(0);
        room[..ALIGN].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        room[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        room[ALIGN + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..HEADER + data.len()].copy_from_slice(data);
        self.len = end;
    }

    /// The messages, in order. Ends at the first one that is cut.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Cmsg<'_>> {
        let mut rest = self.bytes();
        std::iter::from_fn(move || {
            let len = usize::from_ne_bytes(*rest.first_chunk()?);
            let level = i32::from_ne_bytes(*rest.get(ALIGN..)?.first_chunk()?);
            let kind = i32::from_ne_bytes(*rest.get(ALIGN + 4..)?.first_chunk()?);
            let data = rest.get(HEADER..len)?;
            rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
            Some(Cmsg { level, kind, data })
        })
    }
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cmsg<'a> {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: &'a [u8],
}

impl Cmsg<'_> {
    /// Whether it is of this level and type.
    pub(crate) fn is(&self, level: i32, kind: i32) -> bool {
        (self.level, self.kind) == (level, kind)
    }

    /// Its data as a number: TOS comes as one byte, traffic class and counters as four.
    pub(crate) fn number(&self) -> Option<u32> {
        match self.data {
            [byte] => Some(u32::from(*byte)),
            data => Some(u32::from_ne_bytes(*data.first_chunk()?)),
        }
    }

    /// Destination address in a received `IP_PKTINFO` (`struct in_pktinfo`: ifindex, spec_dst, addr).
    pub(crate) fn pktinfo_v4(&self) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(*self.data.get(8..)?.first_chunk::<4>()?))
    }

    /// Destination address in a received `IPV6_PKTINFO` (`struct in6_pktinfo`: addr, ifindex).
    pub(crate) fn pktinfo_v6(&self) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*self.data.first_chunk::<16>()?))
    }
}

/// `struct in_pktinfo` that asks for a source address and, unless 0, a device.
pub(crate) fn source_v4(source: Ipv4Addr, oif: u32) -> [u8; 12] {
    let mut info = [0; 12];
    info[..4].copy_from_slice(&oif.to_ne_bytes());
    info[4..8].copy_from_slice(&source.octets());
    info
}

/// `struct in6_pktinfo` that asks for a source address and, unless 0, a device.
pub(crate) fn source_v6(source: Ipv6Addr, oif: u32) -> [u8; 20] {
    let mut info = [0; 20];
    info[..16].copy_from_slice(&source.octets());
    info[16..].copy_from_slice(&oif.to_ne_bytes());
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_it_wrote() {
        let mut control = Control::new();
        control.push(libc::SOL_IP, libc::IP_TOS, &[0xb8]);
        control.push(libc::SOL_SOCKET, libc::SO_MARK, &7u32.to_ne_bytes());
        let got: Vec<_> = control.iter().collect();
        assert_eq!(got.len(), 2);
        assert!(got[0].is(libc::SOL_IP, libc::IP_TOS));
        assert_eq!((got[0].number(), got[1].number()), (Some(0xb8), Some(7)));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut control = Control::new();
            let n = bytes.len().min(Control::SIZE);
            control.space_mut()[..n].copy_from_slice(&bytes[..n]);
            control.set_len(bytes.len());
            prop_assert!(control.iter().count() <= Control::SIZE / HEADER);
        }
    }
}
