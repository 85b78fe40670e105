//! Tells operators what happened: grouped, with a quiet period, retried; by webhook and by mail.
//!
//! What is told when is a pure state machine ([`Desk`]); around it stand a subscriber, one task, and the senders.

mod board;
mod desk;
mod mail;
mod message;
mod news;
mod outbox;
mod send;
mod service;
mod settings;
mod subscriber;
mod template;
mod webhook;

pub use board::{Board, ChannelState};
pub use desk::Desk;
pub use message::{Message, Names, Row};
pub use news::{Cause, News, NewsKind};
pub use outbox::Delivery;
pub use send::DeliveryError;
pub use service::{Notifications, Service, Tested};
pub use settings::{Channel, ChannelName, MailChannel, MailSecurity, NotificationSettings, Route, WebhookChannel};
pub use subscriber::{NewsSubscriber, Noted};
pub use template::{MAX_TEMPLATE_BYTES, Template, TemplateError};
