//! TLS of the API's port: a certificate and a key from two files, followed as they change.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::engine::{Millis, Timestamp};
use crate::runtime::Clock;

/// How long a caller may take to agree on a key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at. A change is taken up when a second look finds nothing newer.
const LOOK_EVERY: Millis = Millis::from_secs(1);
/// How often an end that is near or past is told.
const REMIND_EVERY: Millis = Millis::from_mins(24 * 60);
/// How long before its end a certificate is told of.
const NEAR: jiff::SignedDuration = jiff::SignedDuration::from_hours(14 * 24);

/// Where the certificate and its key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
}

/// Why a certificate and key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}; check the path and that the daemon's user may read it")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no certificate.
    #[error("{0} holds no certificate in PEM; it has to begin with -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    /// The certificate is not understood.
    #[error("the certificate in {0} is not valid X.509")]
    NotX509(PathBuf),
    /// The two do not belong together.
    #[error("the key in {key} is not that of the certificate in {certificate}")]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate has ended.
    #[error("the certificate in {path} expired at {end}")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        end: jiff::Timestamp,
    },
    /// Something else is wrong.
    #[error("the certificate or the key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The TLS of a door. Cheap to clone; all clones show the same certificate.
#[derive(Clone)]
pub(super) struct Tls {
    files: Arc<TlsFiles>,
    current: Arc<ArcSwap<Pair>>,
}

