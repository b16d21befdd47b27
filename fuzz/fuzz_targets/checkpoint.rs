#![no_main]

#[path = "../inputs/checkpoint.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    input::check(data);
});
