//! All users' sessions in a cluster, page by page: slot by slot.
//!
//! A cursor names a slot, and the last user shown in it, so it holds whichever masters own the
//! slots meanwhile. `CLUSTER GETKEYSINSLOT` names the keys of a slot, but on a node that doesn't
//! own the slot it just names none. So `EXISTS` of a key in the slot goes ahead of it in the same
//! pipeline, and a redirect says who else has keys: the new owner, or while the slot is moving both.
//!
//! Where a managed Redis forbids that command, [`super::page_by_scan`] takes over.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::map::Address;
use super::page_by_scan::BY_SCAN;
use super::slot::{self, SLOTS};
use super::{Cluster, ClusterNode, HOPS, MOVING};
use crate::clock::{Stopwatch, Timestamp};
use crate::identity::UserId;
use crate::session::Session;
use crate::store::redis::RedisStore;
use crate::store::redis::scan::{MOST_STEPS, Pace, time_unless};
use crate::store::{Cursor, Page, StoreError};

/// How many slots the first step asks for, and how many a step asks for at most. A step doubles
/// the number while it finds few users.
const SLOTS_AT_ONCE: (u16, u16) = (64, 1024);

/// How many users a step should find.
const ENOUGH: usize = 100;

/// The most keys of one slot that are looked at. Ours are few; others may have put many there.
const MOST_KEYS: usize = 10_000;

/// What a page misses that meets a slot with more keys.
const CROWDED: &str = "a slot of the cluster holds more than 10000 keys, mostly of others; users whose sessions are behind them are left out";

/// A slot to be asked for, and where.
struct PendingSlot {
    /// The slot.
    slot: u16,
    /// Who may have its keys.
    node: Arc<ClusterNode>,
    /// Whether the slot is only just moving there, so that the node can't prove that it owns it.
    asking: bool,
}

/// What a step has found.
#[derive(Default)]
struct SlotUsers {
    /// The users by slot.
    users: BTreeSet<(u16, UserId)>,
    /// The time of one of the servers, which holds for all sessions of a page.
    time: Option<Timestamp>,
    /// What the step may have missed.
    may_miss: Option<&'static str>,
}

/// Why slots can't be listed.
enum Unlisted {
    /// The server forbids the command.
    Forbidden,
    /// Another failure.
    Failed(StoreError),
}

/// The page that is being filled.
pub(super) struct Filling {
    /// The sessions so far.
    pub(super) entries: Vec<(UserId, Session)>,
    /// How many sessions it should have.
    size: usize,
}

impl RedisStore {
    /// The page of a cluster from that cursor on.
    pub(in crate::store::redis) async fn page_by_slots(
        &self,
        cluster: &Cluster,
        from: &Cursor,
        size: usize,
    ) -> Result<Page, StoreError> {
        if from.place & BY_SCAN != 0 {
            return self.page_by_scan(cluster, from.place, size).await;
        }
        match self.page_of_slots(cluster, from, size).await {
            Ok(page) => Ok(page),
            Err(Unlisted::Failed(failure)) => Err(failure),
            Err(Unlisted::Forbidden) => self.page_by_scan(cluster, BY_SCAN, size).await,
        }
    }

    /// The page by slots.
    async fn page_of_slots(
        &self,
        cluster: &Cluster,
        from: &Cursor,
        size: usize,
    ) -> Result<Page, Unlisted> {
        let begun = Stopwatch::start();
        let (mut width, most) = SLOTS_AT_ONCE;
        let mut first = u16::try_from(from.place).unwrap_or(SLOTS).min(SLOTS - 1);
        let (mut page, mut last) = (Filling::new(size), from.last.clone());
        let (mut time, mut may_miss, mut next) = (self.now(), None, None);
        for _ in 0..MOST_STEPS {
            let slots = first..first.saturating_add(width).min(SLOTS);
            let mut found = self.users_in(cluster, slots.clone(), time).await?;
            if let Some(last) = last.take() {
                let shown = (first, last);
                found.users.retain(|user| *user > shown);
            }
            (time, may_miss) = (time.or(found.time), may_miss.or(found.may_miss));
            if found.users.len() < ENOUGH {
                width = width.saturating_mul(2).min(most);
            }
            first = slots.end;
            let users: Vec<_> = found.users.into_iter().collect();
            let rest = self.fill(&mut page, cluster, &users, time).await;
            next = match rest.map_err(Unlisted::Failed)? {
                Some((slot, user)) => Some(Cursor::behind(slot.into(), user)),
                None => (first < SLOTS).then(|| Cursor::at(first.into())),
            };
            if first == SLOTS || page.is_full() || begun.elapsed() >= cluster.deadline() {
                break;
            }
        }
        Ok(Page {
            entries: page.entries,
            next,
            taken_at: time.unwrap_or_default(),
            may_miss,
        })
    }

