//! Getting a snapshot to every shard, by way of the supervisor and the segment.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use contract::{
    bus::{self, Bus, Message},
    segment::Segment,
    snapshot::{Listener, Snapshot},
};
use tokio::sync::{mpsc, watch};

use crate::inquiry::{Inquiry, Waiting};

/// Longest wait for every shard to adopt an epoch.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the supervisor to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often adoption is looked at.
const ADOPT_TICK: Duration = Duration::from_millis(1);

/// Answers that may wait; we ask one thing at a time.
const MAX_ANSWERS: usize = 16;

/// Publishes snapshots, one at a time.
pub struct Publisher {
    segment: Arc<Segment>,
    bus: Arc<Bus>,
    answers: mpsc::Receiver<Message>,
    /// The last epoch given out.
    epoch: u64,
    /// The last request to open sockets.
    request: u64,
    /// Addresses that the supervisor listens on, as far as we know.
    open: BTreeSet<SocketAddr>,
    engine: EngineState,
    inquiry: Inquiry,
}

/// Whether an engine runs, as the supervisor says.
#[derive(Clone, Default)]
pub struct EngineState {
    /// `Err`: why not.
    state: Arc<Mutex<Option<Result<u32, String>>>>,
}

impl EngineState {
    /// For people: `ok`, `starting`, or why it is down.
    pub fn describe(&self) -> String {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(_)) => "ok".into(),
            Some(Err(reason)) => format!("down: {reason}"),
            None => "starting".into(),
        }
    }

    fn set(&self, state: Result<u32, String>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }
}

/// The supervisor's wish that we end.
pub struct Stop {
    stop: watch::Receiver<bool>,
}

impl Stop {
    /// Resolves when the supervisor says stop, or is gone.
    pub async fn wanted(&mut self) {
        // An error means that the reader ended, which it does on the same occasion.
        _ = self.stop.wait_for(|stop| *stop).await;
    }
}

impl Publisher {
    /// Speaks to the supervisor over `bus`. With `resume` it first tells which snapshot is in
    /// force, from a control process before this one.
    ///
    /// # Errors
    /// The bus is none, or the supervisor is silent.
    pub fn connect(
        bus: OwnedFd,
        segment: Arc<Segment>,
        resume: bool,
    ) -> io::Result<(Publisher, Stop, Option<OwnedFd>)> {
        let bus = Bus::from_fd(bus)?;
        let mut last = None;
        if resume {
            match bus.recv_timeout(ANSWER_TIMEOUT)? {
                Some(Message::LastSnapshot { fd, .. }) => last = Some(fd),
                _ => return Err(io::Error::other("the supervisor did not say what is in force")),
            }
        }
        let bus = Arc::new(bus);
        let (send, answers) = mpsc::channel(MAX_ANSWERS);
        let (stopping, stop) = watch::channel(false);
        let engine = EngineState::default();
        let waiting = Waiting::default();
        let inquiry = Inquiry::new(Arc::clone(&bus), waiting.clone());
        let (ear, state) = (Arc::clone(&bus), engine.clone());
        std::thread::Builder::new()
            .name("bus".into())
            .spawn(move || listen(&ear, &send, &stopping, &state, &waiting))?;
        let publisher = Publisher {
            segment,
            bus,
            answers,
            epoch: 0,
            request: 0,
            open: BTreeSet::new(),
            engine,
            inquiry,
        };
        Ok((publisher, Stop { stop }, last))
    }

    pub fn inquiry(&self) -> Inquiry {
        self.inquiry.clone()
    }

    pub fn engine(&self) -> EngineState {
        self.engine.clone()
    }

    /// Takes over what an earlier control process published: its epoch and its listeners.
    pub fn resume(&mut self, last: &Snapshot) {
        self.epoch = self.epoch.max(last.epoch);
        self.open.extend(last.listeners.iter().map(|listener| listener.address));
        // It may have ended between handing the snapshot over and making it current.
        if self.segment.epoch() < last.epoch {
            self.segment.publish(last.epoch);
        }
    }

