#![no_main]

#[path = "../inputs/image.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    input::check(data);
});
