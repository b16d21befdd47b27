#![no_main]

#[path = "../inputs/chat_template.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    input::check(data);
});
