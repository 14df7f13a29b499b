//! Keys of stateless session tickets, and of the cookies of logins.
//!
//! Every shard seals and opens with the same keys, and a control process after this one goes on with
//! them: they are kept in a file of the state directory that only its owner reads. The newest seals;
//! a ticket opens for as long as its key is among the [`KEPT`].

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use contract::snapshot::TicketKey;
use data_encoding::HEXLOWER;
use rustix::rand::{GetRandomFlags, getrandom};

/// Age at which the sealing key gets a successor, in seconds.
pub const ROTATION: i64 = 6 * 3_600;
/// The same of cookies, for sessions that last longer: for as long as a login may at most.
pub const COOKIE_ROTATION: i64 = 30 * 86_400;
/// Keys kept; the oldest opens tickets of the last `KEPT × ROTATION`.
pub const KEPT: usize = 3;
/// First line of the file.
const HEADING: &str = "sluice ticket keys 1";
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 4_096;

/// The keys of this node.
pub struct Tickets {
    file: PathBuf,
    /// Age at which the newest gets a successor, in seconds.
    rotation: i64,
    /// Newest first. Empty until the first are asked for.
    keys: Vec<Dated>,
    random: fn(&mut [u8]) -> io::Result<()>,
}

#[derive(Clone, Copy)]
struct Dated {
    /// Seconds since the Unix epoch.
    made: i64,
    key: TicketKey,
}

impl Tickets {
    /// Keys that are kept in `file`. Nothing is read or written before they are asked for.
    pub fn new(file: PathBuf) -> Tickets {
        Tickets { file, rotation: ROTATION, keys: Vec::new(), random }
    }

    /// The same for cookies.
    pub fn of_cookies(file: PathBuf) -> Tickets {
        Tickets { rotation: COOKIE_ROTATION, ..Tickets::new(file) }
    }

    /// The keys in force at `now` (seconds since the Unix epoch), newest first: those before, with a
    /// new one when its time has come.
    ///
    /// # Errors
    /// There is no randomness, so no key can be made. That the file cannot be written is only said:
    /// sessions then end with this control process.
    pub fn supply(&mut self, now: i64) -> io::Result<Vec<TicketKey>> {
        if self.keys.is_empty() {
            self.keys = self.read();
        }
        // A clock that was set back must not freeze the keys: from then on they age anew.
        for dated in &mut self.keys {
            dated.made = dated.made.min(now);
        }
        let due = self.keys.first().is_none_or(|newest| now - newest.made >= self.rotation);
        if due {
            let mut key = TicketKey { name: [0; 16], secret: [0; 32] };
            (self.random)(&mut key.name)?;
            (self.random)(&mut key.secret)?;
            let oldest = self.rotation * KEPT as i64;
            self.keys.retain(|dated| now - dated.made < oldest);
            self.keys.insert(0, Dated { made: now, key });
            self.keys.truncate(KEPT);
            if let Err(error) = self.write() {
                eprintln!(
                    "sluice: {} cannot be written ({error}): sessions will not go on after a \
                     restart",
                    self.file.display()
                );
            }
        }
        Ok(self.keys.iter().map(|dated| dated.key).collect())
    }

    /// What the file has; nothing when it cannot be read, as then sessions just begin anew.
    fn read(&self) -> Vec<Dated> {
        let mut text = String::new();
        let opened = std::fs::File::open(&self.file);
        if opened.and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).is_err() {
            return Vec::new();
        }
        let mut lines = text.lines();
        if lines.next() != Some(HEADING) {
            return Vec::new();
        }
        let keys: Option<Vec<Dated>> = lines.map(parse).collect();
        let mut keys = keys.unwrap_or_default();
        keys.truncate(KEPT);
        keys
    }

    fn write(&self) -> io::Result<()> {
        let mut text = format!("{HEADING}\n");
        for Dated { made, key } in &self.keys {
            text.push_str(&format!(
                "{made} {} {}\n",
                HEXLOWER.encode(&key.name),
                HEXLOWER.encode(&key.secret)
            ));
        }
        // Replaced whole. The new file must be ours from its first moment, so one that is left over
        // goes first.
        let new = self.file.with_extension("new");
        _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(new, &self.file)
    }
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(())
}

fn parse(line: &str) -> Option<Dated> {
    let mut words = line.split(' ');
    let made = words.next()?.parse().ok()?;
    let key = TicketKey { name: unhex(words.next()?)?, secret: unhex(words.next()?)? };
    words.next().is_none().then_some(Dated { made, key })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path.join("ticket-keys")
    }

    #[test]
    fn the_newest_seals_and_the_last_three_open() {
        let mut tickets = Tickets::new(scratch("rotation"));
        let mut last = tickets.supply(1_000).unwrap();
        assert_eq!(last.len(), 1);
        assert_ne!(last[0].secret, [0; 32]);
        assert_eq!(tickets.supply(1_000 + ROTATION - 1).unwrap(), last);
        for turn in 1..6 {
            let next = tickets.supply(1_000 + turn * ROTATION).unwrap();
            assert_eq!(next.len(), KEPT.min(turn as usize + 1));
            assert_ne!(next[0], last[0]);
            assert_eq!(next[1..], last[..last.len().min(KEPT - 1)]);
            last = next;
        }
        // After a long sleep nothing old is of use.
        assert_eq!(tickets.supply(1_000 + 100 * ROTATION).unwrap().len(), 1);
    }

    #[test]
    fn keys_survive_in_a_file_that_only_the_owner_reads() {
        let file = scratch("persisted");
        let keys = Tickets::new(file.clone()).supply(50).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Tickets::new(file.clone()).supply(60).unwrap(), keys);
        let more = Tickets::new(file.clone()).supply(50 + ROTATION).unwrap();
        assert_eq!(more[1..], keys);
        assert_eq!(Tickets::new(file.clone()).supply(50 + ROTATION).unwrap(), more);
        for damaged in ["", "other\n", &format!("{HEADING}\n1 00 00\n"), "\u{ff}"] {
            std::fs::write(&file, damaged).unwrap();
            let new = Tickets::new(file.clone()).supply(70).unwrap();
            assert_eq!(new.len(), 1);
            assert_ne!(new, keys);
        }
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_rotation() {
        let mut tickets = Tickets::new(scratch("clock"));
        let keys = tickets.supply(1_000_000).unwrap();
        assert_eq!(tickets.supply(5).unwrap(), keys);
        assert_eq!(tickets.supply(5 + ROTATION).unwrap()[1..], keys);
    }

    #[test]
    fn keys_of_cookies_last_as_long_as_any_session() {
        let mut cookies = Tickets::of_cookies(scratch("cookies"));
        let keys = cookies.supply(1_000).unwrap();
        assert_eq!(cookies.supply(1_000 + ROTATION).unwrap(), keys);
        let longest = 1_000 + COOKIE_ROTATION + 2_592_000;
        assert!(cookies.supply(longest).unwrap().contains(&keys[0]));
    }

    #[test]
    fn nothing_is_written_before_keys_are_asked_for() {
        let file = scratch("lazy");
        drop(Tickets::new(file.clone()));
        assert!(!file.exists());
    }

    #[test]
    fn without_randomness_there_is_no_key() {
        let mut tickets = Tickets::new(scratch("random"));
        tickets.random = |_| Err(io::Error::other("none"));
        assert!(tickets.supply(1).is_err());
        assert!(tickets.keys.is_empty());
    }
}
