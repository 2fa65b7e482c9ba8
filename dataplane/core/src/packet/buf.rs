//! Packet buffers with room in front and behind, so that ESP is built around a packet without copying it.

use super::EtherType;

/// Bytes kept free in front of a packet that was read: outer IPv6 (40), UDP (8), ESP (8) and the longest IV (16),
/// rounded up to two cache lines.
pub const HEADROOM: usize = 128;

/// Bytes kept free behind it: the longest padding, its trailer and the longest ICV (255 + 2 + 64), rounded up.
pub const TAILROOM: usize = 384;

/// One packet and the room around it.
///
/// The packet is `data[start..end]`. Growing and shrinking never allocate and never move the packet.
/// The default has no room at all and owns no memory: it stands where a buffer was taken from.
#[derive(Default)]
pub struct Buf {
    data: Box<[u8]>,
    start: usize,
    end: usize,
    /// What the packet is said to be, where that matters: it came from a device.
    pub protocol: EtherType,
}

impl Buf {
    /// An empty buffer for packets of up to `capacity` bytes, besides [`HEADROOM`] and [`TAILROOM`].
    pub fn with_capacity(capacity: usize) -> Self {
        let data = vec![0; HEADROOM + capacity + TAILROOM].into_boxed_slice();
        Self { data, start: HEADROOM, end: HEADROOM, protocol: EtherType::default() }
    }

    /// A buffer that holds a copy of `packet`.
    pub fn from_packet(packet: &[u8]) -> Self {
        let mut buf = Self::with_capacity(packet.len());
        buf.fill(packet);
        buf
    }

    /// Empties the buffer; the next packet starts after [`HEADROOM`].
    pub fn clear(&mut self) {
        self.start = HEADROOM.min(self.data.len());
        self.end = self.start;
    }

    /// Replaces the content by a copy of `packet`, cut to what fits, and takes it for what its bytes say. Returns how many
    /// bytes were taken.
    pub fn fill(&mut self, packet: &[u8]) -> usize {
        self.clear();
        let space = self.space_mut();
        let n = packet.len().min(space.len());
        space[..n].copy_from_slice(&packet[..n]);
        self.end = self.start + n;
        self.protocol = EtherType::of(packet);
        n
    }

    /// Where a packet may be read into: everything from [`HEADROOM`] on but [`TAILROOM`].
    /// Follow with [`Buf::set_len`].
    pub fn space_mut(&mut self) -> &mut [u8] {
        self.clear();
        let end = self.data.len().saturating_sub(TAILROOM).max(self.start);
        &mut self.data[self.start..end]
    }

    /// Sets the length of the packet from its start, at most to the end of the buffer.
    pub fn set_len(&mut self, len: usize) {
        self.end = (self.start + len).min(self.data.len());
    }

    /// Length of the packet, bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the packet is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes free in front.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes free behind.
    pub fn tailroom(&self) -> usize {
        self.data.len() - self.end
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The packet, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Makes the packet `n` bytes longer in front and returns it whole; `None` (and no change) without room.
    pub fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(n)?;
        Some(self.bytes_mut())
    }

    /// Makes the packet `n` bytes longer behind and returns it whole; `None` (and no change) without room.
    pub fn push_back(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        self.end += n;
        Some(self.bytes_mut())
    }

    /// Takes up to `n` bytes off the front.
    pub fn pull_front(&mut self, n: usize) {
        self.start += n.min(self.len());
    }

    /// Cuts the packet to `len` bytes, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
}

impl std::fmt::Debug for Buf {
    /// The length only: content may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_keeps_the_packet() {
        let mut b = Buf::from_packet(b"inner");
        b.push_front(3).unwrap()[..3].copy_from_slice(b"esp");
        let n = b.len();
        b.push_back(2).unwrap()[n..].copy_from_slice(b"ic");
        assert_eq!(b.bytes(), b"espinneric");
        b.pull_front(3);
        b.truncate(5);
        assert_eq!(b.bytes(), b"inner");
    }

    #[test]
    fn no_room_changes_nothing() {
        let mut b = Buf::from_packet(b"x");
        assert!(b.push_front(HEADROOM + 1).is_none());
        assert!(b.push_back(TAILROOM + 1).is_none());
        assert_eq!(b.bytes(), b"x");
        assert_eq!(b.fill(&[0; 9]), 1, "a longer packet is cut to the capacity");
        let mut none = Buf::default();
        assert_eq!((none.fill(&[0; 9]), none.push_front(1).is_none(), none.len()), (0, true, 0));
    }
}
