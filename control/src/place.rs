//! The state directory: revisions, access log, and where the admin API listens.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

/// A state directory. One gateway at a time owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    pub fn at(path: &Path) -> StateDirectory {
        StateDirectory { path: path.to_owned() }
    }

    /// `$XDG_STATE_HOME/sluice`, else `~/.local/state/sluice`, else `/var/lib/sluice`.
    pub fn standard() -> StateDirectory {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .unwrap_or_else(|| PathBuf::from("/var/lib"));
        StateDirectory { path: base.join("sluice") }
    }

    /// The same directory under a name that holds anywhere.
    pub fn absolute(&self) -> io::Result<StateDirectory> {
        Ok(StateDirectory { path: std::path::absolute(&self.path)? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("sluice.db")
    }

    pub fn access_log(&self) -> PathBuf {
        self.path.join("access.jsonl")
    }

    /// Keys of session tickets; see [`crate::tickets`].
    pub fn ticket_keys(&self) -> PathBuf {
        self.path.join("ticket-keys")
    }

    /// Keys of the cookies of logins; see [`crate::tickets`].
    pub fn cookie_keys(&self) -> PathBuf {
        self.path.join("cookie-keys")
    }

    /// The revision that ran last, for a start without the store.
    pub fn last_revision(&self) -> PathBuf {
        self.path.join("last-revision.json")
    }

    /// What this node is called when nobody says: its host's name with something that no other state
    /// directory has, made once.
    pub fn node_name(&self) -> io::Result<String> {
        let file = self.path.join("node");
        if let Ok(name) = std::fs::read_to_string(&file)
            && !name.trim().is_empty()
        {
            return Ok(name.trim().to_owned());
        }
        let mut random = [0; 3];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = format!("{host}-{}", data_encoding::HEXLOWER.encode(&random));
        std::fs::write(file, format!("{name}\n"))?;
        Ok(name)
    }

    fn admin(&self) -> PathBuf {
        self.path.join("admin.addr")
    }

    fn admin_token(&self) -> PathBuf {
        self.path.join("admin-token")
    }

    /// Notes the token by which users who may read it use the admin API; the file is replaced whole.
    pub fn write_admin_token(&self, token: &str) -> io::Result<()> {
        let new = self.path.join("admin-token.new");
        _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("{token}\n").as_bytes())?;
        std::fs::rename(new, self.admin_token())
    }

    /// The token of the control process that began last; `None`: none is known, or not to this user.
    pub fn read_admin_token(&self) -> Option<String> {
        let token = std::fs::read_to_string(self.admin_token()).ok()?;
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    }

    /// Creates the directory, readable by its owner only: specs and logs are nobody else's.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// Takes the directory for this process; `None` when another one has it. Held until the file
    /// is closed.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join("lock"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes where the admin API listens; the file is replaced whole.
    pub fn write_admin(&self, address: SocketAddr, tls: bool) -> io::Result<()> {
        let new = self.path.join("admin.addr.new");
        let scheme = if tls { "https://" } else { "" };
        std::fs::write(&new, format!("{scheme}{address}\n"))?;
        std::fs::rename(new, self.admin())
    }

    /// Where the admin API listened last; `None` when that is not known.
    pub fn read_admin(&self) -> Option<SocketAddr> {
        self.read_admin_url().map(|(_, address)| address)
    }

    /// The same, and before it whether it spoke TLS.
    pub fn read_admin_url(&self) -> Option<(bool, SocketAddr)> {
        let text = std::fs::read_to_string(self.admin()).ok()?;
        let (tls, address) = match text.trim().strip_prefix("https://") {
            Some(address) => (true, address),
            None => (false, text.trim()),
        };
        Some((tls, address.parse().ok()?))
    }

    /// Forgets where the admin API listened.
    pub fn remove_admin(&self) {
        // Nothing depends on it: a stale address only costs a refused connection.
        _ = std::fs::remove_file(self.admin());
        _ = std::fs::remove_file(self.admin_token());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_the_admin_address_comes_back() {
        let path = std::env::temp_dir().join(format!("sluice-place-{}", std::process::id()));
        let place = StateDirectory::at(&path.join("new/one"));
        place.create().unwrap();
        let held = place.lock().unwrap();
        assert!(held.is_some());
        assert!(place.lock().unwrap().is_none());
        drop(held);
        assert!(place.lock().unwrap().is_some());

        assert_eq!(place.read_admin(), None);
        let address = "127.0.0.1:9901".parse().unwrap();
        place.write_admin(address, false).unwrap();
        assert_eq!(place.read_admin_url(), Some((false, address)));
        place.write_admin(address, true).unwrap();
        assert_eq!(
            (place.read_admin_url(), place.read_admin()),
            (Some((true, address)), Some(address))
        );
        place.write_admin_token("slt_one").unwrap();
        place.write_admin_token("slt_two").unwrap();
        assert_eq!(place.read_admin_token().as_deref(), Some("slt_two"));
        let mode = std::fs::metadata(path.join("new/one/admin-token")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        place.remove_admin();
        assert_eq!((place.read_admin(), place.read_admin_token()), (None, None));
        std::fs::remove_dir_all(path).unwrap();
    }
}
