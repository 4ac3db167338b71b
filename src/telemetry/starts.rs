//! A line for each start, which shows when and where a holder of a slot started. You choose the
//! share of users that get such lines. A user is in that share at every instance or at none, so the
//! log has all starts of a user or no start.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use tracing::info;

use crate::config::Share;
use crate::identity::{SessionKey, UserId};

/// A start that took a slot, with the facts that identify it.
#[derive(Debug)]
pub struct StartedStream<'a> {
    /// The id of the request, which its answer has too.
    pub request_id: String,
    /// The user.
    pub user: &'a UserId,
    /// The session that started.
    pub key: &'a SessionKey,
    /// How many of the user's sessions are live, this one included.
    pub count: usize,
    /// The limit that applied.
    pub limit: u32,
    /// The address of the gateway that the viewer connected to; none if no gateway asked.
    pub gateway: Option<String>,
    /// The viewer's address, as the gateway reports it.
    pub client: Option<IpAddr>,
}

impl StartedStream<'_> {
    /// Logs one line.
    pub fn tell(&self) {
        // Clients choose names. Strings are quoted, so a name can't pass for another field.
        info!(
            request.id = self.request_id.as_str(),
            user.id = self.user.as_str(),
            session.key = self.key.to_string(),
            count = self.count,
            limit = self.limit,
            gateway = self.gateway.as_deref(),
            client = self.client.map(tracing::field::display),
            "a stream has started"
        );
    }
}

/// Whether the log has a line for each start of this user.
#[must_use]
pub fn are_told(share: Share, user: &UserId) -> bool {
    if share == Share::NONE || share == Share::ALL {
        return share == Share::ALL;
    }
    let digest = Sha256::digest(user.as_str());
    let (first, _) = digest.split_at(8);
    let number = first
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    share.takes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_users_is_told_and_a_greater_share_tells_of_them_too() {
        let user = |n: u32| UserId::parse(&format!("user-{n}")).unwrap();
        let told = |parts| {
            let share = Share::of_a_million(parts);
            let users = (0..10_000).filter(|n| are_told(share, &user(*n)));
            users.collect::<Vec<_>>()
        };
        let (none, some, more, all) = (told(0), told(10_000), told(100_000), told(1_000_000));
        assert_eq!((none.len(), all.len()), (0, 10_000));
        assert!((70..130).contains(&some.len()), "{}", some.len());
        assert!((900..1100).contains(&more.len()), "{}", more.len());
        assert!(some.iter().all(|n| more.contains(n)));
    }
}
