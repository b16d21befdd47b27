//! Kept images are equal to images that are read again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use reference::{fixtures, load};
use vispec_core::Prompt as _;
use vispec_models::{
    ConversationStore, DtypeChoice, EncodedPrompt, Engine, ImageStore, KeptImages, ReadMedia,
};
use vispec_processor::{DecodedImage, ImageOptions, Messages, Orientation};

const ROOMY: usize = 64 << 20;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("images").join(name)).unwrap()
}

fn read(engine: &Engine, store: &ImageStore, file: &[u8], options: &ImageOptions) -> EncodedPrompt {
    let messages = Messages::from_prompt(None, "What is this?", 1);
    let nothing = ConversationStore::new(0);
    let image = store.read(file, options).unwrap();
    let media = ReadMedia {
        images: vec![image],
        videos: Vec::new(),
    };
    let encoded = engine.encode_read(&messages, media, (&nothing, store), &|| true);
    encoded.unwrap().0
}

fn assert_same(found: &EncodedPrompt, expected: &EncodedPrompt) {
    assert_eq!(found.token_ids(), expected.token_ids());
    assert_eq!(found.image_runs(), expected.image_runs());
    assert_eq!(found.positions(), expected.positions());
    assert_eq!(found.rope_delta(), expected.rope_delta());
    let bits = |prompt: &EncodedPrompt| prompt.embeds().clone().into_data();
    assert_eq!(bits(found), bits(expected));
}

#[test]
fn a_file_that_comes_again_is_the_same_prompt() {
    for target in ["qwen-tied", "llava-15", "llava-next"] {
        let engine = load(target, None, DtypeChoice::F32);
        let store = ImageStore::new(ROOMY);
        let options = ImageOptions::default();
        let messages = Messages::from_prompt(None, "What is this?", 1);
        for name in ["plain.jpg", "lossless.webp"] {
            let image = DecodedImage::from_bytes(&file(name), &options).unwrap();
            let (expected, _) = engine.encode(&messages, &[image]).unwrap();
            for _ in 0..2 {
                assert_same(&read(&engine, &store, &file(name), &options), &expected);
            }
        }
        let KeptImages {
            count,
            queries,
            hits,
            ..
        } = store.usage();
        assert_eq!((count, queries, hits), (2, 4, 2), "{target}");
    }
}

#[test]
fn a_file_that_is_read_in_another_way_is_another_image() {
    let engine = load("qwen-tied", None, DtypeChoice::F32);
    let store = ImageStore::new(ROOMY);
    let stored = ImageOptions::as_stored();
    let upright = ImageOptions {
        orientation: Orientation::Upright,
        ..stored
    };
    let turned = file("turned-3.jpg");
    let upright = read(&engine, &store, &turned, &upright);
    let stored = read(&engine, &store, &turned, &stored);
    let values = |prompt: &EncodedPrompt| prompt.embeds().clone().into_data();
    assert_ne!(values(&upright), values(&stored));
    assert_eq!(store.usage().hits, 0);
}

#[test]
fn the_limit_holds_and_the_oldest_goes_first() {
    let engine = load("qwen-tied", None, DtypeChoice::F32);
    let options = ImageOptions::default();
    let store = ImageStore::new(ROOMY);
    let names = ["plain.jpg", "rgb-ids.jpg", "adobe-0.jpg"];
    for name in names {
        read(&engine, &store, &file(name), &options);
    }
    let all = store.usage().bytes;
    assert_eq!(store.usage().count, 3);
    // Use the first file again, so that the second is the oldest.
    read(&engine, &store, &file(names[0]), &options);
    store.limit(all - 1);
    assert_eq!(store.usage().count, 2);
    assert!(store.usage().bytes < all);
    let found = |name: &str| {
        let before = store.usage().hits;
        let _ = store.read(&file(name), &options).unwrap();
        store.usage().hits > before
    };
    assert_eq!(names.map(found), [true, false, true]);
    store.limit(0);
    let empty = store.usage();
    assert_eq!((empty.count, empty.bytes), (0, 0));
    read(&engine, &store, &file(names[0]), &options);
    assert_eq!(store.usage().count, 0);
}
