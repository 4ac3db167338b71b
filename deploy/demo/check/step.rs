//! One step: its report, and the comparisons in it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use crate::clock::Moment;
use crate::failure::Failure;
use crate::wire::Refusal;

/// Runs one step of the scenario; prints how it went and how long it took.
pub(super) async fn step<T>(
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let began = Moment::now();
    match work.await {
        Ok(done) => {
            say_ok(what, began.elapsed());
            Ok(done)
        }
        Err(failure) => Err(Failure::new(format!("FAIL {what}\n      {failure}"))),
    }
}

pub(super) fn say_ok(what: &str, took: Duration) {
    println!("ok    {what}, in {:.1} ms", took.as_secs_f64() * 1000.0);
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what is compared is nearly always a literal"
)]
pub(super) fn same<T: PartialEq + Debug>(what: &str, expected: T, got: T) -> Result<(), Failure> {
    if expected == got {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{what}: expected {expected:?}, got {got:?}"
        )))
    }
}

/// Checks that a refusal for lack of a slot has all the information that it must have.
pub(super) fn says_full(refusal: &Refusal, holders: [&str; 3]) -> Result<(), Failure> {
    same("status", 429, refusal.status.as_u16())?;
    same(
        "content-type",
        "application/problem+json",
        refusal.header("content-type"),
    )?;
    same("reason", "full", refusal.reason())?;
    same("sessions named", BTreeSet::from(holders), refusal.holders())?;
    for count in ["limit", "active"] {
        same(
            count,
            Some(3),
            refusal
                .problem
                .get(count)
                .and_then(serde_json::Value::as_u64),
        )?;
    }
    same(
        "ratelimit-policy",
        "\"streams\";q=3;qu=\"concurrent-requests\"",
        refusal.header("ratelimit-policy"),
    )?;
    same("ratelimit", "\"streams\";r=0", refusal.header("ratelimit"))?;
    let retry_after = refusal.header("retry-after");
    same(
        "retry-after is a whole number of seconds",
        Ok(true),
        retry_after.parse::<u32>().map(|seconds| seconds >= 1),
    )
}
