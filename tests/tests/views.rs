//! What `uvti` prints is, byte for byte, what the real tools print of a kernel VTI.

mod common;

#[test]
fn uvti_prints_what_the_tools_print_of_a_kernel() {
    common::run_group("views", 300);
}
