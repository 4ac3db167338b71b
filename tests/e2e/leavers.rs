//! Clients that leave during the check. They may never have learned that they have a slot, and none
//! may keep it.

use std::time::Duration;

use streamgate::clock::Stopwatch;
use tokio::task::JoinSet;

use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::streamgate::Streamgate;
use testkit::viewers::{Answer, Viewers};
use testkit::watch::measured;
use testkit::wire::Wire;

const CLIENTS: usize = 500;
/// So many come at the same time.
const AT_ONCE: usize = 12;
/// The shipped lease of a request.
const LEASE: Duration = Duration::from_secs(15);

/// Each of the clients, `AT_ONCE` at a time.
async fn each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    client: impl Fn(usize) -> F,
) -> Vec<T> {
    let mut under_way = JoinSet::new();
    let mut done = Vec::new();
    for number in 0..CLIENTS {
        if under_way.len() >= AT_ONCE {
            done.extend(under_way.join_next().await.map(Result::unwrap));
        }
        under_way.spawn(client(number));
    }
    done.extend(under_way.join_all().await);
    done
}

/// Asks for a stream, and leaves after 1 to 64 ms, mostly early: around the check, whether the
/// machine is fast or slow. Like a player that was killed, or closed, or uses HTTP/2.
async fn ask_and_leave(gateway: std::net::SocketAddr, number: usize) {
    let viewers = Viewers::of(gateway);
    let user = format!("user-{number}");
    let leaving = Duration::from_millis(1).mul_f64(rand::random_range(0.0..6.0_f64).exp2());
    if number.is_multiple_of(3) {
        // Dropped before its answer has come, it is reset.
        let _ = tokio::time::timeout(leaving, viewers.http2(&user, "/live/1").send()).await;
        return;
    }
    let player = viewers.raw_get(&user, "/live/1", &[]).await;
    tokio::time::sleep(leaving).await;
    if number % 3 == 1 {
        player.cut();
    }
}

/// Asks for a stream again and again until let in; how long that took, zero if at the first try.
async fn ask_and_stay(gateway: std::net::SocketAddr, number: usize) -> Duration {
    let viewers = Viewers::of(gateway);
    let user = format!("user-{number}");
    let asking = Stopwatch::start();
    let mut asked = Duration::ZERO;
    loop {
        match viewers.ask(viewers.http1(&user, "/live/2")).await {
            Answer::LetIn(_) => return asked,
            Answer::Refused(refusal) => {
                asked = asking.elapsed();
                assert!(
                    asked < LEASE + Duration::from_secs(5),
                    "{user} after {asked:?}: {refusal}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_hundred_clients_that_leave_during_the_check_nobody_keeps_a_slot() {
    let origin = Origin::start().await;
    let streamgate = Streamgate::start(&[("limits.default", "1"), ("limits.grace", "0s")]).await;
    let wire = Wire::to(streamgate.grpc).await;
    wire.delay(Duration::from_millis(2));
    let setup = Setup::demo(&[streamgate.grpc], origin.address);
    let gateway = setup.cluster("streamgate", &[wire.address]).start().await;
    let gateway = gateway.address;

    let leaving = Stopwatch::start();
    each(|number| ask_and_leave(gateway, number)).await;
    let left = leaving.elapsed();
    wire.delay(Duration::ZERO);
    let times = each(|number| ask_and_stay(gateway, number)).await;
    let clients = f64::from(u32::try_from(CLIENTS).unwrap());
    let let_in = streamgate.checks("started").await - clients;
    let cancelled = streamgate.checks("cancelled").await;
    println!(
        "of {CLIENTS} that left {let_in} had been let in, {cancelled} were cancelled in mid-check"
    );
    assert!(let_in + cancelled >= 100.0, "many got as far as the check");

    let early = times
        .iter()
        .filter(|took| left + **took < LEASE / 2)
        .count();
    assert!(
        early * 100 >= CLIENTS * 99,
        "only {early} slots were free before their lease ended"
    );
    let at_once = times.iter().filter(|took| took.is_zero()).count();
    println!(
        "{at_once} slots were free when asked for, {early} before their lease ended, all after"
    );
    measured("all 500 slots free again after", leaving.elapsed());
}
