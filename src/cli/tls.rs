//! `--ca`, `--cert` and `--key`: whom a command trusts over TLS, and how it shows who it is itself.
//!
//! All of it is checked before anything is asked, so that a wrong file is told as such and is no failure to connect.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts};

/// What the arguments say about TLS.
#[derive(Debug, Default, clap::Args)]
pub(super) struct TlsArgs {
    /// Certificates (PEM) of those who may vouch for the server, and nobody else.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// The certificate (PEM, with those in between) to show to a server that wants one.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// The private key (PEM, not encrypted) of `--cert`.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
}

/// The files that the arguments name, read and checked.
#[derive(Default)]
pub(super) struct TlsFiles {
    /// Those who may vouch for the server.
    ca: Option<Chain>,
    /// What to show to a server that wants to know who asks.
    identity: Option<ClientIdentity>,
}

/// Certificates, as their file has them and as they are meant.
struct Chain {
    /// The file's text.
    pem: Vec<u8>,
    /// What it says.
    certificates: Vec<CertificateDer<'static>>,
}

/// A certificate and its key, which fit together.
struct ClientIdentity {
    /// The certificate.
    chain: Chain,
    /// The key, as its file has it.
    key_pem: Vec<u8>,
    /// Both for the HTTP client.
    for_http: ClientCert,
}

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// The system doesn't let us read it.
    #[error("failed to read {0}: {1}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not PEM.
    #[error("{0}: not PEM: {1}")]
    NotPem(PathBuf, #[source] pem::Error),
    /// It is PEM without what is looked for.
    #[error("{0}: no certificate is in it; a file in PEM form with at least one is needed")]
    NoCertificate(PathBuf),
    /// It is PEM without a key.
    #[error(
        "{0}: no private key is in it; a file in PEM form with one that isn't encrypted is needed"
    )]
    NoKey(PathBuf),
    /// A certificate in it isn't one that can be used.
    #[error("{0}: a certificate in it can't be used: {1}")]
    BadCertificate(PathBuf, #[source] rustls::Error),
    /// They don't belong together.
    #[error("{cert} and {key} can't be used together: {error}")]
    NoPair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        error: rustls::Error,
    },
}

impl TlsArgs {
    /// Whether they say anything.
    pub(super) const fn is_empty(&self) -> bool {
        self.ca.is_none() && self.cert.is_none() && self.key.is_none()
    }

    /// Reads and checks the files.
    ///
    /// # Errors
    /// One of them can't be read, or isn't what it should be.
    pub(super) fn load(&self) -> Result<TlsFiles, TlsError> {
        let ca = self.ca.as_deref().map(trusted).transpose()?;
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(ClientIdentity::read(cert, key)?),
            // One without the other is refused with the arguments.
            _ => None,
        };
        Ok(TlsFiles { ca, identity })
    }
}

impl TlsFiles {
    /// The same for the HTTP client.
    pub(super) fn for_http(&self) -> ureq::tls::TlsConfig {
        let roots = match &self.ca {
            Some(ca) => RootCerts::new_with_certs(&ca.for_http()),
            None => RootCerts::PlatformVerifier,
        };
        let identity = self.identity.as_ref();
        ureq::tls::TlsConfig::builder()
            .root_certs(roots)
            .client_cert(identity.map(|identity| identity.for_http.clone()))
            .unversioned_rustls_crypto_provider(provider())
            .build()
    }

    /// The same for the gRPC client, which trusts nobody but `--ca`.
    pub(super) fn for_grpc(&self) -> tonic::transport::ClientTlsConfig {
        use tonic::transport::{Certificate, ClientTlsConfig, Identity};
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(&ca.pem));
        }
        if let Some(identity) = &self.identity {
            tls = tls.identity(Identity::from_pem(&identity.chain.pem, &identity.key_pem));
        }
        tls
    }
}

impl Chain {
    /// The certificates of a file; at least one.
    fn read(file: &Path) -> Result<Self, TlsError> {
        let pem = read(file)?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsError::NotPem(file.into(), error))?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate(file.into()));
        }
        Ok(Self { pem, certificates })
    }

    /// The same for the HTTP client.
    fn for_http(&self) -> Vec<Certificate<'static>> {
        let certificates = self.certificates.iter();
        certificates
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect()
    }
}

impl ClientIdentity {
    /// The certificate and the key of these files. The HTTP client panics at a pair that doesn't fit, so it is tried here.
    fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let (chain, key_pem) = (Chain::read(cert)?, read(key)?);
        let no_key = || TlsError::NoKey(key.into());
        let der = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| match error {
            pem::Error::NoItemsFound => no_key(),
            error => TlsError::NotPem(key.into(), error),
        })?;
        CertifiedKey::from_der(chain.certificates.clone(), der, &provider()).map_err(|error| {
            TlsError::NoPair {
                cert: cert.into(),
                key: key.into(),
                error,
            }
        })?;
        let for_http = PrivateKey::from_pem(&key_pem).map_err(|_| no_key())?;
        Ok(Self {
            for_http: ClientCert::new_with_certs(&chain.for_http(), for_http),
            chain,
            key_pem,
        })
    }
}

/// Certificates that can vouch for others. The clients silently leave out what they can't use, so it is tried here.
fn trusted(file: &Path) -> Result<Chain, TlsError> {
    let chain = Chain::read(file)?;
    let mut store = RootCertStore::empty();
    for certificate in &chain.certificates {
        store
            .add(certificate.clone())
            .map_err(|error| TlsError::BadCertificate(file.into(), error))?;
    }
    Ok(chain)
}

/// What a file holds.
fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| TlsError::Unreadable(file.into(), error))
}

/// Whose cryptography it is.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a certificate, its key, another key, and files that are none.
    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for (name, text) in [
            ("cert.pem", cert.as_str()),
            ("key.pem", &key),
            ("other-key.pem", &other.serialize_pem()),
            ("text.pem", "no PEM at all"),
            (
                "broken.pem",
                "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
            ),
            (
                "hollow.pem",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn files_that_fit_are_taken_and_the_others_are_named_with_what_is_wrong() {
        let dir = files();
        let load = |ca: &str, cert: &str, key: &str| {
            let path = |name: &str| (!name.is_empty()).then(|| dir.path().join(name));
            let args = TlsArgs {
                ca: path(ca),
                cert: path(cert),
                key: path(key),
            };
            let told = args.load().map(|_| ()).map_err(|error| error.to_string());
            told.map_err(|told| told.replace(&format!("{}/", dir.path().display()), ""))
        };
        for (ca, cert, key) in [
            ("", "", ""),
            ("cert.pem", "", ""),
            ("cert.pem", "cert.pem", "key.pem"),
        ] {
            assert_eq!(load(ca, cert, key), Ok(()));
        }
        for (ca, cert, key, expected) in [
            ("none.pem", "", "", "failed to read none.pem: "),
            ("text.pem", "", "", "text.pem: no certificate is in it"),
            ("key.pem", "", "", "key.pem: no certificate is in it"),
            ("broken.pem", "", "", "broken.pem: not PEM: "),
            (
                "hollow.pem",
                "",
                "",
                "hollow.pem: a certificate in it can't be used: ",
            ),
            (
                "",
                "cert.pem",
                "cert.pem",
                "cert.pem: no private key is in it",
            ),
            (
                "",
                "cert.pem",
                "other-key.pem",
                "cert.pem and other-key.pem can't be used together: ",
            ),
        ] {
            let told = load(ca, cert, key).unwrap_err();
            assert!(told.starts_with(expected), "{told}");
        }
    }
}
