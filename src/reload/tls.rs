//! Turns a port's TLS files (certificate, private key and client CA) into a rustls configuration.
//!
//! Cryptography is ring's, chosen here and nowhere else. Errors about a file use our own words,
//! because a parser's may repeat its input, which may be a key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Reader, SliceReader, Tag};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::Files;
use crate::config::{Config, Tls, TlsKeys};
use crate::telemetry::metrics::{Port, ReloadedFile};

/// The TLS of one port.
#[derive(Debug)]
pub struct PortTls {
    /// The name of its files in logs and metrics.
    pub label: ReloadedFile,
    /// The files, and the configuration they make up.
    pub files: Files<Served>,
}

/// The TLS configuration of a port.
#[derive(Debug)]
pub struct Served {
    /// The configuration for rustls.
    pub config: Arc<ServerConfig>,
    /// The validity of the presented certificate that expires first; `None` if it can't be parsed.
    pub validity: Option<Validity>,
}

/// The validity period of a certificate, as times since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validity {
    /// The start.
    pub from: Duration,
    /// The end.
    pub until: Duration,
}

/// A port's protocols as ALPN names, best first.
const fn protocols(port: Port) -> &'static [&'static str] {
    match port {
        Port::Grpc => &["h2"],
        Port::Http => &["h2", "http/1.1"],
    }
}

impl PortTls {
    /// The TLS of a port, if configured.
    #[must_use]
    pub fn of(config: &Config, port: Port) -> Option<Self> {
        let (tls, keys, label) = match port {
            Port::Grpc => (&config.grpc.tls, TlsKeys::GRPC, ReloadedFile::GrpcTls),
            Port::Http => (&config.http.tls, TlsKeys::HTTP, ReloadedFile::HttpTls),
        };
        let files = files(tls.as_ref()?, keys, protocols(port));
        Some(Self { label, files })
    }
}

/// A file's path and configuration key.
#[derive(Debug, Clone)]
struct NamedFile {
    key: &'static str,
    path: PathBuf,
}

impl NamedFile {
    fn of(key: &'static str, path: &Path) -> Self {
        let path = path.to_owned();
        Self { key, path }
    }

    /// An error about this file.
    fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {}: {what}", self.key, self.path.display())
    }
}

/// The files of one port, and the configuration they make up.
fn files(tls: &Tls, keys: TlsKeys, protocols: &'static [&'static str]) -> Files<Served> {
    let cert = NamedFile::of(keys.cert, &tls.cert);
    let key = NamedFile::of(keys.key, &tls.key);
    let client_ca = tls.client_ca.as_ref();
    let client_ca = client_ca.map(|path| NamedFile::of(keys.client_ca, path));
    let places = [Some(&cert), Some(&key), client_ca.as_ref()];
    let named = places
        .into_iter()
        .flatten()
        .map(|place| (place.key, place.path.clone()))
        .collect();
    Files::new(named, move |contents| {
        let [certificate, private_key, authorities @ ..] = contents else {
            return Err(cert.wrong("was not read"));
        };
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| cert.wrong(error))?;
        let clients = match (&client_ca, authorities) {
            (Some(place), [bundle]) => {
                versions.with_client_cert_verifier(verifier(place, bundle, provider)?)
            }
            _ => versions.with_no_client_auth(),
        };
        let shown = certificates(&cert, certificate)?;
        let validity = shown.iter().filter_map(|shown| validity(shown).ok());
        let validity = validity.min_by_key(|validity| validity.until);
        let mut config = clients
            .with_single_cert(shown, self::private_key(&key, private_key)?)
            .map_err(|error| unfit(&cert, &key, &error))?;
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        Ok(Served {
            config: Arc::new(config),
            validity,
        })
    })
}

/// The validity period of a certificate (RFC 5280, section 4.1). rustls checks the rest.
fn validity(certificate: &[u8]) -> der::Result<Validity> {
    let certificate = AnyRef::from_der(certificate)?;
    let signed: AnyRef<'_> = SliceReader::new(certificate.value())?.decode()?;
    let mut signed = SliceReader::new(signed.value())?;
    // The fields before it: version (not in version 1), serial number, algorithm, issuer.
    let before = if Tag::peek(&signed)? == Tag::Integer {
        3
    } else {
        4
    };
    for _ in 0..before {
        signed.tlv_bytes()?;
    }
    signed.sequence(|period| {
        Ok(Validity {
            from: time(period)?,
            until: time(period)?,
        })
    })
}

/// The next time, since 1970.
fn time(period: &mut SliceReader<'_>) -> der::Result<Duration> {
    match Tag::peek(period)? {
        Tag::UtcTime => Ok(period.decode::<UtcTime>()?.to_unix_duration()),
        _ => Ok(period.decode::<GeneralizedTime>()?.to_unix_duration()),
    }
}

/// The certificates in a PEM file, at least one.
fn certificates(place: &NamedFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => {
            Err(place
                .wrong("holds no certificate; it must be PEM, with -----BEGIN CERTIFICATE-----"))
        }
        Err(_) => Err(place.wrong("is damaged PEM; write the file again")),
    }
}

