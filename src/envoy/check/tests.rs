//! How a check decodes its caller's deadline.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use super::grpc_timeout;

#[test]
fn a_grpc_timeout_is_parsed() {
    for (text, expected) in [
        ("1H", Some(Duration::from_secs(3600))),
        ("2M", Some(Duration::from_secs(120))),
        ("3S", Some(Duration::from_secs(3))),
        ("198m", Some(Duration::from_millis(198))),
        ("500u", Some(Duration::from_micros(500))),
        ("99999999n", Some(Duration::from_nanos(99_999_999))),
        ("0m", Some(Duration::ZERO)),
        ("18446744073709551615H", Some(Duration::from_secs(u64::MAX))),
        ("18446744073709551616H", None),
        ("", None),
        ("m", None),
        ("198", None),
        ("198x", None),
        ("-1m", None),
        ("1.5S", None),
        ("1 m", None),
        ("1é", None),
    ] {
        let mut metadata = MetadataMap::new();
        if let Ok(value) = text.parse() {
            metadata.insert("grpc-timeout", value);
        }
        assert_eq!(grpc_timeout(&metadata), expected, "{text}");
    }
    assert_eq!(grpc_timeout(&MetadataMap::new()), None);
}
