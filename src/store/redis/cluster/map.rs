//! Which master owns which slots: one node's view, read from its answers, and the map that calls
//! are routed by.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use redis::{FromRedisValue, Value};

use super::nodes::ClusterNode;
use super::slot::SLOTS;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::store::redis) struct Address {
    /// Its name or IP address, without brackets.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
}

impl Address {
    /// The address in a redirect, such as `10.0.0.7:7000` or `::1:7000`; without a host, it is that
    /// of the node that answered.
    pub(super) fn of_redirect(text: &str, answered: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "?" => &answered.host,
            host => host,
        };
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    /// With the brackets that separate an IPv6 address from the port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One node's view of the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Whether the node sees a cluster that serves: a node that is cut off from the others doesn't.
    is_ok: bool,
    /// The number of the newest configuration that the node has heard of.
    epoch: u64,
    /// The slots, and their masters.
    ranges: Vec<(RangeInclusive<u16>, Address)>,
    /// All nodes with slots, replicas included.
    known: BTreeSet<Address>,
}

impl View {
    /// The view in the answers to `CLUSTER INFO` and `CLUSTER SLOTS`, which the node at `asked`
    /// gave; `None` if they have another form.
    pub(super) fn of(info: &str, slots: Value, asked: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut values = info.lines().filter_map(|line| line.strip_prefix(name));
            values.next().map(str::trim)
        };
        let mut view = Self {
            is_ok: field("cluster_state:")? == "ok",
            epoch: field("cluster_current_epoch:")?.parse().ok()?,
            ranges: Vec::new(),
            known: BTreeSet::new(),
        };
        for row in read::<Vec<Vec<Value>>>(slots)? {
            view.add(row, asked)?;
        }
        Some(view)
    }

    /// Adds one range of slots: the first and the last, the master, and its replicas.
    fn add(&mut self, row: Vec<Value>, asked: &str) -> Option<()> {
        let mut row = row.into_iter();
        let (first, last): (u16, u16) = (read(row.next()?)?, read(row.next()?)?);
        for (place, node) in row.enumerate() {
            let node = address(read(node)?, asked)?;
            // A node whose address nobody knows, such as one that lost its `nodes.conf`.
            if node.port == 0 {
                continue;
            }
            if place == 0 {
                self.ranges.push((first..=last, node.clone()));
            }
            self.known.insert(node);
        }
        Some(())
    }

    /// Sorts views: the better one is greater. A node that is cut off comes last, then the one that
    /// has not heard the news.
    pub(super) const fn merit(&self) -> (bool, u64) {
        (self.is_ok, self.epoch)
    }

    /// Whether it names a master at all: a node that belongs to no cluster names none.
    pub(super) fn has_masters(&self) -> bool {
        !self.ranges.is_empty()
    }
}

/// A node's address in `CLUSTER SLOTS`: host, port, id, and from Redis 7 on other names. `None` if
/// the answer has another form.
///
/// A null host means "where you asked me", and so does an empty one, of a node that doesn't know
/// its own address. `?` is a node without the name that it should announce; its IP address follows.
fn address(node: Vec<Value>, asked: &str) -> Option<Address> {
    let mut node = node.into_iter();
    let (host, port): (Option<String>, u16) = (read(node.next()?)?, read(node.next()?)?);
    let host = match host.as_deref() {
        None | Some("") => asked.to_owned(),
        Some("?") => {
            let names: HashMap<String, String> = node.nth(1).and_then(read).unwrap_or_default();
            let ip = names.get("ip").filter(|ip| !ip.is_empty());
            ip.cloned().unwrap_or_else(|| asked.to_owned())
        }
        Some(host) => host.to_owned(),
    };
    Some(Address { host, port })
}

/// Reads a value, if it has that type.
fn read<T: FromRedisValue>(value: Value) -> Option<T> {
    redis::from_redis_value(value).ok()
}

/// Who owns which slots.
pub(in crate::store::redis) struct Map {
    /// For each slot, the index of its master; one without a master has an index that none has.
    owners: Vec<u16>,
    /// The masters that own slots, by address.
    masters: Vec<Arc<ClusterNode>>,
    /// All nodes that were known, replicas included.
    known: BTreeSet<Address>,
}

impl Map {
    /// The map of that view. `node` gives the node at an address.
    pub(super) fn of(view: View, node: impl Fn(&Address) -> Arc<ClusterNode>) -> Self {
        let masters: BTreeSet<_> = view.ranges.iter().map(|(_, master)| master).collect();
        let masters: Vec<_> = masters.into_iter().collect();
        let mut owners = vec![u16::MAX; usize::from(SLOTS)];
        for (slots, master) in &view.ranges {
            let index = masters.binary_search(&master).ok();
            let index = index.and_then(|index| u16::try_from(index).ok());
            for slot in slots.clone() {
                if let (Some(owner), Some(index)) = (owners.get_mut(usize::from(slot)), index) {
                    *owner = index;
                }
            }
        }
        Self {
            owners,
            masters: masters.into_iter().map(node).collect(),
            known: view.known,
        }
    }

    /// The master of that slot.
    pub(in crate::store::redis) fn owner(&self, slot: u16) -> Option<&Arc<ClusterNode>> {
        let index = self.owners.get(usize::from(slot))?;
        self.masters.get(usize::from(*index))
    }

