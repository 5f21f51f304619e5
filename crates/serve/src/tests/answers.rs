//! What is answered: the same as by the command line, page by page, by id or for a picture that is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use serde_json::{Value, json};

use super::*;

fn numbers(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn pictures_are_found_by_a_phrase_page_by_page() {
    let tried = Tried::new().await;
    let all = tried.get("/api/search?q=a+red+circle&top=50&exact=true").await.good();
    assert_eq!((all["searched"].as_u64(), images(&all).len()), (Some(PICTURES as u64), PICTURES));
    assert_eq!((&all["query"], &all["unknown"]), (&json!("a red circle"), &json!(0)));
    let matching: Vec<f64> =
        all["results"].as_array().unwrap().iter().map(|f| f["matching"].as_f64().unwrap()).collect();
    assert!(matching.is_sorted_by(|a, b| a >= b), "{matching:?}");
    // As the command line: the best five of sixteen candidates.
    let five = tried.get("/api/search?q=a+red+circle&top=5").await.good();
    assert_eq!(images(&five), images(&all)[..5]);
    // Pages hold every picture once.
    let mut seen = BTreeSet::new();
    for skip in [0, 5, 10, 15] {
        let page = tried.get(&format!("/api/search?q=a+red+circle&top=5&candidates=5&skip={skip}")).await.good();
        for (nth, found) in page["results"].as_array().unwrap().iter().enumerate() {
            assert_eq!(found["rank"].as_u64(), Some(skip + nth as u64 + 1));
            assert!(seen.insert(found["image"].as_str().unwrap().to_owned()), "{found} twice");
        }
    }
    assert_eq!(seen.len(), PICTURES);
    let plain = tried.get("/api/search?q=a+red+circle&candidates=0").await.good();
    assert!(plain["results"][0].get("matching").is_none());
    let unknown = tried.get("/api/search?q=red+%D0%B6%D1%83%D0%BA").await.good();
    assert_eq!(unknown["unknown"], 1);
}

#[tokio::test]
async fn an_index_in_8_bits_or_of_features_alone_answers_as_well() {
    let search = "/api/search?q=a+red+circle&top=50&exact=true";
    let by_image = |answer: &Value| -> BTreeMap<String, f64> {
        let results = answer["results"].as_array().unwrap().iter();
        results.map(|f| (f["image"].as_str().unwrap().to_owned(), f["matching"].as_f64().unwrap())).collect()
    };
    let half = by_image(&Tried::new().await.get(search).await.good());
    for (kept, within) in [(Kept::EightBits, 5e-3), (Kept::Nothing, 1e-4)] {
        let tried = Tried::keeping(kept, Guard::default(), false).await;
        // What is looked at again, and is no picture any more, is no hit.
        std::fs::write(tried.path("far/3.png"), "").unwrap();
        let found = by_image(&tried.get(search).await.good());
        let expected = half.keys().filter(|image| kept != Kept::Nothing || *image != "far/3.png");
        assert!(found.keys().eq(expected), "{kept}: {found:?}");
        for (image, matching) in &found {
            assert!((matching - half[image]).abs() < within, "{kept}, {image}: {matching} and {}", half[image]);
        }
    }
}

#[tokio::test]
async fn folders_and_days_are_chosen_from() {
    let tried = Tried::new().await;
    let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + 3600);
    let old = std::fs::File::options().append(true).open(tried.path("far/3.png")).unwrap();
    old.set_modified(day(10_000)).unwrap(); // 1997-05-19
    tried.app.photos().unwrap().library.look_again();
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        tried.settled().await;
        let listed = tried.get("/api/pictures?until=1997-05-19").await.good();
        if images(&listed) == ["far/3.png"] {
            assert_eq!((&listed["pictures"], &listed["results"][0]["date"]), (&json!(1), &json!("1997-05-19")));
            break;
        }
    }
    let count = async |query: &str| {
        let found = tried.get(&format!("/api/search?q=red&top=50&{query}")).await.good();
        let listed = tried.get(&format!("/api/pictures?top=50&{query}")).await.good();
        let sorted = |answer: &Value| images(answer).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&found), sorted(&listed), "{query}");
        images(&found).len()
    };
    assert_eq!(count("folder=far").await, 10);
    assert_eq!(count("folder=far%2Faway").await, 3);
    assert_eq!(count("folder=fa").await, 0);
    assert_eq!(count("folder=..").await, 0);
    assert_eq!(count("from=1997-05-20").await, PICTURES - 1);
    assert_eq!(count("from=1997-05-19&until=1997-05-19").await, 1);
    assert_eq!(count("from=1997-05-20&until=1998-01-01").await, 0);
    assert_eq!(count("folder=far&from=&until=").await, 10);
    let library = tried.get("/api/library").await.good();
    assert_eq!(library["folders"], json!([{"folder": "far", "pictures": 10}, {"folder": "far/away", "pictures": 3}]));
    assert_eq!(library["pictures"], PICTURES);
    assert_eq!(library["indexing"]["unusable"], 2);
    assert!(library["indexing"]["first_unusable"].to_string().contains("broken.png"), "{library}");
    assert!(!library.to_string().contains(&tried.folder.path().display().to_string()), "{library}");
}

