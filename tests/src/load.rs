//! Traffic in the background, every answer of which is judged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::client::Client;
use crate::message::Response;
use crate::{PATIENCE, eventually};

/// Most failures that are written down; a broken gateway makes millions.
const KEPT: usize = 20;

#[derive(Debug, Default)]
struct Tally {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// A judge of one connection's answers in their order.
pub type Judge = Box<dyn FnMut(&Response) -> Result<(), String> + Send>;

/// Threads that ask over and over until stopped.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `connections` keep-alive connections, each with a judge of its own. Every request is
    /// `request`; after each `renew` of them a connection is replaced by a new one (0: never).
    pub fn start(
        address: SocketAddr,
        connections: usize,
        renew: usize,
        request: &str,
        judge: impl Fn() -> Judge,
    ) -> Load {
        let tally = Arc::new(Tally::default());
        let threads = (0..connections)
            .map(|_| {
                let (tally, request, mut judge) = (tally.clone(), request.to_owned(), judge());
                thread::spawn(move || {
                    while !tally.stop.load(Ordering::SeqCst) {
                        if let Err(e) = converse(address, renew, &request, &mut judge, &tally) {
                            tally.failed.fetch_add(1, Ordering::SeqCst);
                            let mut failures = tally.failures.lock().expect("failures");
                            if failures.len() < KEPT {
                                failures.push(e);
                            }
                        }
                    }
                })
            })
            .collect();
        Load { tally, threads }
    }

    /// Whole and right answers so far.
    pub fn done(&self) -> u64 {
        self.tally.done.load(Ordering::SeqCst)
    }

    /// Waits for `n` more right answers.
    #[track_caller]
    pub fn await_more(&self, n: u64) {
        let from = self.done();
        let there = eventually(PATIENCE, || self.done() >= from + n);
        assert!(there, "only {} of {n} answers came: {:?}", self.done() - from, self.failures());
    }

    fn failures(&self) -> Vec<String> {
        self.tally.failures.lock().expect("failures").clone()
    }

    /// Stops; returns the right answers, how many failed, and the first failures.
    pub fn stop(mut self) -> (u64, u64, Vec<String>) {
        self.halt();
        (self.done(), self.tally.failed.load(Ordering::SeqCst), self.failures())
    }

    /// Stops; nothing may have failed.
    #[track_caller]
    pub fn stop_clean(self) -> u64 {
        let (done, failed, failures) = self.stop();
        assert_eq!(failed, 0, "of {done} requests: {failures:#?}");
        done
    }

    fn halt(&mut self) {
        self.tally.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

fn converse(
    address: SocketAddr,
    renew: usize,
    request: &str,
    judge: &mut Judge,
    tally: &Tally,
) -> Result<(), String> {
    let mut client = Client::try_connect(address).map_err(|e| format!("connect: {e}"))?;
    let mut asked = 0;
    while !tally.stop.load(Ordering::SeqCst) && (renew == 0 || asked < renew) {
        client.try_send(request.as_bytes()).map_err(|e| format!("send: {e}"))?;
        let response = client.response().map_err(|e| format!("answer {asked}: {e:?}"))?;
        judge(&response)?;
        tally.done.fetch_add(1, Ordering::SeqCst);
        asked += 1;
        if response.says_close() {
            break;
        }
    }
    Ok(())
}

/// Judges by the status alone.
pub fn ok() -> Judge {
    Box::new(|response| match response.status {
        200 => Ok(()),
        _ => Err(format!("{} {}", response.head.start, response.text())),
    })
}
