//! How a check gets at its target.

use std::io;
use std::rc::Rc;

use super::Found;
use crate::io::{Io, Watch};
use crate::tls::Cause;
use crate::upstream::pool::{Lease, NoLease, Pool};

/// A connection of the target's own pool; with `fresh` one that has carried nothing yet.
///
/// # Errors
/// What its absence says of the target.
pub async fn lease(io: &Io, watch: &Watch, pool: &Rc<Pool>, fresh: bool) -> Result<Lease, Found> {
    if !fresh && let Some(lease) = pool.reuse(io.clock().now_ms()) {
        return Ok(lease);
    }
    pool.lease(io, watch, fresh).await.map_err(|none| match none {
        NoLease::Exhausted => Found::Nothing,
        NoLease::Failed(error) if is_ours(&error) => Found::Nothing,
        NoLease::Handshake(failed) if failed.cause == Cause::Own => Found::Nothing,
        NoLease::Failed(_) | NoLease::Handshake(_) | NoLease::Timeout => Found::Unhealthy,
    })
}

/// Whether a failed connect is for want of something on this machine. Counted against the target it
/// would take all targets out at once.
pub fn is_ours(error: &io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_our_own_says_nothing_about_the_target() {
        assert!(is_ours(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(is_ours(&io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)));
        assert!(!is_ours(&io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        assert!(!is_ours(&io::Error::from(io::ErrorKind::TimedOut)));
    }
}
