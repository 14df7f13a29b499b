//! Learning of changes in Redis as they happen: a connection of its own to each server, on which it
//! pushes the names of keys that came, changed or went (RESP3, `CLIENT TRACKING ON BCAST`).
//!
//! fred can track, too, but drops the message that says "everything went" (FLUSHALL), and cannot tell
//! when a connection was lost from when it was back. Here that is all there is: sessions, which begin
//! when the server has agreed to tell, and end with the first doubt that it still does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode_bytes_mut;
use redis_protocol::resp3::types::BytesFrame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::Server;
use crate::io::monotonic_ms;
use crate::limits;

/// What a server tells.
#[derive(Debug)]
pub enum Event {
    /// From now on it tells of changes, after it had failed to or for the first time.
    Begun { again: bool },
    /// This key came, changed or went.
    Changed(Bytes),
    /// Everything went that was known under this session.
    Flushed { session: u64 },
    /// Nobody tells any more. `heard_ms`: until when that is certain.
    Lost { session: u64, heard_ms: u64 },
    /// It cannot be reached, or does not want to tell; said once until the next session.
    Failed(String),
}

/// Numbers of sessions, over all servers of the node. Never 0.
#[derive(Debug, Default)]
pub struct Sessions(AtomicU64);

/// One server's watch.
#[derive(Debug, Default)]
pub struct Tracker {
    session: AtomicU64,
}

const BEAT: Duration = Duration::from_millis(limits::REDIS_BEAT_MS);
const CONNECT: Duration = Duration::from_millis(limits::REDIS_CONNECT_MS);

/// Why a session ended or never began.
enum Ended {
    Io(String),
    /// The server answered that it does not do this.
    Refused(String),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Ended {
        Ended::Io(error.to_string())
    }
}

impl Tracker {
    /// The session that is under way; 0: none. To be read *before* a question whose answer is to be
    /// believed under it.
    pub fn session(&self) -> u64 {
        self.session.load(Ordering::SeqCst)
    }

    /// Watches keys that begin with `prefix`, for good.
    pub async fn run(
        &self,
        server: Server,
        prefix: String,
        sessions: &Sessions,
        tell: impl Fn(Event) + Send + Sync,
    ) {
        let (least_ms, most_ms) = limits::REDIS_BACKOFF_MS;
        let mut wait_ms = least_ms;
        let mut failing = false;
        loop {
            let opened = timeout(CONNECT, Wire::open(&server, &prefix)).await;
            let opened = opened.unwrap_or_else(|_| Err(Ended::Io("it does not answer".into())));
            let ended = match opened {
                Err(ended) => ended,
                Ok(mut wire) => {
                    wait_ms = least_ms;
                    let again = std::mem::take(&mut failing);
                    self.listen(&mut wire, again, sessions, &tell).await
                }
            };
            let (why, pause_ms) = match ended {
                Ended::Io(why) => (format!("cannot be asked: {why}"), wait_ms),
                Ended::Refused(why) => (
                    format!("does not tell of changes, so that keys are asked for again: {why}"),
                    limits::REDIS_REFUSED_MS,
                ),
            };
            if !std::mem::replace(&mut failing, true) {
                tell(Event::Failed(why));
            }
            sleep(Duration::from_millis(pause_ms.into())).await;
            wait_ms = (wait_ms * 2).min(most_ms);
        }
    }

    /// One session, to its end.
    async fn listen(
        &self,
        wire: &mut Wire,
        again: bool,
        sessions: &Sessions,
        tell: &(impl Fn(Event) + Send + Sync),
    ) -> Ended {
        let session = sessions.0.fetch_add(1, Ordering::Relaxed) + 1;
        let mut heard_ms = monotonic_ms();
        self.session.store(session, Ordering::SeqCst);
        tell(Event::Begun { again });
        let ended = wire.listen(session, &mut heard_ms, tell).await;
        // First nobody learns under this session any more, then all that was learned is put in doubt.
        self.end();
        tell(Event::Lost { session, heard_ms });
        ended
    }

