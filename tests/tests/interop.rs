//! A kernel VTI and uvti at the two ends of one tunnel, in a User-Mode Linux guest.

mod common;

/// The harness itself: the kernel at both ends passes the same traffic, wire rules and counters.
#[test]
fn kernel_with_kernel() {
    common::run_group("interop-kernel", 180);
}

#[test]
fn kernel_with_uvti() {
    common::run_group("interop-uvti", 400);
}
