//! The memory that a million users take, that one user with a million ids takes, and that a list of
//! a million users' limits takes. `make bench-memory` runs it and prints its figures.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed"
)]

use streamgate::clock::Stopwatch;

use testkit::flood::{many_users, one_user};
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::{as_many, eventually, measured};

/// How many users, ids or limits there are.
const MILLION: usize = 1_000_000;

/// How many playbacks an instance on Redis surely remembers.
const HELD: usize = 220_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let million = as_many(MILLION);
    // A shard is full before the whole store is: the store would turn the last few of a million
    // away.
    many_users("embedded store", million / 100 * 97, None).await;
    many_users("Redis", million, Some(&RedisServer::start())).await;
    // An instance remembers 250,000 playbacks at most; a shard is full before all of it is.
    let held = as_many(HELD);
    many_users("Redis", held, Some(&RedisServer::start())).await;
    one_user("embedded store", million, None).await;
    one_user("Redis", million, Some(&RedisServer::start())).await;
    list_of_users(million).await;
}

/// How long a start takes with limits for so many users, how long a change of them, and the memory.
async fn list_of_users(users: usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let write = |limit: usize| {
        let line = |n| format!("user-{n:08}@example.com {}\n", (n + limit) % 7);
        std::fs::write(&file, (0..users).map(line).collect::<String>()).unwrap();
    };
    write(0);
    let started = Stopwatch::start();
    let streamgate = Streamgate::start(&[("limits.users_file", file.to_str().unwrap())]).await;
    measured("ready with a million users in", started.elapsed());
    print_memory("when ready", &streamgate);
    assert_eq!(streamgate.limit("user-00000008@example.com").await, 1);
    write(1);
    let changed = Stopwatch::start();
    eventually("the new list applies", async || {
        streamgate.limit("user-00000008@example.com").await == 2
    })
    .await;
    measured("a changed list applies after", changed.elapsed());
    print_memory("after that", &streamgate);
}

/// Prints the memory of the program.
fn print_memory(when: &str, streamgate: &Streamgate) {
    let memory = streamgate.memory();
    println!("measured: memory {when}, and its peak {memory:?} KiB");
}
