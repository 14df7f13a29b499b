//! The load generator. With a rate it is an open loop: requests start when the schedule says so,
//! whatever became of the ones before. Without, every connection is kept busy.

pub mod client;
pub mod connection;
pub mod report;
pub mod response;
pub mod schedule;
pub mod streams;
pub mod target;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use client::{Job, Secure, Tally};
use connection::Script;
use rustls::pki_types::ServerName;
use schedule::{Due, Schedule};
use streams::Request;
use target::{Message, Target};

use crate::{pin, tls};

/// One run of the generator.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub message: Message,
    /// For `https`.
    pub tls: tls::Client,
    /// The name to ask for and to expect; without it that of the target.
    pub server_name: Option<String>,
    /// A connection of its own for every request.
    pub fresh: bool,
    pub threads: usize,
    pub connections: usize,
    pub warmup: Duration,
    /// Measured time, after the warm-up.
    pub duration: Duration,
    /// Requests a second over all connections; `None` is the closed loop.
    pub rate: Option<u64>,
    pub timeout: Duration,
    /// Requests in flight on one connection: pipelined, or streams of HTTP/2.
    pub pipeline: usize,
    /// The CPU that all threads are held to.
    pub cpu: Option<usize>,
}

/// What a run found.
pub struct Outcome {
    pub tally: Tally,
    /// The measured time as it was.
    pub elapsed: Duration,
}

/// The two ends of the measured window, given to a watcher as they pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Start,
    End,
}

impl Plan {
    /// A `GET` of `url` with everything else at its default.
    pub fn get(url: &str, connections: usize) -> Result<Self, String> {
        Ok(Self {
            target: Target::parse(url)?,
            message: Message::default(),
            tls: tls::Client::new(tls::Trust::System),
            server_name: None,
            fresh: false,
            threads: 1,
            connections,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(10),
            rate: None,
            timeout: Duration::from_secs(2),
            pipeline: 1,
            cpu: None,
        })
    }

    /// How to speak TLS, if the target asks for it.
    pub fn secure(&self) -> Result<Option<Secure>, String> {
        if !self.target.secure {
            return Ok(None);
        }
        let client = tls::Client { http2: self.message.http2, ..self.tls.clone() };
        let name = self.server_name.as_deref().unwrap_or(self.target.host());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is no name that TLS can ask for"))?;
        Ok(Some(Secure { config: client.config()?, name }))
    }

    fn request(&self) -> Option<Request> {
        let Message { http2: true, grpc, .. } = self.message else { return None };
        Some(Request::new(&self.message.fields(&self.target), &self.message.body(), grpc))
    }

    /// Runs to the end, or until `stop`. `watch` is called at both edges of the measured window
    /// with the number of answers so far, so that other counters can be read at that moment.
    pub fn run(&self, stop: &AtomicBool, mut watch: impl FnMut(Edge, u64)) -> io::Result<Outcome> {
        let threads = self.threads.clamp(1, self.connections.max(1));
        let request = self.message.http1(&self.target);
        let batch = if self.message.http2 { Vec::new() } else { request.repeat(self.pipeline) };
        let secure = self.secure().map_err(io::Error::other)?;
        let counters: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
        let answers = || counters.iter().map(|counter| counter.load(Relaxed)).sum();
        let start = Instant::now();
        let end = self.warmup + self.duration;
        std::thread::scope(|scope| {
            let workers: Vec<_> = counters
                .iter()
                .enumerate()
                .map(|(thread, answered)| {
                    let mine = (self.connections + threads - 1 - thread) / threads;
                    let due = self.rate.map(|rate| {
                        let schedule = Schedule::new(rate.max(1), self.connections.max(1) as u64);
                        Due::new(schedule, thread as u64, threads as u64, mine as u64)
                    });
                    let (batch, secure, each) = (&batch, secure.clone(), request.len());
                    scope.spawn(move || {
                        if let Some(cpu) = self.cpu {
                            pin::this_thread(cpu)?;
                        }
                        client::run(Job {
                            address: self.target.address,
                            secure,
                            script: Script {
                                batch,
                                each,
                                request: self.request(),
                                head_only: self.message.method == "HEAD",
                                pipeline: if self.fresh { 1 } else { self.pipeline },
                                id_at: self.message.id_at(&self.target),
                                rotation: self.message.rotation.as_deref(),
                            },
                            connections: mine,
                            fresh: self.fresh,
                            due,
                            start,
                            warmup: self.warmup,
                            end,
                            timeout: self.timeout,
                            answered,
                            stop,
                        })
                    })
                })
                .collect();
            sleep_until(start + self.warmup, stop);
            watch(Edge::Start, answers());
            let window = Instant::now();
            sleep_until(start + end, stop);
            watch(Edge::End, answers());
            let elapsed = window.elapsed();
            let mut tally = Tally::new();
            for worker in workers {
                let part = worker.join().map_err(|_| io::Error::other("a load thread panicked"))?;
                tally.add(&part?);
            }
            Ok(Outcome { tally, elapsed })
        })
    }
}

