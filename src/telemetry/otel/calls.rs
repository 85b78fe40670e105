//! One span for each call of the API.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status};

use super::export::Span;
use super::{Ended, Spans};
use crate::engine::Timestamp;
use crate::runtime::Calendar;

/// A call that was answered, as far as the head of its answer.
pub(super) struct EndedCall {
    method: Method,
    /// The path as the table of routes has it, without what the caller put into it.
    route: Option<MatchedPath>,
    status: u16,
    start: Timestamp,
    end: Timestamp,
}

/// Tells of each call that passes.
pub async fn trace_call(State(spans): State<Spans>, request: Request, next: Next) -> Response {
    let start = spans.clock.now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (status, end) = (response.status().as_u16(), spans.clock.now());
    spans.tell(Ended::Call(EndedCall { method, route, status, start, end }));
    response
}

impl EndedCall {
    pub(super) fn into_span(self, calendar: Calendar) -> Span {
        let method = known(&self.method);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.response.status_code", i64::from(self.status)),
        ];
        let name = match &self.route {
            Some(route) => {
                attributes.push(KeyValue::new("http.route", route.as_str().to_owned()));
                format!("{method} {}", route.as_str()).into()
            }
            None => method.into(),
        };
        let status = if self.status >= 500 { Status::error("") } else { Status::Unset };
        let (start, end) = (calendar.at(self.start), calendar.at(self.end));
        Span { name, kind: SpanKind::Server, start, end, attributes, status, children: Vec::new() }
    }
}

/// The name of a method, unless a caller made it up.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
