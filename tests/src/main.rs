//! The program under test, built with the tests so that it is always fresh.

fn main() -> std::process::ExitCode {
    uvti::main()
}
