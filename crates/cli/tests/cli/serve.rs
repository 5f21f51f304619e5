//! `simla serve` as a program, and its page in a real browser.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::browser::Browser;
use crate::common::{Scenes, assert_done, assert_refused, output_of, printed, said, simla};
use serde_json::Value;

/// Pictures of the folder.
const PICTURES: usize = 40;

/// Pictures in a folder with another in it, and a model.
struct Photos {
    scenes: Scenes,
    run: String,
    pictures: String,
}

impl Photos {
    fn new() -> Self {
        let scenes = Scenes::new();
        let trained = scenes.pretrain("run", &["--set", "steps=2"]);
        assert!(trained.status.success(), "{}", said(&trained));
        let records: Vec<Value> = serde_json::from_str(&fs::read_to_string(&scenes.train).unwrap()).unwrap();
        let folder = scenes.path("pictures");
        fs::create_dir_all(folder.join("more")).unwrap();
        let mut images: Vec<&str> = records.iter().map(|record| record["image"].as_str().unwrap()).collect();
        images.sort();
        images.dedup();
        for (i, image) in images.iter().take(PICTURES).enumerate() {
            let name = if i < 30 { format!("{i}.png") } else { format!("more/{i}.png") };
            fs::copy(scenes.train.with_file_name(image), folder.join(name)).unwrap();
        }
        let path = |path: PathBuf| path.display().to_string();
        Self { run: path(scenes.path("run")), pictures: path(folder), scenes }
    }

    /// A model that answers questions, made of the other.
    fn answering(&self) -> String {
        let (data, output) = (self.scenes.train.with_file_name("train-questions.json"), self.scenes.path("vqa"));
        let (data, output) = (data.display().to_string(), output.display().to_string());
        let start = ["finetune", "vqa", "--checkpoint", &self.run, "--data", &data, "--output", &output];
        assert_done(&output_of(&[&start[..], &["--set", "batch_size=8", "--set", "steps=2"]].concat()));
        output
    }

    fn arguments<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        [command, &["--checkpoint", &self.run, "--images", &self.pictures]].concat()
    }
}

