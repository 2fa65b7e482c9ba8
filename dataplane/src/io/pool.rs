//! Packet buffers, allocated up to a bound and then only recycled.

use uvti_core::packet::Buf;

/// The longest IP packet without extension: the total length field has 16 bits.
pub const PACKET_MAX: usize = 65_535;

/// Most buffers kept for many packets at once.
const LARGE: usize = 64;

/// Buffers of one capacity, at most a given number of them.
///
/// The memory of a buffer is zeroed lazily by the system, so that a capacity of 64 KiB costs what is used of it. What
/// is read many packets at a time uses all of it: such buffers are kept apart, or in the end all would be large.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Buf>,
    /// Those that held many packets.
    large: Vec<Buf>,
    capacity: usize,
    /// How many more may be allocated.
    unborn: usize,
}

impl Pool {
    /// At most `limit` buffers for packets of up to [`PACKET_MAX`] bytes, so that nothing is ever cut.
    pub fn new(limit: usize) -> Self {
        // One byte more than the longest packet: a read that fills the buffer was cut.
        Self::with_capacity(limit, PACKET_MAX + 1)
    }

    /// At most `limit` buffers for packets of less than `capacity` bytes.
    pub fn with_capacity(limit: usize, capacity: usize) -> Self {
        Self { free: Vec::with_capacity(limit), large: Vec::with_capacity(LARGE), capacity, unborn: limit }
    }

    /// An empty buffer; `None` while all of them are out.
    pub fn take(&mut self) -> Option<Buf> {
        if let Some(buf) = self.free.pop() {
            return Some(buf);
        }
        self.unborn = self.unborn.checked_sub(1)?;
        Some(Buf::with_capacity(self.capacity))
    }

    /// A buffer, allocated if all of them are out: for the rest of what was read as one. It is as good as the others, so
    /// that it does no harm if the pool keeps it.
    pub fn take_or_make(&mut self) -> Buf {
        self.take().unwrap_or_else(|| Buf::with_capacity(self.capacity))
    }

    /// Takes a buffer back. One more than the limit (made elsewhere) is dropped, so that the pool stays bounded.
    pub fn put(&mut self, mut buf: Buf) {
        if self.free.len() + self.unborn < self.free.capacity() {
            buf.clear();
            self.free.push(buf);
        }
    }

    /// An empty buffer to read many packets into at once; to be given back by [`Pool::put_large`], emptied of them by copy.
    pub fn take_large(&mut self) -> Buf {
        self.large.pop().unwrap_or_else(|| Buf::with_capacity(self.capacity))
    }

    /// Takes back a buffer that held many packets, or may have.
    pub fn put_large(&mut self, mut buf: Buf) {
        if self.large.len() < LARGE {
            buf.clear();
            self.large.push(buf);
        }
    }

    /// Buffers that can be taken now.
    pub fn available(&self) -> usize {
        self.free.len() + self.unborn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_ones_are_kept_apart() {
        let mut pool = Pool::with_capacity(1, 100);
        let large = pool.take_large();
        let memory = large.bytes().as_ptr();
        assert_eq!(pool.available(), 1, "they are not of those that the pool is asked for");
        pool.put_large(large);
        assert_ne!(pool.take().unwrap().bytes().as_ptr(), memory);
        assert_eq!(pool.take_large().bytes().as_ptr(), memory, "no new allocation");
        (0..2 * LARGE).for_each(|_| pool.put_large(Buf::with_capacity(100)));
        assert_eq!(pool.large.len(), LARGE);
    }

    #[test]
    fn bounded_and_recycling() {
        let mut pool = Pool::with_capacity(2, 100);
        let mut a = pool.take().unwrap();
        let b = pool.take().unwrap();
        assert!(pool.take().is_none());
        a.fill(b"old");
        let memory = a.bytes().as_ptr();
        pool.put(a);
        let a = pool.take().unwrap();
        assert!(a.is_empty());
        assert_eq!(a.bytes().as_ptr(), memory, "no new allocation");
        pool.put(a);
        pool.put(b);
        pool.put(Buf::with_capacity(100));
        assert_eq!(pool.available(), 2, "a stranger does not make it grow");
        let mut three = [0; 3].map(|_| pool.take_or_make());
        assert!(three.iter_mut().all(|buf| buf.space_mut().len() == 100));
    }
}
