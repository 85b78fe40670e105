//! Callers who sign in: users with sessions, guests with tokens that end, and the first admin.

use std::path::Path;

use pulse::engine::Millis;
use pulse::runtime::Clock;
use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use crate::load::{Caller, TOO_MANY, client, told};

pub(crate) const TOKENS: &str = "/api/security/tokens";
pub(crate) const AUDIT: &str = "/api/audit";
const ME: &str = "/api/security/me";
/// The first admin.
pub(crate) const USER: &str = "soak";
/// One visit in so many begins with a wrong password: rare enough that the address is never held up for long.
const VISITS_TO_A_SLIP: u64 = 30;

/// Who somebody is who has signed in.
struct Session {
    cookie: String,
    csrf: String,
}

/// Makes the first admin with the setup token, and a token of the highest role as the daemon's owner.
pub(crate) async fn set_up(api: &str, socket: &Path, setup_token: &str, password: &str) -> Result<String, String> {
    let admin = json!({"token": setup_token, "name": USER, "password": password});
    let made = client().post(format!("{api}/api/setup")).json(&admin).send().await;
    made.and_then(reqwest::Response::error_for_status).map_err(|error| told(&error))?;
    let owner = reqwest::Client::builder().unix_socket(socket).build().map_err(|error| told(&error))?;
    let wanted = json!({"name": "soak", "role": "admin", "reason": "soak"});
    let asked = async {
        let answer = owner.post(format!("http://localhost{TOKENS}")).json(&wanted).send().await?;
        answer.error_for_status()?.json::<Value>().await
    };
    let issued = asked.await.map_err(|error| told(&error))?;
    issued["token"].as_str().map(str::to_owned).ok_or_else(|| "the daemon issued no token".to_owned())
}

impl Caller {
    /// Gets a token that soon ends, comes in with it, is kept out once it has ended, and has it revoked.
    pub(crate) async fn guest(self) {
        const VALID: Millis = Millis::from_secs(8);
        for visit in 0_u64.. {
            if !self.pause(Millis::from_secs(17)).await {
                return;
            }
            let name = format!("guest {visit}");
            let ends = jiff::SignedDuration::from_millis(i64::try_from(VALID.get()).unwrap_or(i64::MAX));
            let ends = self.clock.wall().checked_add(ends).map(|at| at.to_string()).unwrap_or_default();
            let wanted = json!({"name": name, "role": "viewer", "expiresAt": ends, "reason": "soak"});
            let Some(issued) = self.call("guests", self.post(TOKENS, &wanted), &[201, TOO_MANY]).await else {
                continue;
            };
            let issued: Value = serde_json::from_str(&issued).unwrap_or_default();
            let Some(token) = issued["token"].as_str() else { continue };
            let come_in = || self.client.get(self.url("/api/version")).bearer_auth(token);
            self.call("guests", come_in(), &[200]).await;
            self.call("guests", self.get(AUDIT), &[200]).await;
            if self.pause(VALID + Millis::from_secs(1)).await {
                self.call("guests", come_in(), &[401]).await;
            }
            let place = self.url(TOKENS) + "/" + &name.replace(' ', "%20");
            let revoke = self.client.delete(place).bearer_auth(&self.target.token).json(&json!({"reason": "soak"}));
            self.call("guests", revoke, &[200, TOO_MANY]).await;
        }
    }

    /// Signs in, looks around, and signs out; or goes away without a word, so that the session is left to end.
    pub(crate) async fn user(self) {
        const WHO: &str = "users";
        for visit in 0_u64.. {
            if !self.pause(Millis::from_secs(23)).await {
                return;
            }
            if visit % VISITS_TO_A_SLIP == VISITS_TO_A_SLIP - 1 {
                let slip = json!({"name": USER, "password": "not the right password"});
                self.call(WHO, self.client.post(self.url("/api/login")).json(&slip), &[401, TOO_MANY]).await;
            }
            let session = match self.sign_in().await {
                Ok(Some(session)) => session,
                Ok(None) => continue,
                Err(wrong) => {
                    self.ledger.note(WHO, Err(wrong));
                    continue;
                }
            };
            self.ledger.note(WHO, Ok(()));
            let me = || self.client.get(self.url(ME)).header(COOKIE, &session.cookie);
            self.call(WHO, me(), &[200]).await;
            if visit % 3 == 2 {
                continue;
            }
            let leave = self.client.post(self.url("/api/logout")).header(COOKIE, &session.cookie);
            self.call(WHO, leave.header("x-csrf-token", &session.csrf), &[204]).await;
            self.call(WHO, me(), &[401]).await;
        }
    }

    /// A new session; `None` while failures hold the address up.
    async fn sign_in(&self) -> Result<Option<Session>, String> {
        let right = json!({"name": USER, "password": self.target.password});
        let answer =
            self.client.post(self.url("/api/login")).json(&right).send().await.map_err(|error| told(&error))?;
        match answer.status().as_u16() {
            200 => {}
            TOO_MANY => return Ok(None),
            other => return Err(format!("{other} instead of 200 for the right password")),
        }
        let set = answer.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let cookie = set.split(';').next().unwrap_or_default().to_owned();
        let me: Value = answer.json().await.map_err(|error| told(&error))?;
        let csrf = me["session"]["csrfToken"].as_str().unwrap_or_default().to_owned();
        Ok(Some(Session { cookie, csrf }))
    }
}
