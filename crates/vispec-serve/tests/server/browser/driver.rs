//! A controlled browser: headless Chromium through ChromeDriver.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

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
pub struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` if there is no ChromeDriver.
    pub async fn start() -> Option<Self> {
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

    pub async fn command(&self, path: &str, body: Value) -> Value {
        let request = self
            .client
            .post(format!("{}/{path}", self.session))
            .json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let value = answer["value"].clone();
        assert!(value.get("error").is_none(), "{path}: {value}");
        value
    }

    /// Returns the value of an expression in the page.
    pub async fn eval(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.command("execute/sync", json!({"script": script, "args": []}))
            .await
    }

    pub async fn until(&self, expression: &str) {
        for _ in 0..600 {
            if self.eval(expression).await == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let page = self.eval("document.querySelector('main').innerText").await;
        panic!("{expression} did not become true in\n{page}");
    }

    pub async fn element(&self, selector: &str) -> String {
        let using = json!({"using": "css selector", "value": selector});
        let found = self.command("element", using).await;
        format!("element/{}", found[ELEMENT].as_str().unwrap())
    }

    pub async fn screenshot(&self, file: &Path) {
        let request = self.client.get(format!("{}/screenshot", self.session));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let base64 = &base64::engine::general_purpose::STANDARD;
        let image = base64::Engine::decode(base64, answer["value"].as_str().unwrap());
        std::fs::write(file, image.unwrap()).unwrap();
    }

    /// Opens the page of a server.
    pub async fn open(&self, base: &str) {
        self.command("url", json!({"url": format!("{base}/")}))
            .await;
    }

    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.command(&format!("{element}/click"), json!({})).await;
    }

    /// Passes files to an input of the page.
    pub async fn choose(&self, selector: &str, files: &[PathBuf]) {
        let input = self.element(selector).await;
        let paths = files.iter().map(|file| file.canonicalize().unwrap());
        let paths = Vec::from_iter(paths.map(|path| path.display().to_string()));
        let keys = json!({"text": paths.join("\n")});
        self.command(&format!("{input}/value"), keys).await;
    }

    /// Shows the page at this width, in dark or light colours; a screenshot is saved to the folder
    /// in `VISPEC_SCREENSHOTS`.
    pub async fn look(&self, name: &str, width: u32, scheme: &str) {
        let cdp = |cmd: &str, params: Value| json!({"cmd": cmd, "params": params});
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        let colours = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        for (cmd, params) in [
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setEmulatedMedia", colours),
        ] {
            self.command("goog/cdp/execute", cdp(cmd, params)).await;
        }
        let found = self.eval("document.documentElement.scrollWidth").await;
        let found = found.as_u64().unwrap();
        assert!(found <= width.into(), "{found} of {width} pixels");
        if let Some(folder) = std::env::var_os("VISPEC_SCREENSHOTS") {
            let file = PathBuf::from(folder).join(format!("{name}-{scheme}-{width}.png"));
            self.screenshot(&file).await;
        }
    }

    pub async fn quit(mut self) {
        // The browser ends with its session.
        let _ = self.client.delete(&self.session).send().await;
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