    /// Reads these users' rosters until the page is full; the last user read if others are left.
    async fn fill(
        &self,
        page: &mut Filling,
        cluster: &Cluster,
        mut users: &[(u16, UserId)],
        time: Option<Timestamp>,
    ) -> Result<Option<(u16, UserId)>, StoreError> {
        while !users.is_empty() {
            let some = Pace::new(page.size).keys(page.entries.len());
            let (now, later) = users.split_at(some.min(users.len()));
            let rosters = now.iter().map(|(_, user)| self.roster(cluster, user));
            for ((_, user), roster) in now.iter().zip(join_all(rosters).await) {
                let live = self.live(user, roster?, time.unwrap_or_default());
                page.entries.extend(live);
            }
            if page.is_full() && !later.is_empty() {
                return Ok(now.last().cloned());
            }
            users = later;
        }
        Ok(None)
    }

    /// A user's roster, wherever it is; none if there is none, or something else is there.
    pub(super) async fn roster(
        &self,
        cluster: &Cluster,
        user: &UserId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.keys.roster(user);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let get = &get;
        let act = |mut link: super::CallLink| async move {
            match link.query(get).await {
                Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
                answer => answer,
            }
        };
        cluster.call(&key, act).await
    }

    /// The users in those slots. Also asks for the time unless it is known.
    async fn users_in(
        &self,
        cluster: &Cluster,
        slots: Range<u16>,
        time: Option<Timestamp>,
    ) -> Result<SlotUsers, Unlisted> {
        let map = cluster.map().await?;
        let owned = |slot| {
            let node = map.owner(slot).ok_or_else(|| super::unowned(slot))?;
            let (node, asking) = (Arc::clone(node), false);
            Ok(PendingSlot { slot, node, asking })
        };
        let pending: Result<Vec<_>, StoreError> = slots.map(owned).collect();
        let (mut pending, mut found) = (pending?, SlotUsers::default());
        found.time = time;
        for _ in 0..=HOPS {
            if pending.is_empty() {
                return Ok(found);
            }
            pending.sort_by(|one, two| one.node.shard.cmp(&two.node.shard));
            let nodes = pending.chunk_by(|one, two| one.node.is(&two.node));
            let asked = nodes.map(|slots| self.ask_node(cluster, slots, time));
            let mut redirected = Vec::new();
            for (some, elsewhere) in try_join_all(asked).await? {
                found.users.extend(some.users);
                found.time = found.time.or(some.time);
                found.may_miss = found.may_miss.or(some.may_miss);
                redirected.extend(elsewhere);
            }
            pending = redirected;
        }
        tokio::time::sleep(MOVING).await;
        let moving = "the cluster is moving the slots of this page; ask for it again".to_owned();
        Err(Unlisted::Failed(StoreError::Rejected(moving)))
    }

