//! The Internet checksum (RFC 1071).

/// The checksum of words whose sum is known.
#[inline]
pub(super) fn finish(sum: u32) -> u16 {
    !fold(u64::from(sum))
}

/// Bytes that are summed at a time: enough for the compiler to use the widest registers of any machine.
const BLOCK: usize = 64;

/// A one's complement sum that grows, in the machine's byte order (RFC 1071 §2(B): the order does not matter until the
/// end).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd number of them only at the end.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        blocks.iter().for_each(|block| self.add_block(block));
        self.add_rest(rest);
    }

    /// Adds bytes while it copies them to `to`, which is as long.
    #[inline]
    pub fn copy(&mut self, to: &mut [u8], bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let (copies, to_rest) = to.as_chunks_mut::<BLOCK>();
        for (copy, block) in copies.iter_mut().zip(blocks) {
            *copy = *block;
            self.add_block(block);
        }
        let n = rest.len().min(to_rest.len());
        to_rest[..n].copy_from_slice(&rest[..n]);
        self.add_rest(rest);
    }

    /// Adds one word.
    #[inline]
    pub fn add_word(&mut self, word: u16) {
        self.0 += u64::from(u16::from_ne_bytes(word.to_be_bytes()));
    }

    /// The sum, folded to 16 bits: what stands in a checksum field that is to be completed.
    #[inline]
    pub fn fold(self) -> u16 {
        u16::from_be_bytes(fold(self.0).to_ne_bytes())
    }

    /// The checksum: the sum, inverted.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    #[inline]
    fn add_block(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<4>();
        self.0 += words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum::<u64>();
    }

    #[inline]
    fn add_rest(&mut self, rest: &[u8]) {
        let (words, rest) = rest.as_chunks::<4>();
        self.0 += words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum::<u64>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_ne_bytes(last));
    }
}

/// One's complement sum of `bytes` as big-endian words, folded to 16 bits and inverted.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.checksum()
}

/// Folds a sum to 16 bits.
#[inline]
pub(super) fn fold(mut sum: u64) -> u16 {
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

    /// RFC 1071, word by word.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let words =
            bytes.chunks(2).map(|w| u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
        !fold(words.sum())
    }

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

        #[test]
        fn blocks_sum_as_words_do(bytes in proptest::collection::vec(any::<u8>(), 0..300), word in any::<u16>()) {
            prop_assert_eq!(checksum(&bytes), by_the_book(&bytes));
            let mut copied = vec![0; bytes.len()];
            let mut sum = Sum::default();
            sum.add_word(word);
            sum.copy(&mut copied, &bytes);
            prop_assert_eq!(&copied, &bytes);
            let whole = [&word.to_be_bytes()[..], &bytes].concat();
            prop_assert_eq!(sum.checksum(), by_the_book(&whole));
        }
    }
}
