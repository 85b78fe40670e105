//! The whole configuration in one file that a passphrase opens: settings, fleet, secrets and certificate authorities.
//!
//! The file is [`MAGIC`], the costs and the salt of Argon2id, a nonce, and what XChaCha20-Poly1305 makes of the JSON
//! inside; everything before that is authenticated with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::edit::PreparedInventory;
use super::entry;
use super::error::{ConfigErrors, Problem};
use super::files;
use super::follow::Follower;
use super::instances::{self, Content};
use super::json::Json;
use super::reference::{MAX_CA_BYTES, certificates_in};
use super::system::PreparedSettings;
use crate::security::random_bytes;
use crate::targets::Secret;

const MAGIC: &[u8; 16] = b"pulse config 1\r\n";
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = MAGIC.len() + 12 + SALT_BYTES + NONCE_BYTES;
/// The largest file that is read, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 128 * 1024 * 1024;
/// A passphrase protects a file that may lie anywhere, for ever.
const MIN_PASSPHRASE_CHARS: usize = 12;
/// What deriving the key costs: 64 MiB, three passes, four lanes; the second recommendation of RFC 9106.
const COSTS: Costs = Costs { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
/// What a file may ask of whoever opens it.
const HIGHEST_COSTS: Costs = Costs { memory_kib: 1024 * 1024, passes: 16, lanes: 16 };
/// Where imported authorities are kept, in the data folder.
const AUTHORITIES: &str = "authorities";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Why a file could not be made or opened. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// The passphrase could be guessed.
    #[error(
        "a passphrase has at least {MIN_PASSPHRASE_CHARS} characters; several words that do not belong together are good"
    )]
    WeakPassphrase,
    /// It is not such a file.
    #[error("the file is not an export of Pulse, or is cut off")]
    NotABundle,
    /// It is too large.
    #[error("the file is larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    /// The passphrase does not open it.
    #[error("the passphrase is wrong, or the file was altered")]
    WrongPassphrase,
    /// A later version wrote it.
    #[error("the file opens, but a later version of Pulse wrote it; import it with that version")]
    TooNew,
    /// There is no memory or randomness for it.
    #[error("the machine has no memory or randomness to spare for the encryption; try again")]
    NoResources,
    /// What is in it breaks rules.
    #[error("{0}")]
    Refused(ConfigErrors),
}

/// The configuration in plain text: never written anywhere as it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    format: u32,
    settings: Json,
    inventory: Json,
    /// Certificates in PEM form, by the path that an instance names them by.
    authorities: BTreeMap<String, String>,
}

const FORMAT: u32 = 1;

/// An import that is valid and yet to be written.
pub struct PreparedImport {
    /// `system.json`.
    pub settings: PreparedSettings,
    /// `instances.json`.
    pub inventory: PreparedInventory,
    authorities: BTreeMap<PathBuf, String>,
}

impl PreparedImport {
    /// Both files, without authorities of their own.
    pub fn of_files(settings: PreparedSettings, inventory: PreparedInventory) -> Self {
        Self { settings, inventory, authorities: BTreeMap::new() }
    }
}

impl Bundle {
    /// Encrypts it.
    ///
    /// # Errors
    /// The passphrase is too short, or the machine has no memory to spare.
    pub fn seal(&self, passphrase: &Secret) -> Result<Vec<u8>, BundleError> {
        if passphrase.expose().chars().count() < MIN_PASSPHRASE_CHARS {
            return Err(BundleError::WeakPassphrase);
        }
        let text = Zeroizing::new(serde_json::to_vec(self).expect("a tree of texts and numbers is always JSON"));
        let random = || random_bytes().map_err(|_| BundleError::NoResources);
        let mut file = MAGIC.to_vec();
        for cost in [COSTS.memory_kib, COSTS.passes, COSTS.lanes] {
            file.extend_from_slice(&cost.to_be_bytes());
        }
        file.extend_from_slice(&random()?[..SALT_BYTES]);
        file.extend_from_slice(&random()?[..NONCE_BYTES]);
        let header = Header::read(&file).ok_or(BundleError::NotABundle)?;
        let payload = Payload { msg: &text, aad: &file };
        let sealed = header.cipher(passphrase)?.encrypt(&XNonce::from(header.nonce), payload);
        file.extend_from_slice(&sealed.map_err(|_| BundleError::TooLarge)?);
        Ok(file)
    }

