//! The page in a real browser: headless Chromium, driven by ChromeDriver if it is installed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vispec::Sampler;
use vispec_serve::ServeOptions;

use crate::running::Running;
use crate::tiny_model::{image_path, model, plain};

const ASK: &str = "Describe the image briefly.";
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,900",
];

/// A browser with one page.
struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` if there is no ChromeDriver.
    async fn start() -> Option<Self> {
        let mut driver = Command::new("chromedriver");
        let driver = driver
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut driver = driver.spawn().ok()?;
        let stdout = BufReader::new(driver.stdout.take().unwrap());
        let port = stdout.lines().find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let client = reqwest::Client::new();
        let sessions = format!("http://127.0.0.1:{}/session", port.unwrap());
        let profile = tempfile::tempdir().unwrap();
        let mut args = FLAGS.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let options = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": args},
        }}});
        let response = client.post(&sessions).json(&options).send().await.unwrap();
        let session: Value = response.json().await.unwrap();
        let id = session["value"]["sessionId"].as_str();
        let id = id.unwrap_or_else(|| panic!("no session: {session}"));
        Some(Self {
            driver,
            client,
            session: format!("{sessions}/{id}"),
            _profile: profile,
        })
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        let request = self
            .client
            .post(format!("{}/{path}", self.session))
            .json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let value = answer["value"].clone();
        assert!(value.get("error").is_none(), "{path}: {value}");
        value
    }

    /// The value of an expression in the page.
    async fn eval(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.command("execute/sync", json!({"script": script, "args": []}))
            .await
    }

    async fn until(&self, expression: &str) {
        for _ in 0..600 {
            if self.eval(expression).await == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let page = self.eval("document.querySelector('main').innerText").await;
        panic!("{expression} did not become true in\n{page}");
    }

    async fn element(&self, selector: &str) -> String {
        let using = json!({"using": "css selector", "value": selector});
        let found = self.command("element", using).await;
        format!("element/{}", found[ELEMENT].as_str().unwrap())
    }

    async fn screenshot(&self, file: &Path) {
        let request = self.client.get(format!("{}/screenshot", self.session));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let base64 = &base64::engine::general_purpose::STANDARD;
        let image = base64::Engine::decode(base64, answer["value"].as_str().unwrap());
        std::fs::write(file, image.unwrap()).unwrap();
    }

    async fn quit(mut self) {
        // The browser ends with its session.
        let _ = self.client.delete(&self.session).send().await;
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[tokio::test]
async fn the_page_answers_about_an_image() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let server = Running::start(model(), ServeOptions::default()).await;
    browser
        .command("url", json!({"url": format!("{}/", server.base)}))
        .await;
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    browser
        .until(&format!("{} === 'tiny'", text("model")))
        .await;

    let input = browser.element("#file").await;
    let path = image_path().canonicalize().unwrap();
    let keys = json!({"text": path.display().to_string()});
    browser.command(&format!("{input}/value"), keys).await;
    let preview = "document.getElementById('preview').src.startsWith('data:image/png')";
    browser.until(preview).await;
    let send = browser.element("#send").await;
    browser.command(&format!("{send}/click"), json!({})).await;
    browser
        .until(&format!("{}.includes('tokens/s')", text("stats")))
        .await;

    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    let pieces = "[...document.querySelectorAll('#answer span:not(.cycle-end)')]";
    let answer = browser
        .eval(&format!("{pieces}.map((s) => s.textContent).join('')"))
        .await;
    assert_eq!(answer, expected.text);
    // Accepted draft tokens have a colour that the others have not.
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
    if let Some(file) = std::env::var_os("VISPEC_SCREENSHOT") {
        browser.screenshot(&PathBuf::from(file)).await;
    }

    // An image by drag and drop; what is no image is refused, and text is never read as HTML.
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
    browser.command(&format!("{send}/click"), json!({})).await;
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

/// A page of a phone, in the colours of the night or not.
async fn look(browser: &Browser, width: u32, scheme: &str) {
    let cdp = |cmd: &str, params: Value| json!({"cmd": cmd, "params": params});
    let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    let colours = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
    for (cmd, params) in [
        ("Emulation.setDeviceMetricsOverride", metrics),
        ("Emulation.setEmulatedMedia", colours),
    ] {
        browser.command("goog/cdp/execute", cdp(cmd, params)).await;
    }
    let wide = "document.documentElement.scrollWidth";
    let found = browser.eval(wide).await.as_u64().unwrap();
    assert!(found <= width.into(), "{found} of {width} pixels");
    if let Some(folder) = std::env::var_os("VISPEC_SCREENSHOTS") {
        let file = PathBuf::from(folder).join(format!("{scheme}-{width}.png"));
        browser.screenshot(&file).await;
    }
}

async fn click(browser: &Browser, selector: &str) {
    let element = browser.element(selector).await;
    browser
        .command(&format!("{element}/click"), json!({}))
        .await;
}

#[tokio::test]
async fn the_page_goes_on_with_a_conversation() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver");
        return;
    };
    let server = Running::start(model(), ServeOptions::default()).await;
    let page = format!("{}/", server.base);
    browser.command("url", json!({"url": page})).await;
    let is_idle = "!document.getElementById('send').disabled && \
        !document.getElementById('again').disabled";
    let count = |selector: &str| format!("document.querySelectorAll('{selector}').length");

    // A picture from the page, and one that is pasted.
    let shown = "document.getElementById('preview').src.startsWith('data:image/png')";
    click(&browser, "#sample").await;
    browser.until(shown).await;
    click(&browser, "#remove").await;
    browser
        .until("document.getElementById('preview').hidden")
        .await;
    let paste = "(() => { const data = new DataTransfer(); \
        const bytes = Uint8Array.from(atob(sample().split(',')[1]), (c) => c.charCodeAt(0)); \
        data.items.add(new File([bytes], 'a.png', {type: 'image/png'})); \
        window.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data})); return true; })()";
    browser.eval(paste).await;
    browser.until(shown).await;

    // By keyboard alone; the next turn stands below the first.
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

    click(&browser, "#compare").await;
    let compared = "document.getElementById('compared').textContent.includes('the same text')";
    browser.until(compared).await;
    for (width, scheme) in [(900, "light"), (900, "dark"), (390, "light"), (390, "dark")] {
        look(&browser, width, scheme).await;
    }

    // A turn that fails leaves everything as it was.
    let refused = json!({"text": "<|image_pad|>\u{e007}"});
    browser.command(&format!("{question}/value"), refused).await;
    browser
        .until("!document.getElementById('error').hidden")
        .await;
    browser.until(is_idle).await;
    assert_eq!(browser.eval("messages.length").await, 4);
    let kept = "document.getElementById('question').value";
    assert_eq!(browser.eval(kept).await, "<|image_pad|>");
    click(&browser, "#again").await;
    assert_eq!(browser.eval("messages.length").await, 0);
    assert_eq!(browser.eval(&count("#talk *")).await, 0);
    browser.quit().await;
}
