#![no_main]

#[path = "../inputs/messages.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    input::check(data);
});