#[tokio::test]
async fn similar_pictures_by_id_and_for_one_that_is_sent() {
    let tried = Tried::new().await;
    let id = tried.id("far/4.png").await;
    let alike = tried.get(&format!("/api/similar?id={id}&top=50&exact=true")).await.good();
    assert_eq!((&alike["query"], images(&alike).len()), (&json!("far/4.png"), PICTURES - 1));
    assert!(!images(&alike).contains(&"far/4.png"));
    let sent = tried.post("/api/similar?top=50&exact=true", "image/png", drawn(4)).await.good();
    assert_eq!(images(&sent)[0], "far/4.png");
    assert!((sent["results"][0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-4);
    assert_eq!(images(&sent)[1..], images(&alike)[..], "the picture itself apart, the same are near");
}

#[tokio::test]
async fn a_picture_of_the_index_and_the_same_that_is_sent_are_looked_at_alike() {
    let tried = Tried::new().await;
    let id = tried.id("1.png").await;
    for (what, more) in [("ground", "phrase=a+red+circle"), ("keywords", "top=5"), ("attention", "")] {
        let of_index = tried.get(&format!("/api/{what}?id={id}&{more}")).await.good();
        let sent = tried.post(&format!("/api/{what}?{more}"), "application/octet-stream", drawn(1)).await.good();
        assert_eq!(of_index, sent, "{what}");
    }
    let found = tried.get(&format!("/api/ground?id={id}&phrase=a+red+circle&layer=0")).await.good();
    assert_eq!((&found["width"], &found["height"], &found["layer"]), (&json!(64), &json!(48), &json!(0)));
    let grid = found["grid"].as_u64().unwrap() as usize;
    assert_eq!(numbers(&found["map"]).len(), grid * grid);
    let words: Vec<&str> = found["words"].as_array().unwrap().iter().map(|w| w["word"].as_str().unwrap()).collect();
    assert_eq!(words, ["a", "red", "circle"]);
    let keywords = tried.get(&format!("/api/keywords?id={id}&top=5")).await.good();
    assert_eq!(keywords["keywords"].as_array().unwrap().len(), 5);
    assert_eq!(numbers(&keywords["keywords"][0]["map"]).len(), grid * grid);
    let attention = tried.get(&format!("/api/attention?id={id}")).await.good();
    assert_eq!(attention["heads"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn questions_are_answered_where_there_is_a_model_for_them() {
    let tried = Tried::with(Guard::default(), true).await;
    assert_eq!(tried.get("/api/library").await.good()["asks"], true);
    let id = tried.id("1.png").await;
    let of_index = tried.get(&format!("/api/ask?id={id}&question=a+red+circle%3F")).await.good();
    let sent = tried.post("/api/ask?question=a+red+circle%3F", "image/png", drawn(1)).await.good();
    assert_eq!(of_index, sent);
    let answers = of_index["answers"].as_array().unwrap();
    let sum: f64 = answers.iter().map(|answer| answer["probability"].as_f64().unwrap()).sum();
    assert!(answers.len() == 3 && (sum - 1.0).abs() < 1e-4, "{of_index}");
    let grid = of_index["grid"].as_u64().unwrap() as usize;
    assert_eq!(numbers(&of_index["map"]).len(), grid * grid);
    let words: Vec<&str> = of_index["words"].as_array().unwrap().iter().map(|w| w["word"].as_str().unwrap()).collect();
    assert_eq!(words, ["a", "red", "circle"]);
    let nothing = tried.get(&format!("/api/ask?id={id}&question=%3F")).await;
    assert!(nothing.status == 400 && nothing.text().contains("says nothing"), "{}", nothing.text());
    assert_eq!(tried.post("/api/ask?question=what", "image/png", "GIF89a").await.status, 422);
}

#[tokio::test]
async fn features_in_every_shape_are_the_same() {
    let tried = Tried::new().await;
    let own = tried.get("/api/embed?text=a+red+circle").await.good();
    let feature = numbers(&own["embedding"]);
    assert!((feature.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4);
    let ask = async |body: Value| tried.post("/v1/embeddings", "application/json", body.to_string()).await;
    let known = ask(json!({"input": ["green", "a red circle"], "model": "any"})).await.good();
    assert_eq!((&known["object"], &known["data"][1]["index"]), (&json!("list"), &json!(1)));
    let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&numbers(&known["data"][1]["embedding"]), &feature));
    assert!(known["usage"]["total_tokens"].as_u64().unwrap() >= 8, "{known}");
    let packed = ask(json!({"input": "a red circle", "encoding_format": "base64"})).await.good();
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let packed: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert!(close(&packed, &feature));
    let models = tried.get("/v1/models").await.good();
    assert_eq!(models["data"][0]["id"], own["model"]);

    let id = tried.id("0.png").await;
    let of_index = tried.get(&format!("/api/embed?id={id}")).await.good();
    let sent = tried.post("/api/embed", "image/png", drawn(0)).await.good();
    assert!(close(&numbers(&of_index["embedding"]), &numbers(&sent["embedding"])));
}

#[tokio::test]
async fn pictures_come_as_they_are_and_small() {
    let tried = Tried::new().await;
    let id = tried.id("far/away/a b&9.png").await;
    let about = tried.get(&format!("/api/pictures/{id}")).await.good();
    assert_eq!(
        (&about["image"], &about["width"], &about["height"]),
        (&json!("far/away/a b&9.png"), &json!(64), &json!(48))
    );
    let file = tried.get(&format!("/api/pictures/{id}/file")).await;
    assert_eq!(
        (file.status.as_u16(), &file.headers["content-type"], &file.body),
        (200, &"image/png".parse().unwrap(), &drawn(9))
    );
    let small = tried.get(&format!("/api/pictures/{id}/small")).await;
    assert_eq!(small.headers["content-type"], "image/jpeg");
    assert_eq!(image::load_from_memory(&small.body).unwrap().width(), 64);
    let tag = small.headers["etag"].clone();
    let again = request(Method::GET, &format!("/api/pictures/{id}/small")).header("if-none-match", tag);
    assert_eq!(tried.ask(again.body(Body::empty()).unwrap()).await.status, 304);
    // What has gone is missed, and nothing breaks.
    std::fs::remove_file(tried.path("far/away/a b&9.png")).unwrap();
    for rest in ["/file", "/small"] {
        let told = tried.get(&format!("/api/pictures/{id}{rest}")).await;
        let folder = tried.folder.path().display().to_string();
        assert!(rest == "/small" || told.status == 422 && !told.text().contains(&folder), "{}", told.text());
    }
}

#[tokio::test]
async fn the_description_names_what_there_is() {
    let tried = Tried::new().await;
    let described = tried.get("/api/openapi.json").await.good();
    let id = tried.id("0.png").await;
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let told = tried.ask(request(method, &path.replace("{id}", &id)).body(Body::empty()).unwrap()).await;
            let said = told.text();
            assert!(!said.contains("nothing is here") && told.status != 405, "{path}: {said}");
        }
    }
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/runs.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let page = tried.get(path).await;
        assert_eq!((page.status.as_u16(), page.headers["content-type"].to_str().unwrap()), (200, kind), "{path}");
        assert!(!page.text().contains("https://"), "{path} asks elsewhere");
    }
}
