//! Secrets as they stand in files and in the history: encrypted, and bound to the instance and the field they are for.
//!
//! A sealed secret reads `1.KEY.DATA`: the form, the name of the key, and base64url of a nonce with what
//! XChaCha20-Poly1305 made of the text. Moved to another instance or field it does not open.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::engine::InstanceKey;
use crate::security::{KeyFile, NoRandomness, random_bytes};
use crate::targets::Secret;

const FORM: &str = "1";
const NONCE_BYTES: usize = 24;
const PURPOSE: &[u8] = b"pulse instance secret 1\n";
const NAME: &[u8] = b"pulse key name 1\n";

/// Where a secret belongs.
#[derive(Clone, Copy)]
pub(super) struct SecretPlace<'a> {
    pub(super) instance: &'a InstanceKey,
    /// `secret` or `password`.
    pub(super) field: &'a str,
}

impl SecretPlace<'_> {
    /// What is authenticated beside the secret. The length keeps the key from lending its end to the field.
    fn associated(self) -> Vec<u8> {
        let instance = self.instance.to_string();
        let mut bytes = PURPOSE.to_vec();
        bytes.extend_from_slice(&(instance.len() as u64).to_be_bytes());
        bytes.extend_from_slice(instance.as_bytes());
        bytes.extend_from_slice(self.field.as_bytes());
        bytes
    }
}

/// A key that seals secrets, and its name.
pub(super) struct SealingKey {
    name: String,
    cipher: XChaCha20Poly1305,
    /// Tells texts apart without telling what they are.
    tag_key: Zeroizing<[u8; 32]>,
}

/// Why a sealed secret does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// It is no sealed secret of ours.
    #[error("is not an encrypted secret of this version; give the secret anew as a plain text")]
    Malformed,
    /// There is no key file.
    #[error("cannot be decrypted, since secrets.key is not in the data folder; restore it, or give the secret anew")]
    NoKey,
    /// Another key sealed it.
    #[error("was encrypted with another key than secrets.key; restore that key, or give the secret anew")]
    OtherKey,
    /// It was changed, or belongs elsewhere.
    #[error("does not belong to this instance and field, or was altered; give the secret anew as a plain text")]
    OtherPlace,
}

impl SealingKey {
    pub(super) fn new(key: &KeyFile) -> Self {
        let digest = |purpose: &[u8]| -> [u8; 32] {
            Sha256::new().chain_update(purpose).chain_update(key.bytes()).finalize().into()
        };
        Self {
            name: URL_SAFE_NO_PAD.encode(&digest(NAME)[..6]),
            cipher: XChaCha20Poly1305::new(key.bytes().into()),
            tag_key: Zeroizing::new(digest(b"pulse entity tag 1\n")),
        }
    }

    pub(super) fn seal(&self, place: SecretPlace<'_>, secret: &str) -> Result<String, NoRandomness> {
        let random = random_bytes()?;
        let nonce: [u8; NONCE_BYTES] = std::array::from_fn(|index| random[index]);
        let payload = Payload { msg: secret.as_bytes(), aad: &place.associated() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.expect("a secret is far shorter than the cipher's limit of 256 GiB");
        let data = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        Ok(format!("{FORM}.{}.{data}", self.name))
    }

    pub(super) fn open(&self, place: SecretPlace<'_>, sealed: &str) -> Result<Secret, SealError> {
        if !self.sealed(sealed)? {
            return Err(SealError::OtherKey);
        }
        let data = sealed.rsplit('.').next().and_then(|data| URL_SAFE_NO_PAD.decode(data).ok());
        let data = data.ok_or(SealError::Malformed)?;
        let (nonce, text) = data.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let payload = Payload { msg: text, aad: &place.associated() };
        let text = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::OtherPlace)?;
        match String::from_utf8(text) {
            Ok(text) => Ok(Secret::new(text)),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                Err(SealError::Malformed)
            }
        }
    }

    /// Whether this key sealed it, as far as its form tells.
    pub(super) fn sealed(&self, sealed: &str) -> Result<bool, SealError> {
        let mut parts = sealed.split('.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(FORM), Some(name), Some(_), None) => Ok(name == self.name),
            _ => Err(SealError::Malformed),
        }
    }

    /// A tag of a text. Without the key it tells nothing of the text, not even to who guesses it.
    pub(super) fn tag(&self, text: &[u8]) -> String {
        let digest = Sha256::new().chain_update(*self.tag_key).chain_update(text).finalize();
        URL_SAFE_NO_PAD.encode(&digest[..16])
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealingKey({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&KeyFile::fixed([byte; 32]))
    }

    fn instance(name: &str) -> InstanceKey {
        name.parse().unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_in_its_place_and_in_no_other() {
        let (a, b) = (instance("pve::a"), instance("pve::b"));
        let place = SecretPlace { instance: &a, field: "secret" };
        let sealed = key(1).seal(place, "hunter2").unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_ne!(sealed, key(1).seal(place, "hunter2").unwrap(), "no two look alike");
        assert_eq!(key(1).open(place, &sealed).unwrap().expose(), "hunter2");
        for (instance, field) in [(&b, "secret"), (&a, "password")] {
            let moved = SecretPlace { instance, field };
            assert_eq!(key(1).open(moved, &sealed), Err(SealError::OtherPlace));
        }
        assert_eq!(key(2).open(place, &sealed), Err(SealError::OtherKey));
    }

    proptest! {
        #[test]
        fn no_text_that_was_not_sealed_opens(text in "(1\\.)?[a-zA-Z0-9_.-]{0,60}") {
            let a = instance("pve::a");
            let opened = key(1).open(SecretPlace { instance: &a, field: "secret" }, &text);
            prop_assert!(opened.is_err());
        }

        #[test]
        fn a_sealed_secret_with_one_character_changed_does_not_open(at in 0usize..200, with in "[a-zA-Z0-9_.-]") {
            let a = instance("pve::a");
            let place = SecretPlace { instance: &a, field: "secret" };
            let sealed = key(1).seal(place, "hunter2").unwrap();
            let at = at % sealed.len();
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != sealed);
            // The last character of base64 may carry bits that mean nothing; those are refused too.
            prop_assert!(key(1).open(place, &changed).is_err());
        }
    }
}
