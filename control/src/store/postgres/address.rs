//! Where the database is, and how connections to it come up.

use std::{fmt, path::PathBuf, str::FromStr};

use tokio_postgres::{
    Client, Config, NoTls, Socket,
    config::{Host, SslMode},
    tls::{MakeTlsConnect, NoTlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CALL_TIMEOUT, CONNECT_TIMEOUT, Fault, bounded, tls};
use crate::store::StoreError;

/// A `postgres://` URL, with its password where it has one.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: Option<tls::Trust>,
}

/// The half of a connection that moves it on.
pub enum Connection {
    Plain(Box<tokio_postgres::Connection<Socket, NoTlsStream>>),
    Secured(Box<tokio_postgres::Connection<Socket, SecuredStream>>),
}

type SecuredStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl FromStr for Address {
    type Err = StoreError;

    /// Takes what libpq takes in the URL's path and query, and `sslmode=verify-ca|verify-full` and
    /// `sslrootcert` as it means them. A password that is not there comes from `PGPASSWORD` or from
    /// the file `PGPASSFILE`.
    fn from_str(url: &str) -> Result<Address, StoreError> {
        let wrong = |reason: String| StoreError::Open { path: redacted(url), reason };
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut rest) = ("prefer".to_owned(), None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = value.into(),
                Some(("sslrootcert", value)) => roots = Some(PathBuf::from(decoded(value))),
                _ => rest.push(pair),
            }
        }
        let plain = match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        };
        let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
            wrong(format!("it is no address of a database: {}", super::reason(&error)))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host".into()));
        }
        let (ssl_mode, trust) = match mode.as_str() {
            "disable" => (SslMode::Disable, None),
            "prefer" => (SslMode::Prefer, Some(tls::Trust::Anyone)),
            // As libpq has it: a file of roots makes `require` mean `verify-ca`.
            "require" if roots.is_none() => (SslMode::Require, Some(tls::Trust::Anyone)),
            "require" | "verify-ca" => (SslMode::Require, Some(tls::Trust::Chain(roots))),
            "verify-full" => (SslMode::Require, Some(tls::Trust::Name(roots))),
            other => {
                return Err(wrong(format!(
                    "sslmode is {other}, not disable, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        config.ssl_mode(ssl_mode).connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(CALL_TIMEOUT);
        config.keepalives_idle(CALL_TIMEOUT);
        let address = Address { config, tls: trust };
        Ok(address)
    }
}

impl Address {
    /// A connection that moves on by itself.
    pub(super) async fn connect(&self) -> Result<Client, Fault> {
        let (client, connection) = self.listen().await?;
        tokio::spawn(connection.run());
        Ok(client)
    }

    /// A connection that its owner moves on.
    pub(super) async fn listen(&self) -> Result<(Client, Connection), Fault> {
        let mut config = self.config.clone();
        if config.get_password().is_none()
            && let Some(password) = self.password()
        {
            // Read each time: it may have been changed.
            config.password(password);
        }
        // A server that accepts and then says nothing is not in the driver's time-out.
        bounded(CALL_TIMEOUT, async {
            match &self.tls {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    Ok((client, Connection::Plain(Box::new(connection))))
                }
                Some(trust) => {
                    let tls = trust.client().map_err(|reason| {
                        Fault::Store(StoreError::Open { path: self.to_string(), reason })
                    })?;
                    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
                    Ok((client, Connection::Secured(Box::new(connection))))
                }
            }
        })
        .await
    }

    fn password(&self) -> Option<String> {
        if let Ok(password) = std::env::var("PGPASSWORD") {
            return Some(password);
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
        let file = std::env::var_os("PGPASSFILE").map(PathBuf::from).or_else(home)?;
        let text = std::fs::read_to_string(file).ok()?;
        let (host, port, user, database) = self.parts();
        in_file(&text, &[&host, &port.to_string(), &database, &user])
    }

    /// Host, port, user and database.
    fn parts(&self) -> (String, u16, String, String) {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => {
                self.config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default()
            }
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let user = self.config.get_user().unwrap_or_default().to_owned();
        let database = self.config.get_dbname().unwrap_or(&user).to_owned();
        (host, port, user, database)
    }
}

impl Connection {
    async fn run(self) {
        // Why it ends is told by the call that needed it.
        _ = match self {
            Connection::Plain(connection) => connection.await,
            Connection::Secured(connection) => connection.await,
        };
    }

    pub fn poll_message(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<tokio_postgres::AsyncMessage, tokio_postgres::Error>>> {
        match self {
            Connection::Plain(connection) => connection.poll_message(context),
            Connection::Secured(connection) => connection.poll_message(context),
        }
    }
}

/// Without its password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port, user, database) = self.parts();
        write!(f, "postgres://{user}@{host}:{port}/{database}")
    }
}

/// `url` as far as it may be shown.
fn redacted(url: &str) -> String {
    let bare = url.split('?').next().unwrap_or_default();
    match bare.rsplit_once('@') {
        Some((_, host)) => format!("postgres://…@{host}"),
        None => bare.into(),
    }
}

/// The password in a file of libpq's form: `host:port:database:user:password`, `*` for any.
fn in_file(text: &str, wanted: &[&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (mut fields, mut fields_left) = (vec![String::new()], 4);
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            let last = fields.last_mut()?;
            match character {
                '\\' => last.extend(characters.next()),
                ':' if fields_left > 0 => {
                    fields_left -= 1;
                    fields.push(String::new());
                }
                other => last.push(other),
            }
        }
        let (password, place) = fields.split_last()?;
        let fits = place.len() == 4
            && place.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| password.clone())
    })
}

/// `%41` is `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let pair = more.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_itself_without_its_password() {
        let url = "postgres://ada:s3cret@db.example:5433/sluice?sslmode=disable";
        let address: Address = url.parse().unwrap();
        assert_eq!(address.to_string(), "postgres://ada@db.example:5433/sluice");
        for bad in [
            "postgres://ada:s3cret@db/x?sslmode=perhaps",
            "postgres://ada:s3cret@db:port/x",
            "postgres://ada:s3cret@/x",
        ] {
            let Err(error) = bad.parse::<Address>() else { panic!("{bad}") };
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_password_comes_from_the_line_that_fits() {
        let text = "# all\nother:*:*:*:no\ndb:5432:sluice:ada:a\\:b\n*:*:*:*:rest";
        let find = |host, user| in_file(text, &[host, "5432", "sluice", user]);
        assert_eq!(find("db", "ada").as_deref(), Some("a:b"));
        assert_eq!(find("db", "bob").as_deref(), Some("rest"));
        assert_eq!(in_file("db:5432:x:ada", &["db", "5432", "x", "ada"]), None);
        assert_eq!(decoded("%2Fa%20b%"), "/a b%");
    }
}
