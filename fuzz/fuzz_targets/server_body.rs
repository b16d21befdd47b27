//! Bodies of requests of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for read in [vispec_serve::read_chat, vispec_serve::read_completion] {
        if let Err(error) = read(data) {
            assert!(error["error"]["message"].is_string());
            assert!(error["error"]["code"].is_string());
        }
    }
});
