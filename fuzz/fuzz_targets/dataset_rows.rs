#![no_main]

#[path = "../inputs/dataset_rows.rs"]
mod input;

// Panics that are caught are no findings; those that are not end the program all the same.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| {
        input::check(data);
    }
);
