//! Looks up values in the metadata that Envoy's filters attach to a request.

use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};

use crate::identity::ClaimPath;
use crate::identity::attributes::MetadataValue;

/// The values at that path. The JWT filter stores payloads under names that the operator chose, so
/// each is searched.
pub(in crate::envoy) fn at_path<'a>(
    payloads: Option<&'a Struct>,
    path: &ClaimPath,
) -> impl Iterator<Item = MetadataValue<'a>> {
    let payloads = payloads
        .into_iter()
        .flat_map(|payloads| payloads.fields.values());
    payloads
        .filter_map(|payload| at(payload, path.as_str()))
        .map(value)
}

/// The value at the end of a path. Names may contain dots themselves
/// (`https://example.com/claims`), so at each level the name is the longest prefix of the path that
/// leads to a value. No value is reached in two ways, so this takes no longer than a walk through
/// the payload.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    field(value, path).or_else(|| {
        path.rmatch_indices('.').find_map(|(dot, _)| {
            let (name, rest) = path.split_at(dot);
            at(field(value, name)?, rest.strip_prefix('.')?)
        })
    })
}

/// A field of an object.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match &value.kind {
        Some(ValueKind::StructValue(object)) => object.fields.get(name),
        _ => None,
    }
}

/// The value, independent of the wire format.
fn value(value: &Value) -> MetadataValue<'_> {
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => MetadataValue::Null,
        Some(ValueKind::StringValue(text)) => MetadataValue::Text(text),
        Some(ValueKind::NumberValue(number)) => MetadataValue::Number(*number),
        Some(ValueKind::BoolValue(_) | ValueKind::StructValue(_) | ValueKind::ListValue(_)) => {
            MetadataValue::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// An object with that one field.
    fn object(name: &str, value: Value) -> Value {
        let fields = HashMap::from([(name.to_owned(), value)]);
        Value {
            kind: Some(ValueKind::StructValue(Struct { fields })),
        }
    }

    proptest! {
        #[test]
        fn a_claim_is_found_however_many_dots_the_names_above_it_have(
            names in proptest::collection::vec("[a-c]{1,2}(\\.[a-c]){0,3}", 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = Value { kind: Some(ValueKind::StringValue("anna".to_owned())) };
            let payload = names.iter().rev().fold(text.clone(), |inner, name| object(name, inner));
            let path = names.join(".");
            prop_assert_eq!(at(&payload, &path), Some(&text));
            prop_assert_eq!(at(&payload, &format!("{path}.a")), None);
            // If the path ends early, there is an object or nothing, but never the text.
            let (path, _) = path.split_at(cut.index(path.len()));
            prop_assert_ne!(at(&payload, path), Some(&text));
        }
    }
}
