//! `sessions` and `release` as the program that people run, by what it prints and how it ends.

// Answers that streamgate doesn't give, or not when asked: refusals, strangers, silence, too much.
mod answers;
// Against the service itself.
mod service;
// A server that answers as told.
mod stub;
// Where a token comes from, and where it goes.
mod token;
// Over TLS.
mod tls;

/// What a run of the program came to, as [`testkit::streamgate::run`] tells it.
type Ended = (i32, String, String);

/// Fails if a run has not ended so, on that occasion.
#[track_caller]
fn assert_ended(ended: &Ended, code: i32, out: &str, errors: &str) {
    let (got_code, got_out, got_errors) = ended;
    assert_eq!(
        (*got_code, got_out.as_str(), got_errors.as_str()),
        (code, out, errors)
    );
}
