//! Who may not ask, what may not be asked, and what becomes of too much of it.

use std::io::{Read, Write};
use std::net::TcpStream;

use axum::routing::get;
use hyper_util::server::graceful::GracefulShutdown;

use super::*;
use crate::library::Id;
use crate::server::{accept, guarded};

/// A PNG whose header alone says that it is that large.
fn bomb() -> Vec<u8> {
    let mut bytes = drawn(0);
    bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    bytes
}

#[tokio::test]
async fn what_cannot_be_answered_is_said_in_the_command_lines_words() {
    let tried = Tried::new().await;
    let id = tried.id("0.png").await;
    for (path, status, word) in [
        ("/api/search", 400, "`q` is missing"),
        ("/api/search?q=", 400, "says nothing"),
        ("/api/search?q=%D0%B6%D1%83%D0%BA", 400, "no word of it is in the model's vocabulary"),
        ("/api/search?q=red&top=0", 400, "top=0: expected 1 to 200"),
        ("/api/search?q=red&top=9999999999999999999999", 400, "top"),
        ("/api/search?q=red&top=many", 400, "top"),
        ("/api/search?q=red&sort=name", 400, "sort"),
        ("/api/search?q=red&from=yesterday", 400, "expected a date like 2024-12-31"),
        ("/api/search?q=red&until=2024-02-31", 400, "expected a date"),
        ("/api/search?q=red&candidates=65", 400, "expected 0 to 64"),
        ("/api/similar?id=12", 404, "no picture \"12\" in the index"),
        ("/api/ground?phrase=red", 400, "`id` is missing"),
        ("/api/ground?phrase=red&layer=2&id=ID", 400, "layer=2: expected 0 to 1"),
        ("/api/ground?phrase=%21&id=ID", 400, "says nothing"),
        ("/api/keywords?id=ID&top=51", 400, "expected 1 to 50"),
        ("/api/embed", 400, "expected one of"),
        ("/api/ask?id=ID&question=what", 404, "start the server with --vqa"),
        ("/api/nothing", 404, "nothing is here"),
        ("/runs", 404, "start the server with --runs"),
        ("/api/index", 405, "not with this method"),
    ] {
        let told = tried.get(&path.replace("ID", &id)).await;
        assert_eq!(told.status, status, "{path}: {}", told.text());
        let message = told.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word), "{path}: {message}");
    }
    for (body, word) in [
        ("", "expected {\"input\""),
        ("{\"input\": 3}", "expected {\"input\""),
        ("{\"input\": []}", "0 texts"),
        ("{\"input\": \"red\", \"dimensions\": 7}", "have 16 values"),
        ("{\"input\": [\"red\", \"!\"]}", "says nothing"),
        ("{\"input\": \"red\", \"encoding_format\": \"hex\"}", "expected"),
    ] {
        let told = tried.post("/v1/embeddings", "application/json", body).await;
        assert_eq!(told.status, 400, "{body}");
        assert!(told.text().contains(&word.replace('"', "\\\"")), "{body}: {}", told.text());
    }
}

#[tokio::test]
async fn no_path_reaches_a_file() {
    let tried = Tried::new().await;
    let outside = Id::of("../secret.png").to_string();
    for id in [
        "..%2Fsecret.png",
        "..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "0.png",
        "far%2F2.png",
        &outside,
        "%00",
        "0000000000000000",
    ] {
        for rest in ["", "/file", "/small"] {
            let told = tried.get(&format!("/api/pictures/{id}{rest}")).await;
            assert_eq!(told.status, 404, "{id}{rest}: {}", told.text());
        }
    }
    for path in
        ["/../secret.png", "/%2e%2e/secret.png", "/api/pictures/../../secret.png", "/page/app.js", "//etc/passwd"]
    {
        assert_eq!(tried.get(path).await.status, 404, "{path}");
    }
    // A file that became something else since it was indexed is not given away.
    let id = tried.id("0.png").await;
    std::fs::write(tried.path("0.png"), "<script>alert(1)</script>").unwrap();
    let told = tried.get(&format!("/api/pictures/{id}/file")).await;
    assert_eq!((told.status.as_u16(), told.headers["content-type"].to_str().unwrap()), (422, "application/json"));
}

