//! Image files of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vispec_processor::{DecodedImage, ImageLimits};

fuzz_target!(|data: &[u8]| {
    let limits = ImageLimits {
        max_pixels: 1 << 18,
        max_side: 1 << 12,
    };
    if let Ok(image) = DecodedImage::from_bytes(data, &limits) {
        let size = image.size();
        assert_eq!(image.rgb().len(), size.height * size.width * 3);
        assert!(size.height * size.width <= 1 << 18);
    }
});
