//! Chats with any content, through templates, tokenizers and the layout of images.

use std::sync::OnceLock;

use vispec_processor::{DecodedImage, ImageOptions, Messages, Processor};

/// Maximum number of images; more would test nothing new.
const MAX_IMAGES: usize = 4;
const IMAGE: &[u8] = include_bytes!("../seeds/image/bmp");

struct Given {
    processors: [Processor; 2],
    image: DecodedImage,
}

fn given() -> &'static Given {
    static GIVEN: OnceLock<Given> = OnceLock::new();
    GIVEN.get_or_init(|| Given {
        processors: ["qwen-tied", "llava-15"].map(|model| {
            let dir = format!("{}/models/{model}", crate::FIXTURES);
            Processor::from_dir(dir).expect("the fixture is whole")
        }),
        image: DecodedImage::from_bytes(IMAGE, &ImageOptions::default()).expect("an image"),
    })
}

/// Returns whether a chat becomes a prompt.
pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(messages) = Messages::from_json(data) else {
        return false;
    };
    let images = vec![given().image.clone(); messages.n_images().min(MAX_IMAGES)];
    let prompts = given().processors.iter();
    let prompts = prompts.flat_map(|processor| processor.prepare(&messages, &images));
    let prompts = prompts.inspect(|prompt| {
        assert_eq!(prompt.positions.len(), prompt.token_ids.len());
        assert_eq!(prompt.images.len(), messages.n_images());
    });
    prompts.count() > 0
}