/// A server; it ends with this value.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = simla()
            .args(arguments)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().next().unwrap_or_default().to_owned();
        Self { child, address }
    }

    fn get(&self, path: &str) -> Value {
        let answer = ureq::get(format!("{}{path}", self.address)).call();
        let text = answer.unwrap_or_else(|e| panic!("{path}: {e}")).body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Waits for the index.
    fn settled(&self) {
        while self.get("api/library")["indexing"]["running"] != false {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Asks it to stop; what it said, and its exit status.
    fn stop(mut self) -> (String, Option<i32>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (said, status.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_server_answers_as_the_command_line_does_from_its_first_line_to_its_last() {
    let photos = Photos::new();
    let by_command: Value =
        serde_json::from_str(&printed(&photos.arguments(&["search", "a red circle", "--json"]))).unwrap();
    let server = Server::start(&photos.arguments(&["serve"]));
    assert!(server.address.starts_with("http://127.0.0.1:"), "{}", server.address);
    server.settled();
    let found = server.get("api/search?q=a+red+circle");
    assert_eq!(found["searched"], PICTURES);
    let results = |answer: &Value| -> Vec<(String, f64)> {
        let result = |found: &Value| {
            let image = found["image"].as_str().unwrap().trim_start_matches(&photos.pictures).trim_start_matches('/');
            (image.to_owned(), (found["matching"].as_f64().unwrap() * 1e3).round())
        };
        answer["results"].as_array().unwrap().iter().map(result).collect()
    };
    assert_eq!(results(&found), results(&by_command));
    let first = found["results"][0]["id"].as_str().unwrap();
    let picture = format!("{}/{}", photos.pictures, results(&found)[0].0);
    let ground = ["ground", &picture, "a red circle", "--checkpoint", &photos.run, "--json"];
    let by_command: Value = serde_json::from_str(&printed(&ground)).unwrap();
    let grounded = server.get(&format!("api/ground?id={first}&phrase=a+red+circle"));
    for name in ["probability", "box", "point", "grid", "layer", "width", "height"] {
        assert_eq!(grounded[name], by_command[name], "{name}");
    }

    // One index, one process; and no port twice.
    let busy = output_of(&photos.arguments(&["search", "a red circle"]));
    assert_refused(&busy, &["another search is using this index"]);
    let port = server.address.trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    assert_refused(
        &output_of(&["serve", "--runs", &photos.pictures, "--port", &port]),
        &["cannot be listened on", "--port"],
    );
    let (said, code) = server.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopping"), "{said}");

    // The address is this machine's own, unless there is a token.
    assert_refused(
        &output_of(&["serve", "--runs", &photos.pictures, "--listen", "0.0.0.0"]),
        &["--listen 0.0.0.0", "--token"],
    );
    assert_refused(&output_of(&["serve", "--runs", &photos.pictures, "--token", "short"]), &["at least 12 characters"]);
    assert_refused(&output_of(&["serve", "--runs", "nowhere"]), &["--runs nowhere"]);
    assert!(String::from_utf8_lossy(&output_of(&["serve"]).stderr).contains("--checkpoint"));
}

#[test]
fn the_page_in_a_browser() {
    let Some(browser) = Browser::start() else { return };
    let photos = Photos::new();
    let vqa = photos.answering();
    let server = Server::start(&photos.arguments(&["serve", "--vqa", &vqa]));
    let cells = "document.querySelectorAll('#grid a').length";
    let text = |selector: &str| {
        browser.script(&format!("return document.querySelector('{selector}').innerText")).as_str().unwrap().to_owned()
    };
    let address = || browser.script("return location.search").as_str().unwrap().to_owned();

    // The grid fills while the folder is indexed, and while one scrolls.
    browser.go(&server.address);
    browser.wait(&format!("{cells} >= 24"));
    server.settled();
    browser.script("scrollTo(0, document.body.scrollHeight)");
    browser.wait(&format!("{cells} === {PICTURES}"));
    let unnamed = browser.script(
        "return [...document.querySelectorAll('input, select, button, a, img')].filter((e) => !e.hidden && !e.closest('dialog'))
           .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.innerText || e.alt || e.querySelector('img')?.alt))
           .map((e) => e.outerHTML)",
    );
    assert_eq!(unnamed, serde_json::json!([]), "without a name for a screen reader");

    // A phrase.
    browser.write("#q", "a red circle\u{E007}");
    browser.wait("document.querySelector('#title').textContent === '“a red circle”'");
    browser.wait("document.querySelector('#grid .score')?.textContent.includes('match')");
    assert_eq!(address(), "?q=a+red+circle");
    browser
        .wait("[...document.querySelectorAll('#grid img')].slice(0, 6).every((i) => i.complete && i.naturalWidth > 0)");
    browser.picture("search");

    // A picture, opened large.
    let open = "document.querySelector('#viewer').open";
    browser.click("#grid li:nth-child(2) a");
    browser.wait(&format!("{open} && document.querySelector('#large').naturalWidth > 0"));
    browser.wait("document.querySelectorAll('#keywords button').length === 12");
    assert!(text("#about").contains("32 × 32 pixels"), "{}", text("#about"));
    // A keyword that is pointed at shows where it is, and nothing once it is not.
    let heat = "document.querySelector('#heat').dataset.shown";
    browser.point("#keywords li:nth-child(1) button");
    browser.wait(&format!("{heat} && document.querySelector('#keywords button').textContent.startsWith({heat})"));
    browser.point("#name");
    browser.wait(&format!("{heat} === ''"));

    // A phrase in it, and its words.
    browser.write("#phrase", "the red circle\u{E007}");
    browser.wait("document.querySelector('#seen').textContent.includes('matches with probability')");
    let warm = "return [...document.querySelector('#heat').getContext('2d').getImageData(0, 0, 256, 256).data].some((v) => v > 0)";
    assert_eq!(browser.script(warm), true);
    assert_eq!(text("#words").split_whitespace().collect::<Vec<_>>(), ["the", "red", "circle"]);
    browser.point("#words button:nth-child(2)");
    browser.wait(&format!("{heat} === 'red'"));
    browser.picture("ground");

    // Reloaded, it is the same; back and forth, what was before.
    browser.reload();
    browser.wait(&format!("{open} && {heat} === 'the red circle'"));
    assert!(address().contains("phrase=the+red+circle") && address().contains("q=a+red+circle"), "{}", address());
    browser.back();
    browser.wait(&format!("{open} && {heat} === '' && document.querySelector('#phrase').value === ''"));
    browser.back();
    browser.wait(&format!("!{open} && {cells} > 0"));

    // A question: the best answers, where its words looked, and the same after a reload.
    browser.click("#grid li:nth-child(1) a");
    browser.wait(open);
    browser.write("#question", "how many circles are there?\u{E007}");
    let answered =
        format!("document.querySelectorAll('#answers li').length === 5 && {heat} === 'how many circles are there?'");
    browser.wait(&answered);
    assert!(text("#seen").contains("with probability"), "{}", text("#seen"));
    assert!(text("#answers").lines().all(|answer| answer.contains('%')), "{}", text("#answers"));
    assert_eq!(text("#words").split_whitespace().collect::<Vec<_>>(), ["how", "many", "circles", "are", "there"]);
    browser.point("#words button:nth-child(3)");
    browser.wait(&format!("{heat} === 'circles'"));
    browser.picture("ask");
    assert!(address().contains("ask=how+many+circles"), "{}", address());
    browser.reload();
    browser.wait(&format!("{open} && {answered}"));
    browser.write("#phrase", "\u{E00C}");
    browser.wait(&format!("!{open}"));

    // The keyboard: to a picture, to the next one, to the attention of a head, and out.
    browser.write("#grid li:nth-child(1) a", "\u{E007}");
    browser.wait(open);
    let first = address();
    browser.write("#next", "\u{E014}");
    browser.wait(&format!("location.search !== '{first}'"));
    browser.script("const s = document.querySelector('#head'); s.value = '1'; s.dispatchEvent(new Event('change'))");
    browser.wait(&format!("{heat} === 'head 1'"));
    browser.write("#head", "\u{E00C}");
    browser.wait(&format!("!{open}"));
    browser.wait("document.activeElement.closest('#grid')");
    assert!(!address().contains("open="), "{}", address());

    // More like this.
    browser.click("#grid li:nth-child(3) a");
    browser.wait(open);
    browser.click("#alike");
    browser.wait(&format!("!{open} && document.querySelector('#grid .score')?.textContent.includes('similar')"));
    assert!(address().starts_with("?like="));

    // A picture that is dropped in, which a reload keeps; and a file that is none.
    let drop = |bytes: &str| {
        browser.script(&format!(
            "const all = new DataTransfer(); all.items.add(new File([{bytes}], 'a.png', {{ type: 'image/png' }}));
             dispatchEvent(Object.assign(new DragEvent('drop', {{ dataTransfer: all, bubbles: true, cancelable: true }})))"
        ))
    };
    let png = fs::read(format!("{}/3.png", photos.pictures)).unwrap();
    drop(&format!("new Uint8Array({png:?})"));
    browser.wait("location.search.startsWith('?like=sent-') && document.querySelector('#grid .score')");
    browser.reload();
    browser.wait("document.querySelector('#grid .score') && document.querySelector('#sought').naturalWidth > 0");
    browser.click("#sought");
    browser.wait("document.querySelectorAll('#keywords button').length === 12");
    browser.write("#phrase", "circle\u{E007}");
    browser.wait(&format!("{heat} === 'circle'"));
    browser.write("#phrase", "\u{E00C}");
    browser.wait(&format!("!{open}"));
    drop("'<html>'");
    browser.wait("document.querySelector('#error').textContent.includes('a web page')");

    // Words that the model does not know, a picture that is not there, and a folder.
    browser.go(&format!("{}?q=%D0%B6%D1%83%D0%BA", server.address));
    browser.wait("document.querySelector('#error').textContent.includes('no word of it')");
    browser.go(&format!("{}?open=0000000000000000", server.address));
    browser.wait("document.querySelector('#problem').textContent.includes('no picture')");
    browser.go(&server.address);
    browser.wait("document.querySelector('#folder').options.length === 2");
    browser
        .script("const f = document.querySelector('#folder'); f.value = 'more'; f.dispatchEvent(new Event('change'))");
    browser.wait(&format!("{cells} === 10 && location.search === '?folder=more'"));

    // Twice as large, on a phone, in the dark: nothing is cut off.
    for (name, width, height, mobile, dark) in [("zoom", 640, 450, false, false), ("phone", 375, 720, true, true)] {
        browser.resize(width, height, mobile);
        browser.dark(dark);
        browser.go(&format!("{}?q=a+red+circle", server.address));
        browser.wait("document.querySelector('#grid .score')");
        assert_eq!(browser.script("return document.documentElement.scrollWidth <= innerWidth"), true, "{name}");
        browser.picture(name);
        browser.click("#grid a");
        browser.wait("document.querySelectorAll('#keywords button').length === 12");
        let fits = "const v = document.querySelector('#viewer'); return v.scrollWidth <= v.clientWidth && v.clientWidth <= innerWidth";
        assert_eq!(browser.script(fits), true, "{name}");
        browser.picture(&format!("{name}-open"));
    }
    let complaints = browser.complaints();
    for word in ["Content Security Policy", "Uncaught"] {
        assert!(!complaints.iter().any(|complaint| complaint.contains(word)), "{complaints:#?}");
    }

    // The server gone, the page says so.
    let (said, code) = server.stop();
    assert_eq!(code, Some(0), "{said}");
    browser.script("document.querySelector('#close').click(); document.querySelector('#home').click()");
    browser.wait("document.querySelector('#error').textContent.includes('does not answer')");
}
