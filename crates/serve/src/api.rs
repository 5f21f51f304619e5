//! The interface for programs, and for the page: JSON under `/api`, described by `page/openapi.json`.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simla::tasks::gradcam::default_layer;
use simla::tasks::vqa::answer::K_TEST;
use simla_image::{Limits, size};
use simla_run::queries::search::{CANDIDATES, Found, MAX_TOKENS, ranked};
use simla_run::queries::{self, Phrase};

use crate::library::{Filter, Id, Near};
use crate::pictures::{View, kind, unusable};
use crate::refusal::Refusal;
use crate::server::App;

/// Results where nothing else is asked for, and at most.
const TOP: usize = 12;
const MAX_TOP: usize = 200;
/// Candidates at most.
const MAX_CANDIDATES: usize = 64;
/// Results that may be skipped.
const MAX_SKIP: usize = 1_000_000;
/// Keywords where nothing else is asked for, and at most.
const WORDS: usize = 8;
const MAX_WORDS: usize = 50;
/// How long a browser may show a picture without asking whether it has changed.
const FRESH: &str = "private, max-age=60";

/// What a request asks, from its query.
pub(crate) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|rejection| Refusal::request(rejection.body_text()))
    }
}

/// Pictures that are wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    q: Option<String>,
    id: Option<String>,
    top: Option<usize>,
    skip: Option<usize>,
    candidates: Option<usize>,
    exact: Option<bool>,
    folder: Option<String>,
    from: Option<String>,
    until: Option<String>,
}

impl Wanted {
    fn near(&self) -> Result<Near, Refusal> {
        let top = within("top", self.top.unwrap_or(TOP), 1, MAX_TOP)?;
        let skip = within("skip", self.skip.unwrap_or(0), 0, MAX_SKIP)?;
        let candidates = within("candidates", self.candidates.unwrap_or(CANDIDATES), 0, MAX_CANDIDATES)?;
        // The first page looks at more than it shows, as the command line does. Later ones rank what they show.
        let looked = if skip == 0 { top.max(candidates) } else { top };
        Ok(Near {
            filter: self.filter()?,
            except: None,
            skip,
            top: looked,
            matched: candidates.min(looked),
            exact: self.exact.unwrap_or(false),
        })
    }

    fn filter(&self) -> Result<Filter, Refusal> {
        const DAY: u64 = 24 * 60 * 60;
        let day = |name: &str, date: &Option<String>| match date.as_deref().filter(|date| !date.is_empty()) {
            None => Ok(None),
            Some(date) => {
                let time = humantime::parse_rfc3339(&format!("{date}T00:00:00Z"));
                let seconds = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let wrong = || Refusal::request(format_args!("{name}={date:?}: expected a date like 2024-12-31"));
                seconds.map(|after| Some(after.as_secs())).ok_or_else(wrong)
            }
        };
        Ok(Filter {
            folder: self.folder.clone().unwrap_or_default(),
            from: day("from", &self.from)?,
            until: day("until", &self.until)?.map(|until| until + DAY),
        })
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<usize, Refusal> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Refusal::request(format_args!("{name}={value}: expected {least} to {most}"))),
    }
}

fn needed<'a>(name: &str, value: &'a Option<String>) -> Result<&'a str, Refusal> {
    value.as_deref().ok_or_else(|| Refusal::request(format_args!("`{name}` is missing")))
}

/// A picture that was found.
#[derive(Serialize)]
struct Shown {
    id: String,
    /// The day when its file was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<String>,
    #[serde(flatten)]
    found: Found,
}

/// What a search found.
#[derive(Serialize)]
pub(crate) struct Answer {
    query: String,
    searched: usize,
    seconds: f64,
    /// Words of the query that the model does not know.
    unknown: usize,
    results: Vec<Shown>,
}

/// `2024-12-31`, of seconds after 1970.
fn date(seconds: u64) -> String {
    // The last that a calendar of four digits knows: a file may claim any time.
    const LAST: u64 = 253_402_300_799;
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned()
}

