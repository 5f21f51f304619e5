//! The server: what it has, its routes, and its life from the first connection to the last answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use simla::config::ModelConfig;
use simla::tasks::kept::Kept;
use simla::tasks::pretrain::Model;
use simla_data::Vocabulary;
use simla_run::asking::Asker;
use simla_run::collection::Collection;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::engine::Engine;
use crate::guard::{Guard, guard};
use crate::library::{Id, Library};
use crate::models::Models;
use crate::pictures::{View, Workshop, unusable};
use crate::refusal::Refusal;
use crate::{api, openai, page, runs};

/// Connections at a time; the next ones wait to be taken.
const CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request, and a connection be idle.
const HEAD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// How long answers may take after the server was asked to stop.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Views of pictures that are kept: of one picture, one asks several things.
const VIEWS: usize = 32;

/// What is served.
#[derive(Default)]
pub struct Served {
    /// Pictures with a model, where they are served.
    pub photos: Option<Photos>,
    /// The folder with runs.
    pub runs: Option<PathBuf>,
    /// Who may ask.
    pub guard: Guard,
}

/// Pictures that are searched and looked at with a model.
pub struct Photos {
    /// The pictures and their index.
    pub library: Arc<Library>,
    /// The model's thread.
    pub engine: Arc<Engine>,
    /// Its word pieces.
    pub vocabulary: Vocabulary,
    /// Its sizes.
    pub config: ModelConfig,
    /// Identity of the model.
    pub model: String,
    /// Whether there is a model for questions.
    pub asks: bool,
    views: Mutex<VecDeque<(Id, String, Arc<View>)>>,
    indexer: Mutex<Option<JoinHandle<()>>>,
}

impl Photos {
    /// Opens the pictures in `folder` with their index in `place`, and begins to bring that up to date. `asker` answers questions.
    ///
    /// # Errors
    /// If there are no pictures, or the index cannot be used.
    pub fn open(model: Model, asker: Option<Asker>, folder: &Path, place: &Path, kept: Option<Kept>) -> Result<Self> {
        let index = Collection::pictures(folder)?.open(place, &model, kept)?;
        let vocabulary = model.vocabulary.clone();
        let config = model.simla.config.clone();
        let library = Arc::new(Library::new(folder, index, config.vision_width as usize));
        let name = model.checkpoint.fingerprint().to_owned();
        let asks = asker.is_some();
        let engine = Arc::new(Engine::start(Models::new(model, asker)));
        let side = config.image_size as usize;
        let (own_library, own_engine) = (Arc::clone(&library), Arc::clone(&engine));
        let keep = move || own_library.keep_current(&own_engine, side);
        let indexer = std::thread::Builder::new().name("index".into()).spawn(keep).context("a thread")?;
        Ok(Self {
            library,
            engine,
            vocabulary,
            config,
            model: name,
            asks,
            views: Mutex::default(),
            indexer: Mutex::new(Some(indexer)),
        })
    }

    /// Pixels of a view's side.
    pub fn side(&self) -> usize {
        self.config.image_size as usize
    }

    /// A picture of the index, as the model reads it.
    ///
    /// # Errors
    /// If it is not in the index any more, or its file is no usable picture any more.
    pub async fn view(&self, workshop: &Workshop, id: &str) -> Result<Arc<View>, Refusal> {
        let (id, name) = self.named(id)?;
        let stamp = self.library.index().stamp(&name).unwrap_or_default().to_owned();
        let views = || self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            views().iter().find(|(other, when, _)| (*other, when) == (id, &stamp)).map(|(.., view)| view.clone());
        if let Some(view) = known {
            return Ok(view);
        }
        let (library, side) = (Arc::clone(&self.library), self.side());
        let read = move || {
            let view = View::of(&library.read(&name)?, side);
            view.map(Arc::new).map_err(|error| unusable(format_args!("{name}: {error}")))
        };
        let view = workshop.work(read).await?;
        let mut views = views();
        views.truncate(VIEWS - 1);
        views.push_front((id, stamp, view.clone()));
        Ok(view)
    }

    /// The picture that a request names by its id.
    ///
    /// # Errors
    /// If there is none of that id in the index.
    pub fn named(&self, id: &str) -> Result<(Id, String), Refusal> {
        let found = Id::parse(id).and_then(|id| Some((id, self.library.name(id)?)));
        found.ok_or_else(|| Refusal::missing(format_args!("no picture {id:?} in the index; a search gives the ids")))
    }