    /// Decrypts what [`Self::seal`] made.
    ///
    /// # Errors
    /// It is no such file, or the passphrase does not open it.
    pub fn open(file: &[u8], passphrase: &Secret) -> Result<Self, BundleError> {
        if file.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let header = Header::read(file).ok_or(BundleError::NotABundle)?;
        let (aad, msg) = file.split_at(HEADER_BYTES);
        let text = header.cipher(passphrase)?.decrypt(&XNonce::from(header.nonce), Payload { msg, aad });
        let text = Zeroizing::new(text.map_err(|_| BundleError::WrongPassphrase)?);
        let bundle: Self = serde_json::from_slice(&text).map_err(|_| BundleError::TooNew)?;
        if bundle.format == FORMAT { Ok(bundle) } else { Err(BundleError::TooNew) }
    }
}

struct Header {
    costs: Costs,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

impl Header {
    fn read(file: &[u8]) -> Option<Self> {
        let (magic, rest) = file.split_first_chunk::<16>()?;
        let (memory, rest) = rest.split_first_chunk::<4>()?;
        let (passes, rest) = rest.split_first_chunk::<4>()?;
        let (lanes, rest) = rest.split_first_chunk::<4>()?;
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>()?;
        let (nonce, _) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let number = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
        let costs = Costs { memory_kib: number(memory), passes: number(passes), lanes: number(lanes) };
        let bounded = costs.memory_kib <= HIGHEST_COSTS.memory_kib
            && costs.passes <= HIGHEST_COSTS.passes
            && costs.lanes <= HIGHEST_COSTS.lanes;
        (magic == MAGIC && bounded).then_some(Self { costs, salt: *salt, nonce: *nonce })
    }

    fn cipher(&self, passphrase: &Secret) -> Result<XChaCha20Poly1305, BundleError> {
        let Costs { memory_kib, passes, lanes } = self.costs;
        let params = Params::new(memory_kib, passes, lanes, None).map_err(|_| BundleError::NotABundle)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &self.salt, &mut *key)
            .map_err(|_| BundleError::NoResources)?;
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}

impl Follower {
    /// The whole configuration as it is accepted, with every secret that is stored or in a file. Blocks on the disk.
    ///
    /// Secrets in variables stay references.
    ///
    /// # Errors
    /// A file is broken as it stands.
    pub fn bundle(&mut self) -> Result<Bundle, ConfigErrors> {
        let seen = self.read();
        let refused = self.refused_inventory().or_else(|| self.refused_settings()).cloned();
        let (Some(settings), Some(inventory), None) = (seen.snapshot.settings, seen.snapshot.inventory, &refused)
        else {
            return Err(refused.unwrap_or_else(|| self.unreadable(Problem::KeepsChanging)));
        };
        let parse = |text: String| Json::parse(text.as_bytes()).map_err(|problem| self.unreadable(problem));
        let (settings, mut inventory) = (parse(settings)?, parse(inventory)?);
        let mut authorities = BTreeMap::new();
        if let Some(Json::Array(entries)) = inventory.get_mut("instances") {
            let secrets: BTreeMap<_, _> =
                self.instances().iter().map(|it| (&it.target.key, it.target.access.secret())).collect();
            for entry in entries {
                let secret = entry::key_of(entry).and_then(|key| secrets.get(&key).copied().flatten());
                for (_, value) in entry::secrets_mut(entry) {
                    if let Some(secret) = secret
                        && value.get("env").is_none()
                    {
                        *value = Json::Text(secret.expose().to_owned());
                    }
                }
                if let Some(Json::Text(path)) = entry.get("tls").and_then(|tls| tls.get("caFile")) {
                    let file = self.data_dir().path().join(path);
                    let pem = files::read(&file, MAX_CA_BYTES).map_err(|problem| self.unreadable(problem))?;
                    let pem = pem.map(|pem| String::from_utf8_lossy(&pem).into_owned()).unwrap_or_default();
                    authorities.insert(path.clone(), pem);
                }
            }
        }
        Ok(Bundle { format: FORMAT, settings, inventory, authorities })
    }

