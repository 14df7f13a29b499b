//! What the indices in a record meant: the names of recent epochs.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use contract::snapshot::Snapshot;

/// Epochs remembered. A record older than that is logged without names.
const MAX_EPOCHS: usize = 1000;

/// Names remembered over all epochs: bounds memory when specs are large (about 16 bytes each).
const MAX_NAMES: usize = 1 << 20;

/// Route and upstream names of an epoch, by index.
#[derive(Debug, Default, PartialEq)]
pub struct Names {
    pub routes: Vec<Arc<str>>,
    pub upstreams: Vec<Arc<str>>,
}

impl Names {
    /// The names in `snapshot`, sharing storage with `previous` where it can: a thousand epochs that
    /// differ in a name each must not hold a thousand times all of them.
    fn of(snapshot: &Snapshot, previous: Option<&Arc<Names>>) -> Arc<Names> {
        let routes = snapshot.routes.iter().map(|route| route.name.as_str());
        let upstreams = snapshot.upstreams.iter().map(|upstream| upstream.name.as_str());
        if let Some(previous) = previous
            && previous.routes.iter().map(|name| &**name).eq(routes.clone())
            && previous.upstreams.iter().map(|name| &**name).eq(upstreams.clone())
        {
            return Arc::clone(previous);
        }
        let known: HashMap<&str, &Arc<str>> = previous
            .map(|previous| {
                let names = previous.routes.iter().chain(&previous.upstreams);
                names.map(|name| (&**name, name)).collect()
            })
            .unwrap_or_default();
        let share = |name: &str| match known.get(name) {
            Some(known) => Arc::clone(known),
            None => Arc::from(name),
        };
        Arc::new(Names {
            routes: routes.map(share).collect(),
            upstreams: upstreams.map(share).collect(),
        })
    }

    fn len(&self) -> usize {
        self.routes.len() + self.upstreams.len()
    }
}

/// The names of recent epochs, oldest first.
#[derive(Default)]
pub struct History {
    epochs: VecDeque<(u64, Arc<Names>)>,
    /// Names held, counting shared tables once.
    names: usize,
}

impl History {
    /// Remembers `snapshot`. Must happen before its epoch is published, so that no record can
    /// refer to an epoch unknown here.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let last = self.epochs.back().map(|(_, names)| names);
        let names = Names::of(snapshot, last);
        if last.is_none_or(|last| !Arc::ptr_eq(last, &names)) {
            self.names += names.len();
        }
        self.epochs.push_back((snapshot.epoch, names));
        while self.epochs.len() > MAX_EPOCHS || (self.names > MAX_NAMES && self.epochs.len() > 8) {
            let Some((_, gone)) = self.epochs.pop_front() else { break };
            let shared = self.epochs.front().is_some_and(|(_, next)| Arc::ptr_eq(next, &gone));
            if !shared {
                self.names -= gone.len();
            }
        }
    }

    /// The names of `epoch`, or `None` when it is unknown or forgotten.
    pub fn at(&self, epoch: u64) -> Option<Arc<Names>> {
        let at = self.epochs.partition_point(|(known, _)| *known < epoch);
        self.epochs.get(at).filter(|(known, _)| *known == epoch).map(|(_, names)| Arc::clone(names))
    }
}

#[cfg(test)]
mod tests {
    use contract::snapshot::Route;

    use super::*;

    fn snapshot(epoch: u64, routes: &[&str]) -> Snapshot {
        let route = |name: &&str| Route { name: name.to_string(), ..Route::default() };
        Snapshot { epoch, routes: routes.iter().map(route).collect(), ..Snapshot::default() }
    }

    #[test]
    fn finds_names_by_epoch_and_shares_equal_ones() {
        let mut history = History::default();
        history.add(&snapshot(5, &["a"]));
        history.add(&snapshot(7, &["a"]));
        history.add(&snapshot(9, &["b"]));
        history.add(&snapshot(10, &["c", "b"]));
        assert!(history.at(6).is_none());
        assert!(Arc::ptr_eq(&history.at(5).unwrap(), &history.at(7).unwrap()));
        assert_eq!(&*history.at(9).unwrap().routes[0], "b");
        assert!(Arc::ptr_eq(&history.at(9).unwrap().routes[0], &history.at(10).unwrap().routes[1]));
        assert_eq!(history.names, 4);
    }

    #[test]
    fn forgets_the_oldest_and_keeps_count() {
        let mut history = History::default();
        for epoch in 0..2 * MAX_EPOCHS as u64 {
            history.add(&snapshot(epoch, &[if epoch % 3 == 0 { "a" } else { "b" }, "c"]));
        }
        assert_eq!(history.epochs.len(), MAX_EPOCHS);
        assert!(history.at(0).is_none());
        assert!(history.at(2 * MAX_EPOCHS as u64 - 1).is_some());
        let mut distinct: Vec<_> = history.epochs.iter().map(|(_, names)| names).collect();
        distinct.dedup_by(|a, b| Arc::ptr_eq(a, b));
        assert_eq!(history.names, distinct.iter().map(|names| names.len()).sum::<usize>());
    }
}
