//! Stores: what each has to do, and what is Redis's own.

// What a store has to do, whatever it is made of.
mod contract;
// Random operations on every store and on the rule itself, compared step by step.
mod model;
// Instances whose versions of records differ, on one Redis.
mod record_versions;
// What is Redis's own: outages, deadlines, a full server, foreign data.
mod redis;
// The listing of everybody by pages on Redis: other data beside ours, what it costs, rights.
mod pages;
// Each fault that a Redis or the way to it can have: what the store says, and how it goes on.
mod faults;
// Many viewers at once while Redis forgets, stands still, or is just to be left in peace.
mod redis_load;
// A Redis Cluster: faults of one shard, slots that move, the listing, what is no cluster.
mod redis_cluster;
// A Redis that sentinels watch: which server is used, and what a failover costs.
mod redis_sentinel;
// The service on a real Redis in trouble: what everybody gets by each outage rule, and that all is
// well again without a restart.
mod redis_trouble;
