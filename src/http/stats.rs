//! `GET /v1/stats`: the numbers of the whole installation.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::error::ApiError;
use crate::http::openapi::responses::{Detached, Inspected};
use crate::http::request::caller::Caller;
use crate::http::request::path::parameters;
use crate::identity::Kind;
use crate::problem::rfc3339;
use crate::statistics::{Estimate, Happened, LimitEffect, LimitEffects, Overview, PeriodEffects};

/// The numbers of an installation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Statistics)]
pub(super) struct StatsBody {
    /// The store's time of these numbers.
    #[schema(format = DateTime)]
    at: String,
    /// Whose numbers they are: `installation`, all instances that share a Redis, or `instance`,
    /// this one, which counts in its own memory.
    #[schema(value_type = ScopeName)]
    scope: &'static str,
    /// How many instances have reported within three intervals.
    instances: usize,
    /// How often instances report.
    interval_seconds: u64,
    /// Whether every instance's report is in the numbers. If not, an instance is late, or the store
    /// can't answer and the numbers are the last known ones.
    complete: bool,
    /// The live streams.
    streams: u64,
    /// The users who watch something.
    users: u64,
    /// The users who watch as many streams as they may.
    users_at_limit: u64,
    /// The standard error of each number that is estimated from a sample, relative to it. Empty if
    /// all numbers are exact.
    #[schema(example = json!({"users": 0.02}))]
    approximate: BTreeMap<&'static str, f64>,
    /// One in how many users is in the sample; 1 if everybody is, and all numbers are exact.
    sampled_one_in: u64,
    /// The live streams by kind.
    #[schema(example = json!({"playback": 1200, "request": 34, "video": 0}))]
    by_kind: BTreeMap<&'static str, u64>,
    /// The live streams by their users' plan; users without a known plan have the empty name.
    #[schema(example = json!({"": 434, "premium": 800}))]
    by_plan: BTreeMap<String, u64>,
    /// The contents with the most streams, at most 50.
    top_content: Vec<ContentBody>,
    /// What happened in the last 55 to 60 seconds.
    last_minute: HappenedBody,
    /// The last 60 whole minutes, the oldest first.
    minutes: Vec<MinuteBody>,
    /// The refusals of the last hour by reason.
    #[schema(example = json!({"full": 12}))]
    refusals_last_hour: BTreeMap<&'static str, u64>,
    /// What limits would do.
    would_refuse: WouldRefuseBody,
}

/// Whose numbers they are.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only for the OpenAPI document")]
pub(super) enum ScopeName {
    /// All instances that share a Redis.
    Installation,
    /// This instance.
    Instance,
}

/// A content and its streams.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ContentStreams)]
pub(super) struct ContentBody {
    /// The content.
    content: String,
    /// Its live streams.
    streams: u64,
}

/// What happened in some time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Happened)]
pub(super) struct HappenedBody {
    /// Sessions that started.
    starts: u64,
    /// Answers that refused a stream, or would have without a dry run.
    refusals: u64,
    /// Sessions that gave way to another.
    displacements: u64,
    /// Slots that were freed before their lease expired.
    releases: u64,
}

/// What happened in one minute.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Minute)]
pub(super) struct MinuteBody {
    /// The beginning of the minute.
    #[schema(format = DateTime)]
    at: String,
    /// What happened.
    #[serde(flatten)]
    happened: HappenedBody,
}

/// What each limit would have refused, by the starts of a period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WouldRefuse)]
pub(super) struct WouldRefuseBody {
    /// The last hour.
    hour: Vec<LimitBody>,
    /// The last day.
    day: Vec<LimitBody>,
    /// The last week.
    week: Vec<LimitBody>,
    /// How many starts and users that is by.
    counted: BTreeMap<&'static str, CountedStartsBody>,
    /// The same for the users of each plan, by plan and period.
    plans: BTreeMap<String, BTreeMap<&'static str, PlanBody>>,
}

/// How many starts and users there were.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CountedStarts)]
pub(super) struct CountedStartsBody {
    /// The starts.
    starts: u64,
    /// About how many users they were by.
    users: u64,
}

/// What limits would do to the users of one plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanLimits)]
pub(super) struct PlanBody {
    /// How many starts and users that is by.
    counted: CountedStartsBody,
    /// Each limit.
    limits: Vec<LimitBody>,
}

/// What a limit would have refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LimitEffect)]
pub(super) struct LimitBody {
    /// The limit.
    limit: usize,
    /// The part of the starts that found as many streams live.
    starts_refused: f64,
    /// The part of the users with such a start.
    users_refused: f64,
    /// The standard error of `users_refused`; 0 if it is exact.
    users_error: f64,
    /// Whether it would be more: a lower limit was in force, and what that refused never counted.
    lower_bound: bool,
}

