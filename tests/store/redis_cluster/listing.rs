//! Everybody's sessions by pages, while slots move and where a command is forbidden.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use streamgate::store::{Cursor, Page};
use testkit::cluster::cluster_settings;

use super::*;

/// How many users there are.
const VIEWERS: usize = 2_000;

/// Lets so many users start.
async fn fill(store: &RedisStore) -> BTreeSet<String> {
    let names: BTreeSet<_> = (0..VIEWERS)
        .map(|number| format!("viewer {number}"))
        .collect();
    stream::iter(&names)
        .for_each_concurrent(50, async |name| begin(store, name).await.unwrap())
        .await;
    names
}

/// All pages of that size. Before each, something happens.
async fn pages(store: &RedisStore, size: usize, mut meanwhile: impl FnMut()) -> Vec<Page> {
    let (mut pages, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = next {
        meanwhile();
        let page = eventually("the page is told", async || {
            store.page(&from, size).await.ok()
        })
        .await;
        next = page.next.clone();
        pages.push(page);
    }
    pages
}

/// The names that these pages show.
fn names(pages: &[Page]) -> BTreeSet<String> {
    let entries = pages.iter().flat_map(|page| &page.entries);
    entries.map(|(user, _)| user.to_string()).collect()
}

#[tokio::test]
async fn nobody_is_missed_while_slots_move() {
    let cluster = RedisCluster::start();
    let patient = cluster.settings().timeout;
    let store = cluster.connected_store(settings(&cluster, patient)).await;
    let all = fill(&store).await;
    // The slots move towards the listing and past it, in the midst of it and between its pages.
    let mut slots = (0..5_461).step_by(40);
    for round in 0..2 {
        let over = CancellationToken::new();
        let moving = async {
            while let (Some(slot), false) = (slots.next(), over.is_cancelled()) {
                cluster.begin_to_move(slot, 0, 2);
                tokio::task::yield_now().await;
                cluster.move_keys(slot, 0, 2);
                tokio::task::yield_now().await;
                cluster.end_move(slot, 2);
                tokio::task::yield_now().await;
            }
        };
        let listing = async {
            let shown = pages(&store, 100, || ()).await;
            over.cancel();
            shown
        };
        let (shown, ()) = tokio::join!(listing, moving);
        let missed: Vec<_> = all.difference(&names(&shown)).cloned().collect();
        assert!(missed.is_empty(), "in round {round}: {missed:?}");
        assert!(shown.iter().all(|page| page.may_miss.is_none()));
    }
}

#[tokio::test]
async fn a_cursor_survives_that_all_its_slots_have_moved() {
    let cluster = RedisCluster::start();
    let patient = cluster.settings().timeout;
    let store = cluster.connected_store(settings(&cluster, patient)).await;
    let all = fill(&store).await;
    let mut slot = 0;
    let shown = pages(&store, 100, || {
        // Some that the listing has passed, and some that are ahead of it.
        for number in [slot, 5_460 - slot] {
            cluster.move_slot(number, 0, 1);
        }
        slot += 1;
    })
    .await;
    assert_eq!(names(&shown), all);
}

#[tokio::test]
async fn where_the_command_is_forbidden_pages_say_what_they_may_miss() {
    let cluster = RedisCluster::start();
    let everything = cluster.store();
    let all = fill(&everything).await;
    for node in &cluster.nodes {
        let may = ["ACL", "SETUSER", "gate", "on", ">secret", "~*", "+@all"];
        let but = ["-cluster|getkeysinslot"];
        node.server.run::<()>(&[&may[..], &but].concat());
    }
    let urls = cluster.masters().iter();
    let urls: Vec<_> = urls
        .map(|node| node.server.url_as("gate", "secret"))
        .collect();
    let store = RedisStore::open(cluster_settings(&urls)).unwrap();
    let shown = pages(&store, 100, || ()).await;
    assert_eq!(names(&shown), all);
    for page in shown {
        let said = page.may_miss.expect("the page says it");
        assert!(said.contains("GETKEYSINSLOT"), "{said}");
    }
}
