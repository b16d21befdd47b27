//! Tests with animations that are drawn frame by frame.

use ::gif::{DisposalMethod, Encoder, Frame};

use super::*;

const PALETTE: [u8; 12] = [9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200];

/// Creates a frame of one colour at `(left, top, width, height)`.
fn frame(colour: u8, (left, top, width, height): (u16, u16, u16, u16)) -> Frame<'static> {
    Frame {
        left,
        top,
        width,
        height,
        delay: 25,
        buffer: vec![colour; usize::from(width * height)].into(),
        ..Frame::default()
    }
}

fn gif(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 4, 2, &PALETTE).unwrap();
    for frame in frames {
        encoder.write_frame(frame).unwrap();
    }
    drop(encoder);
    bytes
}

fn read(bytes: &[u8]) -> Result<Video> {
    Video::from_animation(bytes, &ImageOptions::default(), Video::MAX_PIXELS)
}

/// Concatenates two colours.
fn both(first: [u8; 3], last: [u8; 3]) -> [u8; 6] {
    [first, last].concat().try_into().unwrap()
}

/// Returns the red, green and blue of the first and the last pixel of each frame.
fn corners(video: &Video) -> Vec<[u8; 6]> {
    let frames = video.frames().iter();
    let corners = frames.map(|frame| {
        let rgb = frame.rgb();
        [&rgb[..3], &rgb[rgb.len() - 3..]]
            .concat()
            .try_into()
            .unwrap()
    });
    corners.collect()
}

#[test]
fn frames_are_drawn_over_those_before() {
    let all = (0, 0, 4, 2);
    let corner = (3, 1, 1, 1);
    let mut restored = frame(3, corner);
    restored.dispose = DisposalMethod::Previous;
    let mut cleared = frame(2, corner);
    cleared.dispose = DisposalMethod::Background;
    let mut unseen = frame(3, corner);
    unseen.transparent = Some(3);
    let video = read(&gif(&[frame(1, all), restored, cleared, unseen])).unwrap();
    // The animation takes a second, so all four frames are sampled.
    let red = [200, 0, 0];
    let expected = [red, [0, 0, 200], [0, 200, 0], [0, 0, 0]];
    let expected = expected.map(|last| both(red, last));
    assert_eq!(corners(&video), expected);
    assert!((video.rate() - 4.0).abs() < 1e-9);
}

#[test]
fn two_frames_of_a_second_are_looked_at() {
    let frames = Vec::from_iter((0..20).map(|n| frame(n % 4, (0, 0, 4, 2))));
    let video = read(&gif(&frames)).unwrap();
    // Five seconds at four frames per second.
    assert_eq!(video.frames().len(), 10);
    assert!((video.rate() - 2.0).abs() < 1e-9);
    let few = Video::from_animation(&gif(&frames), &ImageOptions::default(), 79).unwrap_err();
    assert!(matches!(
        few,
        ProcessorError::VideoTooLarge {
            found: 80,
            limit: 79
        }
    ));
    // Frames without a duration are shown for a tenth of a second.
    let hasty = frames.into_iter().map(|frame| Frame { delay: 0, ..frame });
    let video = read(&gif(&Vec::from_iter(hasty))).unwrap();
    assert_eq!(video.frames().len(), 4);
}

/// Builds an animated WebP from still ones of 4 x 2 pixels and one colour each.
fn webp(colours: &[[u8; 3]]) -> Vec<u8> {
    let chunk = |name: &[u8; 4], content: &[u8]| {
        let len = u32::try_from(content.len()).unwrap().to_le_bytes();
        let padding = &[0][..content.len() % 2];
        [&name[..], &len, content, padding].concat()
    };
    let mut chunks = chunk(b"VP8X", &[2, 0, 0, 0, 3, 0, 0, 1, 0, 0]);
    chunks.extend(chunk(b"ANIM", &[0; 6]));
    for colour in colours {
        let mut still = Vec::new();
        let encoder = image_webp::WebPEncoder::new(&mut still);
        let rgb = colour.repeat(8);
        encoder
            .encode(&rgb, 4, 2, image_webp::ColorType::Rgb8)
            .unwrap();
        // No offset, this size, 500 ms; the picture follows the header of the file.
        let head = [0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0xf4, 1, 0, 2];
        chunks.extend(chunk(b"ANMF", &[&head[..], &still[12..]].concat()));
    }
    chunk(b"RIFF", &[b"WEBP".to_vec(), chunks].concat())
}

#[test]
fn webp_is_read_as_gif_is() {
    let colours = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [1, 2, 3], [4, 5, 6]];
    let file = webp(&colours);
    let video = read(&file).unwrap();
    assert!((video.rate() - 2.0).abs() < 1e-9);
    let expected = colours.map(|rgb| both(rgb, rgb));
    assert_eq!(corners(&video), expected);
    for keep in [20, file.len() / 2, file.len() - 10] {
        let error = read(&file[..keep]).unwrap_err();
        assert!(
            matches!(error, ProcessorError::DamagedImage { .. }),
            "{error}"
        );
    }
}

#[test]
fn other_files_and_broken_ones_are_refused() {
    let mut still = Vec::new();
    let encoder = image_webp::WebPEncoder::new(&mut still);
    encoder
        .encode(&[0; 24], 4, 2, image_webp::ColorType::Rgb8)
        .unwrap();
    assert!(
        read(&still)
            .unwrap_err()
            .to_string()
            .contains("no animation")
    );
    for bytes in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n"] {
        let error = read(bytes).unwrap_err();
        assert!(
            matches!(error, ProcessorError::NotAnImage { .. }),
            "{error}"
        );
    }
    let file = gif(&vec![frame(1, (0, 0, 4, 2)); 4]);
    for keep in [10, file.len() / 2, file.len() - 12] {
        let error = read(&file[..keep]).unwrap_err();
        assert!(
            matches!(error, ProcessorError::DamagedImage { .. }),
            "{error}"
        );
    }
    // A frame that exceeds the canvas.
    let error = read(&gif(&[frame(1, (3, 0, 4, 2))])).unwrap_err();
    assert!(
        matches!(error, ProcessorError::DamagedImage { .. }),
        "{error}"
    );
    let many = gif(&vec![frame(1, (0, 0, 1, 1)); 10_002]);
    let error = read(&many).unwrap_err();
    assert!(
        matches!(error, ProcessorError::VideoFrames { found: 10_001, .. }),
        "{error}"
    );
    let small = ImageOptions {
        max_pixels: 7,
        ..ImageOptions::default()
    };
    let error = Video::from_animation(&file, &small, Video::MAX_PIXELS).unwrap_err();
    assert!(
        matches!(error, ProcessorError::ImageTooLarge { .. }),
        "{error}"
    );
}
