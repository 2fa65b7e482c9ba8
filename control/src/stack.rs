//! What work with keys leaves on the stack.
//!
//! The heap is erased as it is freed (the allocator in `lib.rs`). A stack is not, not even when its thread ends: the
//! system's library keeps it for the next one.

use zeroize::Zeroize;

/// How deep work with keys goes, bytes; more than twice what a debug build was seen to use.
const DEPTH: usize = 256 << 10;

/// Does `work`, and erases the stack that it used.
pub(crate) fn erased<T>(work: impl FnOnce() -> T) -> T {
    let done = called(work);
    erase();
    done
}

/// A frame of its own, below the caller's: where [`erase`] has its own, too.
#[inline(never)]
fn called<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn erase() {
    // Volatile writes, which no compiler leaves out.
    let mut below = [0_u64; DEPTH / 8];
    below.zeroize();
    std::hint::black_box(&below);
}