    /// Asks one node for the users in slots that it may have; what it says, and who else to ask.
    async fn ask_node(
        &self,
        cluster: &Cluster,
        slots: &[PendingSlot],
        time: Option<Timestamp>,
    ) -> Result<(SlotUsers, Vec<PendingSlot>), Unlisted> {
        let Some(PendingSlot { node, .. }) = slots.first() else {
            return Ok(Default::default());
        };
        let mut ask = redis::pipe();
        for PendingSlot { slot, .. } in slots {
            let tag = slot::tag_of(*slot);
            ask.cmd("EXISTS").arg(self.keys.probe(Some(tag)));
            ask.cmd("CLUSTER").arg("GETKEYSINSLOT");
            ask.arg(*slot).arg(MOST_KEYS);
        }
        let act = async |mut link| {
            let time = time_unless(&link, time).await?;
            let answers = link.req_packed_commands(&ask, 0, 2 * slots.len()).await?;
            Ok((time, answers))
        };
        let (time, answers) = cluster.call_node(node, act).await?;
        let (mut found, mut elsewhere) = (
            SlotUsers {
                time,
                ..SlotUsers::default()
            },
            Vec::new(),
        );
        let mut answers = answers.into_iter().map(Value::extract_error);
        for pending in slots {
            let (Some(owned), Some(keys)) = (answers.next(), answers.next()) else {
                let text = "it returned fewer answers than it was asked".to_owned();
                return Err(Unlisted::Failed(node.failed(StoreError::Protocol(text))));
            };
            let keys = keys.map_err(|error| unlisted(node, &error))?;
            match owned.err().filter(|_| !pending.asking) {
                None => found.note(pending.slot, keys, self)?,
                Some(error) => {
                    let next = redirected(cluster, pending, &error)?;
                    // Both have some of the keys while the slot is moving.
                    if next.asking {
                        found.note(pending.slot, keys, self)?;
                    }
                    elsewhere.push(next);
                }
            }
        }
        Ok((found, elsewhere))
    }

    /// The time of the tests' clock, if there is one.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.now())
    }
}

impl SlotUsers {
    /// Adds the users whose keys a node has named.
    fn note(&mut self, slot: u16, keys: Value, store: &RedisStore) -> Result<(), StoreError> {
        let keys: Vec<Vec<u8>> = redis::from_redis_value(keys)
            .map_err(|error| StoreError::Protocol(error.to_string()))?;
        if keys.len() >= MOST_KEYS {
            self.may_miss = Some(CROWDED);
        }
        let users = keys.iter().filter_map(|key| store.keys.user_of(key));
        self.users.extend(users.map(|user| (slot, user)));
        Ok(())
    }
}

impl Filling {
    /// An empty page for about that many sessions.
    pub(super) const fn new(size: usize) -> Self {
        Self {
            entries: Vec::new(),
            size,
        }
    }

    /// Whether it has as many sessions as it should.
    pub(super) const fn is_full(&self) -> bool {
        self.entries.len() >= self.size
    }
}

impl From<StoreError> for Unlisted {
    fn from(failure: StoreError) -> Self {
        Self::Failed(failure)
    }
}

/// Where a slot is that a node doesn't own, or no longer alone.
fn redirected(
    cluster: &Cluster,
    pending: &PendingSlot,
    error: &RedisError,
) -> Result<PendingSlot, StoreError> {
    let PendingSlot { slot, node, .. } = pending;
    let target = error.redirect_node();
    let target = target.and_then(|(to, _)| Address::of_redirect(to, &node.address));
    let target = target.ok_or_else(|| node.refused(error))?;
    cluster.topology.doubt();
    Ok(PendingSlot {
        slot: *slot,
        node: cluster.topology.nodes.redirected_to(target),
        asking: error.kind() == ErrorKind::Server(ServerErrorKind::Ask),
    })
}

/// Why a node didn't name the keys of a slot. A command that the ACL forbids, a proxy doesn't know
/// or a service has renamed is no reason to give up.
fn unlisted(node: &ClusterNode, error: &RedisError) -> Unlisted {
    let detail = error.detail().unwrap_or_default().to_ascii_lowercase();
    let is_unknown = ["unknown command", "unknown subcommand", "no permissions"];
    match error.code() {
        Some("NOPERM") => Unlisted::Forbidden,
        _ if is_unknown.iter().any(|text| detail.contains(text)) => Unlisted::Forbidden,
        _ => Unlisted::Failed(node.refused(error)),
    }
}
