//! A browser without a window, driven over WebDriver: Chromium and its driver, as Debian packages them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::common::left_out;

/// How long the page may take to come to what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser; it ends with this value.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
}

impl Browser {
    /// None where there is no browser on this machine, which is said.
    pub fn start() -> Option<Self> {
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = driver else {
            left_out("no browser on this machine; on Debian, `apt-get install chromium chromium-driver` brings one");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // Whatever it says later is read, so that it is never stuck on saying it.
        std::thread::spawn(move || lines.for_each(drop));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{}/session", port.expect("the driver says its port")),
            agent: agent.into(),
        };
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"]});
        let wanted =
            json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let begun = browser.command("", json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session += &format!("/{}", begun["sessionId"].as_str().unwrap_or_else(|| panic!("{begun}")));
        Some(browser)
    }

    fn command(&self, path: &str, body: Value) -> Value {
        self.tried(path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn tried(&self, path: &str, body: Value) -> Result<Value, String> {
        let sent = self.agent.post(format!("{}{path}", self.session)).header("content-type", "application/json");
        let mut answer = sent.send(body.to_string()).map_err(|e| e.to_string())?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|e| e.to_string())?;
        let told: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        match told["value"]["error"].is_string() {
            true => Err(told["value"]["message"].to_string()),
            false => Ok(told["value"].clone()),
        }
    }

    pub fn go(&self, address: &str) {
        self.command("/url", json!({"url": address}));
    }

    pub fn back(&self) {
        self.command("/back", json!({}));
    }

    pub fn reload(&self) {
        self.command("/refresh", json!({}));
    }

    /// Runs the body of a function in the page.
    pub fn script(&self, body: &str) -> Value {
        self.command("/execute/sync", json!({"script": body, "args": []}))
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let start = Instant::now();
        // While a page is loaded, there may be nothing to ask.
        let holds =
            || self.tried("/execute/sync", json!({"script": format!("return Boolean({expression})"), "args": []}));
        while holds() != Ok(Value::Bool(true)) {
            let shown = "return location.href + '\\n' + document.body.innerText";
            assert!(start.elapsed() < PATIENCE, "never: {expression}\n{}", self.script(shown));
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn element(&self, selector: &str) -> String {
        let found = self.command("/element", json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()?.as_str().map(str::to_owned));
        id.unwrap_or_else(|| panic!("{selector}: {found}"))
    }

    pub fn click(&self, selector: &str) {
        self.command(&format!("/element/{}/click", self.element(selector)), json!({}));
    }

    /// Types into an element; `\u{E007}` is the enter key, `\u{E00C}` escape.
    pub fn write(&self, selector: &str, text: &str) {
        self.command(&format!("/element/{}/value", self.element(selector)), json!({"text": text}));
    }

    /// Moves the pointer over an element.
    pub fn point(&self, selector: &str) {
        let origin = json!({"element-6066-11e4-a52e-4f735466cecf": self.element(selector)});
        let over = json!({"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": origin});
        let pointer =
            json!({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [over]});
        self.command("/actions", json!({"actions": [pointer]}));
    }

    /// Shows the page at so many pixels across.
    pub fn resize(&self, width: u32, height: u32, mobile: bool) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.command("/goog/cdp/execute", json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}));
    }

    /// Shows the page in dark or light colours.
    pub fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.command("/goog/cdp/execute", json!({"cmd": "Emulation.setEmulatedMedia", "params": media}));
    }

    /// What the browser complains about.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.command("/se/log", json!({"type": "browser"}));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Writes a picture of the page into the folder that SIMLA_SCREENSHOTS names, if it names one.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("SIMLA_SCREENSHOTS") else { return };
        let answer = self.agent.get(format!("{}/screenshot", self.session)).call().unwrap();
        let text = answer.into_body().with_config().limit(64 << 20).read_to_string().unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        let png = base64::engine::general_purpose::STANDARD.decode(told["value"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = self.agent.delete(&self.session).call();
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}