#[tokio::test]
async fn pictures_that_are_sent_are_bounded() {
    let tried = Tried::new().await;
    let png = drawn(0);
    for (kind, body, status, word) in [
        ("text/plain", png.clone(), 415, "expected a picture"),
        ("application/json", b"{}".to_vec(), 415, "expected a picture"),
        ("multipart/form-data; boundary=x", png.clone(), 415, "expected a picture"),
        ("image/png", vec![], 422, "an empty file"),
        ("image/png", png[..70].to_vec(), 422, "cannot be used"),
        ("image/png", b"GIF89a".to_vec(), 422, "a GIF picture"),
        ("image/svg+xml", b"<svg onload=alert(1)>".to_vec(), 422, "an SVG drawing"),
        ("image/jpeg", bomb(), 422, "max_pixels"),
        ("image/jpeg", vec![0; (32 << 20) + 1], 413, "that are taken"),
    ] {
        for path in ["/api/similar", "/api/embed", "/api/ground?phrase=red", "/api/keywords", "/api/attention"] {
            let told = tried.post(path, kind, body.clone()).await;
            assert_eq!(told.status, status, "{path} {kind}: {}", told.text());
            assert!(told.text().contains(word), "{path} {kind}: {}", told.text());
        }
    }
    assert_eq!(tried.post("/v1/embeddings", "text/plain", "{\"input\": \"red\"}").await.status, 415);
    let long = tried.post("/v1/embeddings", "application/json", vec![b' '; 2 << 20]).await;
    assert_eq!(long.status, 413);
    // And nothing of all that was written.
    let files = std::fs::read_dir(tried.folder.path()).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["index", "pictures", "run", "secret.png", "vqa"]);
}

#[tokio::test]
async fn only_this_machines_names_and_pages_and_the_token_are_let_in() {
    let tried = Tried::with(Guard::new(vec![], Some("a long secret")), false).await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        tried.ask(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    let home = ("host", "127.0.0.1:7878");
    assert_eq!(ask(Method::GET, "/api/library", &[home], "").await.status, 401);
    assert_eq!(
        ask(Method::GET, "/api/library", &[home, ("authorization", "Bearer a long secret")], "").await.status,
        200
    );
    assert_eq!(
        ask(Method::GET, "/api/library", &[("host", "rebound.example"), ("authorization", "Bearer a long secret")], "")
            .await
            .status,
        421
    );
    let foreign = [home, ("authorization", "Bearer a long secret"), ("origin", "https://evil.example")];
    assert_eq!(ask(Method::POST, "/api/index", &foreign, "").await.status, 403);
    // A browser is asked for it, and has a cookie from then on.
    let first = ask(Method::GET, "/", &[home], "").await;
    assert_eq!((first.status.as_u16(), first.headers["location"].to_str().unwrap()), (303, "/login"));
    assert!(ask(Method::GET, "/login", &[home], "").await.text().contains("name=\"token\""));
    let form = [home, ("content-type", "application/x-www-form-urlencoded")];
    let wrong = ask(Method::POST, "/login", &form, "token=a+long+guess").await;
    assert!(wrong.status == 401 && wrong.text().contains("Not this one") && wrong.headers.get("set-cookie").is_none());
    let right = ask(Method::POST, "/login", &form, "token=a+long+secret").await;
    let cookie = right.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(ask(Method::GET, "/api/library", &[home, ("cookie", &cookie)], "").await.status, 200);
}

#[tokio::test]
async fn every_answer_is_for_this_page_alone() {
    let tried = Tried::new().await;
    for path in ["/", "/api/library", "/api/nothing", "/style.css", "/api/search?q="] {
        let headers = tried.get(path).await.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
        assert!(headers.get("access-control-allow-origin").is_none());
    }
}

#[tokio::test]
async fn too_much_at_once_is_put_off_and_short_work_goes_first() {
    let tried = Tried::new().await;
    let id = tried.id("0.png").await;
    let path = format!("/api/ground?id={id}&phrase=a+red+circle");
    tried.get(&path).await.good();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (router, path) = (tried.router.clone(), path.clone());
        asked.spawn(async move { told(&router, request(Method::GET, &path).body(Body::empty()).unwrap()).await });
    }
    // All of them are waiting, or refused, when this is asked.
    while tried.app.photos().unwrap().engine.waiting() < 8 {
        tokio::task::yield_now().await;
    }
    tried.get("/api/search?q=red").await.good();
    assert!(tried.app.photos().unwrap().engine.waiting() > 0, "a search waited for all that was asked before");
    let mut counts = std::collections::BTreeMap::new();
    while let Some(told) = asked.join_next().await {
        let told = told.unwrap();
        if told.status == 429 {
            assert_eq!(told.headers["retry-after"], "1");
        }
        *counts.entry(told.status.as_u16()).or_insert(0) += 1;
    }
    assert!(counts[&200] >= 32 && counts[&429] > 0 && counts.len() == 2, "{counts:?}");
}

