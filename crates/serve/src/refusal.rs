//! What is answered in place of an answer: a status, and the words that the command line would say.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Seconds after which a client may ask again where too many ask at once.
const AGAIN: u64 = 1;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    /// What, where, what was expected, what to do.
    pub message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Display) -> Self {
        Self { status, message: message.to_string() }
    }

    /// The request says something that cannot be answered.
    pub fn request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Something that is not there.
    pub fn missing(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The server could not do it.
    pub fn server(message: impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Too many ask at once.
    pub fn busy() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests wait for the model; ask again in a moment")
    }

    /// It took too long.
    pub fn late() -> Self {
        let seconds = crate::engine::PATIENCE.as_secs();
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format_args!("no answer within {seconds} seconds; ask again when less is asked"),
        )
    }

    /// The server is ending.
    pub fn closing() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is being stopped")
    }

    /// A panic, of which a client learns no more than this.
    pub fn defect() -> Self {
        Self::server("this is a defect of simla, please report it")
    }
}

impl IntoResponse for Refusal {
    /// In the shape that clients of other embedding services know.
    fn into_response(self) -> Response {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        let again = matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let body = json!({"error": {"message": self.message, "type": kind, "param": null, "code": null}});
        let mut response = (self.status, Json(body)).into_response();
        if again {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(AGAIN));
        }
        response
    }
}
