//! Work that computes for longer than a shard may: it is done by a thread of the store, and the shard awaits
//! what comes of it.

use std::sync::Arc;

use crate::shard::Shard;
use crate::store::places::Places;

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// There is too much of such work already.
    NoRoom,
    /// It panicked.
    Failed,
}

/// Has `work` done elsewhere, in one of `places`. It is done to its end even if nobody awaits that.
///
/// # Errors
/// See [`NotDone`].
pub async fn offload<T: Send + 'static>(
    shard: &Shard,
    places: &Arc<Places>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    let place = places.take().ok_or(NotDone::NoRoom)?;
    let asked = shard.desk().ask(async move { place.work(work).await });
    match asked.await {
        Ok(Some(done)) => Ok(done),
        Ok(None) => Err(NotDone::Failed),
        // Too many questions to the store, of whatever kind.
        Err(_) => Err(NotDone::NoRoom),
    }
}