    /// The masters that own slots, by address.
    pub(in crate::store::redis) fn masters(&self) -> &[Arc<ClusterNode>] {
        &self.masters
    }

    /// The first slot of a master.
    pub(super) fn first_slot(&self, master: &ClusterNode) -> Option<u16> {
        let index = self.masters.iter().position(|node| node.is(master))?;
        let mut slots = (0..).zip(&self.owners);
        slots
            .find(|(_, owner)| usize::from(**owner) == index)
            .map(|(slot, _)| slot)
    }

    /// How many slots have no master.
    pub(super) fn unowned(&self) -> usize {
        let owners = self.owners.iter();
        owners
            .filter(|owner| usize::from(**owner) >= self.masters.len())
            .count()
    }

    /// All nodes that were known.
    pub(super) fn known(&self) -> impl Iterator<Item = &Address> {
        self.known.iter()
    }

    /// Whether each slot has the same master in both.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let same = |(one, two): (&Arc<ClusterNode>, &Arc<ClusterNode>)| one.is(two);
        self.owners == other.owners
            && self.masters.len() == other.masters.len()
            && self.masters.iter().zip(&other.masters).all(same)
    }
}

impl fmt::Debug for Map {
    /// Shows the masters, not 16,384 slots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("masters", &self.masters)
            .field("unowned", &self.unowned())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a node's answer to `CLUSTER INFO`.
    const INFO: &str =
        "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n";

    /// The value that this text of the protocol stands for.
    fn value(text: &str) -> Value {
        redis::parse_redis_value(text.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    /// The view of a node that was asked at `seed`, with one range of slots and one master.
    fn view_of(master: &str) -> Option<View> {
        let slots = format!("*1 *3 :0 :16383 {master} ");
        View::of(INFO, value(&slots), "seed")
    }

    fn address(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn a_master_is_named_in_many_ways() {
        for (node, host) in [
            ("*3 $8 10.0.0.7 :7000 $1 i", "10.0.0.7"),
            ("*3 $3 ::1 :7000 $1 i", "::1"),
            ("*4 $3 a.b :7000 $1 i *2 $2 ip $8 10.0.0.7", "a.b"),
            ("*4 $1 ? :7000 $1 i *2 $2 ip $8 10.0.0.7", "10.0.0.7"),
            ("*4 $1 ? :7000 $1 i %1 $2 ip $8 10.0.0.7", "10.0.0.7"),
            ("*4 $1 ? :7000 $1 i *0", "seed"),
            ("*3 $1 ? :7000 $1 i", "seed"),
            ("*3 $0  :7000 $1 i", "seed"),
            ("*3 $-1 :7000 $1 i", "seed"),
            ("*3 _ :7000 $1 i", "seed"),
            ("*4 _ :7000 $1 i *2 $2 ip $8 10.0.0.7", "seed"),
        ] {
            let view = view_of(node).unwrap_or_else(|| panic!("{node}"));
            assert_eq!(view.ranges, [(0..=16383, address(host, 7000))], "{node}");
            assert_eq!(view.merit(), (true, 7));
        }
    }

    #[test]
    fn a_node_whose_address_nobody_knows_is_no_master() {
        let view = view_of("*3 $0  :0 $1 i").unwrap();
        assert!(!view.has_masters() && view.known.is_empty(), "{view:?}");
    }

    #[test]
    fn replicas_are_known_and_own_nothing() {
        let slots = "*1 *4 :5 :6 *3 $1 a :1 $1 i *3 $1 b :2 $1 j ";
        let view = View::of(INFO, value(slots), "seed").unwrap();
        assert_eq!(view.ranges, [(5..=6, address("a", 1))]);
        assert_eq!(view.known, [address("a", 1), address("b", 2)].into());
    }

    #[test]
    fn an_answer_of_another_form_is_no_view() {
        for slots in [
            "$1 x ",
            "*1 $1 x ",
            "*1 *1 :0 ",
            "*1 *3 :0 :1 $1 x ",
            "*1 *3 :0 :99999 *0 ",
        ] {
            assert_eq!(View::of(INFO, value(slots), "seed"), None, "{slots}");
        }
        for info in [
            "",
            "cluster_state:ok",
            "cluster_state:ok\ncluster_current_epoch:x",
        ] {
            assert_eq!(View::of(info, value("*0 "), "seed"), None, "{info}");
        }
    }

    #[test]
    fn a_node_that_is_cut_off_is_believed_last() {
        let merit = |state: &str, epoch: u64| {
            let info = format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n");
            View::of(&info, value("*0 "), "seed").unwrap().merit()
        };
        assert!(merit("ok", 7) > merit("fail", 8));
        assert!(merit("ok", 8) > merit("ok", 7));
    }

    #[test]
    fn a_redirect_names_its_target() {
        let answered = address("here", 7000);
        for (text, target) in [
            ("10.0.0.7:7001", Some(address("10.0.0.7", 7001))),
            ("::1:7001", Some(address("::1", 7001))),
            ("[::1]:7001", Some(address("::1", 7001))),
            ("a.b:7001", Some(address("a.b", 7001))),
            (":7001", Some(address("here", 7001))),
            ("?:7001", Some(address("here", 7001))),
            ("a:0", None),
            ("a:", None),
            ("a", None),
        ] {
            assert_eq!(Address::of_redirect(text, &answered), target, "{text}");
        }
        assert_eq!(address("::1", 7).to_string(), "[::1]:7");
    }
}
