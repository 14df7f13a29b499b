//! What the supervisor waits for, in one poll.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Stop,
    Reopen,
    ControlSays,
    EngineSays,
    ControlEnded,
    EngineEnded,
    OriginEnded,
    /// The child that is waited for.
    Ended,
}

/// Polls `sources`; the events of those that have something.
pub fn ready(
    sources: &[(Event, BorrowedFd<'_>)],
    pause: Option<Duration>,
) -> io::Result<Vec<Event>> {
    let mut polled: Vec<PollFd<'_>> =
        sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    // Rounded up, so that a pause is over when poll says so.
    let pause = pause.map(|pause| Timespec {
        tv_sec: pause.as_secs() as i64,
        tv_nsec: pause.subsec_nanos().into(),
    });
    match poll(&mut polled, pause.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let events = sources.iter().zip(&polled).filter(|(_, fd)| !fd.revents().is_empty());
    Ok(events.map(|((event, _), _)| *event).collect())
}

/// Signals as something to poll.
pub struct Signals {
    /// A byte per signal.
    stream: UnixStream,
    /// Held so that the stream does not end when there is no signal to listen for.
    _end: UnixStream,
}

impl Signals {
    pub fn listen(signals: &[i32]) -> io::Result<Signals> {
        let (stream, end) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, end.try_clone()?)?;
        }
        Ok(Signals { stream, _end: end })
    }

    /// Forgets the signals that have come.
    pub fn clear(&self) {
        let mut buffer = [0; 64];
        while matches!((&self.stream).read(&mut buffer), Ok(1..)) {}
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
