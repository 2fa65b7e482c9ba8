//! Packet information, the first thing in front of each packet: what it is.
//! kernel: include/uapi/linux/if_tun.h struct tun_pi: flags in the machine's byte order, the protocol in the network's

use crate::io::Errno;
use uvti_core::packet::EtherType;

/// Its length, bytes.
pub(super) const LEN: usize = 4;

/// What the host says.
#[inline]
pub(super) fn read([_, _, high, low]: [u8; LEN]) -> EtherType {
    EtherType::new(u16::from_be_bytes([high, low]))
}

/// What a packet for the host is: what its bytes say. The kernel would take anything, and drop what is not IP.
#[inline]
pub(super) fn of(packet: &[u8]) -> Result<[u8; LEN], Errno> {
    let protocol = EtherType::of(packet);
    let [high, low] = protocol.number().to_be_bytes();
    protocol.family().map(|_| [0, 0, high, low]).ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_bytes_say() {
        for (byte, number) in [(0x45, 0x0800), (0x60, 0x86dd)] {
            assert_eq!(read(of(&[byte]).unwrap()).number(), number);
        }
        assert_eq!(of(&[0x10]), Err(Errno::INVAL));
        assert_eq!(of(&[]), Err(Errno::INVAL));
        assert_eq!(read([0, 0, 0x08, 0x06]), EtherType::Other(0x0806));
    }
}
