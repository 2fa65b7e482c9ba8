//! One SA, eight flows, two workers: nothing leaves the peer's replay window.

mod common;

#[test]
fn kernel_in_order() {
    common::run_group("order-kernel", 120);
}

#[test]
fn uvti_in_order() {
    common::run_group("order-uvti", 180);
}