#[tokio::test]
async fn no_panic_reaches_a_client() {
    let tried = Tried::new().await;
    let broken = async || -> &'static str { panic!("a secret") };
    let router = guarded(Router::new().route("/broken", get(broken)), tried.app.clone());
    let told = told(&router, request(Method::GET, "/broken").body(Body::empty()).unwrap()).await;
    assert_eq!(told.status, 500);
    assert!(told.text().contains("a defect of simla") && !told.text().contains("secret"));
    let engine = &tried.app.photos().unwrap().engine;
    let refusal = engine.long(|_| -> Result<(), _> { panic!("a secret") }).await.unwrap_err();
    assert_eq!(refusal.status, 500);
    // The model still answers; and after the end, nothing does.
    tried.get("/api/search?q=red").await.good();
    engine.close();
    assert_eq!(tried.get("/api/search?q=red").await.status, 503);
}

/// What a client that sends these bytes is told until the connection ends.
fn said(address: std::net::SocketAddr, send: impl FnOnce(&mut TcpStream)) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    send(&mut stream);
    let mut all = Vec::new();
    // A reset after the answer is an end too.
    _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_endless_requests_end() {
    let tried = Tried::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tried.router.clone();
    let server = tokio::spawn(async move { accept(&listener, router, &GracefulShutdown::new()).await });
    let blocking = tokio::task::spawn_blocking(move || {
        let head = "GET /api/library HTTP/1.1\r\nhost: localhost\r\n";
        let fine = said(address, |stream| write!(stream, "{head}connection: close\r\n\r\n").unwrap());
        assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
        let long = said(address, |stream| {
            _ = write!(stream, "{head}x: {}\r\n\r\n", "a".repeat(100_000));
        });
        assert!(long.starts_with("HTTP/1.1 431"), "{long}");
        let many = said(address, |stream| {
            _ = write!(stream, "{head}{}\r\n", "x: y\r\n".repeat(300));
        });
        assert!(many.starts_with("HTTP/1.1 431"), "{many}");
        let slow = said(address, |stream| write!(stream, "{head}").unwrap());
        assert!(!slow.contains("200 OK"), "{slow}");
        let post = "POST /api/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\nconnection: close\r\n";
        let stalled = said(address, |stream| write!(stream, "{post}content-length: 500\r\n\r\nabc").unwrap());
        assert!(stalled.starts_with("HTTP/1.1 408"), "{stalled}");
        let huge = said(address, |stream| write!(stream, "{post}content-length: 99999999999\r\n\r\nabc").unwrap());
        assert!(huge.starts_with("HTTP/1.1 413"), "{huge}");
        let nonsense = said(address, |stream| stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").unwrap());
        assert!(!nonsense.contains("200 OK"), "{nonsense}");
        let again = said(address, |stream| write!(stream, "{head}connection: close\r\n\r\n").unwrap());
        assert!(again.starts_with("HTTP/1.1 200"), "{again}");
    });
    blocking.await.unwrap();
    server.abort();
}
