//! The file itself: a gzipped tar of regular files, so that it can be looked into without Pulse.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::{BackupError, Entry, FORMAT, MANIFEST, Manifest};
use crate::security::audit::hex;

/// A manifest is far smaller; what claims to be larger is none.
const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// Writes the manifest and the files that it names, which lie in `folder`.
pub(super) fn write(out: impl Write, manifest: &Manifest, folder: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    let text = serde_json::to_vec_pretty(manifest)?;
    let seconds = u64::try_from(manifest.created_at.as_second()).unwrap_or_default();
    let header = |bytes: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        header
    };
    tar.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
    for entry in &manifest.files {
        let file = File::open(folder.join(&entry.name))?;
        tar.append_data(&mut header(entry.bytes), &entry.name, file.take(entry.bytes))?;
    }
    tar.into_inner()?.finish()?.flush()
}

/// Unpacks a backup into an empty folder, if all of it is as its manifest says.
pub(super) fn unpack(path: &Path, into: &Path) -> Result<Manifest, BackupError> {
    let damaged = |reason: String| BackupError::Damaged { path: path.to_owned(), reason };
    let broken = |error: io::Error| damaged(error.to_string());
    let file = File::open(path).map_err(BackupError::file("cannot read", path))?;
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let mut entries = tar.entries().map_err(broken)?;
    let manifest = read_manifest(entries.next(), &damaged)?;
    let mut expected = manifest.files.iter();
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        let Some(wanted) = expected.next().filter(|wanted| wanted.name == name) else {
            return Err(damaged(format!("{name} is not what the manifest names next")));
        };
        if !is_plain(&name) || !entry.header().entry_type().is_file() {
            return Err(damaged(format!("{name} is no file of a data folder")));
        }
        let target = into.join(&name);
        let written = write_private(&target, &mut entry.by_ref().take(wanted.bytes + 1));
        if written.map_err(broken)? != (wanted.bytes, wanted.sha256.clone()) {
            return Err(damaged(format!("{name} is not as the manifest says")));
        }
    }
    match expected.next() {
        Some(missing) => Err(damaged(format!("{} is missing", missing.name))),
        None => Ok(manifest),
    }
}

/// What a backup says of itself.
pub(super) fn manifest_of(path: &Path) -> Result<Manifest, BackupError> {
    let damaged = |reason: String| BackupError::Damaged { path: path.to_owned(), reason };
    let file = File::open(path).map_err(BackupError::file("cannot read", path))?;
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let mut entries = tar.entries().map_err(|error| damaged(error.to_string()))?;
    read_manifest(entries.next(), &damaged)
}

fn read_manifest<R: Read>(
    first: Option<io::Result<tar::Entry<'_, R>>>,
    damaged: &impl Fn(String) -> BackupError,
) -> Result<Manifest, BackupError> {
    let not_ours = || damaged("it does not begin with a manifest".to_owned());
    let first = first.ok_or_else(not_ours)?.map_err(|_| not_ours())?;
    if first.path().ok().is_none_or(|name| name != Path::new(MANIFEST)) {
        return Err(not_ours());
    }
    let mut text = Vec::new();
    first.take(MAX_MANIFEST_BYTES).read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
    // A later format may have other fields, so only these two are looked at before.
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|_| not_ours())?;
    if value["format"].as_u64() != Some(u64::from(FORMAT)) {
        let version = value["version"].as_str().ok_or_else(not_ours)?;
        return Err(BackupError::TooNew(version.to_owned()));
    }
    serde_json::from_value(value).map_err(|error| damaged(format!("its manifest: {error}")))
}

/// A relative path without `..`.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Writes a new file for its owner alone, and gives its length and digest.
pub(super) fn write_private(path: &Path, content: &mut impl Read) -> io::Result<(u64, String)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut file = Hashing { inner: file, digest: Sha256::new() };
    let bytes = io::copy(content, &mut file)?;
    file.inner.sync_all()?;
    Ok((bytes, hex(&file.digest.finalize())))
}

/// How a file is told in the manifest.
pub(super) fn describe(folder: &Path, name: &str) -> io::Result<Entry> {
    let mut hashing = Hashing { inner: io::sink(), digest: Sha256::new() };
    let bytes = io::copy(&mut File::open(folder.join(name))?, &mut hashing)?;
    Ok(Entry { name: name.to_owned(), bytes, sha256: hex(&hashing.digest.finalize()) })
}

struct Hashing<W> {
    inner: W,
    digest: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_refused() {
        assert!(is_plain("system.json") && is_plain("authorities/a.pem"));
        for name in ["", "..", "../x", "a/../../x", "/etc/passwd", "./x"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
