//! The Internet checksum (RFC 1071).

/// One's complement sum of `bytes` as big-endian words, folded to 16 bits and inverted.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|w| u64::from(u32::from_be_bytes(*w))).sum();
    if rest.is_empty() {
        return sum;
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum after a 16-bit word changed from `old` to `new` (RFC 1624, equation 3).
pub fn adjust(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A header that carries its own checksum sums to zero, and stays so when a word changes.
        #[test]
        fn a_summed_header_checks_out(mut h in proptest::array::uniform20(any::<u8>()), word in any::<u16>()) {
            h[10..12].fill(0);
            let c = checksum(&h);
            h[10..12].copy_from_slice(&c.to_be_bytes());
            prop_assert_eq!(checksum(&h), 0);
            let old = u16::from_be_bytes([h[0], h[1]]);
            h[..2].copy_from_slice(&word.to_be_bytes());
            h[10..12].copy_from_slice(&adjust(c, old, word).to_be_bytes());
            prop_assert_eq!(checksum(&h), 0);
        }
    }
}
