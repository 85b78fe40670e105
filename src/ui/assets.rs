//! Style sheet, scripts and icon: embedded, under an address that changes with them, so that a browser asks for each once.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

#[derive(RustEmbed)]
#[folder = "src/ui/assets"]
struct Assets;

/// A digest of all files with their names, as it stands in their addresses.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for path in Assets::iter() {
        let file = Assets::get(&path).expect("the list has what there is");
        digest.update(path.as_bytes());
        digest.update(file.metadata.sha256_hash());
    }
    URL_SAFE_NO_PAD.encode(&digest.finalize()[..9])
});

/// The folder of all files, in the address of a page.
pub(super) fn folder() -> String {
    format!("/assets/{}", *VERSION)
}

/// Answers with one of the files. Those of another version of the daemon are not here.
pub(super) async fn serve(Path((version, path)): Path<(String, String)>) -> Response {
    let file = (version == *VERSION).then(|| Assets::get(&path)).flatten();
    let Some(file) = file else { return StatusCode::NOT_FOUND.into_response() };
    let headers =
        [(header::CONTENT_TYPE, media_type(&path)), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, file.data).into_response()
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_file_has_a_media_type() {
        let unknown: Vec<_> = Assets::iter().filter(|path| media_type(path).starts_with("application/octet")).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn scripts_import_only_what_is_embedded() {
        for path in Assets::iter().filter(|path| path.ends_with(".js")) {
            let text = String::from_utf8(Assets::get(&path).unwrap().data.into_owned()).unwrap();
            let sources = text.lines().filter_map(|line| line.split_once(" from \"").map(|(_, source)| source));
            for module in sources.map(|source| source.trim_end_matches("\";")) {
                let file = module.strip_prefix("./").unwrap_or_else(|| panic!("{path} imports {module}"));
                assert!(Assets::get(file).is_some(), "{path} imports {module}");
            }
        }
    }
}
