//! The metrics: what streamgate has counted must be what the clients have seen.

use std::time::Duration;

use super::step::same;
use super::walk::{ASK_AGAIN_AFTER, Walk};
use crate::clock::Moment;
use crate::failure::Failure;
use crate::wire::patiently;

const AGREE_WITHIN: Duration = Duration::from_secs(3);

pub(super) async fn agree(walk: &Walk) -> Result<(), Failure> {
    let began = Moment::now();
    let (allowed, full) = walk.gateway.tally();
    loop {
        let metrics = read(walk).await?;
        let counted = [
            checks(&metrics, "decision=\"allow\""),
            checks(&metrics, "reason=\"full\""),
        ];
        if counted == [allowed, full] || began.elapsed() > AGREE_WITHIN {
            return same(
                "streamgate_checks_total, allowed and refused as full",
                [allowed, full],
                counted,
            );
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

async fn read(walk: &Walk) -> Result<String, Failure> {
    let answer = patiently(
        "read the metrics",
        walk.back_end.get(format!("{}/metrics", walk.api)).send(),
    )
    .await?;
    patiently("read the metrics", answer.text()).await
}

/// The sum of `streamgate_checks_total` over all series with `label`.
fn checks(metrics: &str, label: &str) -> u64 {
    let series = metrics
        .lines()
        .filter(|line| line.starts_with("streamgate_checks_total{") && line.contains(label));
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
