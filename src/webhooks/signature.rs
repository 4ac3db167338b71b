//! Signatures of the Standard Webhooks specification: `v1`, an HMAC with SHA-256.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// How many bytes a secret has, by the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ followed by 24 to 64 random bytes in base64 (openssl rand -base64 32)")]
pub(super) struct NotASecret;

/// A secret that a receiver shares.
#[derive(Clone)]
pub(super) struct SigningSecret(hmac::Key);

impl SigningSecret {
    /// The secret in its usual form.
    pub(super) fn parse(text: &str) -> Result<Self, NotASecret> {
        let text = text.strip_prefix(PREFIX).ok_or(NotASecret)?;
        let bytes = STANDARD.decode(text).map_err(|_| NotASecret)?;
        if !BYTES.contains(&bytes.len()) {
            return Err(NotASecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The signature of a message with that id, sent at that second, with that body.
    fn sign(&self, id: &str, second: u64, body: &[u8]) -> String {
        let mut signed = hmac::Context::with_key(&self.0);
        signed.update(format!("{id}.{second}.").as_bytes());
        signed.update(body);
        format!("v1,{}", STANDARD.encode(signed.sign()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

/// The value of `webhook-signature`: one signature for each secret.
pub(super) fn signatures(secrets: &[SigningSecret], id: &str, second: u64, body: &[u8]) -> String {
    let each = secrets.iter().map(|secret| secret.sign(id, second, body));
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the specification's libraries test.
    const EXAMPLE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_example_of_the_specification_is_signed_alike() {
        let secret = SigningSecret::parse(EXAMPLE).unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let signed = signatures(std::slice::from_ref(&secret), id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let other = SigningSecret::parse(&format!("whsec_{}", STANDARD.encode([7; 64]))).unwrap();
        let both = signatures(&[other, secret], id, 1_614_265_330, body);
        let (first, second) = both.split_once(' ').unwrap();
        assert!(first.starts_with("v1,") && first != signed);
        assert_eq!(second, signed);
    }

    #[test]
    fn a_secret_has_its_prefix_and_enough_bytes() {
        for bytes in [0, 23, 65] {
            let text = format!("whsec_{}", STANDARD.encode(vec![1; bytes]));
            assert!(SigningSecret::parse(&text).is_err(), "{bytes}");
        }
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS%",
        ] {
            assert!(SigningSecret::parse(text).is_err(), "{text}");
        }
        let shown = format!("{:?}", SigningSecret::parse(EXAMPLE).unwrap());
        assert_eq!(shown, "SigningSecret");
    }
}
