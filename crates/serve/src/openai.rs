//! Embeddings in the shape that clients of other services know.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use simla_run::queries::Phrase;
use simla_run::queries::search::MAX_TOKENS;

use crate::pictures::body_of;
use crate::refusal::Refusal;
use crate::server::App;

/// Bytes of a request, and texts in it, at most.
const MAX_BODY: usize = 1 << 20;
const MAX_TEXTS: usize = 256;

/// A request for embeddings.
#[derive(Deserialize)]
struct Request {
    input: Input,
    #[serde(default)]
    encoding_format: Format,
    dimensions: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Float,
    Base64,
}

/// `POST /v1/embeddings`.
pub(crate) async fn embeddings(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format_args!("a body of type {kind:?}; expected application/json"),
        ));
    }
    let body = body_of(body, MAX_BODY).await?;
    let request: Request = serde_json::from_slice(&body).map_err(|error| {
        let shape = r#"expected {"input": "text"} or {"input": ["text", ...]}, with "encoding_format" float or base64"#;
        Refusal::request(format_args!("{error}; {shape}"))
    })?;
    let size = photos.config.embed_dim;
    if request.dimensions.is_some_and(|asked| asked != size) {
        return Err(Refusal::request(format_args!("dimensions: features of this model have {size} values, no others")));
    }
    let texts = match request.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    if texts.is_empty() || texts.len() > MAX_TEXTS {
        return Err(Refusal::request(format_args!("input: {} texts; expected 1 to {MAX_TEXTS}", texts.len())));
    }
    let phrases = texts.iter().map(|text| Phrase::new(text, &photos.vocabulary, MAX_TOKENS));
    let phrases = phrases.collect::<Result<Vec<_>, _>>().map_err(Refusal::request)?;
    let tokens: usize = phrases.iter().map(|phrase| phrase.ids.len()).sum();
    let features = photos.engine.many_words(phrases.into_iter().map(|phrase| phrase.ids).collect()).await?;
    let shown = |feature: &Vec<f32>| match request.encoding_format {
        Format::Float => json!(feature),
        Format::Base64 => json!(STANDARD.encode(feature.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())),
    };
    let data: Vec<Value> = (0..)
        .zip(&features)
        .map(|(index, feature): (usize, _)| json!({"object": "embedding", "index": index, "embedding": shown(feature)}))
        .collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": photos.model, "usage": usage})))
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let photos = app.photos()?;
    let model = json!({"id": photos.model, "object": "model", "created": 0, "owned_by": "simla"});
    Ok(Json(json!({"object": "list", "data": [model]})))
}