/// The nearest to a feature, matched with words where there are some.
async fn find(
    app: &App,
    feature: Vec<f32>,
    words: Option<&Phrase>,
    near: Near,
    top: usize,
) -> Result<(usize, Vec<Shown>), Refusal> {
    let photos = app.photos()?;
    let (library, skip, matched) = (Arc::clone(&photos.library), near.skip, near.matched);
    let nearest = tokio::task::spawn_blocking(move || library.nearest(&feature, &near)).await;
    let mut nearest = nearest.unwrap_or_else(|_| Err(Refusal::defect()))?;
    let matching = match words {
        Some(phrase) => {
            let patches = match nearest.patches {
                Some(patches) => patches,
                None => looked_at_again(app, &mut nearest.hits, matched).await?,
            };
            photos.engine.matching(phrase.ids.clone(), patches).await?
        }
        None => vec![],
    };
    let shown = |(nth, (hit, matching)): (usize, (simla_search::Hit, Option<f32>))| Shown {
        id: Id::of(&hit.name).to_string(),
        date: photos.library.date(&hit.name).map(date),
        found: Found { rank: skip + nth + 1, image: hit.name, caption: None, similarity: hit.similarity, matching },
    };
    let results = ranked(nearest.hits, matching).into_iter().take(top).enumerate().map(shown).collect();
    Ok((nearest.searched, results))
}

/// Patches of the first so many of the hits, of which the index keeps none; what cannot be looked at any more is no hit.
async fn looked_at_again(
    app: &App,
    hits: &mut Vec<simla_search::Hit>,
    matched: usize,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let photos = app.photos()?;
    let rest = hits.split_off(matched.min(hits.len()));
    let mut views = Vec::with_capacity(hits.len());
    for hit in std::mem::take(hits) {
        if let Ok(view) = photos.view(&app.workshop, &Id::of(&hit.name).to_string()).await {
            views.push(view.pixels.clone());
            hits.push(hit);
        }
    }
    hits.extend(rest);
    let seen = photos.engine.many_views(views).await?;
    Ok(seen.into_iter().map(|seen| seen.patches).collect())
}

/// `GET /api/search`.
pub(crate) async fn search(State(app): State<App>, Asked(wanted): Asked<Wanted>) -> Result<Json<Answer>, Refusal> {
    let (start, photos) = (Instant::now(), app.photos()?);
    let q = needed("q", &wanted.q)?;
    let phrase = Phrase::new(q, &photos.vocabulary, MAX_TOKENS).map_err(Refusal::request)?;
    let near = wanted.near()?;
    let feature = photos.engine.words(phrase.ids.clone()).await?;
    let (searched, results) = find(&app, feature, Some(&phrase), near, wanted.top.unwrap_or(TOP)).await?;
    let (unknown, seconds) = (phrase.unknown, start.elapsed().as_secs_f64());
    Ok(Json(Answer { query: phrase.text, searched, seconds, unknown, results }))
}

/// `GET /api/similar`.
pub(crate) async fn similar(State(app): State<App>, Asked(wanted): Asked<Wanted>) -> Result<Json<Answer>, Refusal> {
    let (start, photos) = (Instant::now(), app.photos()?);
    let (_, name) = photos.named(needed("id", &wanted.id)?)?;
    let feature = photos.library.index().feature(&name);
    let feature = feature.ok_or_else(|| Refusal::missing("the picture has just gone"))?;
    let near = Near { except: Some(name.clone()), matched: 0, ..wanted.near()? };
    let (searched, results) = find(&app, feature, None, near, wanted.top.unwrap_or(TOP)).await?;
    Ok(Json(Answer { query: name, searched, seconds: start.elapsed().as_secs_f64(), unknown: 0, results }))
}

