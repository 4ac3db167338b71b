//! Warnings about settings that are allowed but risky, such as ports that other machines can reach.

use super::sections::grpc::is_beyond_loopback;
use super::{Backend, Config, Grpc, LogUsers, Origins, Redis};

impl Grpc {
    /// What is wrong if other machines reach the port without showing a certificate.
    #[must_use]
    pub fn exposed(&self) -> Option<String> {
        let lacks = match &self.tls {
            None => "without TLS",
            Some(tls) if tls.client_ca.is_none() => "and grpc.tls.client_ca is not set",
            Some(_) => return None,
        };
        let listen = &self.listen;
        listen.is_beyond_loopback().then(|| format!(
            "grpc.listen: {listen} is open beyond this machine, {lacks}: anyone who can reach it can forge the end of any stream"
        ))
    }
}

impl Config {
    /// Warnings for the operator, each a sentence that makes sense alone in a log.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.old_names.clone();
        let (grpc, http) = (&self.grpc.listen, &self.http.listen);
        warnings.extend(self.grpc.exposed());
        if is_beyond_loopback(http) && self.http.tokens_file.is_none() {
            warnings.push(format!(
                "http.listen: {http} is open beyond this machine, without tokens: anyone who can reach it can start, see and end anybody's sessions"
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
        let telemetry = &self.telemetry;
        if telemetry.log_users == LogUsers::Plain && telemetry.log_users_key_file.is_some() {
            warnings.push(
                "telemetry.log_users_key_file: it has no effect, since telemetry.log_users is plain: \
                 the log names users by their ids"
                    .to_owned(),
            );
        }
        if !self.limits.enforce {
            warnings.push(
                "limits.enforce: false is a dry run: nothing is refused, except on routes with streamgate.enforce: true; refusals are counted and logged instead"
                    .to_owned(),
            );
        }
        warnings
    }
}
