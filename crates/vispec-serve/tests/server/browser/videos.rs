//! Videos on the page.

use std::sync::Arc;

use vispec::{ImageOptions, Sampler};
use vispec_processor::Video;
use vispec_serve::ServeOptions;

use super::ASK;
use super::driver::Browser;
use crate::running::Running;
use crate::tiny_model::{frame_files, frame_paths, load_pair, model, plain_video};
use crate::videos::{FRAMES, animation, base64, video_of};

/// Passes a file to the page as if it had been dropped there.
async fn drop_file(browser: &Browser, name: &str, kind: &str, bytes: &[u8]) {
    let data = base64(bytes);
    let script = format!(
        "(() => {{ const data = new DataTransfer(); \
         const bytes = Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0)); \
         data.items.add(new File([bytes], '{name}', {{type: '{kind}'}})); \
         document.getElementById('drop').dispatchEvent(\
         new DragEvent('drop', {{dataTransfer: data}})); return true; }})()"
    );
    browser.eval(&script).await;
}

/// The parts of pictures and videos in the last question.
const KINDS: &str = "last.asked.at(-1).content.map((part) => part.type).join()";
const ANSWERED: &str = "!document.getElementById('send').disabled && last !== null && \
    document.getElementById('preview').hidden";

#[tokio::test]
async fn the_page_answers_about_videos() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let model = model();
    let server = Running::start(Arc::clone(&model) as _, ServeOptions::default()).await;
    browser.open(&server.base).await;

    // Frames are sorted by name and have the given rate.
    let mut frames = frame_paths(FRAMES);
    frames.reverse();
    browser.choose("#file", &frames).await;
    browser
        .until("document.querySelectorAll('#preview .film img').length === 4")
        .await;
    browser
        .eval("(document.getElementById('fps').value = '1', true)")
        .await;
    browser.click("#send").await;
    browser.until(ANSWERED).await;
    assert_eq!(browser.eval(KINDS).await, "video,text");
    let video = video_of(&frame_files(FRAMES), 1.0);
    let expected = plain_video(&model, video, ASK, Sampler::Greedy);
    let text = browser.eval("last.text").await;
    let text = text.as_str().unwrap();
    assert!(text.starts_with(&expected.text), "{text}");
    let film = "document.querySelector('#asked .film').innerText";
    assert_eq!(browser.eval(film).await, "4 frames, 1 per second");

    // An animation is a video with its own rate.
    browser.click("#again").await;
    drop_file(&browser, "a.gif", "image/gif", &animation()).await;
    browser
        .until("document.querySelector('#preview > img') !== null")
        .await;
    assert_eq!(
        browser.eval("document.getElementById('rate').hidden").await,
        true
    );
    browser
        .eval(&format!(
            "(document.getElementById('question').value = '{ASK}', true)"
        ))
        .await;
    browser.click("#send").await;
    browser.until(ANSWERED).await;
    assert_eq!(browser.eval(KINDS).await, "video_url,text");
    let options = ImageOptions::default();
    let video = Video::from_animation(&animation(), &options, Video::MAX_PIXELS).unwrap();
    let expected = plain_video(&model, video, ASK, Sampler::Greedy);
    let text = browser.eval("last.text").await;
    let text = text.as_str().unwrap();
    assert!(text.starts_with(&expected.text), "{text}");

    // Both appear in one conversation, frames first.
    browser.choose("#file", &frames).await;
    for (width, scheme) in [(900, "light"), (900, "dark"), (390, "light"), (390, "dark")] {
        browser.look("video", width, scheme).await;
    }
    browser.quit().await;
}

#[tokio::test]
async fn files_are_videos_if_they_have_several_pictures() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let server = Running::start(model(), ServeOptions::default()).await;
    browser.open(&server.base).await;
    let carried = |name: &str| {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images");
        std::fs::read(dir.join(name)).unwrap()
    };
    // The header of an extended file with the animation flag.
    let webp = [b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0", &[0b10, 0, 0, 0][..]].concat();
    for (bytes, animated) in [
        (animation(), true),
        (webp, true),
        (carried("lossless.webp"), false),
        (carried("turned-xmp.webp"), false),
        (carried("small-frame-transparent.gif"), false),
        (carried("short-palette.gif"), false),
        (animation()[..40].to_vec(), false),
        (Vec::new(), false),
    ] {
        let data = base64(&bytes);
        let found = browser
            .eval(&format!(
                "isAnimated(Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0)))"
            ))
            .await;
        assert_eq!(found, animated, "{data:.40}");
    }
    browser.quit().await;
}

#[tokio::test]
async fn the_page_tells_what_is_wrong_with_a_video() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let llava = Arc::new(load_pair("llava-15", None));
    let server = Running::start(llava as _, ServeOptions::default()).await;
    browser.open(&server.base).await;
    let error = "document.getElementById('error').textContent";
    drop_file(&browser, "a.mp4", "video/mp4", b"film").await;
    browser
        .until(&format!("{error}.includes('a.mp4 is not an image')"))
        .await;
    browser.choose("#file", &frame_paths(FRAMES)).await;
    let film = "document.querySelector('#preview .film') !== null";
    browser.until(film).await;
    browser.click("#send").await;
    browser
        .until(&format!("{error}.includes('no videos')"))
        .await;
    // The question and its video are still there.
    assert_eq!(browser.eval(film).await, true);
    browser.quit().await;
}
