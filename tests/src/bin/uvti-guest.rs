//! Process 1 of the User-Mode Linux guests; everything is in the library.
fn main() {
    uvti_tests::guest::main();
}
