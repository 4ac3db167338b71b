//! Rosters in Redis: one key for each user, one script call for each operation, by Redis's own clock.
#[derive(Debug)]
pub struct RedisSettings;
#[derive(Debug)]
pub struct RedisStore;
