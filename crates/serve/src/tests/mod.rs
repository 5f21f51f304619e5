//! The whole server in a test's own process, on a small model with drawn pictures.

mod answers;
mod hostile;
mod watching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use image::{Rgb, RgbImage};
use serde_json::Value;
use simla::config::{ModelConfig, Preset};
use simla::model::Simla;
use simla::tasks::kept::Kept;
use simla::tasks::pretrain::{self, Model, VOCABULARY, special_ids};
use simla::tasks::vqa::{self, ANSWERS, Answerer};
use simla_data::Vocabulary;
use simla_run::asking::Asker;
use simla_train::checkpoint::{Checkpoints, Contents};
use tch::{Device, Kind};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::guard::Guard;
use crate::server::{App, Photos, Served, router};

/// Pictures that can be used.
const PICTURES: usize = 12;

/// A server over a folder with pictures, ten of them in `far` and `far/away`, one broken and one that is none.
struct Tried {
    folder: TempDir,
    app: App,
    router: Router,
}

/// What was answered.
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Told {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    #[track_caller]
    fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is drawn is drawn from one state of the whole program.
static DRAWING: Mutex<()> = Mutex::new(());

/// A model that searches, and one that answers questions, in folders of runs.
fn models(folder: &Path) -> (PathBuf, PathBuf) {
    let words = ["a red circle above a blue square", "a small green triangle"].map(String::from);
    let vocabulary = Vocabulary::learn(words.into_iter(), 80).unwrap();
    let config = ModelConfig {
        image_size: 32,
        vision_width: 32,
        vision_depth: 2,
        vision_heads: 2,
        text_width: 32,
        text_depth: 2,
        text_heads: 2,
        text_mlp: 64,
        embed_dim: 16,
        queue_size: 8,
        ..ModelConfig::preset(Preset::Tiny, vocabulary.len() as i64, special_ids(&vocabulary))
    };
    let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let simla = Simla::new(config.clone(), Kind::Float, Device::Cpu, 3);
    let answerer = Answerer::new(config.clone(), Kind::Float, Device::Cpu, 4);
    let save = |name: &str, task: &str, model, answers: Option<&[u8]>| {
        let run = folder.join(name);
        let vocabulary = (VOCABULARY.to_owned(), vocabulary.to_json().into_bytes());
        let answers = answers.map(|answers| (ANSWERS.to_owned(), answers.to_vec()));
        let contents = Contents {
            step: 1,
            epoch: 1.0,
            steps_per_epoch: 1,
            seed: 0,
            best: None,
            task: task.into(),
            config: serde_json::to_value(&config).unwrap(),
            model,
            optimizer: BTreeMap::new(),
            extra: [vocabulary].into_iter().chain(answers).collect(),
        };
        Checkpoints::open(&run, 1).unwrap().save(contents, false).unwrap();
        run
    };
    let searching = save("run", pretrain::TASK, simla.named(), None);
    let list = br#"["red","blue","green"]"#;
    (searching, save("vqa", vqa::TASK, answerer.weights.named(), Some(list)))
}

/// A disc on a ground, each picture its own.
fn drawn(nth: usize) -> Vec<u8> {
    let nth = nth as u32;
    let (x, y) = (12 + 3 * nth % 40, 10 + 5 * nth % 30);
    let picture = RgbImage::from_fn(64, 48, |across, down| {
        let inside = across.abs_diff(x).pow(2) + down.abs_diff(y).pow(2) < 60;
        if inside { Rgb([230, (20 * nth) as u8, 30]) } else { Rgb([40, 60, (15 * nth) as u8]) }
    });
    simla_pictures::canvas::png_bytes(&picture)
}

impl Tried {
    async fn new() -> Self {
        Self::with(Guard::default(), false).await
    }

    async fn with(guard: Guard, asks: bool) -> Self {
        Self::keeping(Kept::Half, guard, asks).await
    }

    async fn keeping(kept: Kept, guard: Guard, asks: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("pictures");
        std::fs::create_dir_all(pictures.join("far/away")).unwrap();
        for nth in 0..PICTURES {
            let name = match nth {
                0 | 1 => format!("{nth}.png"),
                2..9 => format!("far/{nth}.png"),
                _ => format!("far/away/a b&{nth}.png"),
            };
            std::fs::write(pictures.join(name), drawn(nth)).unwrap();
        }
        std::fs::write(pictures.join("broken.png"), &drawn(0)[..90]).unwrap();
        std::fs::write(pictures.join("page.jpg"), "<html>").unwrap();
        std::fs::write(folder.path().join("secret.png"), drawn(1)).unwrap();
        let (run, vqa) = models(folder.path());
        let model = Model::open(&run, Kind::Float, Device::Cpu).unwrap();
        let asker = asks.then(|| Asker::open(&vqa, None, Kind::Float, Device::Cpu).unwrap());
        let photos = Photos::open(model, asker, &pictures, &folder.path().join("index"), Some(kept)).unwrap();
        let app = App::new(Served { photos: Some(photos), runs: None, guard });
        let tried = Self { folder, router: router(app.clone()), app };
        tried.settled().await;
        tried
    }

    /// Waits for the index.
    async fn settled(&self) {
        while self.app.photos().unwrap().library.indexing().running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("pictures").join(name)
    }

    async fn ask(&self, request: Request<Body>) -> Told {
        told(&self.router, request).await
    }

    async fn get(&self, path: &str) -> Told {
        self.ask(request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, kind: &str, body: impl Into<Body>) -> Told {
        self.ask(request(Method::POST, path).header("content-type", kind).body(body.into()).unwrap()).await
    }

    /// The id of a picture.
    async fn id(&self, image: &str) -> String {
        let all = self.get("/api/pictures?top=200").await.good();
        let found = all["results"].as_array().unwrap().iter().find(|found| found["image"] == image);
        found.unwrap_or_else(|| panic!("{image} in {all}"))["id"].as_str().unwrap().to_owned()
    }
}

async fn told(router: &Router, request: Request<Body>) -> Told {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Told { status: parts.status, headers: parts.headers, body }
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:7878")
}

fn images(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().unwrap().iter().map(|found| found["image"].as_str().unwrap()).collect()
}
