//! What is allowed and yet worth a word, such as doors that are open to more than this machine.

use super::listen::is_beyond_loopback;
use super::{Backend, Config, Origins, Redis};

impl Config {
    /// What whoever runs this should know, each a sentence that can stand alone in a log.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (grpc, http) = (&self.grpc.listen, &self.http.listen);
        let lacks = match &self.grpc.tls {
            None => Some("without TLS"),
            Some(tls) if tls.client_ca.is_none() => Some("and grpc.tls.client_ca is not set"),
            Some(_) => None,
        };
        if let (true, Some(lacks)) = (grpc.is_beyond_loopback(), lacks) {
            warnings.push(format!(
                "grpc.listen: {grpc} is open beyond this machine, {lacks}: who reaches it can forge the end of any stream"
            ));
        }
        if is_beyond_loopback(http) && self.http.tokens_file.is_none() {
            warnings.push(format!(
                "http.listen: {http} is open beyond this machine, without tokens: who reaches it can start, see and end anybody's sessions"
            ));
        }
        if self.store.backend == Backend::Memory
            && (grpc.is_beyond_loopback() || is_beyond_loopback(http))
        {
            warnings.push(
                "store.backend: memory counts in this process alone: a second instance would allow as many streams again, \
                 and a restart forgets them all"
                    .to_owned(),
            );
        }
        if self.store.backend == Backend::Memory && self.store.redis != Redis::default() {
            warnings.push(
                "store.redis: what is set there has no effect, since store.backend is memory: \
                 this process counts for itself; to count in Redis, set store.backend to redis"
                    .to_owned(),
            );
        }
        if self.http.cors_origins == Origins::Any && self.http.tokens_file.is_none() {
            warnings.push(
                "http.cors_origins: * without http.tokens_file lets any page that a browser here opens start, see and end anybody's sessions"
                    .to_owned(),
            );
        }
        if !self.limits.enforce {
            warnings.push(
                "limits.enforce: false is a dry run: nobody is refused but on routes with streamgate.enforce: true; what would have been refused is counted and logged"
                    .to_owned(),
            );
        }
        warnings
    }
}
