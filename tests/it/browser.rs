//! A real browser, driven as a person would use it: headless Chromium, by its own driver, which speaks `WebDriver` (W3C):
//! JSON over HTTP, a handful of whose commands are all that is needed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::skip::skip;

/// Nothing that a page needs takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// One browser with one window.
pub(crate) struct Browser {
    http: reqwest::Client,
    /// The address of its session.
    session: String,
    _driver: Driver,
    /// Where screenshots are put.
    shots: PathBuf,
    /// The judge of pages, a script.
    axe: Option<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one with a window of this size; `None`, with the reason, where there is none.
    pub(crate) async fn start(width: u32, height: u32) -> Option<Self> {
        let spawned = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = match spawned {
            Ok(driver) => Driver(driver),
            Err(error) => {
                skip(&format!("there is no `chromedriver` ({error}); install chromium and chromium-driver"));
                return None;
            }
        };
        let mut lines = BufReader::new(driver.0.stdout.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.rsplit_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("the driver says where it listens");
        // It goes on talking, and must not be stopped by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = TempDir::with_prefix("tenantry-browser-").unwrap();
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let http = client();
        let driver_url = format!("http://127.0.0.1:{port}/session");
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let answer: Value = http.post(&driver_url).json(&wanted).send().await.unwrap().json().await.unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {answer}"));
        let session = format!("{driver_url}/{id}");
        let shots = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages");
        std::fs::create_dir_all(&shots).unwrap();
        let axe = std::env::var_os("TENANTRY_TEST_NPM").map(|packages| {
            let script = Path::new(&packages).join("node_modules/axe-core/axe.min.js");
            std::fs::read_to_string(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()))
        });
        if axe.is_none() {
            skip(
                "the pages are not judged: TENANTRY_TEST_NPM names no folder with the packages of tests/simulator/openid/package.json",
            );
        }
        Some(Self { http, session, _driver: driver, shots, axe, _profile: profile })
    }

    pub(crate) async fn open(&self, url: &str) {
        self.tell("url", &json!({"url": url})).await.unwrap();
    }

    /// Clicks on what has this id.
    pub(crate) async fn click(&self, id: &str) {
        self.click_on(&format!("[id='{id}']")).await;
    }

    /// Presses the one button of a form.
    pub(crate) async fn press(&self) {
        self.click_on("button[type=submit]").await;
    }

    async fn click_on(&self, selector: &str) {
        let start = Instant::now();
        loop {
            if let Ok(element) = self.find(selector).await
                && self.tell(&format!("element/{element}/click"), &json!({})).await.is_ok()
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no {selector} on {}\n{}", self.url().await, self.source().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a page whose heading this is.
    pub(crate) async fn wait_heading(&self, heading: &str) {
        let start = Instant::now();
        loop {
            let found = self.heading().await;
            if found.as_deref() == Some(heading) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{found:?} and not {heading:?} on {}\n{}",
                self.url().await,
                self.source().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn heading(&self) -> Option<String> {
        // A page that is just being replaced has none.
        let element = self.find("h1").await.ok()?;
        self.ask(&format!("element/{element}/text")).await.ok()?.as_str().map(str::to_owned)
    }

    pub(crate) async fn url(&self) -> String {
        self.ask("url").await.unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) async fn source(&self) -> String {
        self.ask("source").await.unwrap().as_str().unwrap().to_owned()
    }

    /// Forgets all cookies of the host of the page that is shown.
    pub(crate) async fn forget(&self) {
        self.http.delete(format!("{}/cookie", self.session)).send().await.unwrap();
    }

    /// Keeps pictures of the page by day and by night, to be looked at, and has both judged for whoever does not see them.
    pub(crate) async fn shoot(&self, name: &str) {
        for (theme, suffix) in [("light", ""), ("dark", "-dark")] {
            let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
            let emulate = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
            self.tell("goog/cdp/execute", &emulate).await.unwrap();
            let picture = self.ask("screenshot").await.unwrap();
            let picture = STANDARD.decode(picture.as_str().unwrap()).unwrap();
            std::fs::write(self.shots.join(format!("{name}{suffix}.png")), picture).unwrap();
            self.judge(&format!("{name}, {theme}")).await;
        }
    }

    /// axe finds nothing that keeps anybody from using the page, by the rules of WCAG 2.1 AA and its own.
    async fn judge(&self, page: &str) {
        let Some(axe) = &self.axe else { return };
        let script = format!(
            "{axe};\nconst done = arguments[arguments.length - 1];\n\
             axe.run(document, {{resultTypes: ['violations']}}).then(\n\
             found => done(found.violations.map(one => [one.id, one.help, one.nodes.map(node => node.html)])),\n\
             error => done(String(error)));"
        );
        let found = self.tell("execute/async", &json!({"script": script, "args": []})).await.unwrap();
        assert_eq!(found, json!([]), "{page}");
    }

    /// What a script finds on the page.
    pub(crate) async fn evaluate(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({"script": script, "args": []})).await.unwrap()
    }

    pub(crate) async fn close(self) {
        self.http.delete(&self.session).send().await.unwrap();
    }

    /// The element's reference.
    async fn find(&self, selector: &str) -> Result<String, Value> {
        let found = self.tell("element", &json!({"using": "css selector", "value": selector})).await?;
        let reference = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        reference.map(str::to_owned).ok_or(found)
    }

    async fn ask(&self, what: &str) -> Result<Value, Value> {
        answered(self.http.get(format!("{}/{what}", self.session)).send().await.unwrap()).await
    }

    async fn tell(&self, what: &str, command: &Value) -> Result<Value, Value> {
        answered(self.http.post(format!("{}/{what}", self.session)).json(command).send().await.unwrap()).await
    }
}

async fn answered(answer: reqwest::Response) -> Result<Value, Value> {
    let good = answer.status().is_success();
    let mut body: Value = answer.json().await.unwrap();
    let value = body["value"].take();
    if good { Ok(value) } else { Err(value) }
}

#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(2 * PATIENCE)
        .build()
        .unwrap()
}

/// The driver, which ends with the test, and its browser with it.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
