//! Chats of any content, through template and tokenizer.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vispec_processor::{Messages, Processor};

fn processor() -> &'static Processor {
    static PROCESSOR: OnceLock<Processor> = OnceLock::new();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/models/qwen-tied");
    PROCESSOR.get_or_init(|| Processor::from_dir(dir).expect("the fixture is whole"))
}

fuzz_target!(|data: &[u8]| {
    let Ok(messages) = Messages::from_json(data) else {
        return;
    };
    if let Ok(prompt) = processor().prepare(&messages, &[]) {
        assert_eq!(prompt.positions.len(), prompt.token_ids.len());
    }
});
