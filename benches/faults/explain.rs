//! What a streamgate says about a row: shown with `EXPLAIN=1`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use testkit::streamgate::Streamgate;

use crate::truth::Tally;

/// Shows each session that counted after its end: when it was sent and ended, counted from when the
/// fault began, and until when it counted.
pub(crate) fn leaks(tally: &Tally, began: Duration) {
    let mut leaks: Vec<_> = tally.leaks.iter().collect();
    leaks.sort_by_key(|(_, times)| times.1);
    for ((user, id), (sent, ended, until)) in leaks {
        let [sent, ended, until] =
            [sent, ended, until].map(|time| time.as_secs_f64() - began.as_secs_f64());
        eprintln!(
            "    leak {user} {id}: sent {sent:.2}, ended {ended:.2}, counted until {until:.2}"
        );
    }
}

/// Shows its calls to the store that failed, and each of its warnings and changes once, with the
/// time of the first and how often it came.
pub(crate) async fn show(streamgate: &Streamgate) {
    let metrics = streamgate.get("/metrics").await.text().await.unwrap();
    let failed = metrics.lines().filter(|line| {
        let is_call = line.starts_with("streamgate_store_requests_total");
        let is_news = line.starts_with("streamgate_store_forgot_total");
        (is_call && !line.contains("outcome=\"ok\"") || is_news) && !line.ends_with(" 0")
    });
    failed.for_each(|line| eprintln!("    {line}"));
    let mut said = BTreeMap::<(String, String), (String, usize)>::new();
    for line in streamgate.log().lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        if text("message") == "a stream was refused" {
            continue;
        }
        let key = (text("message"), text("reason"));
        let entry = said.entry(key).or_insert((text("timestamp"), 0));
        entry.1 += 1;
    }
    let mut said: Vec<_> = said.into_iter().collect();
    said.sort_by(|one, two| one.1.0.cmp(&two.1.0));
    for ((message, reason), (first, count)) in said {
        eprintln!("    {first} {message} ({reason}) x{count}");
    }
}
