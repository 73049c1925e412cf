//! A real browser, headless, driven over the Chrome DevTools Protocol.
//!
//! What it says by itself (requests, console, exceptions, policy violations) is collected from the
//! first moment on, so that a test can say that there was none.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::wait::{eventually, eventually_within, within};

/// How long a browser may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page; ended when dropped.
pub struct Browser {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    next: u64,
    /// What the page said by itself.
    pub events: VecDeque<Value>,
    _folder: TempDir,
}

/// Whether there is a browser; panics in CI if there is none.
pub fn is_there() -> bool {
    let runs = |program: &&str| {
        let asked = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let found = PROGRAMS.iter().any(runs);
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !in_ci, "there is no Chromium: ./setup --tests installs it");
    found
}

impl Browser {
    /// Starts it with an empty page; `language` is what it tells that its user reads.
    pub async fn start(language: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = PROGRAMS.iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
            ]);
            command.arg(format!("--accept-lang={language}"));
            command.arg(format!("--user-data-dir={}", folder.path().display()));
            command.arg("about:blank").env("LANGUAGE", language).env("TMPDIR", folder.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok()
        });
        let child = child.expect("a browser can be started");
        // The browser writes its port and the path of its socket there.
        let file = folder.path().join("DevToolsActivePort");
        let address = eventually_within(START, "the browser starts", async || {
            let text = std::fs::read_to_string(&file).ok()?;
            let (port, path) = text.split_once('\n')?;
            (!path.is_empty()).then(|| format!("ws://127.0.0.1:{port}{}", path.trim()))
        })
        .await;
        let (socket, _) = connect_async(address).await.expect("the browser can be driven");
        let session = String::new();
        let mut browser =
            Self { child, socket, session, next: 1, events: VecDeque::new(), _folder: folder };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        attached["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Network", "Log", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Calls a method of the protocol.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut call = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        let answer = async {
            self.socket.send(Message::text(call.to_string())).await.expect("the browser listens");
            loop {
                let message = self.socket.next().await.expect("the browser lives");
                let Message::Text(text) = message.expect("a message") else { continue };
                let said: Value = serde_json::from_str(&text).expect("JSON");
                if said["id"] == json!(id) {
                    return said;
                }
                self.events.push_back(said);
            }
        };
        let mut answer = within(method, answer).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Opens an address and waits for the page to be loaded.
    pub async fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address })).await;
        self.until("document.readyState === 'complete'").await;
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params).await;
        let thrown = answer.get("exceptionDetails");
        assert!(thrown.is_none(), "{expression}: {thrown:?}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, expression: &str) {
        let what = format!("in the browser: {expression}");
        eventually(&what, async || (self.value(expression).await == json!(true)).then_some(()))
            .await;
    }

    /// The text that an element shows, each white space as one blank.
    pub async fn text(&mut self, selector: &str) -> String {
        let expression = format!("document.querySelector({})?.innerText ?? ''", json!(selector));
        let shown = self.value(&expression).await;
        let words: Vec<_> = shown.as_str().unwrap_or_default().split_whitespace().collect();
        words.join(" ")
    }

    pub async fn click(&mut self, selector: &str) {
        self.value(&format!("document.querySelector({}).click()", json!(selector))).await;
    }

    /// Presses a key, such as `Home`.
    pub async fn press(&mut self, key: &str) {
        let codes =
            [("Home", 36), ("End", 35), ("ArrowLeft", 37), ("ArrowRight", 39), ("Escape", 27)];
        let code = codes.iter().find(|(name, _)| *name == key).expect("a known key").1;
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// The size of the window, and how many pixels of the picture a pixel of it is.
    pub async fn size(&mut self, width: u32, height: u32, scale: f64) {
        let mobile = width < 600;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// What the user's system prefers, such as `prefers-color-scheme: dark`.
    pub async fn prefer(&mut self, features: &[(&str, &str)]) {
        let features: Vec<_> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// A picture of the window as PNG.
    pub async fn picture(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let data = picture["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::write(file, bytes).expect("the picture is written");
    }

    /// The parameters of all events of this name so far.
    pub fn heard(&self, method: &str) -> Vec<&Value> {
        let events = self.events.iter().filter(|event| event["method"] == json!(method));
        events.map(|event| &event["params"]).collect()
    }

    /// Everything that a good page does not give rise to: errors and warnings on the console,
    /// exceptions, violations of the policy, deprecated features.
    pub fn complaints(&self) -> Vec<String> {
        let bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Audits.issueAdded" | "Network.loadingFailed") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            Some("Log.entryAdded") => {
                matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            _ => false,
        };
        self.events.iter().filter(bad).map(Value::to_string).collect()
    }

    /// Every address that the page asked for, its own data left out.
    pub fn requests(&self) -> Vec<String> {
        let urls = self.heard("Network.requestWillBeSent").into_iter();
        let urls = urls.filter_map(|event| event["request"]["url"].as_str());
        urls.filter(|url| !url.starts_with("data:")).map(str::to_owned).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