    /// Works out what an import changes, and writes nothing. Blocks on the disk.
    ///
    /// # Errors
    /// Everything in it that breaks a rule here.
    pub fn prepare_import(&self, bundle: &Bundle) -> Result<PreparedImport, ConfigErrors> {
        let Bundle { settings, inventory, authorities, .. } = bundle;
        let mut inventory = inventory.clone();
        let pretty = |json: &Json| {
            let mut text = serde_json::to_vec_pretty(json).expect("a tree of texts and numbers is always JSON");
            text.push(b'\n');
            text
        };
        let mut to_write = BTreeMap::new();
        if let Some(Json::Array(entries)) = inventory.get_mut("instances") {
            for entry in entries {
                if let Some(Json::Text(path)) = entry.get_mut("tls").and_then(|tls| tls.get_mut("caFile"))
                    && let Some(pem) = authorities.get(path)
                {
                    // Named by what it holds, so that no file is ever written over with something else.
                    let name = Sha256::digest(pem).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
                    *path = format!("{AUTHORITIES}/{name}.pem");
                    to_write.insert(self.data_dir().path().join(&*path), pem.clone());
                }
            }
        }
        let settings = self.system_file().prepare_content(pretty(settings))?;
        let overlay =
            to_write.iter().map(|(path, pem)| (path.clone(), certificates_in(path, pem.as_bytes()))).collect();
        let inventory = self.prepare_inventory_with(Content::new(pretty(&inventory)), settings.config(), overlay)?;
        Ok(PreparedImport { settings, inventory, authorities: to_write })
    }

    /// Writes the authorities of an import. They lie beside what is in force, and change nothing by themselves.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_authorities(&self, import: &PreparedImport) -> Result<(), Problem> {
        for (path, pem) in &import.authorities {
            let folder = path.parent().unwrap_or_else(|| Path::new("/"));
            std::fs::create_dir_all(folder).map_err(|error| Problem::Unwritable(error.to_string()))?;
            files::replace(path, pem.as_bytes(), || Ok(()))?;
        }
        Ok(())
    }

    fn unreadable(&self, problem: Problem) -> ConfigErrors {
        instances::file_error(&self.data_dir().instances_file(), problem).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passphrase() -> Secret {
        Secret::new("correct horse battery".into())
    }

    fn bundle() -> Bundle {
        let json = |text: &str| Json::parse(text.as_bytes()).ok().unwrap();
        Bundle {
            format: FORMAT,
            settings: json("{}"),
            inventory: json(r#"{"a": "hunter2"}"#),
            authorities: BTreeMap::new(),
        }
    }

    #[test]
    fn only_the_passphrase_opens_an_export_and_no_altered_one_opens() {
        let file = bundle().seal(&passphrase()).unwrap();
        assert!(!file.windows(7).any(|window| window == b"hunter2"));
        assert!(Bundle::open(&file, &passphrase()).is_ok_and(|opened| opened.inventory == bundle().inventory));
        let wrong = Bundle::open(&file, &Secret::new("correct horse batterie".into())).err();
        assert_eq!(wrong, Some(BundleError::WrongPassphrase));
        let mut altered = file.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(Bundle::open(&altered, &passphrase()).err(), Some(BundleError::WrongPassphrase));
        assert_eq!(Bundle::open(&file[..HEADER_BYTES - 1], &passphrase()).err(), Some(BundleError::NotABundle));
        assert_eq!(bundle().seal(&Secret::new("hunter2".into())).err(), Some(BundleError::WeakPassphrase));
    }

    proptest! {
        #[test]
        fn no_file_asks_for_more_than_is_bounded(costs in any::<[u32; 3]>(), rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut file = MAGIC.to_vec();
            file.extend(costs.iter().flat_map(|cost| cost.to_be_bytes()));
            file.extend(rest);
            if let Some(Header { costs, .. }) = Header::read(&file) {
                prop_assert!(costs.memory_kib <= HIGHEST_COSTS.memory_kib && costs.passes <= 16 && costs.lanes <= 16);
            }
        }
    }
}
