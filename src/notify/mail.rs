//! A message as a mail by SMTP.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::message::Message;
use super::send::DeliveryError;
use super::settings::{MailChannel, MailSecurity};

/// How long the server may take for each step.
const STEP: Duration = Duration::from_secs(10);

pub(super) async fn send(channel: &MailChannel, message: &Message) -> Result<(), DeliveryError> {
    let mail = mail(channel, message).map_err(DeliveryError::permanent)?;
    let mut transport =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&channel.host).port(channel.port).timeout(Some(STEP));
    transport = transport.tls(tls(channel).map_err(|error| describe(&error))?);
    if let Some((user, password)) = &channel.credentials {
        transport = transport.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    transport.build().send(mail).await.map(drop).map_err(|error| describe(&error))
}

fn mail(channel: &MailChannel, message: &Message) -> Result<lettre::Message, lettre::error::Error> {
    let mut mail = lettre::Message::builder()
        .from(channel.from.clone())
        .subject(&message.title)
        // The same where a message is sent again, so that mail programs show it once.
        .message_id(Some(format!("<{}@{}>", message.id, channel.from.email.domain())));
    for to in &channel.to {
        mail = mail.to(to.clone());
    }
    mail.header(ContentType::TEXT_PLAIN).body(message.text.clone())
}

fn tls(channel: &MailChannel) -> Result<Tls, Error> {
    if channel.security == MailSecurity::None {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(channel.host.clone());
    if let Some(authorities) = &channel.authorities {
        parameters = parameters.certificate_store(CertificateStore::None);
        for authority in authorities {
            parameters = parameters.add_root_certificate(Certificate::from_der(authority.to_vec())?);
        }
    }
    let parameters = parameters.build_rustls()?;
    Ok(if channel.security == MailSecurity::Tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

fn describe(error: &Error) -> DeliveryError {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = inner.source();
    }
    let told = format!("the mail was not taken: {told}");
    if error.is_permanent() { DeliveryError::permanent(told) } else { DeliveryError::transient(told) }
}
