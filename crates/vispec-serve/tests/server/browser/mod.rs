//! The web page in a real browser, if ChromeDriver is installed.

mod driver;
mod videos;

use serde_json::json;
use vispec::Sampler;
use vispec_serve::ServeOptions;

use self::driver::Browser;
use crate::running::Running;
use crate::tiny_model::{image_path, model, plain};

const ASK: &str = "Describe the image briefly.";
/// Returns whether the picture of the next question is shown.
const SHOWN: &str =
    "document.querySelector('#preview > img')?.src.startsWith('data:image/png') === true";

#[tokio::test]
async fn the_page_answers_about_an_image() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let server = Running::start(model(), ServeOptions::default()).await;
    browser.open(&server.base).await;
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    browser
        .until(&format!("{} === 'tiny'", text("model")))
        .await;

    browser.choose("#file", &[image_path()]).await;
    browser.until(SHOWN).await;
    browser.click("#send").await;
    browser
        .until(&format!("{}.includes('tokens/s')", text("stats")))
        .await;

    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    let pieces = "[...document.querySelectorAll('#answer span:not(.cycle-end)')]";
    let answer = browser
        .eval(&format!("{pieces}.map((s) => s.textContent).join('')"))
        .await;
    assert_eq!(answer, expected.text);
    // Accepted draft tokens have a different colour.
    let colours = format!(
        "new Set({pieces}.map((s) => s.className + ' ' + getComputedStyle(s).backgroundColor)).size"
    );
    assert_eq!(browser.eval(&colours).await, 2);
    let drafted = browser
        .eval("document.querySelectorAll('#answer .drafted').length")
        .await;
    assert!(
        drafted.as_u64().unwrap() > 5,
        "{drafted} pieces were drafted"
    );
    let stats = browser.eval(&text("stats")).await;
    for name in [
        "first token",
        "tokens",
        "cycles",
        "tau",
        "tokens per cycle",
        "speed",
    ] {
        assert!(
            stats.as_str().unwrap().contains(name),
            "{name} not in {stats}"
        );
    }
    browser.look("image", 900, "light").await;

    // An image by drag and drop; other files are refused, and text is never interpreted as HTML.
    let drop = "(() => { const data = new DataTransfer(); \
        data.items.add(new File(['<b>no</b>'], 'a.txt', {type: 'text/plain'})); \
        document.getElementById('drop').dispatchEvent(\
        new DragEvent('drop', {dataTransfer: data})); return true; })()";
    browser.eval(drop).await;
    browser
        .until(&format!("{}.includes('not an image')", text("error")))
        .await;
    browser
        .eval("(document.getElementById('question').value = '<|image_pad|><b>x</b>', true)")
        .await;
    browser.click("#send").await;
    browser
        .until(&format!("{}.includes('placeholder')", text("error")))
        .await;
    assert_eq!(
        browser
            .eval("document.querySelectorAll('#error b, #asked b').length")
            .await,
        0
    );
    browser.quit().await;
}

#[tokio::test]
async fn the_page_goes_on_with_a_conversation() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let server = Running::start(model(), ServeOptions::default()).await;
    browser.open(&server.base).await;
    let is_idle = "!document.getElementById('send').disabled && \
        !document.getElementById('again').disabled";
    let count = |selector: &str| format!("document.querySelectorAll('{selector}').length");

    // The sample picture of the page, and a pasted picture.
    browser.click("#sample").await;
    browser.until(SHOWN).await;
    browser.click("#remove").await;
    browser
        .until("document.getElementById('preview').hidden")
        .await;
    let paste = "(() => { const data = new DataTransfer(); \
        const bytes = Uint8Array.from(atob(sample().split(',')[1]), (c) => c.charCodeAt(0)); \
        data.items.add(new File([bytes], 'a.png', {type: 'image/png'})); \
        window.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data})); return true; })()";
    browser.eval(paste).await;
    browser.until(SHOWN).await;

    // With the keyboard only; the next turn appears below the first.
    let question = browser.element("#question").await;
    let enter = json!({"text": "\u{e007}"});
    browser.command(&format!("{question}/value"), enter).await;
    browser.until(is_idle).await;
    assert_eq!(browser.eval(&count("#asked img")).await, 1);
    let again = json!({"text": "And the background?\u{e007}"});
    browser.command(&format!("{question}/value"), again).await;
    browser
        .until(&format!("{} === 1", count("#talk .said")))
        .await;
    browser.until(is_idle).await;
    assert_eq!(browser.eval("messages.length").await, 4);
    let answer = "document.getElementById('answer').textContent";
    assert!(!browser.eval(answer).await.as_str().unwrap().is_empty());

    browser.click("#compare").await;
    let compared = "document.getElementById('compared').textContent.includes('the same text')";
    browser.until(compared).await;
    for (width, scheme) in [(900, "light"), (900, "dark"), (390, "light"), (390, "dark")] {
        browser.look("conversation", width, scheme).await;
    }

    // A failed turn leaves everything unchanged.
    let refused = json!({"text": "<|image_pad|>\u{e007}"});
    browser.command(&format!("{question}/value"), refused).await;
    browser
        .until("!document.getElementById('error').hidden")
        .await;
    browser.until(is_idle).await;
    assert_eq!(browser.eval("messages.length").await, 4);
    let kept = "document.getElementById('question').value";
    assert_eq!(browser.eval(kept).await, "<|image_pad|>");
    browser.click("#again").await;
    assert_eq!(browser.eval("messages.length").await, 0);
    assert_eq!(browser.eval(&count("#talk *")).await, 0);
    browser.quit().await;
}
