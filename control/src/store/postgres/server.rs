//! A real PostgreSQL for tests: a cluster of its own on a free port, gone with the process that
//! started it, however that ends. The black-box suites include this file, too: nothing but the
//! standard library in it.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks and sockets")]
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the server, and ends it when its own standard input ends: a line is "I have done so myself".
const KEEPER: &str = "\"$@\" >\"$LOG\" 2>&1 & server=$!
    if read -r line; then wait $server; exit; fi
    kill -QUIT $server; wait $server; rm -rf \"$DIRECTORY\"";

#[derive(Debug)]
pub struct PostgresServer {
    pub port: u16,
    directory: PathBuf,
    programs: PathBuf,
    arguments: Vec<String>,
    keeper: Option<Child>,
}

impl PostgresServer {
    pub fn start() -> PostgresServer {
        PostgresServer::start_with(&[], &[], None)
    }

    /// With more arguments, such as `-c ssl=on`, files in its data directory, and who is let in how
    /// (`pg_hba.conf`); all by default. The superuser is `postgres`, with the password `secret`.
    pub fn start_with(
        arguments: &[&str],
        files: &[(&str, &str)],
        access: Option<&str>,
    ) -> PostgresServer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let place = format!(
            "sluice-postgres-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(place);
        let programs = programs();
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("password"), "secret\n").unwrap();
        give(&directory);
        let data = directory.join("data").display().to_string();
        let password = directory.join("password").display().to_string();
        let made = as_server(&programs.join("initdb"))
            .args(["-D", &data, "-U", "postgres", "--pwfile", &password, "--auth", "trust"])
            .args(["--no-sync", "--encoding", "UTF8", "--locale", "C"])
            .current_dir(&directory)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let data = Path::new(&data);
        for (name, text) in files {
            std::fs::write(data.join(name), text).unwrap();
            let mode = Command::new("chmod").arg("600").arg(data.join(name)).status();
            assert!(mode.unwrap().success());
            give(&data.join(name));
        }
        if let Some(access) = access {
            std::fs::write(data.join("pg_hba.conf"), access).unwrap();
        }
        let mut server = PostgresServer {
            port: 0,
            directory,
            programs,
            arguments: arguments.iter().map(|text| (*text).into()).collect(),
            keeper: None,
        };
        // Another process may take the port in between, so a start may fail.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.run() {
                return server;
            }
        }
        panic!("PostgreSQL does not start: {}", server.log());
    }

    fn run(&mut self) -> bool {
        let data = self.directory.join("data").display().to_string();
        // What it said before it was killed means nothing now.
        std::fs::write(self.directory.join("log"), "").unwrap();
        let server = as_server(&self.programs.join("postgres"));
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(server.get_program())
            .args(server.get_args())
            .args(["-D", &data, "-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "fsync=off", "-c", "max_connections=200"])
            .args(&self.arguments)
            .env("LOG", self.directory.join("log"))
            .env("DIRECTORY", &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal's Ctrl-C would end it before it has cleaned up.
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.log().contains("ready to accept connections")
                && std::fs::read_to_string(self.directory.join("data/postmaster.pid"))
                    .is_ok_and(|text| text.contains("ready"))
            {
                self.keeper = Some(keeper);
                return true;
            }
            let ends = ["could not create", "is shut down", "contains errors"];
            if ends.iter().any(|end| self.log().contains(end)) {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        if let Some(pid) = self.find() {
            signal("-QUIT", &[pid]);
        }
        if let Some(stdin) = &mut keeper.stdin {
            let _ = stdin.write_all(b"over\n");
        }
        let _ = keeper.wait();
        false
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Where its files are; with `-c unix_socket_directories=..`, its socket, too.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// An address of `database`, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:secret@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database and says its address.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
        self.url(name)
    }

    /// What `psql` prints for a statement: rows, fields between `|`.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        self.try_sql(database, statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// # Errors
    /// What it said against it.
    pub fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let answer = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement])
            .arg(self.url(database))
            .output()
            .expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match answer.status.success() {
            true => Ok(text(&answer.stdout)),
            false => Err(text(&answer.stderr)),
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        signal("-QUIT", &[self.pid()]);
        if let Some(stdin) = &mut keeper.stdin {
            let _ = stdin.write_all(b"over\n");
        }
        let _ = keeper.wait();
    }

    /// Starts it again, at the same place and with what it held.
    pub fn restart(&mut self) {
        self.kill();
        let begun = Instant::now();
        while !self.run() {
            assert!(begun.elapsed() < PATIENCE, "it does not start again: {}", self.log());
        }
    }

    /// It stands still, but holds its connections.
    pub fn freeze(&self, frozen: bool) {
        let server = self.pid();
        let children =
            Command::new("ps").args(["-o", "pid=", "--ppid", &server]).output().expect("ps runs");
        let text = String::from_utf8_lossy(&children.stdout).into_owned();
        let mut all = vec![server];
        all.extend(text.split_whitespace().map(str::to_owned));
        signal(if frozen { "-STOP" } else { "-CONT" }, &all);
    }

    fn pid(&self) -> String {
        self.find().expect("it runs")
    }

    fn find(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).ok()?;
        Some(text.lines().next()?.to_owned())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.keeper.is_some() {
            self.freeze(false);
        }
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Where the server's programs are; Debian keeps them off the PATH, by version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = found.collect();
    all.sort();
    all.reverse();
    all.extend(std::env::split_paths(&path));
    let found = all.into_iter().find(|place| place.join("initdb").exists());
    found.expect("PostgreSQL is installed (Debian: postgresql)")
}

/// A command as a user that the server runs as: it refuses to be root's.
fn as_server(program: &Path) -> Command {
    match user() {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &group(&user), "--clear-groups"]);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Makes a file the server's.
fn give(path: &Path) {
    if let Some(user) = user() {
        let owner = format!("{user}:{}", group(&user));
        let given = Command::new("chown").arg("-R").arg(owner).arg(path).status();
        assert!(given.expect("chown runs").success());
    }
}

/// Whom the server runs as when we are root.
fn user() -> Option<String> {
    let id = |arguments: &[&str]| {
        let answer = Command::new("id").args(arguments).output().expect("id runs");
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    if id(&["-u"]).as_deref() != Some("0") {
        return None;
    }
    Some(if id(&["-u", "postgres"]).is_some() { "postgres" } else { "nobody" }.into())
}

fn group(user: &str) -> String {
    let answer = Command::new("id").args(["-g", user]).output().expect("id runs");
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

fn signal(signal: &str, pids: &[String]) {
    // Some of them may have ended by themselves.
    let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
}
