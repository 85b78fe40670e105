//! The cookie that carries a session, read and written.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

use super::headers::Encrypted;
use crate::targets::Secret;

/// Over TLS the prefix has browsers keep the cookie from being set by other hosts of the domain or without TLS.
const OVER_TLS: &str = "__Host-pulse_session";
/// Without TLS browsers would not take the prefix.
const PLAIN: &str = "pulse_session";
/// Longer ones are none of ours.
const MAX_LENGTH: usize = 128;

/// The name of the cookie on this kind of connection.
fn name(encrypted: Option<&Encrypted>) -> &'static str {
    if encrypted.is_some() { OVER_TLS } else { PLAIN }
}

/// The session's cookie of a request. Of two with the same name nobody knows which one is ours, so neither counts.
pub(super) fn read<'a>(headers: &'a HeaderMap, encrypted: Option<&Encrypted>) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut ours = pairs.filter(|(found, _)| found.trim() == name(encrypted)).map(|(_, value)| value.trim());
    let value = ours.next().filter(|value| !value.is_empty() && value.len() <= MAX_LENGTH)?;
    ours.next().is_none().then_some(value)
}

/// Has a browser keep the cookie for `seconds`, out of the reach of scripts and of other sites.
pub(super) fn keep(cookie: &Secret, seconds: u64, encrypted: Option<&Encrypted>) -> Option<HeaderValue> {
    set(cookie.expose(), seconds, encrypted)
}

/// Has a browser forget the cookie.
pub(super) fn forget(encrypted: Option<&Encrypted>) -> Option<HeaderValue> {
    set("", 0, encrypted)
}

fn set(value: &str, seconds: u64, encrypted: Option<&Encrypted>) -> Option<HeaderValue> {
    let secure = if encrypted.is_some() { "; Secure" } else { "" };
    let name = name(encrypted);
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()).map(|value| (COOKIE, value)).collect()
    }

    fn read_plain(lines: &[&str]) -> Option<String> {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        read(&headers(&lines), None).map(str::to_owned)
    }

    #[test]
    fn the_cookie_is_found_among_others_and_in_any_line() {
        assert_eq!(read_plain(&["pulse_session=abc"]).as_deref(), Some("abc"));
        assert_eq!(read_plain(&["theme=dark; pulse_session=abc;x=y"]).as_deref(), Some("abc"));
        assert_eq!(read_plain(&["theme=dark", "pulse_session=abc"]).as_deref(), Some("abc"));
        for other in ["", "pulse_session", "pulse_session=", "xpulse_session=abc", "__Host-pulse_session=abc", ";;=;"] {
            assert_eq!(read_plain(&[other]), None, "{other:?}");
        }
        assert_eq!(read_plain(&[&format!("pulse_session={}", "a".repeat(129))]), None);
    }

    #[test]
    fn of_two_cookies_with_its_name_neither_counts() {
        assert_eq!(read_plain(&["pulse_session=abc; pulse_session=def"]), None);
        assert_eq!(read_plain(&["pulse_session=abc", "pulse_session=abc"]), None);
    }

    #[test]
    fn over_tls_only_the_cookie_that_was_set_over_tls_counts() {
        let both = headers(&[b"pulse_session=plain; __Host-pulse_session=tls"]);
        assert_eq!(read(&both, Some(&Encrypted)), Some("tls"));
        assert_eq!(read(&headers(&[b"pulse_session=plain"]), Some(&Encrypted)), None);
    }

    #[test]
    fn a_cookie_is_out_of_the_reach_of_scripts_and_of_other_sites() {
        let text = |header: Option<HeaderValue>| header.unwrap().to_str().unwrap().to_owned();
        let secret = Secret::new("abc".to_owned());
        assert_eq!(
            text(keep(&secret, 60, Some(&Encrypted))),
            "__Host-pulse_session=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(text(keep(&secret, 60, None)), "pulse_session=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Strict");
        assert_eq!(text(forget(None)), "pulse_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            for encrypted in [None, Some(&Encrypted)] {
                let _ = read(&headers(&lines), encrypted);
            }
        }

        #[test]
        fn what_was_set_is_read_back_whatever_stands_beside_it(
            value in "[A-Za-z0-9_-]{1,128}",
            before in "[a-z]{1,8}=[ -:<-~]{0,20}; ",
            after in "(;|; [a-z]{1,8}(=[ -:<-~]{0,20})?)?",
        ) {
            let line = format!("{before}pulse_session={value}{after}");
            prop_assert_eq!(read_plain(&[&line]), Some(value));
        }
    }
}
