//! The paths of a port's certificate and key. [`crate::reload`] reads the files.

use std::path::PathBuf;

use crate::config::load::error::Report;
use crate::config::load::form::{NotAPath, file, path};
use crate::config::load::raw::Raw;
use crate::config::load::section::{Key, Keys};

/// The files with which a port speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its intermediates, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authorities whose certificates clients must show, in PEM. If unset, clients need none.
    pub client_ca: Option<PathBuf>,
}

/// The full names of the keys of one port's section.
#[derive(Debug, Clone, Copy)]
pub struct TlsKeys {
    /// The section of the three keys.
    pub(super) section: &'static str,
    /// The key of [`Tls::cert`].
    pub cert: &'static str,
    /// The key of [`Tls::key`].
    pub key: &'static str,
    /// The key of [`Tls::client_ca`].
    pub client_ca: &'static str,
}

impl TlsKeys {
    /// The keys of `grpc.tls`.
    pub const GRPC: Self = Self {
        section: "grpc.tls",
        cert: "grpc.tls.cert",
        key: "grpc.tls.key",
        client_ca: "grpc.tls.client_ca",
    };

    /// The keys of `http.tls`.
    pub const HTTP: Self = Self {
        section: "http.tls",
        cert: "http.tls.cert",
        key: "http.tls.key",
        client_ca: "http.tls.client_ca",
    };
}

/// Declares the keys of a port's `tls`. `refused` says why the port can't use TLS, if it can't.
pub(in crate::config) fn keys(
    tls: &mut Option<Tls>,
    names: TlsKeys,
    refused: Option<&str>,
    keys: &mut impl Keys,
) {
    let files = tls.take().map(|tls| (tls.cert, tls.key, tls.client_ca));
    let is_there = files.is_some();
    let (mut cert, mut key, mut client_ca) = files
        .map(|(cert, key, client_ca)| (Some(cert), Some(key), client_ca))
        .unwrap_or_default();
    let form = || {
        file(move |written| match (path(written), refused) {
            (Ok(None), _) => Ok(None),
            (_, Some(why)) => Err(written.refuse(why)),
            (Ok(path), None) => Ok(path),
            (Err(NotAPath), None) => Err(written.wrong_secret("the path of a PEM file")),
        })
    };
    if !is_there {
        keys.absent(names.section);
    }
    keys.key(
        Key::new(
            names.cert,
            "The certificate, with those between it and its root, in PEM. With it and its key, the port \
             speaks [TLS][tls] and nothing else. Not with a Unix socket.",
        )
        .shown_if(is_there),
        form(),
        &mut cert,
    );
    keys.key(
        Key::new(names.key, "The certificate's private key, in PEM.").shown_if(is_there),
        form(),
        &mut key,
    );
    keys.key(
        Key::new(
            names.client_ca,
            "Certificates of authorities, in PEM. Only clients with a certificate from one of them are \
             served (mutual TLS).",
        )
        .shown_if(is_there),
        form(),
        &mut client_ca,
    );
    *tls = cert.zip(key).map(|(cert, key)| Tls {
        cert,
        key,
        client_ca,
    });
}

/// Checks that a port has both certificate and key, if it has one of the files.
pub(in crate::config) fn check(names: TlsKeys, raw: &Raw, report: &mut Report) {
    let given = |name| raw.get(name).filter(|file| !matches!(path(file), Ok(None)));
    let mut files = [names.cert, names.key, names.client_ca].into_iter();
    let Some(first) = files.find_map(given) else {
        return;
    };
    for (name, meaning) in [
        (names.cert, "the file with the certificate"),
        (names.key, "the file with the certificate's private key"),
    ] {
        if given(name).is_none() {
            let missing = first.refuse(format_args!(
                "got nothing; allowed: {meaning}, since TLS needs both"
            ));
            report.add(missing.into_problem(name));
        }
    }
}
