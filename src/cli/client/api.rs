//! Calls the API. It doesn't follow redirects, which would get the token, and ignores the
//! environment's proxies.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request, StatusCode, header};

use super::ApiResponse;
use super::base::{Base, NotABase};
use super::token::{NoToken, Token};
use crate::cli::tls::{TlsArgs, TlsError};

/// The time for a whole call, from resolving the name to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The size of the longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// The arguments for the address of the API and the caller.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ApiArgs {
    /// The address of the instance's HTTP API, `http://` or `https://`, with the path that a proxy
    /// puts before it, if any.
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

/// The arguments for the caller: the token, and whom to trust.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct AccessArgs {
    /// The file whose first line is the token. Without it, the token is in the variable
    /// `STREAMGATE_TOKEN`, or in the file that `STREAMGATE_TOKEN_FILE` names.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// The API of an instance.
pub(in crate::cli) struct Api {
    /// Its address.
    base: Base,
    /// The token to show.
    token: Option<Token>,
    /// The HTTP client, which keeps the connection.
    agent: ureq::Agent,
}

/// The answer to [`Api::follow`].
pub(in crate::cli) enum Followed {
    /// The stream.
    Stream(ureq::BodyReader<'static>),
    /// What came instead.
    Answer(ApiResponse),
}

/// Why the arguments can't be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum WrongUse {
    /// The address is wrong.
    #[error(transparent)]
    Url(#[from] NotABase),
    /// There is no token where one is expected.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// The files for TLS can't be used.
    #[error(transparent)]
    TlsFiles(#[from] TlsError),
    /// Files for TLS with `http://`.
    #[error(
        "--ca, --cert and --key need https://, but --url is http://; use https://, or leave them out"
    )]
    TlsForNothing,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum NoAnswer {
    /// No answer came in time.
    #[error("no answer from {0} within {secs} s", secs = .1.as_secs_f32())]
    Late(String, Duration),
    /// The answer is too long.
    #[error("the answer from {0} is longer than {mib} MiB", mib = MAX_ANSWER_BYTES >> 20)]
    Long(String),
    /// Another failure.
    #[error("no answer from {0}: {cause}{hint}", cause = cause(.1), hint = hint(.1))]
    Failed(String, ureq::Error),
}

impl ApiArgs {
    /// The API that the arguments and the environment name. Warns if the token is sent unencrypted.
    ///
    /// # Errors
    /// The arguments or the environment can't be used.
    pub(in crate::cli) fn open(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
        errors: &mut impl Write,
    ) -> Result<Api, WrongUse> {
        self.access.open(&self.url, variable, errors)
    }
}

impl AccessArgs {
    /// The API at an address. Warns if the token is sent unencrypted.
    ///
    /// # Errors
    /// The address or the arguments can't be used.
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
    /// Sends a request, and reads the whole answer, also if it is an error.
    ///
    /// # Errors
    /// No answer came.
    pub(in crate::cli) fn ask(&self, method: Method, path: &str) -> Result<ApiResponse, NoAnswer> {
        self.call(method, path, &[], ())
    }

    /// The same with a body of JSON.
    ///
    /// # Errors
    /// No answer came.
    pub(in crate::cli) fn send(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<ApiResponse, NoAnswer> {
        let json = [(header::CONTENT_TYPE, "application/json")];
        self.call(method, path, &json, body.to_string())
    }

    /// Sends a request with these headers and that body.
    fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: impl ureq::AsSendBody,
    ) -> Result<ApiResponse, NoAnswer> {
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
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = request
            .body(body)
            .map_err(ureq::Error::from)
            .and_then(|request| self.agent.run(request));
        answer
            .and_then(ApiResponse::read)
            .map_err(|error| self.no_answer(error))
    }

    /// Sends a request whose answer is a stream that never ends by itself; `last` is the last event
    /// that was seen.
    ///
    /// # Errors
    /// No answer came.
    pub(in crate::cli) fn follow(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<Followed, NoAnswer> {
        let mut request = Request::get(self.base.join(path)).header(
            header::ACCEPT,
            "text/event-stream, application/problem+json;q=0.9",
        );
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request
            .body(())
            .map_err(ureq::Error::from)
            .and_then(|request| {
                let request = self.agent.configure_request(request);
                let request = request
                    .timeout_global(None)
                    .timeout_connect(Some(TIMEOUT))
                    .timeout_recv_response(Some(TIMEOUT))
                    .build();
                self.agent.run(request)
            })
            .map_err(|error| self.no_answer(error))?;
        if answer.status() != StatusCode::OK {
            let answer = ApiResponse::read(answer).map_err(|error| self.no_answer(error))?;
            return Ok(Followed::Answer(answer));
        }
        let body = answer.into_body().into_with_config();
        Ok(Followed::Stream(body.limit(u64::MAX).reader()))
    }

    /// Where it is.
    pub(in crate::cli) fn place(&self) -> String {
        self.base.to_string()
    }

    /// Whether requests have a token.
    pub(in crate::cli) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Describes why no answer came.
    fn no_answer(&self, error: ureq::Error) -> NoAnswer {
        let base = self.base.to_string();
        match error {
            ureq::Error::Timeout(_) => NoAnswer::Late(base, self.timeout()),
            ureq::Error::BodyExceedsLimit(_) => NoAnswer::Long(base),
            error => NoAnswer::Failed(base, error),
        }
    }

    /// How long to wait for an answer.
    fn timeout(&self) -> Duration {
        self.agent.config().timeouts().global.unwrap_or(TIMEOUT)
    }
}

impl ApiResponse {
    /// Reads the whole answer.
    fn read(answer: http::Response<ureq::Body>) -> Result<Self, ureq::Error> {
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
        Ok(Self::new(&parts, body))
    }
}

/// An HTTP client that returns answers with any status.
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

/// The cause of a failure, without the client's words about its own parts.
fn cause(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Rustls(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// A hint for the user, in terms of the arguments.
fn hint(error: &ureq::Error) -> &'static str {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    use rustls::{AlertDescription as Alert, Error, InvalidMessage};
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    match tls {
        // The signature is wrong if another authority of the same name has signed it.
        Some(Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            " (certificate signed by an unknown authority; pass its certificate with --ca)"
        }
        Some(Error::AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure)) => {
            " (the server may require a client certificate; pass --cert and --key)"
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            " (the server does not speak TLS; try http:// in the address)"
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
            error.unwrap_err().to_string().contains("use https://"),
            "it says what to do"
        );
    }
}