/// `POST /api/similar`.
pub(crate) async fn similar_to_sent(
    State(app): State<App>,
    Asked(wanted): Asked<Wanted>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, Refusal> {
    let (start, photos) = (Instant::now(), app.photos()?);
    let near = Near { matched: 0, ..wanted.near()? };
    let view = sent(&app, &headers, body).await?;
    let seen = photos.engine.view(view.pixels.clone()).await?;
    let (searched, results) = find(&app, seen.feature, None, near, wanted.top.unwrap_or(TOP)).await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Json(Answer { query: "a picture".into(), searched, seconds, unknown: 0, results }))
}

/// The picture that a request brings, as the model reads it.
async fn sent(app: &App, headers: &HeaderMap, body: Body) -> Result<Arc<View>, Refusal> {
    let side = app.photos()?.side();
    let bytes = app.workshop.sent(headers, body).await?;
    app.workshop.work(move || View::of(&bytes, side).map(Arc::new).map_err(unusable)).await
}

/// `GET /api/pictures`: without a query, the newest first.
pub(crate) async fn pictures(State(app): State<App>, Asked(wanted): Asked<Wanted>) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let (near, top) = (wanted.near()?, wanted.top.unwrap_or(TOP));
    let library = Arc::clone(&photos.library);
    let newest = tokio::task::spawn_blocking(move || library.newest(&near.filter, near.skip, top)).await;
    let (all, names) = newest.map_err(|_| Refusal::defect())?;
    let shown = |name: String| json!({"id": Id::of(&name).to_string(), "date": photos.library.date(&name).map(date), "image": name});
    Ok(Json(json!({"pictures": all, "results": names.into_iter().map(shown).collect::<Vec<_>>()})))
}

/// `GET /api/pictures/{id}`.
pub(crate) async fn picture(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let (_, name) = photos.named(&id)?;
    let view = photos.view(&app.workshop, &id).await?;
    let date = photos.library.date(&name).map(date);
    Ok(Json(json!({"id": id, "image": name, "date": date, "width": view.width, "height": view.height})))
}

/// `GET /api/pictures/{id}/file`: its bytes as they are.
pub(crate) async fn file(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let photos = app.photos()?;
    let (_, name) = photos.named(&id)?;
    let library = Arc::clone(&photos.library);
    let bytes = app.workshop.work(move || library.read(&name)).await?;
    let kind = kind(&bytes).ok_or_else(|| unusable("its file is no picture any more"))?;
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, FRESH)], bytes).into_response())
}

/// `GET /api/pictures/{id}/small`: a JPEG to be shown among many.
pub(crate) async fn small(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let photos = app.photos()?;
    let (_, name) = photos.named(&id)?;
    let stamp = photos.library.index().stamp(&name).unwrap_or_default().to_owned();
    let tag = format!("\"{id}-{}\"", stamp.replace(' ', "-"));
    let tag = HeaderValue::try_from(tag).map_err(|_| Refusal::defect())?;
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let library = Arc::clone(&photos.library);
    let jpeg = app.workshop.small(format!("{id} {stamp}"), move || library.read(&name)).await?;
    let mut response = ([(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, FRESH)], jpeg).into_response();
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// A phrase in a picture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sought {
    id: Option<String>,
    phrase: Option<String>,
    layer: Option<usize>,
}

/// `GET /api/ground`.
pub(crate) async fn ground(State(app): State<App>, Asked(sought): Asked<Sought>) -> Result<Json<Value>, Refusal> {
    let phrase = sought_phrase(&app, &sought)?;
    let view = app.photos()?.view(&app.workshop, needed("id", &sought.id)?).await?;
    grounded(&app, view, phrase, sought.layer).await
}

/// `POST /api/ground`.
pub(crate) async fn ground_sent(
    State(app): State<App>,
    Asked(sought): Asked<Sought>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    let phrase = sought_phrase(&app, &sought)?;
    let view = sent(&app, &headers, body).await?;
    grounded(&app, view, phrase, sought.layer).await
}

fn sought_phrase(app: &App, sought: &Sought) -> Result<Phrase, Refusal> {
    let photos = app.photos()?;
    let text = needed("phrase", &sought.phrase)?;
    Phrase::new(text, &photos.vocabulary, MAX_TOKENS).map_err(Refusal::request)
}

