//! Asks the API. Redirects aren't followed, since the token would go along, and no proxy of the environment's is used.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request, header};

use super::Answer;
use super::base::{Base, NotABase};
use super::token::{NoToken, Token};
use crate::cli::tls::{TlsArgs, TlsError};

/// For all of one question: the name's address, connecting, asking, the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Where the API is, and who asks.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ApiArgs {
    /// Where the instance's HTTP API is, `http://` or `https://`, with the path that a proxy has put before it, if any.
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMGATE_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    #[command(flatten)]
    access: AccessArgs,
}

/// Who asks, and whom they trust.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct AccessArgs {
    /// The file whose first line is the token. Else the token is in the variable `STREAMGATE_TOKEN`, or in the file that `STREAMGATE_TOKEN_FILE` names.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// An instance's API, which can be asked.
pub(in crate::cli) struct Api {
    /// Where it is.
    base: Base,
    /// Who asks.
    token: Option<Token>,
    /// Holds the connection.
    agent: ureq::Agent,
}

/// Why the arguments are of no use.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum WrongUse {
    /// The address is none.
    #[error(transparent)]
    Url(#[from] NotABase),
    /// There is no token where one should be.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// The files for TLS are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There are files for TLS, and no TLS.
    #[error(
        "--ca, --cert and --key are for https://, and --url is http://; write https:// there, or leave them out"
    )]
    TlsForNothing,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum NoAnswer {
    /// It takes too long.
    #[error("no answer from {0} within {secs} s", secs = .1.as_secs_f32())]
    Late(String, Duration),
    /// It is too long.
    #[error("the answer from {0} is longer than {mib} MiB", mib = MAX_ANSWER_BYTES >> 20)]
    Long(String),
    /// Anything else.
    #[error("no answer from {0}: {cause}{hint}", cause = cause(.1), hint = hint(.1))]
    Failed(String, ureq::Error),
}

impl ApiArgs {
    /// The API that the arguments and the environment mean. Warns where they do, and give the token away.
    ///
    /// # Errors
    /// They are of no use.
    pub(in crate::cli) fn open(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
        errors: &mut impl Write,
    ) -> Result<Api, WrongUse> {
        self.access.open(&self.url, variable, errors)
    }
}

impl AccessArgs {
    /// The API there. Warns where the token would be given away.
    ///
    /// # Errors
    /// The address or the arguments are of no use.
    pub(in crate::cli) fn open(
        &self,
        url: &str,
        variable: impl Fn(&str) -> Option<OsString>,
        errors: &mut impl Write,
    ) -> Result<Api, WrongUse> {
        let base = Base::parse(url)?;
        if !base.is_tls && !self.tls.is_empty() {
            return Err(WrongUse::TlsForNothing);
        }
        let token = Token::find(self.token_file.as_deref(), variable)?;
        if token.is_some() && base.is_overheard() {
            let _ = writeln!(
                errors,
                "streamgate: warning: the token goes to {base} unencrypted, and others may read it on the way; use https://"
            );
        }
        let tls = self.tls.load()?.for_http();
        let agent = agent(tls, TIMEOUT);
        Ok(Api { base, token, agent })
    }
}

impl Api {
    /// Asks, and hears the whole answer, whatever it is.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::cli) fn ask(&self, method: Method, path: &str) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.base.join(path))
            .header(
                header::ACCEPT,
                "application/json, application/problem+json;q=0.9",
            );
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        let answer = request
            .body(())
            .map_err(ureq::Error::from)
            .and_then(|request| self.agent.run(request));
        answer
            .and_then(Answer::read)
            .map_err(|error| self.no_answer(error))
    }

    /// Where it is.
    pub(in crate::cli) fn place(&self) -> String {
        self.base.to_string()
    }

    /// Whether it is told who asks.
    pub(in crate::cli) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// What is told of that.
    fn no_answer(&self, error: ureq::Error) -> NoAnswer {
        let base = self.base.to_string();
        match error {
            ureq::Error::Timeout(_) => NoAnswer::Late(base, self.timeout()),
            ureq::Error::BodyExceedsLimit(_) => NoAnswer::Long(base),
            error => NoAnswer::Failed(base, error),
        }
    }

    /// For how long it is waited for an answer.
    fn timeout(&self) -> Duration {
        self.agent.config().timeouts().global.unwrap_or(TIMEOUT)
    }
}

impl Answer {
    /// Reads all of it.
    fn read(answer: http::Response<ureq::Body>) -> Result<Self, ureq::Error> {
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
        Ok(Self::new(&parts, body))
    }
}

/// A client that leaves to us what an answer means.
fn agent(tls: ureq::tls::TlsConfig, timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(timeout))
        .tls_config(tls)
        .user_agent(concat!("streamgate/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// What went wrong, without the words that say only where in the client.
fn cause(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Rustls(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// What may help. Who asks sees the arguments and not our code.
fn hint(error: &ureq::Error) -> &'static str {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    use rustls::{AlertDescription as Alert, Error, InvalidMessage};
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    match tls {
        // The signature is bad where somebody of the same name vouches for it.
        Some(Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            " (who vouches for it is unknown here: name their certificate by --ca)"
        }
        Some(Error::AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure)) => {
            " (it may want a certificate from who asks: --cert and --key)"
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            " (no TLS is spoken there: the address may begin with http://)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_never_answers_is_not_waited_for_for_ever() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let api = Api {
            base: Base::parse(&url).unwrap(),
            token: None,
            agent: agent(
                TlsArgs::default().load().unwrap().for_http(),
                Duration::from_millis(100),
            ),
        };
        let told = api.ask(Method::GET, "/v1").unwrap_err().to_string();
        assert_eq!(told, format!("no answer from {url} within 0.1 s"));
    }

    #[test]
    fn a_token_that_others_can_read_is_warned_of_and_one_that_they_cannot_is_not() {
        for (url, warns) in [
            ("http://10.0.0.1:8080", true),
            ("http://127.0.0.1:8080", false),
            ("https://10.0.0.1:8080", false),
        ] {
            let args = ApiArgs {
                url: url.to_owned(),
                access: AccessArgs {
                    token_file: None,
                    tls: TlsArgs::default(),
                },
            };
            let mut errors = Vec::new();
            let with_token = |name: &str| (name == "STREAMGATE_TOKEN").then(|| "s3cr3t".into());
            args.open(with_token, &mut errors).map(|_| ()).unwrap();
            let told = String::from_utf8(errors).unwrap();
            assert_eq!(told.starts_with("streamgate: warning: the token"), warns);
            assert!(
                !told.contains("s3cr3t") && told.lines().count() < 2,
                "{told}"
            );
            let mut errors = Vec::new();
            args.open(|_| None, &mut errors).map(|_| ()).unwrap();
            assert_eq!(errors, b"");
        }
    }

    #[test]
    fn files_for_tls_without_tls_are_a_mistake() {
        let args = ApiArgs {
            url: "http://127.0.0.1:8080".to_owned(),
            access: AccessArgs {
                token_file: None,
                tls: TlsArgs {
                    ca: Some("ca.pem".into()),
                    ..TlsArgs::default()
                },
            },
        };
        let error = args.open(|_| None, &mut Vec::new()).map(|_| ());
        assert!(
            error.unwrap_err().to_string().contains("write https://"),
            "it says what to do"
        );
    }
}
