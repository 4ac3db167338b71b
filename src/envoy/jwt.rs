//! Finds a claim in the payloads of verified tokens. Pure.

use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};

use super::evidence::{Flaw, Found, keep_one};
use crate::config::ClaimPath;

/// A claim by its path. Payloads are stored under names that the operator chose, so each is searched; where several have the claim, they
/// must agree.
pub(super) fn claim<'a>(payloads: &'a Struct, path: &ClaimPath) -> Found<'a> {
    let mut found = None;
    for payload in payloads.fields.values() {
        if let Some(value) = at(payload, path.as_str())
            && let Some(text) = name(value)?
        {
            keep_one(&mut found, text)?;
        }
    }
    Ok(found)
}

/// What is at the end of a path. Names may have dots themselves (`https://example.com/claims`), so at each level the longest beginning of
/// the path that leads there is the name. No value is reached in two ways, so this takes no longer than a walk through the payload.
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

/// A value that can be a name: a text, or a whole number (protobuf knows only doubles).
#[expect(clippy::float_cmp, reason = "whole numbers below 2^53 are exact")]
fn name(value: &Value) -> Found<'_> {
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => Ok(None),
        Some(ValueKind::StringValue(text)) => Ok(Some(text.into())),
        Some(ValueKind::NumberValue(number))
            if number.trunc() == *number && number.abs() < 9_007_199_254_740_992.0 =>
        {
            Ok(Some(format!("{number:.0}").into()))
        }
        Some(
            ValueKind::NumberValue(_)
            | ValueKind::BoolValue(_)
            | ValueKind::StructValue(_)
            | ValueKind::ListValue(_),
        ) => Err(Flaw::NotAName),
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
            // Where the path ends early, there is an object or nothing, and never the text.
            let (path, _) = path.split_at(cut.index(path.len()));
            prop_assert_ne!(at(&payload, path), Some(&text));
        }
    }
}
