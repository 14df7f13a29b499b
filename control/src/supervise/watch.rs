//! The supervisor's loop.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use contract::{
    Segment,
    bus::{self, Bus, Message},
    snapshot::Snapshot,
};
use rustix::{fs::MemfdFlags, process::Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{
    banner::Banner,
    child::{Start, Ward, number},
    event::{Event, Signals, ready},
};
use crate::{
    bind,
    cli::{Failure, Source, Up, exit},
    place::StateDirectory,
    run,
};

/// Longest wait between looks at the segment while everything starts.
const START_TICK: Duration = Duration::from_millis(5);

/// Longest wait for the first adoption by every shard.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Time control gets to write out its log when everything stops.
const CONTROL_GRACE: Duration = Duration::from_secs(3);

/// Time the engine gets beyond the drain timeout before it is killed.
const ENGINE_GRACE: Duration = Duration::from_millis(500);

/// Exit code after a second Ctrl-C, as a shell gives it.
const INTERRUPTED: u8 = 130;

/// All that `sluice up` keeps while it runs.
pub struct Watch {
    banner: Banner,
    segment: Segment,
    segment_fd: OwnedFd,
    cpus: Vec<usize>,
    state: StateDirectory,
    drain_timeout: Option<Duration>,
    /// What control may run for secrets.
    secret_commands: Vec<String>,
    demo: bool,
    /// What control learns by its environment.
    environment: Vec<(&'static str, String)>,
    /// Signals that mean stop, and those that mean reopen.
    stop: Signals,
    reopen: Signals,
    control: Ward,
    engine: Ward,
    origin: Ward,
    control_bus: Option<Bus>,
    engine_bus: Option<Bus>,
    /// Set while an engine says that it runs.
    engine_pid: Option<u32>,
    /// The spec for the first control process.
    spec: Option<(OwnedFd, String)>,
    /// One socket per shard for each address.
    listeners: BTreeMap<SocketAddr, Vec<OwnedFd>>,
    /// The sealed bytes of the last snapshot, and its epoch.
    last: Option<(u64, OwnedFd)>,
    /// Every shard has adopted a snapshot once.
    serving: bool,
    /// The engine says that nothing runs any more.
    drained: bool,
}

/// Why the loop ended.
enum End {
    /// Stop was asked for: drain.
    Stop,
    /// It never served.
    Failed(Failure),
}

impl Watch {
    pub fn new(
        banner: Banner,
        (segment_fd, segment): (OwnedFd, Segment),
        cpus: Vec<usize>,
        state: StateDirectory,
        up: &Up,
    ) -> Result<Watch, Failure> {
        // With a terminal a hang-up means that the person left; without one it is the customary
        // request to open log files anew.
        let hangs_up = std::io::IsTerminal::is_terminal(&std::io::stdin());
        let stops: &[i32] = if hangs_up { &[SIGINT, SIGTERM, SIGHUP] } else { &[SIGINT, SIGTERM] };
        let reopens: &[i32] = if hangs_up { &[] } else { &[SIGHUP] };
        // A demo is nobody else's.
        let store = up.store.as_ref().map(|url| (run::STORE, url.clone()));
        let store = if up.demo { Some((run::STORE, String::new())) } else { store };
        let node = up.node.as_ref().map(|name| (run::NODE, name.clone()));
        let environment = store.into_iter().chain(node).collect();
        Ok(Watch {
            banner,
            segment,
            segment_fd,
            cpus,
            state,
            drain_timeout: up.drain_timeout,
            secret_commands: up.secret_commands.clone(),
            stop: Signals::listen(stops)?,
            reopen: Signals::listen(reopens)?,
            control: Ward::new("control"),
            engine: Ward::new("the engine"),
            origin: Ward::new("the demo origin"),
            demo: up.demo,
            environment,
            control_bus: None,
            engine_bus: None,
            engine_pid: None,
            spec: None,
            listeners: BTreeMap::new(),
            last: None,
            serving: false,
            drained: false,
        })
    }

    /// Starts everything and keeps it running until a signal says stop.
    pub fn run(&mut self, source: Option<Source>) -> Result<(), Failure> {
        self.spec = source
            .map(|source| Ok::<_, io::Error>((memory(&source.bytes)?, source.name)))
            .transpose()?;
        let began = Instant::now();
        let end = loop {
            let now = Instant::now();
            self.start_due(now);
            if !self.serving {
                if self.adopted() {
                    self.serving = true;
                    self.welcome();
                } else if now.duration_since(began) >= START_TIMEOUT {
                    break End::Failed(Failure::new(
                        exit::FAILURE,
                        "the engine did not take the configuration in time; see its messages above",
                    ));
                }
            }
            match self.wait(self.pause(now)) {
                Ok(Some(end)) => break end,
                Ok(None) => {}
                Err(error) => {
                    // Nothing here is worth ending a gateway for.
                    self.banner.say(&format!("the supervisor could not wait for events: {error}"));
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        };
        match end {
            End::Stop => self.stop_all(),
            End::Failed(failure) => {
                self.kill_all();
                Err(failure)
            }
        }
    }

    /// Starts the children that are not running and whose pause is over.
    fn start_due(&mut self, now: Instant) {
        let due = |ward: &Ward| !ward.is_running() && ward.due().is_none_or(|due| due <= now);
        let mut failed = Vec::new();
        if self.demo && due(&self.origin) {
            let start = Start {
                arguments: vec!["run-demo-origin".into()],
                stdin: Stdio::null(),
                inherit: vec![],
                environment: vec![],
            };
            failed.extend(self.origin.start(start).err().map(|error| (self.origin.name, error)));
        }
        if due(&self.control) {
            failed.extend(self.start_control().err().map(|error| (self.control.name, error)));
        }
        if due(&self.engine) {
            failed.extend(self.start_engine().err().map(|error| (self.engine.name, error)));
        }
        for (name, error) in failed {
            self.banner.say(&format!("{name} could not be started, trying again: {error}"));
        }
    }

    fn start_control(&mut self) -> io::Result<()> {
        let (bus, theirs) = bus_pair()?;
        let mut arguments = vec![
            "run-control".into(),
            "--state".into(),
            self.state.path().display().to_string(),
            "--segment".into(),
            number(&self.segment_fd),
        ];
        for program in &self.secret_commands {
            arguments.push(format!("--secret-command={program}"));
        }
        let mut inherit = vec![self.segment_fd.as_fd()];
        // Once a snapshot is out, the store knows better than the file given to `up`.
        if self.last.is_some() {
            arguments.push("--resume".into());
        } else if let Some((text, name)) = &self.spec {
            let names = ["--spec".into(), number(text), "--spec-name".into(), name.clone()];
            arguments.extend(names);
            inherit.push(text.as_fd());
        }
        let stdin = Stdio::from(OwnedFd::from(theirs));
        let environment = self.environment.clone();
        self.control.start(Start { arguments, stdin, inherit, environment })?;
        self.control_bus = Some(bus);
        if let Some((epoch, fd)) = &self.last {
            let fd = fd.try_clone()?;
            self.tell_control(&Message::LastSnapshot { epoch: *epoch, fd });
        }
        if let Some(pid) = self.engine_pid {
            self.tell_control(&Message::EngineUp { pid });
        }
        Ok(())
    }

    fn start_engine(&mut self) -> io::Result<()> {
        let (bus, theirs) = bus_pair()?;
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        let arguments = vec![
            "run-engine".into(),
            "--segment".into(),
            number(&self.segment_fd),
            "--cpus".into(),
            cpus.join(","),
        ];
        let inherit = vec![self.segment_fd.as_fd()];
        let stdin = Stdio::from(OwnedFd::from(theirs));
        self.engine.start(Start { arguments, stdin, inherit, environment: vec![] })?;
        self.engine_bus = Some(bus);
        self.brief_engine()
    }

    /// How long nothing needs doing unless something happens.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let wards = [&self.control, &self.engine, &self.origin];
        let restart = wards.iter().filter_map(|ward| ward.due()).min();
        let restart = restart.map(|due| due.saturating_duration_since(now));
        match (self.serving, restart) {
            (true, restart) => restart,
            (false, None) => Some(START_TICK),
            (false, Some(restart)) => Some(restart.min(START_TICK)),
        }
    }

    /// Waits for something to happen and takes care of it.
    fn wait(&mut self, pause: Option<Duration>) -> io::Result<Option<End>> {
        let ready = {
            let mut sources: Vec<(Event, BorrowedFd<'_>)> =
                vec![(Event::Stop, self.stop.as_fd()), (Event::Reopen, self.reopen.as_fd())];
            sources.extend(self.control.end().map(|fd| (Event::ControlEnded, fd)));
            sources.extend(self.engine.end().map(|fd| (Event::EngineEnded, fd)));
            sources.extend(self.origin.end().map(|fd| (Event::OriginEnded, fd)));
            sources.extend(self.control_bus.as_ref().map(|bus| (Event::ControlSays, bus.as_fd())));
            sources.extend(self.engine_bus.as_ref().map(|bus| (Event::EngineSays, bus.as_fd())));
            ready(&sources, pause)?
        };
        for event in ready {
            match event {
                Event::Stop => {
                    self.stop.clear();
                    return Ok(Some(End::Stop));
                }
                Event::Reopen => {
                    self.reopen.clear();
                    self.control.signal(Signal::HUP);
                }
                // Messages before the end of who sent them: control's last word counts.
                Event::ControlSays => self.hear_control(),
                Event::EngineSays => self.hear_engine(),
                Event::ControlEnded => {
                    self.hear_control();
                    if let Some(status) = self.control.reap(Instant::now()) {
                        self.control_bus = None;
                        if let Some(end) = self.ended("control", status, self.has_served()) {
                            return Ok(Some(end));
                        }
                    }
                }
                Event::EngineEnded => {
                    self.hear_engine();
                    if let Some(status) = self.engine.reap(Instant::now()) {
                        // It may have served between two looks at it.
                        let served = self.has_served();
                        self.engine_gone(status);
                        if let Some(end) = self.ended("the engine", status, served) {
                            return Ok(Some(end));
                        }
                    }
                }
                Event::OriginEnded => {
                    if let Some(status) = self.origin.reap(Instant::now())
                        && let Some(end) = self.ended("the demo origin", status, false)
                    {
                        return Ok(Some(end));
                    }
                }
                Event::Ended => {}
            }
        }
        Ok(None)
    }

    /// A child ended. Before anything served this is the end; after, it is started again. `served`: it has,
    /// though this process may not have seen it yet.
    fn ended(&self, name: &str, status: ExitStatus, served: bool) -> Option<End> {
        if self.serving || served {
            self.banner.say(&format!("{name} ended ({status}) and is started again"));
            return None;
        }
        // It has said why.
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Some(End::Failed(match code {
            Some(code) if code != 0 => Failure::new(code, ""),
            _ => Failure::new(exit::FAILURE, format!("{name} ended while starting ({status})")),
        }))
    }
}

impl Watch {
    /// Whether every shard has served something.
    fn has_served(&self) -> bool {
        (0..self.segment.shards()).all(|shard| self.segment.shard(shard).adopted() != 0)
    }

    /// Whether every shard serves what was published last.
    fn adopted(&self) -> bool {
        let Some((epoch, _)) = &self.last else { return false };
        let shard = |shard| self.segment.shard(shard).adopted() == *epoch;
        self.segment.epoch() == *epoch && (0..self.segment.shards()).all(shard)
    }

    fn last_snapshot(&self) -> Option<Snapshot> {
        let (_, fd) = self.last.as_ref()?;
        Snapshot::decode(&bus::read_sealed(fd).ok()?).ok()
    }

    fn welcome(&self) {
        if let Some(snapshot) = self.last_snapshot() {
            self.banner.ready(&snapshot, &self.cpus, &self.state, self.demo);
        }
    }

    /// Gives a fresh engine the sockets and the last snapshot.
    fn brief_engine(&self) -> io::Result<()> {
        for (address, sockets) in &self.listeners {
            self.tell_engine_of(*address, sockets)?;
        }
        if let Some((epoch, fd)) = &self.last {
            let message = Message::Snapshot { epoch: *epoch, fd: fd.try_clone()? };
            self.tell_engine(&message);
        }
        Ok(())
    }

    fn tell_engine_of(&self, address: SocketAddr, sockets: &[OwnedFd]) -> io::Result<()> {
        let sockets = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        self.tell_engine(&Message::Listener { address, sockets });
        Ok(())
    }

    fn tell_engine(&self, message: &Message) {
        tell(self.engine_bus.as_ref(), message, "the engine", &self.banner);
    }

    fn tell_control(&self, message: &Message) {
        tell(self.control_bus.as_ref(), message, "control", &self.banner);
    }

    /// Takes everything that control has said.
    fn hear_control(&mut self) {
        while let Some(message) = hear(&mut self.control_bus, "control", &self.banner) {
            match message {
                Message::Bind { id, addresses } => {
                    let error = self.bind(addresses).err();
                    self.tell_control(&Message::Bound { id, error });
                }
                Message::Publish { epoch, fd } => match fd.try_clone() {
                    Ok(kept) => {
                        self.last = Some((epoch, kept));
                        self.tell_engine(&Message::Snapshot { epoch, fd });
                        self.tell_control(&Message::Published { epoch });
                    }
                    // Without a copy for the next engine it must not become current.
                    Err(error) => self.banner.say(&format!("epoch {epoch} was not kept: {error}")),
                },
                Message::ListLimits { .. } | Message::AskCache { .. } => self.tell_engine(&message),
                other => self.banner.say(&format!("control said what it may not: {other:?}")),
            }
        }
    }

    /// Listens on `addresses` and on nothing else; all of it or nothing.
    fn bind(&mut self, addresses: Vec<SocketAddr>) -> Result<(), String> {
        let mut opened = BTreeMap::new();
        for address in &addresses {
            if !self.listeners.contains_key(address) {
                opened.insert(*address, bind::open(*address, self.cpus.len())?);
            }
        }
        for (address, sockets) in &opened {
            self.tell_engine_of(*address, sockets)
                .map_err(|error| format!("{address} cannot be handed over: {error}"))?;
        }
        let gone: Vec<SocketAddr> =
            self.listeners.keys().filter(|address| !addresses.contains(address)).copied().collect();
        for address in gone {
            self.tell_engine(&Message::CloseListener { address });
            self.listeners.remove(&address);
        }
        self.listeners.append(&mut opened);
        Ok(())
    }

    /// Takes everything that the engine has said.
    fn hear_engine(&mut self) {
        while let Some(message) = hear(&mut self.engine_bus, "the engine", &self.banner) {
            match message {
                Message::Ready { pid, .. } => {
                    self.engine_pid = Some(pid);
                    self.tell_control(&Message::EngineUp { pid });
                }
                Message::Rejected { epoch, ref reason } => {
                    self.banner.say(&format!("the engine refused epoch {epoch}: {reason}"));
                    self.tell_control(&message);
                }
                Message::Adopted { .. } | Message::Limits { .. } | Message::Cache { .. } => {
                    self.tell_control(&message);
                }
                Message::Drained => self.drained = true,
                other => self.banner.say(&format!("the engine said what it may not: {other:?}")),
            }
        }
    }

    /// Tells the others that there is no engine, until there is one again.
    fn engine_gone(&mut self, status: ExitStatus) {
        self.engine_bus = None;
        self.engine_pid = None;
        for shard in (0..self.segment.shards()).map(|shard| self.segment.shard(shard)) {
            // Its shards cannot take back any more what they said.
            shard.set_adopted(0);
        }
        self.tell_control(&Message::EngineDown { reason: format!("it ended ({status})") });
    }

    /// Drains the engine, then lets control write out its log.
    fn stop_all(&mut self) -> Result<(), Failure> {
        let timeout = self.drain_timeout.unwrap_or_else(|| {
            let ms = self.last_snapshot().unwrap_or_default().node.drain_timeout_ms;
            Duration::from_millis(ms.into())
        });
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        self.banner.progress("draining… (again Ctrl-C stops at once)");
        self.tell_engine(&Message::Drain { timeout_ms });
        // Ours would keep the ports open: the engine accepts what waits, and closes them.
        self.listeners.clear();
        let drained = self.wait_for(|watch| &watch.engine, timeout + ENGINE_GRACE)?;
        if !drained {
            self.banner.say("requests were still running at the end of the drain timeout");
            self.engine.signal(Signal::KILL);
        }
        self.tell_control(&Message::Shutdown);
        if !self.wait_for(|watch| &watch.control, CONTROL_GRACE)? {
            self.control.signal(Signal::KILL);
        }
        self.origin.signal(Signal::KILL);
        self.state.remove_admin();
        self.banner.progress("stopped");
        Ok(())
    }

    /// Waits for the end of a child; `false` when it is not over in time.
    fn wait_for(&mut self, ward: fn(&Watch) -> &Ward, timeout: Duration) -> Result<bool, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Ok(false);
            };
            let events = {
                let Some(end) = ward(self).end() else { return Ok(true) };
                let mut sources = vec![(Event::Stop, self.stop.as_fd()), (Event::Ended, end)];
                let bus = self.engine_bus.as_ref();
                sources.extend(bus.map(|bus| (Event::EngineSays, bus.as_fd())));
                ready(&sources, Some(left))?
            };
            for event in events {
                match event {
                    Event::Stop => {
                        self.kill_all();
                        return Err(Failure::new(INTERRUPTED, "stopped without waiting"));
                    }
                    Event::EngineSays => {
                        self.hear_engine();
                        if std::mem::take(&mut self.drained) {
                            self.tell_engine(&Message::Shutdown);
                        }
                    }
                    _ => return Ok(true),
                }
            }
        }
    }

    fn kill_all(&mut self) {
        for ward in [&self.engine, &self.control, &self.origin] {
            ward.signal(Signal::KILL);
        }
        self.state.remove_admin();
    }
}

/// Sends without ever waiting: a child that does not read must not stop the supervisor.
fn tell(bus: Option<&Bus>, message: &Message, whom: &str, banner: &Banner) {
    // Without a bus there is no child; a new one is told everything.
    let Some(bus) = bus else { return };
    match bus.send(message) {
        Ok(()) => {}
        // It has ended, which shows elsewhere.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => banner.say(&format!("{whom} could not be told: {error}")),
    }
}

/// The next message, if there is one; a bus that has ended is dropped.
fn hear(bus: &mut Option<Bus>, whom: &str, banner: &Banner) -> Option<Message> {
    loop {
        match bus.as_ref()?.recv() {
            Ok(Some(message)) => return Some(message),
            Ok(None) => *bus = None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                banner.say(&format!("a message of {whom} was not understood: {error}"));
            }
            Err(error) => {
                banner.say(&format!("{whom} cannot be heard: {error}"));
                *bus = None;
            }
        }
    }
}

/// A bus whose end here never blocks.
fn bus_pair() -> io::Result<(Bus, Bus)> {
    let (ours, theirs) = Bus::pair()?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// A memfd with `bytes`.
fn memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("sluice-spec", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}
