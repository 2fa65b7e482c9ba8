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

/// Every algorithm, pairwise with each carriage, outer family and kind of sequence numbers.
#[test]
fn every_algorithm() {
    common::run_group("cover", 300);
}

/// All with all, by `tests/all-algorithms`: minutes.
#[test]
fn all_with_all() {
    if std::env::var("UVTI_TEST_ALL").is_ok() {
        common::run_group("cover-all", 1800);
    }
}
