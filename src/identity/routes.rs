//! The routes' own lists of session sources. The same few texts come with every check, so each is
//! parsed once.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::source::{Source, SourceError};
use crate::util::unpoisoned;

/// How many lists are cached. There can be more only if something other than a route writes them;
/// those are parsed each time.
const MAX_LISTS: usize = 1000;

/// The parsed lists, by their texts.
#[derive(Debug, Default)]
pub struct RouteLists(RwLock<HashMap<String, Arc<[Source]>>>);

impl RouteLists {
    /// The sources of a route's list.
    pub(crate) fn sources(&self, text: &str) -> Result<Arc<[Source]>, SourceError> {
        let known = unpoisoned(self.0.read());
        if let Some(sources) = known.get(text) {
            return Ok(Arc::clone(sources));
        }
        drop(known);
        let sources: Arc<[Source]> = Source::parse_list(text)?.into();
        let mut known = unpoisoned(self.0.write());
        if known.len() < MAX_LISTS {
            known.insert(text.to_owned(), Arc::clone(&sources));
        }
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_understood_once_and_a_wrong_one_each_time() {
        let lists = RouteLists::default();
        let first = lists.sources("cmcd:sid,path:^/(a)").unwrap();
        let second = lists.sources("cmcd:sid,path:^/(a)").unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(lists.sources("sid").is_err() && lists.sources("sid").is_err());
        for n in 0..2 * MAX_LISTS {
            assert_eq!(lists.sources(&format!("query:q{n}")).unwrap().len(), 1);
        }
        assert_eq!(lists.0.read().unwrap().len(), MAX_LISTS);
    }
}