/// The private key in a PEM file.
fn private_key(place: &NamedFile, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        place.wrong("holds no private key; it must be PEM, unencrypted, as PKCS#8, PKCS#1 or SEC1")
    })
}

/// Accepts clients with a certificate from one of these authorities.
fn verifier(
    place: &NamedFile,
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(place, pem)? {
        roots.add(certificate).map_err(|error| {
            place.wrong(format_args!("holds an invalid CA certificate: {error}"))
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
    verifier.map_err(|error| place.wrong(error))
}

/// Why a certificate and a key can't be used together.
fn unfit(cert: &NamedFile, key: &NamedFile, error: &Error) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key.wrong(format_args!(
            "is not the key of the certificate in {} ({}); use a pair that was issued together",
            cert.path.display(),
            cert.key
        )),
        Error::InvalidCertificate(_) => cert.wrong("holds an invalid certificate"),
        _ => key.wrong("holds a key that can't be used; use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// A certificate and its key, in PEM.
    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["streamgate.internal".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// Loads these three files; fails with what is wrong with them.
    fn said(dir: &TempDir, cert: &str, key: &str, client_ca: &str) -> Result<Served, String> {
        let place = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let tls = Tls {
            cert: place("cert", cert),
            key: place("key", key),
            client_ca: Some(place("ca", client_ca)),
        };
        let read = files(&tls, TlsKeys::HTTP, protocols(Port::Http)).read();
        let folder = format!("{}/", dir.path().display());
        read.map_err(|error| error.to_string().replace(&folder, ""))
    }

    #[test]
    fn a_pair_that_was_issued_together_can_be_served_with() {
        let dir = tempfile::tempdir().unwrap();
        let ((cert, key), (ca, _)) = (issued(), issued());
        let served = said(&dir, &cert, &key, &ca).unwrap();
        assert_eq!(
            served.config.alpn_protocols,
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
        let both = format!("{key}{cert}");
        assert!(
            said(&dir, &both, &both, &ca).is_ok(),
            "one file may hold both"
        );
    }

    #[test]
    fn the_first_certificate_of_the_chain_to_run_out_is_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let issued_until = |year| {
            let key = KeyPair::generate().unwrap();
            let mut params =
                CertificateParams::new(vec!["streamgate.internal".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 3, 1);
            params.not_after = rcgen::date_time_ymd(year, 3, 1);
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        // Only the longer of the two date formats can express the second date.
        let ((leaf, key), (above, _)) = (issued_until(2038), issued_until(2051));
        let validity = |chain: &str| said(&dir, chain, &key, &above).unwrap().validity;
        let until = |until| {
            Some(Validity {
                from: Duration::from_secs(1_583_020_800),
                until: Duration::from_secs(until),
            })
        };
        assert_eq!(validity(&format!("{leaf}{above}")), until(2_151_014_400));
        let (short, _) = issued_until(2030);
        let all = format!("{leaf}{above}{short}");
        assert_eq!(validity(&all), until(1_898_553_600));
    }

    #[test]
    fn each_tls_error_names_its_file_and_fix_but_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let ((cert, key), (other, _)) = (issued(), issued());
        let damaged = |pem: &str| pem.replace("-----END", "----END").replace('M', "M!");
        let no_certificate = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let no_key = no_certificate.replace("CERTIFICATE", "PRIVATE KEY");
        for (case, expected) in [
            (
                [&*other, &*key, &*cert],
                "http.tls.key: key: is not the key of the certificate in cert (http.tls.cert); use a pair that was issued together",
            ),
            (
                [&cert, &cert, &cert],
                "http.tls.key: key: holds no private key; it must be PEM, unencrypted, ",
            ),
            (
                [&cert, &damaged(&key), &cert],
                "http.tls.key: key: holds no private key; it must be PEM",
            ),
            (
                [&cert, &no_key, &cert],
                "http.tls.key: key: holds a key that can't be used; use RSA",
            ),
            (
                [&key, &key, &cert],
                "http.tls.cert: cert: holds no certificate; it must be PEM",
            ),
            (
                ["", &key, &cert],
                "http.tls.cert: cert: holds no certificate; it must be PEM",
            ),
            (
                [&damaged(&cert), &key, &cert],
                "http.tls.cert: cert: is damaged PEM; write the file again",
            ),
            (
                [no_certificate, &key, &cert],
                "http.tls.cert: cert: holds an invalid certificate",
            ),
            (
                [&cert, &key, &key],
                "http.tls.client_ca: ca: holds no certificate; it must be PEM",
            ),
            (
                [&cert, &key, no_certificate],
                "http.tls.client_ca: ca: holds an invalid CA certificate: ",
            ),
        ] {
            let [cert, key, client_ca] = case;
            let error = said(&dir, cert, key, client_ca).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
            let secret = key.lines().nth(1).unwrap_or("nothing");
            assert!(!error.contains(secret), "{error}");
        }
    }
}
