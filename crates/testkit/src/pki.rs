//! Certificates for tests: authorities, the certificates they issue, the files that a streamgate
//! reads, and clients that trust and show them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// What streamgate is called in its certificates.
pub const NAME: &str = "streamgate.internal";

/// Somebody who issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Issued {
    /// The certificate, in PEM.
    pub cert: String,
    /// The private key, in PEM.
    pub key: String,
}

/// A streamgate's files.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Authority {
    /// An authority of that name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// A certificate for streamgate, which does for a client as well.
    pub fn issue(&self) -> Issued {
        self.issue_until(4000)
    }

    /// The same, until that year begins.
    pub fn issue_until(&self, year: i32) -> Issued {
        let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign(&params)
    }

    /// A certificate for a client of that name.
    pub fn issue_to(&self, name: SanType) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(name);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// The certificate in DER, as it is sent.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

impl Folder {
    /// A folder with a certificate, its key, and the authority that clients must come from.
    pub fn with(issued: &Issued, client_ca: &Authority) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("cert", &issued.cert);
        folder.write("key", &issued.key);
        folder.write("client_ca", &client_ca.pem);
        folder
    }

    /// The path of one of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file as one does by hand: over the old one.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The settings that make a port use these files, those of these names.
    pub fn settings(&self, port: &str, names: &[&str]) -> Vec<(String, String)> {
        let setting = |name: &&str| {
            let path = self.path(name).display().to_string();
            (format!("{port}.tls.{name}"), path)
        };
        names.iter().map(setting).collect()
    }

    /// The folder itself.
    pub fn at(&self) -> &Path {
        self.0.path()
    }
}

/// A client that trusts this authority, shows this certificate if it has one, and speaks these
/// protocols.
pub fn client(
    trusted: &Authority,
    shown: Option<&Issued>,
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.pem.as_bytes());
    roots.add(root.unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
            let chain = vec![shown.der()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Arc::new(config)
}

/// A connection over TLS. A client learns only when it reads whether the server accepted its
/// certificate.
///
/// # Errors
///
/// Fails if nothing listens there, or the handshake fails.
pub async fn connect(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::clone(client))
        .connect(name, socket)
        .await
}

/// The certificate that the other side has shown.
pub fn seen(connection: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let (_, session) = connection.get_ref();
    let chain = session.peer_certificates().unwrap();
    chain.first().unwrap().clone().into_owned()
}

/// The same as [`client`] for gRPC.
pub fn grpc_client(trusted: &Authority, shown: Option<&Issued>) -> ClientTlsConfig {
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&trusted.pem))
        .domain_name(NAME);
    match shown {
        None => config,
        Some(Issued { cert, key }) => config.identity(Identity::from_pem(cert, key)),
    }
}
