//! What a running Envoy's own configuration lacks.

use http::{Method, StatusCode};

use super::{CheckReport, CheckStatus};
use crate::cli::client::Api;
use crate::cli::envoy_check;
use crate::identity::Source;

/// The name of this check.
const CHECK: &str = "envoy";

/// What is found in the configuration that an Envoy's administrator shows.
pub(super) fn findings(admin: &Api, user: Option<&Source>) -> Vec<CheckReport> {
    let finding = |state, told| CheckReport {
        state,
        instance: Some(admin.place()),
        check: CHECK,
        told,
    };
    let wrong = |told: String| vec![finding(CheckStatus::Wrong, told)];
    let answer = match admin.ask(Method::GET, "/config_dump") {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        Ok(answer) => {
            let status = answer.status.as_u16();
            return wrong(format!(
                "/config_dump answers {status}; pass the address of Envoy's administrator to --envoy-admin"
            ));
        }
        Err(error) => return wrong(format!("{error}; start it, or correct --envoy-admin")),
    };
    match envoy_check::told(&answer.body, user) {
        Err(error) => wrong(error),
        Ok(told) if told.is_empty() => {
            let told = "nothing is missing in its configuration";
            vec![finding(CheckStatus::Ok, told.to_owned())]
        }
        Ok(told) => {
            let told = told.into_iter();
            told.map(|told| finding(CheckStatus::Wrong, told)).collect()
        }
    }
}
