//! Over TLS: whom the program trusts, and how it shows who it is.

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

use super::assert_ended;
use super::stub::Stub;
use testkit::streamgate::run;

/// Authorities, one for the server and its clients, the others for no party here; and a client's
/// certificate. All in files.
struct Files {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: Certificate,
}

/// A certificate of that name that may sign others, and its key.
fn authority(name: &str) -> (Certificate, CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), params, key)
}

impl Files {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        let (ca, params, key) = authority("ours");
        let issuer = Issuer::new(params, key);
        write("ca.pem", ca.pem());
        write("other-ca.pem", authority("another").0.pem());
        // As if someone had created their authority again.
        write("old-ca.pem", authority("ours").0.pem());
        let key = KeyPair::generate().unwrap();
        let client = CertificateParams::new(["support".to_owned()]).unwrap();
        write("client.pem", client.signed_by(&key, &issuer).unwrap().pem());
        write("client-key.pem", key.serialize_pem());
        Self { dir, issuer, ca }
    }

    /// The path of one of them.
    fn path(&self, name: &str) -> String {
        let path: &Path = &self.dir.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// A server with that name in its certificate, that may require one of its clients.
    fn server(&self, name: &str, wants_certificate: bool) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = if wants_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.der().clone()).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        config.with_single_cert(vec![certificate], key).unwrap()
    }
}

/// A server that releases everything.
async fn stub(config: ServerConfig) -> Stub {
    Stub::start_tls(config, || StatusCode::NO_CONTENT).await
}

#[tokio::test]
async fn who_is_vouched_for_is_asked_and_nobody_else() {
    let files = Files::make();
    let (ca, other_ca) = (files.path("ca.pem"), files.path("other-ca.pem"));
    let old_ca = files.path("old-ca.pem");
    let known = stub(files.server("127.0.0.1", false)).await;
    let misnamed = stub(files.server("tv.example", false)).await;
    let good = (0, "playback p1: released\n", "");
    let unknown = (3, "", "pass its certificate with --ca)\n");
    for (stub, ca, system, (code, out, told)) in [
        (&known, Some(&ca), None, good),
        (&known, None, Some(&ca), good),
        (&known, Some(&other_ca), Some(&ca), unknown),
        (&known, None, Some(&other_ca), unknown),
        (&known, Some(&old_ca), None, unknown),
        (&misnamed, Some(&ca), None, (3, "", "not valid for name")),
    ] {
        let url = stub.url();
        let mut arguments = vec!["release", "anna", "p1", "--url", &url];
        arguments.extend(ca.into_iter().flat_map(|ca| ["--ca", ca]));
        let mut environment = vec![("STREAMGATE_TOKEN", "s3cr3t")];
        environment.extend(system.map(|ca| ("SSL_CERT_FILE", ca.as_str())));
        let ended = run(&arguments, &environment).await;
        assert_eq!((ended.0, ended.1.as_str()), (code, out), "{ended:?}");
        assert!(ended.2.contains(told), "{ended:?}");
    }
    assert_eq!((known.lines().len(), misnamed.lines().len()), (2, 0));
}

#[tokio::test]
async fn a_configured_client_certificate_is_presented() {
    let files = Files::make();
    let stub = stub(files.server("127.0.0.1", true)).await;
    let (url, ca) = (stub.url(), files.path("ca.pem"));
    let (cert, key) = (files.path("client.pem"), files.path("client-key.pem"));
    let anonymous = ["release", "anna", "p1", "--url", &url, "--ca", &ca];
    let (code, out, errors) = run(&anonymous, &[]).await;
    assert_eq!((code, out.as_str()), (3, ""), "{errors}");
    let known = [&anonymous[..], &["--cert", &cert, "--key", &key]].concat();
    let ended = run(&known, &[]).await;
    assert_ended(&ended, 0, "playback p1: released\n", "");
    assert_eq!(stub.lines().len(), 1);
}

#[tokio::test]
async fn files_that_do_not_fit_are_a_mistake() {
    let files = Files::make();
    let stub = stub(files.server("127.0.0.1", true)).await;
    let (url, ca) = (stub.url(), files.path("ca.pem"));
    let key = files.path("client-key.pem");
    let (code, out, errors) = run(
        &[
            "sessions", "anna", "--url", &url, "--ca", &ca, "--cert", &ca, "--key", &key,
        ],
        &[],
    )
    .await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(errors.contains("can't be used together"), "{errors}");
    let (code, _, errors) = run(&["sessions", "anna", "--url", &url, "--ca", &key], &[]).await;
    assert_eq!(code, 2);
    assert!(errors.contains("it has no certificate"), "{errors}");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_reported_as_such() {
    let stub = Stub::start(|| StatusCode::NO_CONTENT).await;
    let url = stub.url().replace("http://", "https://");
    let files = Files::make();
    let ca = files.path("ca.pem");
    let (code, _, errors) = run(&["sessions", "anna", "--url", &url, "--ca", &ca], &[]).await;
    assert_eq!(code, 3);
    assert!(errors.contains("try http:// in the address"), "{errors}");
}
