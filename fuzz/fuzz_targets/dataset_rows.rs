#![no_main]

#[path = "../inputs/dataset_rows.rs"]
mod input;

// Caught panics are not findings; uncaught ones still end the program.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| {
        input::check(data);
    }
);