    /// Ends the session, and says which it was.
    pub fn end(&self) -> u64 {
        self.session.swap(0, Ordering::SeqCst)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

struct Wire {
    stream: Box<dyn Duplex>,
    bytes: BytesMut,
}

impl Wire {
    /// Connects, introduces itself, and asks to be told.
    async fn open(server: &Server, prefix: &str) -> Result<Wire, Ended> {
        let address = &server.address;
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Duplex> = match &server.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = rustls::pki_types::ServerName::try_from(server.tls_name.clone())
                    .map_err(|_| Ended::Refused("its host is no name to verify".into()))?;
                let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
                Box::new(connector.connect(name, stream).await?)
            }
        };
        let mut wire = Wire { stream, bytes: BytesMut::new() };
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &address.password {
            let username = address.username.as_deref().unwrap_or("default");
            hello.extend([&b"AUTH"[..], username.as_bytes(), password.as_bytes()]);
        }
        wire.ask(&hello).await?;
        let mut tracking: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        if !prefix.is_empty() {
            tracking.extend([&b"PREFIX"[..], prefix.as_bytes()]);
        }
        wire.ask(&tracking).await?;
        Ok(wire)
    }

    /// A command that has to succeed.
    async fn ask(&mut self, parts: &[&[u8]]) -> Result<(), Ended> {
        self.stream.write_all(&command(parts)).await?;
        self.stream.flush().await?;
        loop {
            match self.next().await? {
                BytesFrame::SimpleError { data, .. } => return Err(refused(&data)),
                BytesFrame::BlobError { data, .. } => {
                    return Err(refused(&String::from_utf8_lossy(&data)));
                }
                BytesFrame::Push { .. } => {}
                _ => return Ok(()),
            }
        }
    }

    /// Passes on what the server tells, until it does not answer any more.
    async fn listen(
        &mut self,
        session: u64,
        heard_ms: &mut u64,
        tell: &(impl Fn(Event) + Send + Sync),
    ) -> Ended {
        let mut beats = interval_at(Instant::now() + BEAT, BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Pings without an answer, and when the last was sent.
        let (mut open, mut sent_ms) = (0u32, *heard_ms);
        loop {
            let frame = tokio::select! {
                // What has come is looked at before the time.
                biased;
                frame = self.next() => Some(frame),
                _ = beats.tick() => None,
            };
            match frame {
                Some(Err(ended)) => return ended,
                Some(Ok(BytesFrame::Push { data, .. })) => pushed(data, session, tell),
                Some(Ok(BytesFrame::SimpleString { .. })) => {
                    open = open.saturating_sub(1);
                    // All that happened before it got this ping has been told.
                    if open == 0 {
                        *heard_ms = sent_ms;
                    }
                }
                Some(Ok(BytesFrame::SimpleError { data, .. })) => return refused(&data),
                Some(Ok(_)) => {}
                None if open >= limits::REDIS_BEATS_MISSED => {
                    return Ended::Io("it does not answer any more".into());
                }
                None => {
                    (open, sent_ms) = (open + 1, monotonic_ms());
                    match timeout(BEAT, self.stream.write_all(b"PING\r\n")).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return error.into(),
                        Err(_) => return Ended::Io("it does not read any more".into()),
                    }
                    if let Err(error) = self.stream.flush().await {
                        return error.into();
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Result<BytesFrame, Ended> {
        loop {
            match decode_bytes_mut(&mut self.bytes) {
                Ok(Some((frame, _, _))) => return Ok(frame),
                Ok(None) => {}
                Err(_) => return Err(Ended::Refused("it does not speak RESP3".into())),
            }
            if self.bytes.len() > limits::REDIS_PUSH {
                return Err(Ended::Io("it tells more at once than can be taken".into()));
            }
            // Large messages are begun anew with each piece of them: pieces must be large, too.
            self.bytes.reserve(4 * 1024 + self.bytes.len());
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(Ended::Io("it closed the connection".into()));
            }
        }
    }
}

/// Errors begin with a word in capitals. Some say that it is only not ready yet.
fn refused(text: &str) -> Ended {
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    match text.split(' ').next() {
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN") => Ended::Io(text),
        _ => Ended::Refused(text),
    }
}

/// `["invalidate", [key, …]]`, or `null` for the keys: all of them.
fn pushed(data: Vec<BytesFrame>, session: u64, tell: &(impl Fn(Event) + Send + Sync)) {
    let mut parts = data.into_iter();
    match parts.next() {
        Some(BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. })
            if &*data == b"invalidate" => {}
        _ => return,
    }
    match parts.next() {
        Some(BytesFrame::Array { data, .. }) => {
            for key in data {
                if let BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. } =
                    key
                {
                    tell(Event::Changed(data));
                }
            }
        }
        // Null, or what is not understood.
        _ => tell(Event::Flushed { session }),
    }
}

fn command(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}
