//! Runs: how they stand, drawn while they go on, and compared; no folder but theirs.

use std::fs;

use super::*;

#[tokio::test]
async fn runs_are_listed_drawn_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    for (name, loss) in [("first", 4.5), ("demo/run", 3.25)] {
        fs::create_dir_all(runs.join(name)).unwrap();
        fs::write(runs.join(name).join("metrics.jsonl"), format!("{{\"step\":1,\"loss\":{loss}}}\n")).unwrap();
    }
    let status = simla_pictures::run::Status {
        state: simla_pictures::run::State::Running,
        step: 7,
        steps: 10,
        ..Default::default()
    };
    status.save(&runs.join("demo/run")).unwrap();
    fs::create_dir_all(folder.path().join("other")).unwrap();
    fs::write(folder.path().join("other/metrics.jsonl"), "{\"step\":1,\"loss\":9.75}\n").unwrap();
    std::os::unix::fs::symlink(folder.path().join("other"), runs.join("link")).unwrap();
    let app = App::new(Served { runs: Some(runs.clone()), ..Served::default() });
    let router = router(app);
    let get = async |path: &str| told(&router, request(Method::GET, path).body(Body::empty()).unwrap()).await;

    assert_eq!(get("/").await.headers["location"], "/runs");
    assert!(get("/runs").await.text().contains("runs.js"));
    let list = get("/api/runs").await.good();
    let names: Vec<&str> = list["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    assert_eq!(names, ["demo/run", "first"], "the one that reported last first");
    assert_eq!((&list["runs"][0]["state"], &list["runs"][0]["step"]), (&"running".into(), &7.into()));
    let page = get("/runs/view?run=demo/run").await;
    assert!(page.status == 200 && page.text().contains("3.25") && page.text().contains("/runs.js"));
    let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self'") && !policy.contains("script-src 'unsafe"), "{policy}");
    let both = get("/runs/compare?run=demo%2Frun&run=first").await.text();
    assert!(both.contains("3.25") && both.contains("4.5") && both.contains("Runs compared"));
    // Alive: what is new is on the page.
    fs::write(runs.join("first/metrics.jsonl"), "{\"step\":2,\"loss\":2.25}\n").unwrap();
    assert!(get("/runs/view?run=first").await.text().contains("2.25"));
    for (path, status) in [
        ("/runs/view?run=../other", 404),
        ("/runs/view?run=link", 404),
        ("/runs/view?run=%2Fetc", 404),
        ("/runs/view?run=.", 404),
        ("/runs/view", 400),
        ("/runs/view?name=first", 400),
        ("/runs/compare?run=first&run=first", 404),
        ("/api/search?q=red", 404),
    ] {
        assert_eq!(get(path).await.status, status, "{path}");
    }
}
