//! What operators want to be told, and where: made by the configuration, every secret already resolved.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use lettre::message::Mailbox;
use rustls_pki_types::CertificateDer;
use url::Url;

use super::news::NewsKind;
use super::template::Template;
use crate::engine::Millis;
use crate::targets::Secret;

/// The name of a channel: what metrics, logs and the command line call it.
pub type ChannelName = Arc<str>;

/// What operators want to be told, and where. Without channels, nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationSettings {
    /// What happens within this time of the first news goes as one message.
    pub group_window: Millis,
    /// How long the same is not told again of the same instance.
    pub quiet_period: Millis,
    /// When a delivery that failed is first tried again; doubles each time.
    pub retry_initial: Millis,
    /// The longest delay between two tries.
    pub retry_max: Millis,
    /// After this time a message that cannot be delivered is dropped.
    pub give_up_after: Millis,
    /// Where to.
    pub channels: Vec<Arc<Channel>>,
}

impl Default for NotificationSettings {
    fn default() -> Self {
        Self {
            group_window: Millis::from_secs(30),
            quiet_period: Millis::from_mins(15),
            retry_initial: Millis::from_secs(10),
            retry_max: Millis::from_mins(10),
            give_up_after: Millis::from_mins(24 * 60),
            channels: Vec::new(),
        }
    }
}

impl NotificationSettings {
    /// Whether any channel takes news of this kind.
    pub fn wants(&self, kind: NewsKind) -> bool {
        self.channels.iter().any(|channel| channel.kinds.contains(&kind))
    }
}

/// One place where operators are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// What is told there.
    pub kinds: BTreeSet<NewsKind>,
    /// How.
    pub route: Route,
}

/// How a message gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// An HTTP request.
    Webhook(WebhookChannel),
    /// A mail.
    Mail(MailChannel),
}

impl Route {
    /// `webhook` or `mail`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Mail(_) => "mail",
        }
    }
}

/// An HTTP request. Its address may be a secret as a whole, so `Debug` shows the host alone.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookChannel {
    /// Where it goes.
    pub url: Url,
    /// Sent with it, such as `Authorization`.
    pub headers: Vec<(String, Secret)>,
    /// What its body says it is.
    pub content_type: String,
    /// What makes the body; without it, the message as JSON.
    pub template: Option<Template>,
    /// The authorities that are believed; those of the system if `None`.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
}

impl fmt::Debug for WebhookChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookChannel").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// A mail by SMTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailChannel {
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub security: MailSecurity,
    /// User and password, if the server wants them.
    pub credentials: Option<(String, Secret)>,
    /// Who it is from.
    pub from: Mailbox,
    /// Who it is for. Never empty.
    pub to: Vec<Mailbox>,
    /// The authorities that are believed; those of the system if `None`.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
}

/// How the connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// From the first byte.
    Tls,
    /// From `STARTTLS` on, which the server has to offer.
    StartTls,
    /// Not at all.
    None,
}
