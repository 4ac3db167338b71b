//! Where a port's certificate is. Only the places are known here; what stands in the files is read by [`crate::tls`].

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::load::error::{Problem, Report};
use crate::config::load::value::{Value, Written, Wrong};
use crate::config::load::yaml::Slot;

/// The `tls` section of a port, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawTls {
    cert: Option<Written>,
    key: Option<Written>,
    client_ca: Option<Written>,
}

/// The files with which a port speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and those between it and its root, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Whose certificates a client must have, in PEM; without it clients need none.
    pub client_ca: Option<PathBuf>,
}

/// The full names of the keys of one port's section.
#[derive(Debug, Clone, Copy)]
pub struct TlsKeys {
    /// The key of [`Tls::cert`].
    pub cert: &'static str,
    /// The key of [`Tls::key`].
    pub key: &'static str,
    /// The key of [`Tls::client_ca`].
    pub client_ca: &'static str,
}

impl TlsKeys {
    /// Those of `grpc.tls`.
    pub const GRPC: Self = Self {
        cert: "grpc.tls.cert",
        key: "grpc.tls.key",
        client_ca: "grpc.tls.client_ca",
    };

    /// Those of `http.tls`.
    pub const HTTP: Self = Self {
        cert: "http.tls.cert",
        key: "http.tls.key",
        client_ca: "http.tls.client_ca",
    };
}

impl RawTls {
    pub(in crate::config) fn slots(&mut self, keys: TlsKeys) -> [Slot<'_>; 3] {
        [
            (keys.cert, &mut self.cert),
            (keys.key, &mut self.key),
            (keys.client_ca, &mut self.client_ca),
        ]
    }

    /// The files, if any is named.
    pub(in crate::config) fn check(&self, keys: TlsKeys, report: &mut Report) -> Option<Tls> {
        // What is written and wrong has been told of; it isn't missing.
        let mut read = |key, written: Option<&Written>| {
            report.read(key, Some(written?), Some(PathBuf::new()), path)
        };
        let cert = read(keys.cert, self.cert.as_ref());
        let key = read(keys.key, self.key.as_ref());
        let client_ca = read(keys.client_ca, self.client_ca.as_ref());
        let given = [
            (&cert, &self.cert),
            (&key, &self.key),
            (&client_ca, &self.client_ca),
        ]
        .into_iter()
        .find_map(|(path, written)| path.as_ref().and(written.as_ref()))?;
        for (name, value, meaning) in [
            (keys.cert, &cert, "the file with the certificate"),
            (
                keys.key,
                &key,
                "the file with the certificate's private key",
            ),
        ] {
            if value.is_none() {
                report.add(Problem {
                    origin: given.origin.clone(),
                    key: name.to_owned(),
                    message: format!("got nothing; allowed: {meaning}, since TLS needs both"),
                });
            }
        }
        let is_wrong = |path: &PathBuf| path.as_os_str().is_empty();
        if [&cert, &key, &client_ca]
            .into_iter()
            .flatten()
            .any(is_wrong)
        {
            return None;
        }
        Some(Tls {
            cert: cert?,
            key: key?,
            client_ca,
        })
    }

    /// Refuses any file for a port that can't speak TLS.
    pub(in crate::config) fn refuse(&self, keys: TlsKeys, why: &str, report: &mut Report) {
        for (key, written) in [
            (keys.cert, &self.cert),
            (keys.key, &self.key),
            (keys.client_ca, &self.client_ca),
        ] {
            let refused = |written: &Written| match path(written) {
                Ok(None) => Ok(()),
                _ => Err(written.refuse(why)),
            };
            report.read(key, written.as_ref(), (), refused);
        }
    }
}

/// The path of a file; none where nothing is written, which is how a variable takes back what the file says.
pub(in crate::config) fn path(written: &Written) -> Result<Option<PathBuf>, Wrong> {
    let text = match &written.value {
        Value::Null => return Ok(None),
        Value::Text(text) if text.is_empty() => return Ok(None),
        Value::Text(text) => Some(text),
        Value::Plain(_) | Value::List(_) | Value::Map(_) => None,
    };
    // Whoever takes this for the place of the key itself must not read it in a log.
    let is_path = |text: &&String| !text.contains(char::is_control) && !text.contains("-----");
    text.filter(is_path)
        .map(|text| Some(text.into()))
        .ok_or_else(|| written.wrong_secret("the path of a PEM file"))
}