/// Sleeps in short steps, so that Ctrl-C is noticed.
fn sleep_until(moment: Instant, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server with one thread per connection that answers each request, and sleeps once
    /// for `stall` before its `at`-th answer. `per_connection` answers, then it closes.
    fn serve(stall: Duration, at: usize, per_connection: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    for n in 0..per_connection {
                        if stream.read(&mut buffer).unwrap_or(0) == 0 {
                            return;
                        }
                        if n == at {
                            std::thread::sleep(stall);
                        }
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        url
    }

    fn plan(url: &str, connections: usize, ms: u64) -> Plan {
        let duration = Duration::from_millis(ms);
        Plan { duration, ..Plan::get(url, connections).unwrap() }
    }

    #[test]
    fn a_stall_shows_in_the_percentiles() {
        // 1 connection, 200 requests/s for 1 s, stalled for 400 ms: about 80 of 200 requests were
        // due meanwhile. A closed loop would have seen one slow request of hundreds.
        let url = serve(Duration::from_millis(400), 20, usize::MAX);
        let plan = Plan { rate: Some(200), ..plan(&url, 1, 1000) };
        let outcome = plan.run(&AtomicBool::new(false), |_, _| {}).unwrap();
        let latency = &outcome.tally.latency;
        assert_eq!(outcome.tally.answers + outcome.tally.unfinished, 200);
        assert_eq!(latency.len(), 200);
        assert!(latency.value_at_quantile(0.90) > 150_000_000, "90 % waited in the stall");
        assert!(latency.value_at_quantile(0.80) > 50_000_000, "80 % waited in the stall");
        assert!(latency.max() >= 395_000_000);
    }

    #[test]
    fn a_server_that_never_answers_shows_in_full() {
        let url = serve(Duration::from_secs(3600), 0, usize::MAX);
        let plan =
            Plan { rate: Some(100), timeout: Duration::from_millis(100), ..plan(&url, 2, 500) };
        let outcome = plan.run(&AtomicBool::new(false), |_, _| {}).unwrap();
        assert_eq!(outcome.tally.answers, 0);
        assert!(outcome.tally.timeouts > 0);
        // Every one of the 50 due requests is in the histogram as late.
        assert_eq!(outcome.tally.latency.len(), 50);
    }

    #[test]
    fn a_server_that_closes_is_connected_to_again() {
        let url = serve(Duration::ZERO, usize::MAX, 5);
        let outcome = plan(&url, 3, 300).run(&AtomicBool::new(false), |_, _| {}).unwrap();
        let tally = outcome.tally;
        assert!(tally.answers > 15, "{}", tally.answers);
        // The close may be seen before or after the next request was sent.
        assert!(tally.reconnects + tally.read_errors + tally.write_errors > 2);
        assert_eq!(tally.connect_errors, 0);
    }

    #[test]
    fn refused_connects_are_counted_and_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let outcome = plan(&url, 2, 250).run(&AtomicBool::new(false), |_, _| {}).unwrap();
        assert_eq!(outcome.tally.answers, 0);
        let errors = outcome.tally.connect_errors;
        assert!((2..100).contains(&errors), "{errors} errors");
    }

    #[test]
    fn the_window_leaves_the_warm_up_out() {
        let url = serve(Duration::ZERO, usize::MAX, usize::MAX);
        let warmup = Duration::from_millis(200);
        let plan = Plan { warmup, rate: Some(100), threads: 2, ..plan(&url, 4, 500) };
        let mut edges = Vec::new();
        let outcome = plan.run(&AtomicBool::new(false), |edge, n| edges.push((edge, n))).unwrap();
        assert_eq!(outcome.tally.answers + outcome.tally.unfinished, 50);
        assert_eq!(edges[0].0, Edge::Start);
        assert_eq!(edges[1].0, Edge::End);
        assert!(edges[1].1 >= edges[0].1);
    }

    #[test]
    fn ids_come_back_and_strangers_show() {
        let origin = crate::faults::origin::Origin::start(0, 100, None).unwrap();
        let plan = |address| {
            let mut plan = plan(&format!("http://{address}/x"), 4, 300);
            (plan.message.checked, plan.rate) = (true, Some(200));
            plan.run(&AtomicBool::new(false), |_, _| {}).unwrap().tally
        };
        let tally = plan(origin.address());
        assert_eq!((tally.answers, tally.wrong, tally.not_2xx), (60, 0, 0));
        // This one knows of no ids.
        let tally = plan(crate::origin::tests::running(None));
        assert_eq!((tally.answers, tally.wrong), (60, 60));
    }

    /// A plan for our own origin: TLS or not, HTTP/2 or not, gRPC or not.
    fn to_origin(tls: bool, http2: bool, grpc: bool, path: &str) -> Plan {
        let config = tls.then(|| {
            let (chain, key) = tls::self_signed().unwrap();
            tls::server(chain.as_bytes(), key.as_bytes(), false).unwrap()
        });
        let address = crate::origin::tests::running(config);
        let scheme = if tls { "https" } else { "http" };
        let mut plan = plan(&format!("{scheme}://{address}{path}"), 2, 300);
        plan.tls.trust = tls::Trust::Anybody;
        plan.message = Message { http2, grpc, body_bytes: 70_000, ..Message::default() };
        plan.pipeline = 3;
        plan
    }

    #[test]
    fn every_way_to_speak_to_an_origin() {
        for tls in [false, true] {
            for (http2, grpc) in [(false, false), (true, false), (true, true)] {
                for path in ["/bytes/0", "/bytes/1", "/bytes/200000", "/pkg.Service/Echo"] {
                    let plan = Plan { rate: Some(200), ..to_origin(tls, http2, grpc, path) };
                    let outcome = plan.run(&AtomicBool::new(false), |_, _| {}).unwrap();
                    let tally = outcome.tally;
                    let what = format!("{tls} {http2} {grpc} {path}: {:?}", tally.first_fault);
                    assert_eq!(tally.answers, 60, "{what}");
                    assert_eq!(tally.latency.len(), 60, "{what}");
                    let bad = tally.not_2xx + tally.grpc_failures + tally.resets;
                    let lost = tally.read_errors + tally.connect_errors + tally.timeouts;
                    assert_eq!((bad, lost, tally.reconnects), (0, 0, 0), "{what}");
                    assert_eq!(tally.handshakes, if tls { 2 } else { 0 }, "{what}");
                }
            }
        }
    }

    #[test]
    fn a_connection_for_every_request_resumes_if_it_may() {
        for (http2, resume) in [(false, true), (true, true), (false, false)] {
            let mut plan = to_origin(true, http2, false, "/bytes/9");
            (plan.fresh, plan.tls.resume) = (true, resume);
            let tally = plan.run(&AtomicBool::new(false), |_, _| {}).unwrap().tally;
            assert!(tally.answers > 4, "{:?}", tally.first_fault);
            assert!(tally.handshakes >= tally.answers);
            // The first of each connection's place is full.
            let resumed = if resume { tally.handshakes - 2 } else { 0 };
            assert_eq!(tally.resumed, resumed);
            assert_eq!((tally.reconnects, tally.read_errors), (0, 0));
        }
    }

    #[test]
    fn an_answer_that_is_no_grpc_is_a_failure_and_a_stranger_is_no_server() {
        let mut plan = to_origin(true, true, true, "/bytes/9");
        // The origin answers this one as a web page.
        plan.message.headers = vec!["content-type: text/plain".to_owned()];
        let tally = plan.run(&AtomicBool::new(false), |_, _| {}).unwrap().tally;
        assert!(tally.answers > 0);
        assert_eq!(tally.grpc_failures, tally.answers);
        plan.tls.trust = tls::Trust::System;
        let tally = match plan.run(&AtomicBool::new(false), |_, _| {}) {
            Ok(outcome) => outcome.tally,
            // A machine without authorities.
            Err(_) => return,
        };
        assert_eq!(tally.answers, 0);
        assert!(tally.connect_errors > 0);
        assert!(tally.first_fault.unwrap().contains("TLS"));
    }

    #[test]
    fn stop_ends_a_run_early() {
        let url = serve(Duration::ZERO, usize::MAX, usize::MAX);
        let stop = AtomicBool::new(true);
        let outcome = plan(&url, 1, 3_600_000).run(&stop, |_, _| {}).unwrap();
        assert!(outcome.elapsed < Duration::from_secs(60));
    }
}