    /// The epoch for the next snapshot. Rises for as long as the segment lives, over all control
    /// processes.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch = self.epoch.max(self.segment.epoch()) + 1;
        self.epoch
    }

    /// Opens the listening sockets of `listeners` that are not open yet: all or none of them.
    ///
    /// # Errors
    /// Which one cannot be opened, why, and what to do.
    pub async fn open(&mut self, listeners: &[Listener]) -> Result<(), String> {
        let mut wanted = self.open.clone();
        wanted.extend(listeners.iter().map(|listener| listener.address));
        if wanted == self.open {
            return Ok(());
        }
        self.bind(wanted).await
    }

    /// Closes the listening sockets that are not of `listeners`. A failure leaves them open, which
    /// the next change puts right.
    pub async fn close_others(&mut self, listeners: &[Listener]) {
        let wanted: BTreeSet<_> = listeners.iter().map(|listener| listener.address).collect();
        if wanted != self.open
            && let Err(error) = self.bind(wanted).await
        {
            eprintln!("sluice: listeners that are no longer used stay open: {error}");
        }
    }

    async fn bind(&mut self, wanted: BTreeSet<SocketAddr>) -> Result<(), String> {
        self.request += 1;
        let id = self.request;
        self.send(Message::Bind { id, addresses: wanted.iter().copied().collect() })?;
        let error = self
            .answer(|answer| match answer {
                Message::Bound { id: answered, error } if answered == id => Some(error),
                _ => None,
            })
            .await?;
        match error {
            Some(error) => Err(error),
            None => {
                self.open = wanted;
                Ok(())
            }
        }
    }

    /// Publishes `snapshot`; returns when that began.
    ///
    /// # Errors
    /// The snapshot is too large, or the supervisor is silent. Nothing has changed then.
    pub async fn publish(&mut self, snapshot: &Snapshot) -> Result<Instant, String> {
        let epoch = snapshot.epoch;
        let fd = bus::seal(&snapshot.encode()).map_err(|error| error.to_string())?;
        // Leftovers of an earlier change that nobody waited for.
        while self.answers.try_recv().is_ok() {}
        let began = Instant::now();
        self.send(Message::Publish { epoch, fd })?;
        self.answer(|answer| match answer {
            Message::Published { epoch: answered } if answered == epoch => Some(()),
            _ => None,
        })
        .await?;
        self.segment.publish(epoch);
        Ok(began)
    }

    /// Waits until every shard serves `epoch`; returns how long that took since `began`.
    ///
    /// # Errors
    /// Which shards do not, or why the engine refused.
    pub async fn converge(&mut self, epoch: u64, began: Instant) -> Result<Duration, String> {
        loop {
            let behind: Vec<String> = (0..self.segment.shards())
                .filter(|shard| self.segment.shard(*shard).adopted() != epoch)
                .map(|shard| shard.to_string())
                .collect();
            if behind.is_empty() {
                return Ok(began.elapsed());
            }
            while let Ok(answer) = self.answers.try_recv() {
                if let Message::Rejected { epoch: refused, reason } = answer
                    && refused == epoch
                {
                    return Err(format!(
                        "the engine refused epoch {epoch} and serves the one before: {reason}; \
                         `sluice rollback` returns to it"
                    ));
                }
            }
            if began.elapsed() >= ADOPT_TIMEOUT {
                return Err(format!(
                    "published as epoch {epoch}, but shard{} {} did not take it within {} s \
                     (engine: {}); it is taken as soon as the engine answers (`sluice status`)",
                    if behind.len() == 1 { "" } else { "s" },
                    behind.join(", "),
                    ADOPT_TIMEOUT.as_secs(),
                    self.engine.describe(),
                ));
            }
            tokio::time::sleep(ADOPT_TICK).await;
        }
    }

    fn send(&self, message: Message) -> Result<(), String> {
        self.bus.send(&message).map_err(|error| format!("the supervisor cannot be told: {error}"))
    }

    /// The first answer that `pick` takes; others are dropped.
    async fn answer<T>(&mut self, pick: impl Fn(Message) -> Option<T>) -> Result<T, String> {
        let answers = &mut self.answers;
        let wanted = async {
            while let Some(answer) = answers.recv().await {
                if let Some(picked) = pick(answer) {
                    return Ok(picked);
                }
            }
            Err("the supervisor is gone".into())
        };
        tokio::time::timeout(ANSWER_TIMEOUT, wanted)
            .await
            .unwrap_or_else(|_| Err("the supervisor does not answer".into()))
    }
}

/// Hears the supervisor until it says stop or is gone. On a thread of its own: it blocks.
fn listen(
    bus: &Bus,
    answers: &mpsc::Sender<Message>,
    stop: &watch::Sender<bool>,
    engine: &EngineState,
    waiting: &Waiting,
) {
    loop {
        match bus.recv() {
            Ok(Some(Message::EngineUp { pid })) => engine.set(Ok(pid)),
            Ok(Some(Message::EngineDown { reason })) => engine.set(Err(reason)),
            Ok(Some(Message::Limits { id, fd } | Message::Cache { id, fd })) => {
                waiting.answer(id, fd);
            }
            Ok(Some(Message::Shutdown) | None) => break,
            // When nobody waits for it, an answer is of no use.
            Ok(Some(answer)) => _ = answers.try_send(answer),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                eprintln!("sluice: a message of the supervisor was not understood: {error}");
            }
            Err(_) => break,
        }
    }
    stop.send_replace(true);
}
