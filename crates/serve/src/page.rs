//! What a browser gets: files that are in the program.

use std::time::Duration;

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::server::App;

/// Where a browser gives its token.
pub(crate) const LOGIN: &str = "/login";
pub(crate) const STYLE: &str = "/style.css";
pub(crate) const ICON: &str = "/icon.svg";

/// After a wrong token: nobody tries many.
const WRONG: Duration = Duration::from_secs(1);

/// `GET /`.
pub(crate) async fn index(State(app): State<App>) -> Response {
    match (&app.photos, &app.runs) {
        (None, Some(_)) => Redirect::to("/runs").into_response(),
        _ => Html(include_str!("page/index.html")).into_response(),
    }
}

/// `GET /login`.
pub(crate) async fn login() -> Html<&'static str> {
    Html(include_str!("page/login.html"))
}

/// What the form sends.
#[derive(Deserialize)]
pub(crate) struct Entered {
    token: String,
}

/// `POST /login`: gives the cookie for the token.
pub(crate) async fn enter(
    State(app): State<App>,
    form: Result<Form<Entered>, axum::extract::rejection::FormRejection>,
) -> Response {
    let cookie = form.ok().and_then(|Form(entered)| app.guard.cookie(&entered.token));
    match cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        None => {
            tokio::time::sleep(WRONG).await;
            let again = include_str!("page/login.html").replace("<!--wrong-->", "<p role=\"alert\">Not this one.</p>");
            (StatusCode::UNAUTHORIZED, Html(again)).into_response()
        }
    }
}

fn text(kind: &'static str, text: &'static str) -> Response {
    // A newer program has newer files.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// `GET /app.js`.
pub(crate) async fn script() -> Response {
    text("text/javascript; charset=utf-8", include_str!("page/app.js"))
}

/// `GET /runs.js`.
pub(crate) async fn runs_script() -> Response {
    text("text/javascript; charset=utf-8", include_str!("page/runs.js"))
}

/// `GET /style.css`.
pub(crate) async fn style() -> Response {
    text("text/css; charset=utf-8", include_str!("page/style.css"))
}

/// `GET /icon.svg`.
pub(crate) async fn icon() -> Response {
    text("image/svg+xml", include_str!("page/icon.svg"))
}

/// `GET /api/openapi.json`.
pub(crate) async fn openapi() -> Response {
    text("application/json", include_str!("page/openapi.json"))
}
