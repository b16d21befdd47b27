#![no_main]

#[path = "../inputs/dataset_rows.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    input::check(data);
});
