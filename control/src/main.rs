//! The `uvti` program; everything is in the library.

fn main() -> std::process::ExitCode {
    uvti::main()
}
