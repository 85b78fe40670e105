//! Passwords: which ones are taken, and their argon2id hashes, of which a few are made at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, PasswordHash, Version};
use thiserror::Error;
use tokio::sync::Semaphore;
use zeroize::Zeroize;

use super::random::{NoRandomness, random_bytes};
use crate::targets::Secret;

/// NIST SP 800-63B-4 wants 15 where the password is the only factor.
const MIN_CHARS: usize = 15;
const MAX_CHARS: usize = 256;
/// Fewer different characters than this are one key held down, or a few in turn.
const MIN_DIFFERENT: usize = 5;
/// How many hashes are made at once. Each takes 19 MiB and one thread.
const AT_ONCE: usize = 2;
/// How many wait for their turn; more are sent away.
const WAITING: usize = 32;

/// A password that may be set: 15 to 256 characters of any kind. There is no rule about which ones (NIST SP 800-63B).
#[derive(Clone, Debug)]
pub struct NewPassword(Secret);

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnfitPassword {
    /// It is soon guessed.
    #[error("a password has {MIN_CHARS} characters or more; a few words in a row are easy to remember")]
    TooShort,
    /// It is costly to handle.
    #[error("a password has {MAX_CHARS} characters at most")]
    TooLong,
    /// It repeats itself.
    #[error("the password is a few characters in turn, or a row of them; choose one that is harder to guess")]
    Repeats,
    /// It is in plain sight.
    #[error("the password is made of the user's name or of this program's; choose one that is harder to guess")]
    Obvious,
}

impl NewPassword {
    /// Takes a password for the user of this name.
    ///
    /// # Errors
    /// It is too short, too long, or the first that anybody would guess.
    pub fn new(password: Secret, user: &str) -> Result<Self, UnfitPassword> {
        let text = password.expose();
        match text.chars().count() {
            ..MIN_CHARS => return Err(UnfitPassword::TooShort),
            MIN_CHARS..=MAX_CHARS => {}
            _ => return Err(UnfitPassword::TooLong),
        }
        if is_a_pattern(text) {
            return Err(UnfitPassword::Repeats);
        }
        if is_made_of(&text.to_lowercase(), &[user, "pulse", "proxmox", "password", "admin"]) {
            return Err(UnfitPassword::Obvious);
        }
        Ok(Self(password))
    }
}

/// Whether it is a few characters in turn, or a row such as 123456789012345.
fn is_a_pattern(text: &str) -> bool {
    let codes: Vec<u32> = text.chars().map(u32::from).collect();
    let different: BTreeSet<&u32> = codes.iter().collect();
    let steps: BTreeSet<u32> = codes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    different.len() < MIN_DIFFERENT || steps.len() < 3
}

/// Whether `text` is nothing but these words, with digits and signs in between.
fn is_made_of(text: &str, words: &[&str]) -> bool {
    let mut rest = text.to_owned();
    for word in words.iter().filter(|word| !word.is_empty()) {
        rest = rest.replace(&word.to_lowercase(), "");
    }
    rest.chars().filter(|it| it.is_alphabetic()).count() < MIN_DIFFERENT && rest.len() < text.len()
}

/// What a hash costs to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashCost {
    /// Argon2id with 19 MiB, two passes and one lane, as OWASP recommends.
    Full,
    /// Next to nothing: for simulations, whose time is virtual and whose passwords protect nothing.
    Least,
}

impl HashCost {
    fn argon2(self) -> Argon2<'static> {
        const LEAST: Params = match Params::new(Params::MIN_M_COST, 1, 1, None) {
            Ok(params) => params,
            Err(_) => Params::DEFAULT,
        };
        let params = match self {
            Self::Full => Params::DEFAULT,
            Self::Least => LEAST,
        };
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
    }

    /// A hash that no password has, but as costly to compare with as any.
    fn of_nobody(self) -> String {
        let argon2 = self.argon2();
        let (m, t, p) = (argon2.params().m_cost(), argon2.params().t_cost(), argon2.params().p_cost());
        let (salt, output) = ("A".repeat(22), "A".repeat(43));
        format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${output}")
    }
}