async fn grounded(app: &App, view: Arc<View>, phrase: Phrase, layer: Option<usize>) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let depth = photos.config.text_depth;
    let layer = match layer {
        Some(layer) => within("layer", layer, 0, (depth - 1) as usize)?,
        None => default_layer(depth),
    };
    let unknown = phrase.unknown;
    let work = move |models: &mut crate::models::Models| {
        let (model, looked) = models.look(&view.pixels).map_err(Refusal::server)?;
        let size = (view.width, view.height);
        queries::ground::ground(model, &looked.embeds, size, &phrase, layer).map_err(Refusal::server)
    };
    let found = photos.engine.long(work).await?;
    let mut told = serde_json::to_value(found).map_err(Refusal::server)?;
    told["unknown"] = json!(unknown);
    Ok(Json(told))
}

/// Keywords of a picture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {
    id: Option<String>,
    top: Option<usize>,
}

/// `GET /api/keywords`.
pub(crate) async fn keywords(State(app): State<App>, Asked(words): Asked<Words>) -> Result<Json<Value>, Refusal> {
    let view = app.photos()?.view(&app.workshop, needed("id", &words.id)?).await?;
    named(&app, view, words.top).await
}

/// `POST /api/keywords`.
pub(crate) async fn keywords_of_sent(
    State(app): State<App>,
    Asked(words): Asked<Words>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    let view = sent(&app, &headers, body).await?;
    named(&app, view, words.top).await
}

async fn named(app: &App, view: Arc<View>, top: Option<usize>) -> Result<Json<Value>, Refusal> {
    let top = within("top", top.unwrap_or(WORDS), 1, MAX_WORDS)?;
    let photos = app.photos()?;
    let grid = photos.config.grid();
    let work = move |models: &mut crate::models::Models| {
        let (model, looked) = models.look(&view.pixels).map_err(Refusal::server)?;
        let words = queries::keywords::recommended(model, &looked.embeds, top, &[]).map_err(Refusal::server)?;
        let maps = queries::keywords::maps(model, &looked.image, &words).map_err(Refusal::server)?;
        Ok((words, maps))
    };
    let (words, maps) = photos.engine.long(work).await?;
    let word = |(word, map): (&simla::tasks::keywords::Keyword, Vec<f32>)| json!({"word": word.word, "score": word.score, "map": map});
    let words: Vec<Value> = words.iter().zip(maps).map(word).collect();
    Ok(Json(json!({"grid": grid, "keywords": words})))
}

/// A picture of the index.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct One {
    id: Option<String>,
}

/// `GET /api/attention`.
pub(crate) async fn attention(
    State(app): State<App>,
    Asked(one): Asked<One>,
) -> Result<Json<queries::attention::Attention>, Refusal> {
    let view = app.photos()?.view(&app.workshop, needed("id", &one.id)?).await?;
    attended(&app, view).await
}

/// `POST /api/attention`.
pub(crate) async fn attention_on_sent(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<queries::attention::Attention>, Refusal> {
    let view = sent(&app, &headers, body).await?;
    attended(&app, view).await
}

async fn attended(app: &App, view: Arc<View>) -> Result<Json<queries::attention::Attention>, Refusal> {
    let work = move |models: &mut crate::models::Models| {
        let (model, looked) = models.look(&view.pixels).map_err(Refusal::server)?;
        queries::attention::attention(&model.simla, &looked.image).map_err(Refusal::server)
    };
    Ok(Json(app.photos()?.engine.long(work).await?))
}

/// A question about a picture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    id: Option<String>,
    question: Option<String>,
}

/// `GET /api/ask`.
pub(crate) async fn ask(State(app): State<App>, Asked(asked): Asked<Question>) -> Result<Json<Value>, Refusal> {
    let question = needed("question", &asked.question)?.to_owned();
    let (_, name) = app.photos()?.named(needed("id", &asked.id)?)?;
    let library = Arc::clone(&app.photos()?.library);
    let bytes = app.workshop.work(move || library.read(&name)).await?;
    answered(&app, bytes.into(), question).await
}

