//! Each drop counts the same in the kernel's VTI and in uvti.

mod common;

/// The guest's kernel counts what another kernel was recorded to count: the laboratory adds nothing of its own.
#[test]
fn kernel_counts_as_recorded() {
    common::run_group("drops-kernel", 300);
}

#[test]
fn uvti_counts_as_the_kernel() {
    common::run_group("drops-uvti", 600);
}
