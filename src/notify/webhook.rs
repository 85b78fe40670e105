//! A message as an HTTP request.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, redirect};

use super::message::Message;
use super::send::DeliveryError;
use super::settings::WebhookChannel;

const CONNECTING: Duration = Duration::from_secs(5);
/// The same where a message is sent again, so that receivers can tell.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(super) async fn send(channel: &WebhookChannel, message: &Message) -> Result<(), DeliveryError> {
    let body = match &channel.template {
        Some(template) => {
            template.render(message).map_err(|error| DeliveryError::permanent(format!("the body {error}")))?
        }
        None => serde_json::to_string(message).map_err(DeliveryError::permanent)?,
    };
    let mut request = client(channel)?.post(channel.url.clone()).body(body);
    request = request.header(CONTENT_TYPE, &channel.content_type).header(IDEMPOTENCY_KEY, &message.id);
    for (name, value) in &channel.headers {
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| DeliveryError::permanent(format!("the header {name} holds what no header can")))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let answer = request.send().await.map_err(|error| unreachable(&error))?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        status @ (408 | 425 | 429 | 500..) => Err(DeliveryError::transient(format!("the receiver answered {status}"))),
        status @ 300..=399 => {
            Err(DeliveryError::permanent(format!("the receiver answered {status}, a redirect, which is not followed")))
        }
        status => Err(DeliveryError::permanent(format!("the receiver refused it with {status}"))),
    }
}

/// Redirects are not followed: what is secret in a request goes where it was meant to go.
fn client(channel: &WebhookChannel) -> Result<Client, DeliveryError> {
    // Fails only if a provider is there already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("pulse/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECTING);
    if let Some(authorities) = &channel.authorities {
        let certificates: Result<Vec<_>, _> =
            authorities.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
        builder = builder.tls_certs_only(certificates.map_err(DeliveryError::permanent)?);
    }
    builder.build().map_err(|error| unreachable(&error))
}

/// The innermost cause tells most; the address, which may be a secret, is left out.
fn unreachable(error: &reqwest::Error) -> DeliveryError {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    let cause = cause.map_or_else(|| "no answer".to_owned(), ToString::to_string);
    DeliveryError::transient(format!("the receiver cannot be reached: {cause}"))
}
