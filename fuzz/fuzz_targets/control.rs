#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| uvti_tests::fuzz::run("control", data));