/// See the numbers of the whole installation
///
/// Streams, users, starts and refusals of all instances that share a Redis, and what other limits
/// would refuse. The numbers are at most two intervals old. They are exact up to a few thousand
/// users; beyond that, `approximate` has the standard errors.
#[utoipa::path(
    get,
    operation_id = "statistics",
    path = "/v1/stats",
    tag = "operator",
    responses((status = 200, description = "The numbers.", body = StatsBody), Inspected, Detached),
    security(("token" = []), ()),
)]
pub(super) async fn get(
    State(door): State<ApiState>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<StatsBody>, ApiError> {
    caller.may_see_all()?;
    parameters(uri.query().unwrap_or_default(), &[])?;
    let effects = door.ledger.limit_effects().await;
    // To join the samples of many instances takes some milliseconds.
    let joining = tokio::task::spawn_blocking(move || door.ledger.statistics().overview());
    let overview = joining.await.map_err(|_| ApiError::Internal)?;
    Ok(Json(StatsBody::of(overview, &effects)))
}

// === impl StatsBody ===

impl StatsBody {
    /// The JSON form of those numbers.
    fn of(overview: Overview, effects: &PeriodEffects) -> Self {
        let Overview {
            numbers,
            is_shared,
            instances,
            interval,
            is_complete,
        } = overview;
        let estimates = [
            ("streams", numbers.streams),
            ("users", numbers.users),
            ("users_at_limit", numbers.users_at_limit),
        ];
        let inexact = |(_, estimate): &(&'static str, Estimate)| estimate.error > 0.0;
        let errors = estimates.into_iter().filter(inexact);
        let minutes = numbers
            .minutes
            .into_iter()
            .map(|(at, happened)| MinuteBody {
                at: rfc3339(at),
                happened: HappenedBody::of(happened),
            });
        let top_content = numbers.top_content.into_iter();
        let top_content = top_content.map(|(content, streams)| ContentBody { content, streams });
        Self {
            at: rfc3339(numbers.at),
            scope: if is_shared {
                "installation"
            } else {
                "instance"
            },
            instances,
            interval_seconds: interval.as_secs(),
            complete: is_complete && effects.is_complete,
            streams: numbers.streams.number,
            users: numbers.users.number,
            users_at_limit: numbers.users_at_limit.number,
            approximate: errors
                .map(|(name, estimate)| (name, rounded(estimate.error)))
                .collect(),
            sampled_one_in: numbers.one_in,
            by_kind: Kind::ALL
                .iter()
                .map(|kind| kind.as_str())
                .zip(numbers.by_kind)
                .collect(),
            by_plan: numbers.by_plan,
            top_content: top_content.collect(),
            last_minute: HappenedBody::of(numbers.last_minute),
            minutes: minutes.collect(),
            refusals_last_hour: numbers.refusals_last_hour,
            would_refuse: WouldRefuseBody::of(effects),
        }
    }
}

// === impl HappenedBody ===

impl HappenedBody {
    /// The JSON form.
    const fn of(happened: Happened) -> Self {
        Self {
            starts: happened.starts,
            refusals: happened.refusals,
            displacements: happened.displacements,
            releases: happened.releases,
        }
    }
}

// === impl WouldRefuseBody ===

impl WouldRefuseBody {
    /// The JSON form.
    fn of(effects: &PeriodEffects) -> Self {
        let of_period = |period: &str| {
            let effects = effects.all.get(period);
            effects.map(LimitBody::all).unwrap_or_default()
        };
        let all = effects.all.iter();
        let counted = all.map(|(period, effects)| (*period, CountedStartsBody::of(effects)));
        let plans = effects.plans.iter().map(|(plan, periods)| {
            let periods = periods.iter();
            let periods = periods.map(|(period, effects)| (*period, PlanBody::of(effects)));
            (plan.clone(), periods.collect())
        });
        Self {
            hour: of_period("hour"),
            day: of_period("day"),
            week: of_period("week"),
            counted: counted.collect(),
            plans: plans.collect(),
        }
    }
}

// === impl CountedStartsBody ===

impl CountedStartsBody {
    /// The JSON form.
    const fn of(effects: &LimitEffects) -> Self {
        Self {
            starts: effects.starts,
            users: effects.users,
        }
    }
}

// === impl PlanBody ===

impl PlanBody {
    /// The JSON form.
    fn of(effects: &LimitEffects) -> Self {
        Self {
            counted: CountedStartsBody::of(effects),
            limits: LimitBody::all(effects),
        }
    }
}

// === impl LimitBody ===

impl LimitBody {
    /// The JSON form of each limit's effect.
    fn all(effects: &LimitEffects) -> Vec<Self> {
        effects.limits.iter().map(Self::of).collect()
    }

    /// The JSON form of one limit's effect.
    fn of(effect: &LimitEffect) -> Self {
        Self {
            limit: effect.limit,
            starts_refused: rounded(effect.starts_refused),
            users_refused: rounded(effect.users_refused),
            users_error: rounded(effect.users_error),
            lower_bound: effect.lower_bound,
        }
    }
}

/// A share with as many digits as anybody reads.
fn rounded(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}
