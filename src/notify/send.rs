//! Sending one message by one channel, in bounded time, and what came of it.

use std::time::Duration;

use thiserror::Error;

use super::message::Message;
use super::settings::{Channel, Route};
use super::{mail, webhook};

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest text of an error, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// Why a message was not delivered, free of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DeliveryError {
    message: String,
    permanent: bool,
}

impl DeliveryError {
    /// It may pass by itself.
    pub(super) fn transient(message: impl ToString) -> Self {
        Self { message: printable(&message.to_string()), permanent: false }
    }

    /// Somebody has to mend something.
    pub(super) fn permanent(message: impl ToString) -> Self {
        Self { message: printable(&message.to_string()), permanent: true }
    }

    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

/// Sends a message. Takes fifteen seconds at the most.
pub(super) async fn send(channel: &Channel, message: &Message) -> Result<(), DeliveryError> {
    let sending = async {
        match &channel.route {
            Route::Webhook(webhook) => webhook::send(webhook, message).await,
            Route::Mail(mail) => mail::send(mail, message).await,
        }
    };
    match tokio::time::timeout(PATIENCE, sending).await {
        Ok(result) => result,
        Err(_) => Err(DeliveryError::transient(format!("it took longer than {} s", PATIENCE.as_secs()))),
    }
}

/// A text from elsewhere, fit for one line of a log.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_ERROR_CHARS).collect()
}
