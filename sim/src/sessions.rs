//! Users who sign in to the router with a password, and come back with sessions of every state.
//!
//! It knows by itself until when each session is good, so that the router can be held to it.

use pulse::engine::Millis;
use pulse::security::SessionRules;

use crate::streams::Stream;

/// Short enough that sessions end within a scenario.
pub(crate) const RULES: SessionRules = SessionRules { idle: Millis::from_secs(45), longest: Millis::from_mins(3) };
/// The password of everybody.
pub(crate) const PASSWORD: &str = "a lantern in the fog";
/// The users, by name; the last one is the admin.
pub(crate) const USERS: [&str; 3] = ["victor", "olga", "alice"];
const ADMIN: usize = 2;
/// Long before any clock of a scenario.
const NEVER: i64 = i64::MIN / 2;
/// Ended sessions that are kept to be tried again.
const MAX_ENDED: usize = 16;

/// A session as its user's browser has it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// What the browser sends as `Cookie`.
    pub(crate) cookie: String,
    /// What its page sends with a call that changes something.
    pub(crate) csrf: String,
    began: i64,
    seen: i64,
}

impl Session {
    /// A session that was opened at `now`, in milliseconds since 1970.
    pub(crate) fn opened(cookie: String, csrf: String, now: i64) -> Self {
        Self { cookie, csrf, began: now, seen: now }
    }

    fn is_good(&self, now: i64) -> bool {
        let after = |at: i64, span: Millis| at + span.get().cast_signed();
        now < after(self.seen, RULES.idle).min(after(self.began, RULES.longest))
    }
}

/// How somebody comes to the router.
#[derive(Debug)]
pub(crate) enum Visit {
    /// With the session that they have; it may have ended meanwhile.
    Comes(usize),
    /// The same, having signed in first.
    SignsIn(usize),
    /// The same, having signed out; the session that has ended is sent.
    SignsOut(usize),
    /// The same, and the page of another site sent the call, without a CSRF token.
    WithoutCsrf(usize),
    /// The same with the CSRF token of somebody else's session.
    WithForeignCsrf(usize),
    /// With a session that ended some time ago.
    WithEnded(usize),
    /// Somebody guesses the user's password.
    Guesses(usize),
}

/// What a call carries, and whether that may manage.
pub(crate) struct Carried {
    /// The value of `Cookie`.
    pub(crate) cookie: String,
    /// The value of `X-CSRF-Token`.
    pub(crate) csrf: Option<String>,
    /// Whether an admin's session is good, and the call comes from a page of ours.
    pub(crate) allowed: bool,
}

/// The browsers of all users.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    current: [Option<Session>; USERS.len()],
    ended: Vec<Session>,
}

impl Sessions {
    /// How the next of them comes.
    pub(crate) fn next_visit(&self, draws: &mut Stream, now: i64) -> Visit {
        let user = [0, 1, ADMIN, ADMIN, ADMIN][draws.below(5) as usize];
        let good = self.current[user].as_ref().is_some_and(|session| session.is_good(now));
        match draws.below(12) {
            0 => Visit::Guesses(user),
            1 => Visit::WithoutCsrf(user),
            2 => Visit::WithForeignCsrf(user),
            3 if !self.ended.is_empty() => Visit::WithEnded(draws.below(self.ended.len() as u64) as usize),
            4 if good => Visit::SignsOut(user),
            5 => Visit::SignsIn(user),
            // Half of those whose session has ended find out by a call.
            6..=8 if !good => Visit::SignsIn(user),
            _ => Visit::Comes(user),
        }
    }

    /// A user has a new session; the one that they had is left to its end, if it was not signed out.
    pub(crate) fn open(&mut self, user: usize, session: Session) {
        self.current[user] = Some(session);
    }

    /// The session of a user, if they have one.
    pub(crate) fn of(&self, user: usize) -> Option<&Session> {
        self.current[user].as_ref()
    }

    /// The session of a user that was signed out.
    pub(crate) fn signed_out(&mut self, user: usize) -> Option<Carried> {
        let session = Session { seen: NEVER, ..self.current[user].take()? };
        let carried = Carried { cookie: session.cookie.clone(), csrf: Some(session.csrf.clone()), allowed: false };
        self.keep_ended(session);
        Some(carried)
    }

    /// What a call of `visit` carries at `now`; nothing if its user has no session. It counts as a use of the session.
    pub(crate) fn carry(&mut self, visit: &Visit, now: i64) -> Option<Carried> {
        let (user, csrf) = match *visit {
            Visit::WithEnded(number) => {
                // One that had ended by a clock which was set back since may be good again, or be forgotten.
                let session = self.ended.get(number).filter(|session| !session.is_good(now))?;
                let csrf = Some(session.csrf.clone());
                return Some(Carried { cookie: session.cookie.clone(), csrf, allowed: false });
            }
            Visit::Comes(user) | Visit::SignsIn(user) | Visit::SignsOut(user) | Visit::Guesses(user) => {
                (user, self.of(user).map(|session| session.csrf.clone()))
            }
            Visit::WithoutCsrf(user) => (user, None),
            Visit::WithForeignCsrf(user) => {
                (user, self.of((user + 1) % USERS.len()).map(|session| session.csrf.clone()))
            }
        };
        let ours = !matches!(visit, Visit::WithoutCsrf(_) | Visit::WithForeignCsrf(_));
        let session = self.current[user].as_mut()?;
        let good = session.is_good(now);
        let carried = Carried { cookie: session.cookie.clone(), csrf, allowed: good && ours && user == ADMIN };
        if good {
            // A use is not undone by a clock that is set back.
            session.seen = session.seen.max(now);
        } else if let Some(session) = self.current[user].take() {
            self.keep_ended(session);
        }
        Some(carried)
    }

    fn keep_ended(&mut self, session: Session) {
        if self.ended.len() == MAX_ENDED {
            self.ended.remove(0);
        }
        self.ended.push(session);
    }
}

impl Visit {
    /// Its name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Comes(_) => "session",
            Self::SignsIn(_) => "new session",
            Self::SignsOut(_) => "signed-out session",
            Self::WithoutCsrf(_) => "session without CSRF token",
            Self::WithForeignCsrf(_) => "session with another's CSRF token",
            Self::WithEnded(_) => "ended session",
            Self::Guesses(_) => "wrong password",
        }
    }
}