/// `POST /api/ask`.
pub(crate) async fn ask_of_sent(
    State(app): State<App>,
    Asked(asked): Asked<Question>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    let question = needed("question", &asked.question)?.to_owned();
    let bytes = app.workshop.sent(&headers, body).await?;
    answered(&app, bytes, question).await
}

async fn answered(app: &App, bytes: Bytes, question: String) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    if !photos.asks {
        let none = "no model for questions is served here; start the server with --vqa, a run of `simla finetune vqa`";
        return Err(Refusal::missing(none));
    }
    let checked = bytes.clone();
    // What is no picture is found out here, not by the model's thread.
    let size = app.workshop.work(move || size(&checked, &Limits::default()).map_err(unusable)).await?;
    let work = move |models: &mut crate::models::Models| {
        let asker = models.asker.as_ref().ok_or_else(Refusal::defect)?;
        let told = asker.ask(&bytes, &question, false, K_TEST).map_err(Refusal::request)?;
        let Some(best) = told.first() else { return Ok(json!({"question": question, "answers": []})) };
        let looked = asker.look(&bytes, &question, &best.answer).map_err(Refusal::server)?;
        let words = looked.words.iter().map(|(word, map)| json!({"word": word, "map": map}));
        Ok(json!({
            "question": question, "answers": told, "width": size.0, "height": size.1, "layer": looked.layer,
            "grid": asker.model.config.grid(), "map": looked.maps.phrase, "words": words.collect::<Vec<_>>(),
        }))
    };
    Ok(Json(photos.engine.long(work).await?))
}

/// What is embedded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Embedded {
    text: Option<String>,
    id: Option<String>,
}

/// `GET /api/embed`.
pub(crate) async fn embed(State(app): State<App>, Asked(embedded): Asked<Embedded>) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let feature = match (&embedded.text, &embedded.id) {
        (Some(text), None) => {
            let phrase = Phrase::new(text, &photos.vocabulary, MAX_TOKENS).map_err(Refusal::request)?;
            photos.engine.words(phrase.ids).await?
        }
        (None, Some(id)) => {
            let (_, name) = photos.named(id)?;
            let feature = photos.library.index().feature(&name);
            feature.ok_or_else(|| Refusal::missing("the picture has just gone"))?
        }
        _ => return Err(Refusal::request("expected one of `text` and `id`, or a picture that is sent with POST")),
    };
    Ok(Json(json!({"model": photos.model, "embedding": feature})))
}

/// `POST /api/embed`.
pub(crate) async fn embed_sent(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let view = sent(&app, &headers, body).await?;
    let seen = photos.engine.view(view.pixels.clone()).await?;
    Ok(Json(json!({"model": photos.model, "embedding": seen.feature})))
}

/// `GET /api/library`: what there is to search, and how far the index is.
pub(crate) async fn library(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let config = &photos.config;
    let library = Arc::clone(&photos.library);
    let folders = tokio::task::spawn_blocking(move || library.folders()).await.map_err(|_| Refusal::defect())?;
    let folders: Vec<Value> =
        folders.into_iter().map(|(folder, pictures)| json!({"folder": folder, "pictures": pictures})).collect();
    Ok(Json(json!({
        "pictures": photos.library.index().len(),
        "indexing": photos.library.indexing(),
        "folders": folders,
        "model": {
            "name": photos.model,
            "image_size": config.image_size,
            "layers": config.text_depth,
            "layer": default_layer(config.text_depth),
            "heads": config.vision_heads,
            "features": config.embed_dim,
        },
        "asks": photos.asks,
        "runs": app.runs.is_some(),
    })))
}

/// `POST /api/index`: looks through the folder again for what is new, has changed or has gone.
pub(crate) async fn look_again(State(app): State<App>) -> Result<Response, Refusal> {
    app.photos()?.library.look_again();
    Ok((StatusCode::ACCEPTED, Json(json!({"looking": true}))).into_response())
}
