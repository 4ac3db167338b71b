//! Which alerts each fault fires: the shipped rules, watched by a real Prometheus, with each duration
//! in them a sixtieth. A fault of a quarter of a minute is to them what one of a quarter of an hour
//! is to the shipped ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use streamgate::clock::Stopwatch;
use testkit::prometheus::Prometheus;
use tokio::time::sleep;

use crate::fault::Fault;
use crate::installation::Installation;
use crate::table::Row;
use crate::viewers::Audience;

/// How many times shorter the rules' durations are.
const TIMES: u64 = 60;

/// How many users watch: enough for each floor of the rules.
const USERS: usize = 200;

/// How long viewers come and go before the fault.
const BEFORE: Duration = Duration::from_secs(6);

/// How long a fault lasts that ends only because we end it: longer than each rule waits.
const LASTS: Duration = Duration::from_secs(16);

/// How long they come and go from when the fault begins.
const AFTER: Duration = Duration::from_secs(24);

/// Makes each fault, and says which alerts fired and which should have. Panics in the end if they
/// differ anywhere.
pub(crate) async fn see(rows: &[Row]) {
    let mut differ = 0;
    for row in rows {
        let [must, may] = row.fault.alerts(row.topology, row.rule);
        let fired = fired(row).await;
        let is_known =
            |name: &String| must.contains(&name.as_str()) || may.contains(&name.as_str());
        let is_right = must.iter().all(|name| fired.contains(*name)) && fired.iter().all(is_known);
        let word = if is_right { "as expected" } else { "DIFFERENT" };
        println!("{}: {word}: fired {fired:?}, must {must:?}", row.describe());
        differ += usize::from(!is_right);
    }
    assert_eq!(differ, 0, "alerts differ from what is expected");
}

/// The alerts that fire when that happens.
async fn fired(row: &Row) -> BTreeSet<String> {
    let mut at = Installation::start(row.topology, &row.fault.options(), row.rule).await;
    let clock = Stopwatch::start();
    let audience = Audience::of(at.both(), USERS, clock);
    let envoy = at.envoy.as_ref().unwrap();
    let targets = at.both().map(|streamgate| streamgate.http);
    let prometheus = Prometheus::start_sped_up(&targets, envoy.admin, TIMES).await;
    let devices = audience.watch(envoy.address);
    sleep(BEFORE).await;
    let began = clock.elapsed();
    let is_killed = row.fault == Fault::EnvoyKilled;
    audience.envoy_is_killed.store(is_killed, Ordering::Relaxed);
    row.fault.happen(&mut at, LASTS).await;
    sleep(AFTER.saturating_sub(clock.elapsed() - began)).await;
    let fired = prometheus.fired((clock.elapsed() - began).as_secs()).await;
    audience.end();
    devices.join_all().await;
    audience.leave().await;
    drop(Arc::into_inner(audience));
    fired
}
