#![no_main]

#[path = "../inputs/messages.rs"]
mod input;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    input::check(data);
});
