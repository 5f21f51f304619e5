//! Who may ask. Every request passes here first.
//!
//! - The Host header must name this machine: a page of another site whose name was made to point here (DNS rebinding) names its own.
//! - With a token, a request brings it: programs as `Authorization: Bearer`, a browser in a cookie that `/login` gives for it.
//! - No page of another site may ask, by what browsers tell of where a request comes from.
//! - Answers may be used by the page of this server alone, which may run and load only what comes from here.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use crate::refusal::Refusal;
use crate::server::App;

/// What the page may load and run: nothing but what comes from here.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The cookie that stands for the token.
const COOKIE: &str = "simla";

/// Who may ask.
#[derive(Debug, Default)]
pub struct Guard {
    /// Names of this machine beside `localhost` and its addresses.
    pub names: Vec<String>,
    /// What stands for the token, where there is one: its hash, which is compared in constant time.
    token: Option<blake3::Hash>,
}

impl Guard {
    /// Lets in requests to these hosts beside this machine's own names, with this token where there is one.
    pub fn new(names: Vec<String>, token: Option<&str>) -> Self {
        Self { names, token: token.map(|token| sealed(token.as_bytes())) }
    }

    /// Refuses a request that may not be answered.
    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = uri.host().or_else(|| text(header::HOST)).unwrap_or_default();
        let name = without_port(host);
        let known = name.eq_ignore_ascii_case("localhost")
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        if !known {
            return Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                format_args!(
                    "the host {host:?} is not this server; ask for it by its address or as localhost, or name it with --name"
                ),
            ));
        }
        let own = |origin: &str| origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host));
        let foreign = text(header::ORIGIN).is_some_and(|origin| !own(origin));
        // A link from elsewhere to the page is fine: it is a person who follows it.
        let followed = method == Method::GET && text(HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
        let site = text(HeaderName::from_static("sec-fetch-site"));
        let from_elsewhere = matches!(site, Some("cross-site" | "same-site")) && !followed;
        if foreign || from_elsewhere {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "pages of other sites may not ask this server"));
        }
        if !self.admits(headers) {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed: send it as `Authorization: Bearer TOKEN`, or open /login in a browser",
            ));
        }
        Ok(())
    }

    /// Whether the token, if there is one, came along.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.token else { return true };
        let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let bearer = bearer.and_then(|value| value.split_at_checked("bearer ".len()));
        if bearer.is_some_and(|(kind, given)| kind.eq_ignore_ascii_case(b"bearer ") && sealed(given) == token) {
            return true;
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|all| all.split(';')).filter_map(|pair| pair.trim().split_once('='));
        // A hash of the token's hash: what a browser keeps is not what a program needs.
        pairs.any(|(name, value)| name == COOKIE && blake3::Hash::from_hex(value).is_ok_and(|it| it == pass(token)))
    }

    /// The cookie for a token, if it is right.
    pub fn cookie(&self, given: &str) -> Option<String> {
        let token = self.token?;
        let right = sealed(given.as_bytes()) == token;
        right.then(|| format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", pass(token).to_hex()))
    }
}

fn sealed(token: &[u8]) -> blake3::Hash {
    blake3::hash(token)
}

fn pass(token: blake3::Hash) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

/// `name:80` and `[::1]:80` without their ends.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|c| c.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}

/// Lets through what may be answered.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method(), request.uri());
    // What anybody may see: the form that asks for the token, and how it looks.
    let open = [crate::page::LOGIN, crate::page::STYLE, crate::page::ICON].contains(&uri.path());
    let mut response = match app.guard.check(method, uri, request.headers()) {
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED && open => next.run(request).await,
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED && uri.path() == "/" => {
            Redirect::to(crate::page::LOGIN).into_response()
        }
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, headers: &[(&str, &str)]) -> Option<u16> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            all.append(name, HeaderValue::from_str(value).unwrap());
        }
        let outcome = guard.check(&Method::GET, &Uri::from_static("/api/library"), &all);
        outcome.err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        let guard = Guard::new(vec!["photos.home".into()], None);
        for host in ["localhost", "LOCALHOST:7878", "127.0.0.1:9", "[::1]", "[::1]:80", "192.168.0.7", "photos.home:80"]
        {
            assert_eq!(check(&guard, &[("host", host)]), None, "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:7878", "localhost.evil.example", "127.0.0.1.evil.example", "a:b:c"]
        {
            assert_eq!(check(&guard, &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(check(&guard, &[]), Some(421));
    }

    #[test]
    fn pages_of_other_sites_may_not_ask() {
        let guard = Guard::default();
        let with = |more: &[(&str, &str)]| check(&guard, &[&[("host", "localhost:7878")], more].concat());
        assert_eq!(with(&[("origin", "http://localhost:7878"), ("sec-fetch-site", "same-origin")]), None);
        for origin in ["http://evil.example", "null", "http://localhost:1", "localhost:7878"] {
            assert_eq!(with(&[("origin", origin)]), Some(403), "{origin}");
        }
        assert_eq!(with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]), Some(403));
        assert_eq!(with(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]), Some(403));
        assert_eq!(with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), None);
    }

    #[test]
    fn a_token_comes_along_or_its_cookie() {
        let guard = Guard::new(vec![], Some("secret"));
        let with = |more: &[(&str, &str)]| check(&guard, &[&[("host", "localhost")], more].concat());
        assert_eq!(with(&[]), Some(401));
        for wrong in
            ["Bearer", "Bearer ", "Bearer Secret", "Bearer secret ", "Basic secret", "secret", "Bearer secretsecret"]
        {
            assert_eq!(with(&[("authorization", wrong)]), Some(401), "{wrong}");
        }
        assert_eq!(with(&[("authorization", "bearer secret")]), None);
        assert_eq!(guard.cookie("Secret"), None);
        let cookie = guard.cookie("secret").unwrap();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict") && !cookie.contains("secret"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(with(&[("cookie", &format!("other=1; {pair}"))]), None);
        assert_eq!(with(&[("cookie", "simla=secret")]), Some(401));
        let hash = sealed(b"secret").to_hex();
        assert_eq!(with(&[("cookie", &format!("simla={hash}"))]), Some(401));
    }
}
