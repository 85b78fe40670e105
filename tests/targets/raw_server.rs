//! Servers that say exactly what a test wants, byte for byte.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What follows an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    KeepOpen,
    Close,
}

/// Answers each request by its first line and the number of requests before it.
type Script = dyn Fn(&str, usize) -> (String, Then) + Send + Sync;

/// A server that ends when it is dropped.
pub(crate) struct RawServer {
    pub(crate) url: String,
    pub(crate) fingerprint: [u8; 32],
    heard: Arc<Heard>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

impl RawServer {
    /// A server with TLS and a certificate of its own.
    pub(crate) async fn tls(script: impl Fn(&str, usize) -> (String, Then) + Send + Sync + 'static) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let fingerprint = Sha256::digest(certificate.der()).into();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self::start("https", fingerprint, Some(TlsAcceptor::from(Arc::new(config))), Arc::new(script)).await
    }

    /// A server without TLS.
    pub(crate) async fn plain(script: impl Fn(&str, usize) -> (String, Then) + Send + Sync + 'static) -> Self {
        Self::start("http", [0; 32], None, Arc::new(script)).await
    }

    async fn start(scheme: &str, fingerprint: [u8; 32], tls: Option<TlsAcceptor>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Heard::default());
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&heard);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let (script, heard, tls) = (Arc::clone(&script), Arc::clone(&counted), tls.clone());
                connections.spawn(async move {
                    match tls {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(tcp).await {
                                serve(stream, &script, &heard).await;
                            }
                        }
                        None => serve(tcp, &script, &heard).await,
                    }
                });
            }
        });
        Self { url, fingerprint, heard, _tasks: tasks }
    }

    /// The heads and bodies of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.heard.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.heard.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: &Arc<Script>, heard: &Heard) {
    let mut buffer = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut buffer).await {
        let line = request.lines().next().unwrap_or_default().to_owned();
        let before = {
            let mut requests = heard.requests.lock().unwrap();
            requests.push(request);
            requests.len() - 1
        };
        let (answer, then) = script(&line, before);
        if stream.write_all(answer.as_bytes()).await.is_err() || then == Then::Close {
            // A client that has left needs no orderly end.
            let _ = stream.shutdown().await;
            return;
        }
        let _ = stream.flush().await;
    }
}

async fn next_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                buffer.clear();
                return Some(text);
            }
        }
        let mut chunk = [0; 4_096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

/// A whole answer with this status line, these further headers and this body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

/// What a healthy single PVE node says to a request line.
pub(crate) fn pve_node(line: &str) -> String {
    let path = line.split(' ').nth(1).unwrap_or_default();
    let data = match path.split('?').next().unwrap_or_default() {
        "/api2/json/version" => r#"{"version":"8.4.1","release":"8.4"}"#,
        "/api2/json/cluster/resources" => {
            r#"[{"type":"node","node":"a","status":"online"},{"type":"qemu","vmid":"100","node":"a","status":"running"}]"#
        }
        "/api2/json/cluster/status" => r#"[{"type":"node","name":"a","online":1,"local":1}]"#,
        "/api2/json/nodes/a/status" => r#"{"cpu":0.1,"uptime":"77"}"#,
        "/api2/json/nodes/a/disks/list" => "[]",
        _ => return answer("404 Not Found", "", ""),
    };
    answer("200 OK", "", &format!(r#"{{"data":{data}}}"#))
}
