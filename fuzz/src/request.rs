//! A call before it is sent: every part of it bytes that can be anything.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::mutator::Mutator;

/// Headers that are read somewhere on the way, and values that mean something there.
const HEADERS: [(&str, &str); 19] = [
    ("content-type", "application/json; charset=utf-8"),
    ("content-type", "text/plain"),
    ("if-match", "\"0\""),
    ("if-match", "*"),
    ("x-forwarded-for", "203.0.113.9, 127.0.0.1"),
    ("forwarded", "for=\"[2001:db8::1]:443\";proto=https, for=127.0.0.1"),
    ("last-event-id", "19b76a2e800-3"),
    ("accept", "text/event-stream"),
    ("origin", "https://elsewhere.example"),
    ("authorization", "Basic YWxpY2U6eA=="),
    ("authorization", "Bearer pulse_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ("x-api-token", "pulse_"),
    ("x-csrf-token", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ("cookie", "pulse_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ("cookie", "a=b; pulse_session=; __Host-pulse_session=x;;=;"),
    ("user-agent", "\u{e9}\u{202e}"),
    ("host", ""),
    ("range", "bytes=0-"),
    ("accept-encoding", "gzip"),
];
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "QUERY"];

/// A call, valid or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(method: &str, target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Changes some part of it.
    pub(crate) fn mutate(&mut self, draws: &mut Mutator) {
        match draws.below(10) {
            0 => self.method = draws.pick(&METHODS).as_bytes().to_vec(),
            1 | 2 => self.mutate_target(draws),
            3 => draws.mutate(&mut self.target),
            4 => {
                let (name, value) = *draws.pick(&HEADERS);
                self.headers.push((name.into(), value.into()));
            }
            5 if !self.headers.is_empty() => {
                let at = draws.below(self.headers.len());
                match draws.below(3) {
                    0 => drop(self.headers.remove(at)),
                    1 => self.headers.push(self.headers[at].clone()),
                    _ => draws.mutate(&mut self.headers[at].1),
                }
            }
            6 => {
                let (mut name, mut value) = (draws.awkward(), draws.awkward());
                name.truncate(200);
                value.truncate(20_000);
                self.headers.push((name, value));
            }
            7 => draws.mutate(&mut self.body),
            _ => draws.mutate_json(&mut self.body),
        }
    }

    /// Changes one segment of the path, or one parameter of the query.
    fn mutate_target(&mut self, draws: &mut Mutator) {
        let (path, query) = match self.target.iter().position(|byte| *byte == b'?') {
            Some(at) => (self.target[..at].to_vec(), Some(self.target[at + 1..].to_vec())),
            None => (self.target.clone(), None),
        };
        let (separator, whole, prefix) = match query {
            Some(query) if draws.one_in(2) => (b'&', query, [&path[..], b"?"].concat()),
            _ => (b'/', path, Vec::new()),
        };
        let mut parts: Vec<Vec<u8>> = whole.split(|byte| *byte == separator).map(<[u8]>::to_vec).collect();
        let at = draws.below(parts.len());
        draws.mutate(&mut parts[at]);
        if separator == b'/' && draws.one_in(2) {
            parts[at] = percent_encoded(&parts[at]);
        }
        self.target = [prefix, parts.join(&separator)].concat();
    }

    /// As it goes over a connection, headers as they are.
    pub(crate) fn to_bytes(&self, chunked: bool) -> Vec<u8> {
        let mut bytes = [&self.method[..], b" ", &self.target, b" HTTP/1.1\r\nhost: pulse.example\r\n"].concat();
        for (name, value) in &self.headers {
            bytes.extend([&name[..], b": ", value, b"\r\n"].concat());
        }
        if chunked {
            let size = format!("{:x}", self.body.len());
            bytes.extend([b"transfer-encoding: chunked\r\n\r\n", size.as_bytes(), b"\r\n", &self.body].concat());
            bytes.extend(if self.body.is_empty() { &b"\r\n"[..] } else { b"\r\n0\r\n\r\n" });
        } else {
            bytes.extend(format!("content-length: {}\r\n\r\n", self.body.len()).bytes());
            bytes.extend(&self.body);
        }
        bytes
    }

    /// As a router is handed it; `None` if no connection would let it pass.
    pub(crate) fn to_request(&self) -> Option<Request<Body>> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = Method::from_bytes(&self.method).ok()?;
        *request.uri_mut() = Uri::try_from(&self.target[..]).ok()?;
        for (name, value) in &self.headers {
            let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
            request.headers_mut().try_append(name, value).ok()?;
        }
        Some(request)
    }
}

fn percent_encoded(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect()
}
