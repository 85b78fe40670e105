//! Who calls the router: what each of them sends along, and whether that may manage.

use std::net::Ipv4Addr;

use pulse::engine::Millis;
use pulse::security::{self, NewToken, Role, TokenError, TokenStore};

use crate::sessions::Carried;

/// How long the token lives that is soon expired.
pub(crate) const SHORT_LIFE: Millis = Millis::from_mins(2);
pub(crate) const TOKENS_CALL_FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Few call from here, so that the limit of an address never hides what a session is worth.
pub(crate) const USERS_CALL_FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const PASSWORDS_ARE_GUESSED_FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Who makes a call.
pub(crate) struct Caller {
    pub(crate) kind: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) address: Ipv4Addr,
    /// Whether they may manage.
    pub(crate) allowed: bool,
}

impl Caller {
    pub(crate) fn with_token(kind: &'static str, token: Option<&String>, allowed: bool) -> Self {
        let headers = token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect();
        Self { kind, headers, address: TOKENS_CALL_FROM, allowed }
    }

    pub(crate) fn with_session(kind: &'static str, carried: Option<Carried>) -> Self {
        let Some(Carried { cookie, csrf, allowed }) = carried else {
            return Self { kind, headers: Vec::new(), address: USERS_CALL_FROM, allowed: false };
        };
        let csrf = csrf.map(|token| ("x-csrf-token", token));
        let headers = [("cookie", cookie)].into_iter().chain(csrf).collect();
        Self { kind, headers, address: USERS_CALL_FROM, allowed }
    }
}

/// The tokens that are sent.
pub(crate) struct Tokens {
    pub(crate) admins: Vec<String>,
    pub(crate) operator: String,
    pub(crate) viewer: String,
    pub(crate) expiring: String,
}

impl Tokens {
    pub(crate) async fn issue(tokens: &TokenStore, expires_at: jiff::Timestamp) -> Result<Self, TokenError> {
        let issue = async |name: &str, role, expires_at| -> Result<String, TokenError> {
            let new = NewToken { name: name.to_owned(), role, expires_at };
            Ok(tokens.create(new, security::Caller::SYSTEM, None).await?.token.expose().to_owned())
        };
        Ok(Self {
            admins: vec![issue("admin 1", Role::Admin, None).await?, issue("admin 2", Role::Admin, None).await?],
            operator: issue("operator", Role::Operator, None).await?,
            viewer: issue("viewer", Role::Viewer, None).await?,
            expiring: issue("expiring", Role::Admin, Some(expires_at)).await?,
        })
    }
}
