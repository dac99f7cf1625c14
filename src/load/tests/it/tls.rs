//! TLS: trusted by a file of its own, refused without, taken as it is where the plan says so.

use crate::support::{Outcome, get, http, iterations, job, phase, plan, run, scenario};
use muster_core::model::id::Digest;
use muster_core::model::load::{RepoFile, TlsOptions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CA: &[u8] = include_bytes!("../fixtures/ca.pem");

/// A TLS server that answers 200 and counts full and resumed handshakes.
fn server() -> (SocketAddr, Arc<[AtomicU64; 2]>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../fixtures/server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../fixtures/server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("default versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a key that fits");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let handshakes: Arc<[AtomicU64; 2]> = Arc::default();
    let counts = handshakes.clone();
    std::thread::spawn(move || {
        crate::support::runtime().block_on(async move {
            listener.set_nonblocking(true).expect("a socket");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                counts[usize::from(resumed)].fetch_add(1, Ordering::SeqCst);
                // Requests of these tests come in one piece.
                let mut buffer = [0; 4_096];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await;
                    if buffer.starts_with(b"GET /close") {
                        break;
                    }
                }
                let _ = stream.shutdown().await;
            }
        });
    });
    (address, handshakes)
}

fn play(url: &str, path: &str, options: TlsOptions) -> Outcome {
    let mut engine = http(vec![scenario(vec![get(path)])]);
    engine.options.tls = options;
    let mut job = job(plan(url, engine, vec![phase("p", iterations(1, 3), Duration::ZERO)]));
    job.plan.targets.allow.push("::1".to_owned());
    job.files.insert(Digest::of(CA).as_str().to_owned(), Arc::from(CA));
    run(job)
}

fn trusting() -> TlsOptions {
    TlsOptions {
        ca_file: Some(RepoFile {
            path: "ca.pem".to_owned(),
            digest: Digest::of(CA),
        }),
        ..TlsOptions::default()
    }
}

#[test]
fn a_ca_file_is_the_only_root_and_sessions_are_resumed() {
    let (address, handshakes) = server();
    for host in ["localhost", "127.0.0.1"] {
        let outcome = play(&format!("https://{host}:{}", address.port()), "/", trusting());
        assert_eq!((outcome.errors(), outcome.requests()), (vec![], 3), "{host}");
        let stats = outcome.of("p", "get");
        assert!(
            stats
                .tls_handshaking
                .and_then(|histogram| histogram.max_ns())
                .is_some_and(|took| took > 0)
        );
    }
    assert_eq!(handshakes[0].load(Ordering::SeqCst), 2);
    let outcome = play(&format!("https://localhost:{}", address.port()), "/close", trusting());
    assert_eq!((outcome.errors(), outcome.requests()), (vec![], 3));
    assert_eq!(handshakes[1].load(Ordering::SeqCst), 2, "sessions resumed");
}

#[test]
fn an_unknown_certificate_is_refused_unless_the_plan_takes_any() {
    let (address, _) = server();
    let url = format!("https://127.0.0.1:{}", address.port());
    let outcome = play(&url, "/", TlsOptions::default());
    assert_eq!(outcome.errors(), [("tls".to_owned(), 3)]);
    let insecure = TlsOptions {
        insecure_skip_verify: true,
        ca_file: None,
    };
    assert_eq!(play(&url, "/", insecure).errors(), vec![]);
    // A server that speaks no TLS.
    let plain = crate::support::Server::start(|_, _| crate::support::Then::Close);
    let mut engine = http(vec![scenario(vec![get("/")])]);
    engine.timeout = Duration::from_millis(500);
    let url = plain.url().replace("http:", "https:");
    let outcome = run(job(plan(
        &url,
        engine,
        vec![phase("p", iterations(1, 1), Duration::ZERO)],
    )));
    assert_eq!(outcome.errors(), [("connectTimeout".to_owned(), 1)]);
}
