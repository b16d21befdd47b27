//! Image files with any content, up to the pixels that a model gets.

use std::sync::OnceLock;

use vispec_processor::{DecodedImage, ImageOptions, Orientation, Processor};

/// Small limits, so that most of the time goes into parsing files and not into pixels.
const OPTIONS: ImageOptions = ImageOptions {
    max_pixels: 1 << 14,
    max_photo_pixels: 1 << 18,
    max_side: 1 << 10,
    orientation: Orientation::Upright,
};

fn processors() -> &'static [Processor] {
    static PROCESSORS: OnceLock<Vec<Processor>> = OnceLock::new();
    PROCESSORS.get_or_init(|| {
        let models = ["qwen-tied", "llava-next"].map(|model| {
            let dir = format!("{}/models/{model}", crate::FIXTURES);
            Processor::from_dir(dir).expect("the fixture is whole")
        });
        Vec::from(models)
    })
}

/// Returns whether an image can be decoded.
pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(image) = DecodedImage::from_bytes(data, &OPTIONS) else {
        return false;
    };
    let size = image.size();
    assert_eq!(image.rgb().len(), size.height * size.width * 3);
    assert!(size.height * size.width <= 1 << 14);
    for processor in processors() {
        let processor = processor.image_processor();
        if let (Ok(_), Ok(n_tokens)) = (processor.process(&image), processor.n_tokens(size)) {
            assert!(n_tokens > 0);
        }
    }
    true
}