/// A certificate with its key, and what has to be known of it.
struct Pair {
    config: Arc<ServerConfig>,
    end: jiff::Timestamp,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used. An expired certificate can: the daemon has more to do than to answer.
    pub(super) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let pair = Pair::read(&files)?;
        Ok(Self { files: Arc::new(files), current: Arc::new(ArcSwap::from_pointee(pair)) })
    }

    /// Agrees on a key with a caller; `None` if that fails or takes too long.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Option<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a caller's TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a caller's TLS handshake took too long");
                None
            }
        }
    }

    /// Follows the files until `stop`. What cannot be used is told, and the certificate before it stays.
    pub(super) async fn follow(self, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let mut watch = Watch { taken: Stamps::of(&self.files), last: Stamps::of(&self.files), reminded: None };
        watch.remind(&self.current.load(), &self.files, &*clock);
        while stop.run_until_cancelled(clock.sleep_until(clock.now() + LOOK_EVERY)).await.is_some() {
            let files = Arc::clone(&self.files);
            let Ok(stamps) = tokio::task::spawn_blocking(move || Stamps::of(&files)).await else { return };
            if watch.is_due(stamps) {
                self.take_up(clock.wall()).await;
                watch.reminded = None;
            }
            watch.remind(&self.current.load(), &self.files, &*clock);
        }
    }

    async fn take_up(&self, now: jiff::Timestamp) {
        let files = Arc::clone(&self.files);
        let Ok(read) = tokio::task::spawn_blocking(move || Pair::read(&files)).await else { return };
        let read = read.and_then(|pair| match pair.end > now || self.current.load().end <= now {
            true => Ok(pair),
            false => Err(TlsError::Expired { path: self.files.certificate.clone(), end: pair.end }),
        });
        match read {
            Ok(pair) => {
                tracing::info!(end = %pair.end, "a new TLS certificate is in use");
                self.current.store(Arc::new(pair));
            }
            Err(error) => tracing::error!("the new TLS certificate is not used, the one before it stays: {error}"),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let unreadable = |path: &Path, error: &dyn fmt::Display| TlsError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| unreadable(&files.certificate, &error))?;
        let first = certificates.first().ok_or_else(|| TlsError::NoCertificate(files.certificate.clone()))?;
        let end = end_of(first).ok_or_else(|| TlsError::NotX509(files.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| match error {
            pem::Error::NoItemsFound => unreadable(&files.key, &"it holds no private key in PEM"),
            error => unreadable(&files.key, &error),
        })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
                }
                error => error.into(),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), end })
    }
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<jiff::Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    jiff::Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// What tells one state of a file from another without reading it.
type Stamp = Option<(u64, u64, i64, i64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamps {
    certificate: Stamp,
    key: Stamp,
}

impl Stamps {
    fn of(files: &TlsFiles) -> Self {
        let stamp = |of: Metadata| (of.ino(), of.size(), of.mtime(), of.mtime_nsec());
        let stamp = |path: &Path| path.metadata().ok().map(stamp);
        Self { certificate: stamp(&files.certificate), key: stamp(&files.key) }
    }
}

/// What was seen of the files so far.
struct Watch {
    /// As they were when they were last read.
    taken: Stamps,
    /// As they were at the last look.
    last: Stamps,
    reminded: Option<Timestamp>,
}

impl Watch {
    /// Whether the files are new and have come to rest.
    fn is_due(&mut self, now: Stamps) -> bool {
        let at_rest = std::mem::replace(&mut self.last, now) == now;
        let due = at_rest && now != self.taken;
        if due {
            self.taken = now;
        }
        due
    }

    /// Tells of an end that is near or past, once a day.
    fn remind(&mut self, pair: &Pair, files: &TlsFiles, clock: &dyn Clock) {
        let (now, wall) = (clock.now(), clock.wall());
        let left = pair.end.duration_since(wall);
        if left > NEAR || self.reminded.is_some_and(|last| now < last + REMIND_EVERY) {
            return;
        }
        self.reminded = Some(now);
        let (file, end) = (files.certificate.display(), pair.end);
        if left.is_positive() {
            tracing::warn!(%file, %end, "the TLS certificate expires soon; put a new one in its place");
        } else {
            tracing::error!(%file, %end, "the TLS certificate has expired, and callers refuse it; put a new one in its place");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(mark: u64) -> Stamps {
        Stamps { certificate: Some((mark, 0, 0, 0)), key: Some((1, 0, 0, 0)) }
    }

    #[test]
    fn a_change_is_taken_up_once_when_the_files_have_come_to_rest() {
        let mut watch = Watch { taken: stamps(1), last: stamps(1), reminded: None };
        let looks = [(1, false), (2, false), (3, false), (3, true), (3, false), (1, false), (1, true), (1, false)];
        for (number, (mark, due)) in looks.into_iter().enumerate() {
            assert_eq!(watch.is_due(stamps(mark)), due, "look {number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_given_up_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { certificate: folder.path().join("crt"), key: folder.path().join("key") };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let clock = crate::runtime::TokioClock::start();
        let (_silent, ours) = tokio::io::duplex(1024);
        assert!(Tls::open(files).unwrap().accept(ours).await.is_none());
        assert_eq!(clock.now(), Timestamp::ZERO + HANDSHAKE_TIMEOUT.into());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_file_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let pair = |name: &str| {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let path = |kind: &str| folder.path().join(format!("{name}.{kind}"));
            std::fs::write(path("crt"), made.cert.pem()).unwrap();
            std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
            TlsFiles { certificate: path("crt"), key: path("key") }
        };
        let (a, b) = (pair("a"), pair("b"));
        assert!(Tls::open(a.clone()).is_ok());
        let refused = |certificate: &Path, key: &Path| {
            let files = TlsFiles { certificate: certificate.to_owned(), key: key.to_owned() };
            Tls::open(files).unwrap_err()
        };
        assert!(matches!(refused(&a.certificate, &b.key), TlsError::Mismatch { .. }));
        assert!(matches!(refused(&a.key, &a.key), TlsError::NoCertificate(_)));
        let missing = folder.path().join("missing");
        assert!(matches!(refused(&missing, &a.key), TlsError::Unreadable { path, .. } if path == missing));
        assert!(matches!(refused(&a.certificate, &missing), TlsError::Unreadable { path, .. } if path == missing));
        let error = refused(&a.certificate, &a.certificate).to_string();
        assert!(error.contains("holds no private key"), "{error}");
    }
}