/// Makes and compares hashes, off the threads that carry calls. Cheap to clone; all clones share the bounds.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use pulse::security::{HashCost, Hasher, NewPassword};
/// use pulse::targets::Secret;
/// let hasher = Hasher::new(HashCost::Full);
/// let secret = || Secret::new("four words in a row".to_owned());
/// let hash = hasher.hash(NewPassword::new(secret(), "alice").unwrap()).await.unwrap();
/// assert!(hash.starts_with("$argon2id$"));
/// assert!(hasher.verify(secret(), Some(hash)).await.unwrap());
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Hasher {
    cost: HashCost,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// What hashes were made in, for the next ones: given back to the allocator by ever other threads, it would pile up.
    memory: Arc<Mutex<Vec<Memory>>>,
}

type Memory = Vec<Block>;

/// Why no hash was made or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HashError {
    /// Too many wait already.
    #[error("too many passwords are being checked; try again in a moment")]
    Overloaded,
    /// The system has no randomness to give.
    #[error("{0} for a salt")]
    NoRandomness(#[from] NoRandomness),
    /// A fault of ours, or a hash that is none.
    #[error("the password could not be hashed")]
    Broken,
}

impl Hasher {
    /// A hasher at this cost.
    pub fn new(cost: HashCost) -> Self {
        let (turns, places) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(AT_ONCE + WAITING)));
        Self { cost, turns, places, memory: Arc::default() }
    }

    /// The hash of a password, as a PHC string.
    ///
    /// # Errors
    /// Too many wait already, or the system has no randomness.
    pub async fn hash(&self, password: NewPassword) -> Result<String, HashError> {
        let salt = random_bytes()?;
        let argon2 = self.cost.argon2();
        self.in_turn(move |memory| {
            let salt = Salt::new(&salt[..argon2::RECOMMENDED_SALT_LEN]).map_err(|_| HashError::Broken)?;
            let hash = PasswordHash {
                algorithm: ARGON2ID_IDENT,
                version: Some(Version::V0x13.into()),
                params: ParamsString::try_from(argon2.params()).map_err(|_| HashError::Broken)?,
                salt: Some(salt),
                hash: Some(output(&argon2, password.0.expose(), &salt, memory)?),
            };
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether a password is the one of this hash. Without a hash it is not, which takes as long to say.
    ///
    /// # Errors
    /// Too many wait already, or the hash is none.
    pub async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool, HashError> {
        let nobody = self.cost.of_nobody();
        self.in_turn(move |memory| {
            let known = hash.is_some();
            let hash = hash.unwrap_or(nobody);
            let hash = PasswordHash::new(&hash).map_err(|_| HashError::Broken)?;
            let (Some(salt), Some(expected), true) = (hash.salt, hash.hash, hash.algorithm == ARGON2ID_IDENT) else {
                return Err(HashError::Broken);
            };
            // The cost is the one that the hash was made at.
            let params = Params::try_from(&hash).map_err(|_| HashError::Broken)?;
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            // An absurdly long one cannot have been set, and is not worth the time.
            let text = password.expose();
            let text = if text.chars().nth(MAX_CHARS).is_some() { "" } else { text };
            // Outputs are compared in constant time.
            Ok(output(&argon2, text, &salt, memory)? == expected && known)
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let _place = self.places.try_acquire().map_err(|_| HashError::Overloaded)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| HashError::Broken)?;
        let shelf = Arc::clone(&self.memory);
        let done = tokio::task::spawn_blocking(move || {
            let shelf = || shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let mut memory = shelf().pop().unwrap_or_default();
            let done = work(&mut memory);
            memory.iter_mut().zeroize();
            shelf().push(memory);
            // Held to the end of the work, even if whoever asked has left.
            drop(turn);
            done
        });
        done.await.map_err(|_| HashError::Broken)?
    }
}

fn output(argon2: &Argon2<'_>, password: &str, salt: &[u8], memory: &mut Memory) -> Result<Output, HashError> {
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    memory.resize(argon2.params().block_count(), Block::default());
    argon2
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut output, &mut memory[..])
        .map_err(|_| HashError::Broken)?;
    Output::new(&output).map_err(|_| HashError::Broken)
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier as _;
    use futures::future::join_all;

    use super::*;

    fn taken(password: &str) -> Result<(), UnfitPassword> {
        NewPassword::new(Secret::new(password.to_owned()), "alice").map(drop)
    }

    fn password(text: &str) -> NewPassword {
        NewPassword::new(Secret::new(text.to_owned()), "alice").unwrap()
    }

    #[test]
    fn length_is_all_that_is_asked_of_a_password_that_is_not_the_first_guess() {
        assert_eq!(taken("only lower case words"), Ok(()));
        assert_eq!(taken("пятнадцать знак"), Ok(()), "15 characters, not bytes");
        assert_eq!(taken(&"acegkbdf".repeat(32)), Ok(()));
        assert_eq!(taken("Tr0ub4dor&3"), Err(UnfitPassword::TooShort));
        assert_eq!(taken(&"acegkbdf".repeat(33)), Err(UnfitPassword::TooLong));
        assert_eq!(taken("abababababababab"), Err(UnfitPassword::Repeats));
        assert_eq!(taken("123456789012345"), Err(UnfitPassword::Repeats));
        assert_eq!(taken("Alice-Pulse-Admin-2026"), Err(UnfitPassword::Obvious));
        assert_eq!(taken("password12345678"), Err(UnfitPassword::Obvious));
        assert_eq!(taken("alice walks in pulsing rain"), Ok(()));
    }

    #[tokio::test]
    async fn a_hash_is_argon2id_at_the_documented_cost_and_knows_its_password_alone() {
        let hasher = Hasher::new(HashCost::Full);
        let hash = hasher.hash(password("four words in a row")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let verify = |text: &str, hash: Option<String>| hasher.verify(Secret::new(text.to_owned()), hash);
        assert_eq!(verify("four words in a row", Some(hash.clone())).await, Ok(true));
        assert_eq!(verify("four words in a rov", Some(hash.clone())).await, Ok(false));
        assert_eq!(verify("", Some(hash.clone())).await, Ok(false));
        assert_eq!(verify("four words in a row", None).await, Ok(false));
        assert_eq!(verify("four words in a row", Some("plain text".to_owned())).await, Err(HashError::Broken));
        assert_ne!(hash, hasher.hash(password("four words in a row")).await.unwrap(), "each has its own salt");
        let by_the_crate = PasswordHash::new(&hash).unwrap();
        assert_eq!(Argon2::default().verify_password(b"four words in a row", &by_the_crate), Ok(()));
    }

    #[test]
    fn comparing_with_nobodys_hash_costs_what_any_comparison_does() {
        for cost in [HashCost::Full, HashCost::Least] {
            let nobody = PasswordHash::new(&cost.of_nobody()).unwrap();
            let (found, argon2) = (Params::try_from(&nobody).unwrap(), cost.argon2());
            let costs = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
            assert_eq!(costs(&found), costs(argon2.params()));
            assert_eq!(found.output_len(), Some(Params::DEFAULT_OUTPUT_LEN));
        }
    }

    #[tokio::test]
    async fn a_flood_is_sent_away_once_enough_wait() {
        let hasher = Hasher::new(HashCost::Least);
        let all: Vec<_> = (0..200).map(|_| hasher.verify(Secret::new("x".to_owned()), None)).collect();
        let answers = join_all(all).await;
        let sent_away = answers.iter().filter(|it| **it == Err(HashError::Overloaded)).count();
        // One that is done early leaves its place to another.
        assert!((1..=200 - AT_ONCE - WAITING).contains(&sent_away), "{sent_away} were sent away");
        assert!(hasher.memory.lock().unwrap().len() <= AT_ONCE, "the memory of hashes is bounded");
        assert_eq!(hasher.verify(Secret::new("x".to_owned()), None).await, Ok(false), "and then it goes on");
    }
}
