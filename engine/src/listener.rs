//! The listening sockets of one shard: which it has, and which of them the plan uses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::io::Acceptor;
use crate::limits;
use crate::serve;
use crate::shard::Shard;

/// Accepts on the sockets that the supervisor handed down, as far as the plan names them.
pub struct Listeners {
    shard: Rc<Shard>,
    sockets: RefCell<HashMap<SocketAddr, Socket>>,
}

struct Socket {
    fd: OwnedFd,
    /// Present while an accept loop runs; setting the flag and waking it ends the loop.
    accepting: Option<Rc<Stop>>,
}

#[derive(Default)]
struct Stop {
    state: RefCell<(bool, Option<Waker>)>,
}

impl Stop {
    fn stop(&self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &std::task::Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Listeners {
    pub fn new(shard: Rc<Shard>) -> Rc<Listeners> {
        Rc::new(Listeners { shard, sockets: RefCell::default() })
    }

    /// Makes the sockets those of `handed`: new ones are taken over, missing ones given up.
    pub fn sync(&self, handed: &HashMap<SocketAddr, OwnedFd>) {
        let mut sockets = self.sockets.borrow_mut();
        for (address, fd) in handed {
            if !sockets.contains_key(address)
                && let Ok(fd) = fd.try_clone()
            {
                sockets.insert(*address, Socket { fd, accepting: None });
            }
        }
        sockets.retain(|address, socket| {
            let kept = handed.contains_key(address);
            if !kept && let Some(stop) = socket.accepting.take() {
                stop.stop();
            }
            kept
        });
        drop(sockets);
        self.follow();
    }

    /// Accepts on what the plan names and on nothing else.
    pub fn follow(&self) {
        let plan = self.shard.plan();
        for (address, socket) in self.sockets.borrow_mut().iter_mut() {
            let wanted = plan.plan.listeners.iter().any(|listener| listener.address == *address);
            if wanted && socket.accepting.is_none() {
                let Ok(fd) = socket.fd.try_clone() else { continue };
                let stop = Rc::new(Stop::default());
                socket.accepting = Some(stop.clone());
                self.shard.io.spawn(accept(self.shard.clone(), *address, fd, stop));
            } else if !wanted && let Some(stop) = socket.accepting.take() {
                stop.stop();
            }
        }
    }
}

async fn accept(shard: Rc<Shard>, address: SocketAddr, fd: OwnedFd, stop: Rc<Stop>) {
    let acceptor = Acceptor::new(&shard.io, fd);
    loop {
        let mut next = std::pin::pin!(acceptor.accept());
        let accepted = poll_fn(|cx| match stop.poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => next.as_mut().poll(cx).map(Some),
        })
        .await;
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                if serve::admit(&shard, address) {
                    shard.io.spawn(serve::serve(shard.clone(), stream, peer, address));
                }
            }
            // Out of descriptors or memory: asking again at once would spin.
            Some(Err(_)) => shard.io.sleep_ms(limits::ACCEPT_PAUSE_MS).await,
        }
    }
}