    /// Ends both threads.
    fn close(&self) {
        self.library.stop();
        self.engine.close();
        if let Some(indexer) = self.indexer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            _ = indexer.join();
        }
    }
}

impl Drop for Photos {
    fn drop(&mut self) {
        self.close();
    }
}

/// What every request is answered from.
#[derive(Clone)]
pub struct App {
    served: Arc<Served>,
    /// Where pictures are worked on.
    pub workshop: Arc<Workshop>,
}

impl std::ops::Deref for App {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

impl App {
    /// Of what is served, with nothing worked on yet.
    pub fn new(served: Served) -> Self {
        Self { served: Arc::new(served), workshop: Arc::default() }
    }

    /// The pictures.
    ///
    /// # Errors
    /// If this server has none.
    pub fn photos(&self) -> Result<&Photos, Refusal> {
        let none = "no pictures are served here; start the server with --checkpoint and --images";
        self.served.photos.as_ref().ok_or_else(|| Refusal::missing(none))
    }
}

/// All that can be asked.
pub fn router(app: App) -> Router {
    guarded(routes(), app)
}

/// Routes behind the guard, without a word of what is missing or breaks there.
pub(crate) fn guarded(routes: Router<App>, app: App) -> Router {
    let missing = || async { Refusal::missing("nothing is here; /api/openapi.json says what there is") };
    let method = || async {
        Refusal::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "not with this method; see /api/openapi.json")
    };
    let panicked = |_| Refusal::defect().into_response();
    routes
        .fallback(missing)
        .method_not_allowed_fallback(method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

fn routes() -> Router<App> {
    Router::new()
        .route("/", get(page::index))
        .route(page::LOGIN, get(page::login).post(page::enter))
        .route(page::STYLE, get(page::style))
        .route(page::ICON, get(page::icon))
        .route("/app.js", get(page::script))
        .route("/runs.js", get(page::runs_script))
        .route("/runs", get(runs::index))
        .route("/runs/view", get(runs::view))
        .route("/runs/compare", get(runs::compare))
        .route("/api/runs", get(runs::list))
        .route("/api/openapi.json", get(page::openapi))
        .route("/api/library", get(api::library))
        .route("/api/index", post(api::look_again))
        .route("/api/search", get(api::search))
        .route("/api/similar", get(api::similar).post(api::similar_to_sent))
        .route("/api/pictures", get(api::pictures))
        .route("/api/pictures/{id}", get(api::picture))
        .route("/api/pictures/{id}/file", get(api::file))
        .route("/api/pictures/{id}/small", get(api::small))
        .route("/api/ground", get(api::ground).post(api::ground_sent))
        .route("/api/keywords", get(api::keywords).post(api::keywords_of_sent))
        .route("/api/ask", get(api::ask).post(api::ask_of_sent))
        .route("/api/attention", get(api::attention).post(api::attention_on_sent))
        .route("/api/embed", get(api::embed).post(api::embed_sent))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
}

/// Serves until SIGINT or SIGTERM; then what was begun is answered, and a second signal ends all at once. `listening` is told the
/// address.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(served: Served, address: SocketAddr, listening: impl FnOnce(SocketAddr)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("threads for the server")?;
    let app = App::new(served);
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!(
                "{address} cannot be listened on; choose another --port, 0 for any that is free, or another --listen"
            )
        })?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        listening(listener.local_addr()?);
        let open = GracefulShutdown::new();
        tokio::select! {
            () = accept(&listener, router(app.clone()), &open) => {}
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        drop(listener);
        simla_run::say!("stopping: what was begun is answered; a second signal ends at once");
        tokio::select! {
            _ = tokio::time::timeout(LAST_WORDS, open.shutdown()) => {}
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        anyhow::Ok(())
    })?;
    if let Some(photos) = &app.served.photos {
        photos.close();
    }
    // Work that still holds a thread is nobody's any more.
    runtime.shutdown_background();
    Ok(())
}

/// Takes connections for ever.
pub(crate) async fn accept(listener: &TcpListener, router: Router, open: &GracefulShutdown) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&connections).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, say: a moment later it may work.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // What a client does to its own connection is no error of the server.
            _ = connection.await;
            drop(place);
        });
    }
}
