//! What the engine is asked about its cache, and what it tells.

use crate::encode::DecodeError;
use crate::wire::{In, Out};

/// Most routes of a report; those that keep most come first.
pub const MAX_CACHE_LINES: usize = 1_000;

/// Which stored answers are to go: those of which all that is said here is true. Of nothing said, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// Of the route of that name.
    pub route: String,
    /// With that tag.
    pub tag: String,
    /// For that host, with its port where requests have one; lower case.
    pub host: String,
    /// For that path, or with `below` for all that begin with it.
    pub path: String,
    pub below: bool,
}

/// How the cache stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Answers that were purged, where that was asked for.
    pub purged: u64,
    pub objects: u64,
    /// All that is counted against the bound, answers on their way in included.
    pub bytes: u64,
    pub max_bytes: u64,
    pub routes: Vec<CacheLine>,
}

/// What is kept of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheLine {
    pub route: String,
    pub objects: u64,
    pub bytes: u64,
}

impl Purge {
    pub(crate) fn write(&self, out: &mut Out) {
        for text in [&self.route, &self.tag, &self.host, &self.path] {
            out.text(text);
        }
        out.u8(self.below.into());
    }

    pub(crate) fn read(input: &mut In<'_>) -> Result<Purge, DecodeError> {
        Ok(Purge {
            route: input.text("purge.route")?,
            tag: input.text("purge.tag")?,
            host: input.text("purge.host")?,
            path: input.text("purge.path")?,
            below: input.bool("purge.below")?,
        })
    }
}

impl CacheReport {
    /// Its bytes. Routes past [`MAX_CACHE_LINES`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        for number in [self.purged, self.objects, self.bytes, self.max_bytes] {
            out.u64(number);
        }
        let most = self.routes.len().min(MAX_CACHE_LINES);
        out.list(&self.routes[..most], |out, line| {
            out.text(&line.route);
            out.u64(line.objects);
            out.u64(line.bytes);
        });
        out.bytes
    }

    /// Reads what [`CacheReport::encode`] wrote.
    ///
    /// # Errors
    /// Anything else.
    pub fn decode(bytes: &[u8]) -> Result<CacheReport, DecodeError> {
        let mut input = In::new(bytes, 0);
        let report = CacheReport {
            purged: input.u64("cache.purged")?,
            objects: input.u64("cache.objects")?,
            bytes: input.u64("cache.bytes")?,
            max_bytes: input.u64("cache.max_bytes")?,
            routes: input.list("cache.routes", MAX_CACHE_LINES, |input| {
                Ok(CacheLine {
                    route: input.text("cache.route")?,
                    objects: input.u64("cache.route.objects")?,
                    bytes: input.u64("cache.route.bytes")?,
                })
            })?,
        };
        input.end()?;
        Ok(report)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_and_nothing_else_is_taken() {
        let line = CacheLine { route: "shop".into(), objects: 3, bytes: 4_000 };
        let report = CacheReport {
            purged: 1,
            objects: 3,
            bytes: 5_000,
            max_bytes: 1 << 26,
            routes: vec![line, CacheLine::default()],
        };
        let bytes = report.encode();
        assert_eq!(CacheReport::decode(&bytes), Ok(report));
        for cut in 0..bytes.len() {
            assert!(CacheReport::decode(&bytes[..cut]).is_err());
        }
        assert!(CacheReport::decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
