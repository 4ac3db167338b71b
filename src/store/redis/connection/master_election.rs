//! Decides, as a pure function, which of the servers that sentinels name is the master.
//! [`super::sentinel`] states the rule in one sentence.

use std::cmp::Reverse;

use super::target::RedisServer;

/// The server to use, given the answers of some of that many sentinels and the server in use.
/// `None` if nothing is known.
pub(super) fn believed<'a>(
    named: &'a [RedisServer],
    sentinels: usize,
    used: Option<&'a RedisServer>,
) -> Option<&'a RedisServer> {
    let agree = |server: &RedisServer| named.iter().filter(|other| *other == server).count();
    let newest = named
        .iter()
        .max_by_key(|server| (server.epoch, agree(server), Reverse(&server.place)));
    match (newest, used) {
        // The few sentinels that answer may be the isolated ones.
        (Some(newest), Some(used))
            if named.len() * 2 <= sentinels && newest.epoch <= used.epoch =>
        {
            Some(used)
        }
        (newest, used) => newest.or(used),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::ConnectionAddr;

    use super::*;

    /// A server with that name, from a configuration with that number.
    fn server((name, epoch): (&str, u64)) -> RedisServer {
        RedisServer::new(ConnectionAddr::Tcp(name.to_owned(), 1), epoch)
    }

    /// The decision when some of three sentinels name these servers and the other argument is in
    /// use.
    fn of_three(named: &[(&str, u64)], used: Option<(&str, u64)>) -> Option<(String, u64)> {
        let named: Vec<_> = named.iter().copied().map(server).collect();
        let used = used.map(server);
        let believed = believed(&named, 3, used.as_ref());
        believed.map(|server| (server.place.replace(":1", ""), server.epoch))
    }

    #[test]
    fn the_newest_then_most_named_then_first_server_wins() {
        for (named, expected) in [
            (&[("a", 4)][..], ("a", 4)),
            (&[("a", 4), ("b", 7), ("a", 4)], ("b", 7)),
            (&[("b", 7), ("a", 4)], ("b", 7)),
            (&[("a", 0), ("b", 0), ("b", 0)], ("b", 0)),
            (&[("b", 3), ("a", 3)], ("a", 3)),
            (
                &[("::1", 3), ("localhost", 3), ("127.0.0.1", 3)],
                ("127.0.0.1", 3),
            ),
            // A sentinel that names it with an older number doesn't count.
            (&[("b", 2), ("b", 3), ("a", 3)], ("a", 3)),
        ] {
            let expected = Some((expected.0.to_owned(), expected.1));
            let found = of_three(named, None)
                .map(|(name, epoch)| (name.trim_matches(['[', ']']).to_owned(), epoch));
            assert_eq!(found, expected, "{named:?}");
        }
        assert_eq!(of_three(&[], None), None);
    }

    #[test]
    fn the_server_in_use_changes_by_number_or_majority() {
        for (named, used, expected) in [
            // A failover that only one sentinel knows yet.
            (&[("b", 3)][..], ("a", 2), ("b", 3)),
            (&[("a", 2), ("b", 3), ("a", 2)], ("a", 2), ("b", 3)),
            (&[("a", 2), ("b", 3), ("a", 2)], ("b", 3), ("b", 3)),
            // Only an isolated sentinel answers.
            (&[("a", 2)], ("b", 3), ("b", 3)),
            (&[("a", 3)], ("b", 3), ("b", 3)),
            (&[], ("b", 3), ("b", 3)),
            // The numbers restart, on one sentinel after the other.
            (&[("b", 0), ("a", 2), ("a", 2)], ("a", 2), ("a", 2)),
            (&[("b", 0), ("b", 0), ("a", 2)], ("a", 2), ("a", 2)),
            (&[("b", 0), ("b", 0), ("b", 0)], ("a", 2), ("b", 0)),
            (&[("b", 0), ("b", 0)], ("a", 2), ("b", 0)),
            // The number seen before was too low, or is now too high.
            (&[("a", 5)], ("a", 3), ("a", 5)),
            (&[("a", 0), ("a", 0)], ("a", 3), ("a", 0)),
        ] {
            let expected = Some((expected.0.to_owned(), expected.1));
            assert_eq!(of_three(named, Some(used)), expected, "{named:?} {used:?}");
        }
    }

    proptest! {
        #[test]
        fn all_that_hear_the_same_majority_use_one_server(
            named in proptest::collection::vec(("[abc]", 0..3_u64), 2..=3),
            used in proptest::option::of(("[abcd]", 0..4_u64)),
        ) {
            let mut named: Vec<_> = named.iter().map(|(name, epoch)| (&**name, *epoch)).collect();
            let fresh = of_three(&named, None);
            let used = used.as_ref().map(|(name, epoch)| (&**name, *epoch));
            prop_assert_eq!(of_three(&named, used), fresh.clone());
            named.reverse();
            prop_assert_eq!(of_three(&named, None), fresh);
        }

        #[test]
        fn the_elected_master_stays_until_another_is_reported(
            named in proptest::collection::vec(("[abc]", 0..3_u64), 1..=3),
        ) {
            let named: Vec<_> = named.iter().map(|(name, epoch)| (&**name, *epoch)).collect();
            let (name, epoch) = of_three(&named, None).unwrap();
            prop_assert_eq!(of_three(&named, Some((&name, epoch))), Some((name, epoch)));
        }
    }
}
