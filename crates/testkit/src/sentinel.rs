//! A master with its replica, and three sentinels that watch them: real processes, which notice
//! quickly that the master is gone.

use std::collections::HashMap;

use crate::redis::RedisServer;
use crate::watch::eventually_blocking;

/// What the sentinels call what they watch.
pub const SERVICE: &str = "mymaster";

/// Has a sentinel watch that server under that name. It considers the server gone after half a
/// second, if so many sentinels agree.
pub fn watching(service: &str, server: &RedisServer, quorum: u32) -> String {
    format!(
        "sentinel monitor {service} 127.0.0.1 {} {quorum}\n\
         sentinel down-after-milliseconds {service} 500\n\
         sentinel failover-timeout {service} 2000\n",
        server.port()
    )
}

/// A master, a replica, and who watches them.
#[derive(Debug)]
pub struct Watched {
    /// The master at first, and its replica.
    pub servers: [RedisServer; 2],
    /// Who watches them.
    pub sentinels: [RedisServer; 3],
}

impl Watched {
    /// Starts all of them, and waits until they know each other.
    pub fn start() -> Self {
        Self::start_with(&[], None, &[])
    }

    /// The same with servers that have these options and variables; each server and sentinel in a
    /// group of its own, counted from `groups`, if given.
    pub fn start_with(
        options: &[&str],
        groups: Option<u32>,
        variables: &[(String, String)],
    ) -> Self {
        let grouped = |server: RedisServer, number| match groups {
            Some(first) => server.in_group(first + number),
            None => server,
        };
        let server = |more: &[&str], number| {
            let server = RedisServer::stopped(&[options, more].concat());
            let server = grouped(server.with_variables(variables), number);
            server.restart();
            server
        };
        let at_once = [
            "--repl-diskless-sync",
            "yes",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let master = server(&at_once, 0);
        let port = master.port().to_string();
        let replica = server(&["--replicaof", "127.0.0.1", &port], 1);
        eventually_blocking("the replica has what the master has", || {
            role(&replica)
                .get(3)
                .is_some_and(|link| link == "connected")
        });
        let configuration = watching(SERVICE, &master, 2);
        let sentinels = [2, 3, 4].map(|number| {
            let sentinel = grouped(RedisServer::stopped_sentinel(&configuration), number);
            sentinel.restart();
            sentinel
        });
        for sentinel in &sentinels {
            // Redis 7 can shorten the intervals of its messages; with older versions all this takes
            // some seconds more.
            let often = "SENTINEL DEBUG info-period 500 publish-period 200 ask-period 200";
            let words: Vec<_> = often.split(' ').collect();
            let _ = sentinel.try_run::<()>(&words);
        }
        let watched = Self {
            servers: [master, replica],
            sentinels,
        };
        eventually_blocking("the sentinels know each other", || {
            let knows_all = |sentinel: &RedisServer| {
                let known = known(sentinel);
                known["num-other-sentinels"] == "2" && known["num-slaves"] == "1"
            };
            watched.sentinels.iter().all(knows_all)
        });
        watched
    }

    /// Where the sentinels are.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The first server, which is the master at first.
    pub fn first(&self) -> &RedisServer {
        &self.servers[0]
    }

    /// The other one.
    pub fn second(&self) -> &RedisServer {
        &self.servers[1]
    }

    /// Whether a sentinel, any but the first, names that server as the master.
    pub fn name(&self, server: &RedisServer) -> bool {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let mut asked = self.sentinels[1..].iter();
        asked.any(|sentinel| sentinel.run::<(String, u16)>(&ask).1 == server.port())
    }

    /// Has the sentinels promote the replica, as before maintenance. They refuse until they agree
    /// on its state.
    pub fn fail_over(&self) {
        let agreed = || {
            let ask = ["SENTINEL", "FAILOVER", SERVICE];
            self.sentinels[0].try_run::<()>(&ask).is_ok()
        };
        eventually_blocking("the sentinel agrees to fail over", agreed);
    }
}

/// What a sentinel knows of the service.
fn known(sentinel: &RedisServer) -> HashMap<String, String> {
    sentinel.run(&["SENTINEL", "MASTER", SERVICE])
}

/// Whether that server is a replica.
pub fn is_replica(server: &RedisServer) -> bool {
    role(server).first().is_some_and(|role| role == "slave")
}

/// A server's role and, for a replica, its master's address and the state of their link. Empty
/// while the server changes its role, which ends its connections.
fn role(server: &RedisServer) -> Vec<String> {
    let role: Vec<redis::Value> = server.try_run(&["ROLE"]).unwrap_or_default();
    let texts = role.into_iter().map(redis::from_redis_value);
    texts.map(Result::unwrap_or_default).collect()
}
