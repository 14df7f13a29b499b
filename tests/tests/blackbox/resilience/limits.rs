//! Bounds on what an upstream and its targets have to do at once.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tests::spec::Spec;
use tests::{Client, Gateway, Origin, Script, answer, get};

use super::*;

/// An origin that holds what asks for `/hold` until it is told to let go.
struct Holding {
    origin: Origin,
    release: Mutex<Vec<Sender<()>>>,
    waiting: Arc<Mutex<Vec<Sender<()>>>>,
}

impl Holding {
    fn new() -> Holding {
        let waiting: Arc<Mutex<Vec<Sender<()>>>> = Arc::default();
        let held = waiting.clone();
        let origin = Origin::start(move |seen| {
            if seen.target == "/hold" {
                let (release, released) = channel();
                held.lock().expect("those held").push(release);
                let _ = released.recv_timeout(PATIENCE);
            }
            answer("held")
        });
        Holding { origin, release: Mutex::default(), waiting }
    }

    /// Sends `n` requests that wait here.
    fn fill(&self, gateway: &Gateway, n: usize) -> Vec<Client> {
        let held = || self.waiting.lock().expect("those held").len();
        let before = held();
        let clients: Vec<Client> = (0..n)
            .map(|_| {
                let mut client = gateway.connect();
                client.send(get("/hold"));
                client
            })
            .collect();
        assert!(eventually(PATIENCE, || held() >= before + n), "{} of {n} arrived", held());
        clients
    }

    fn let_go(&self) {
        let all = std::mem::take(&mut *self.waiting.lock().expect("those held"));
        for one in &all {
            let _ = one.send(());
        }
        self.release.lock().expect("those let go").extend(all);
    }
}

fn busy(gateway: &Gateway) {
    let response = gateway.ask(get("/x"));
    assert_eq!(response.status, 503);
    assert_eq!(response.problem().as_deref(), Ok("upstream_busy"));
    assert_eq!(response.field("retry-after"), Some("1"));
}

#[test]
fn an_upstream_has_so_many_requests_and_no_more() {
    let holding = Holding::new();
    let spec = Spec::to(holding.origin.address()).upstream("bounds: { max_requests: 4 }");
    // Over both shards.
    let gateway = Gateway::of(&spec);
    let mut held = holding.fill(&gateway, 4);
    for _ in 0..10 {
        busy(&gateway);
    }
    let active = || standing(&gateway)["standing"]["active_requests"].clone();
    assert!(eventually(PATIENCE, || active() == 4), "{}", active());
    // A client that goes away makes room.
    drop(held.pop());
    assert!(eventually(PATIENCE, || gateway.ask(get("/x")).status == 200));
    holding.let_go();
    for client in &mut held {
        assert_eq!(client.response().map(|response| response.status), Ok(200));
    }
    assert_eq!(statuses(&ask(&gateway, 10)), [200; 10]);
    assert!(eventually(PATIENCE, || active() == 0), "{}", active());
}

#[test]
fn a_target_has_so_many_requests_and_no_more() {
    let (one, two) = (Holding::new(), Holding::new());
    let spec = Spec::to(one.origin.address())
        .target(two.origin.address(), 1)
        .upstream("target_bounds: { max_requests: 2 }, balance: round_robin");
    let gateway = Gateway::single(&spec);
    // Where one is full the other is asked.
    let mut held: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = gateway.connect();
            client.send(get("/hold"));
            client
        })
        .collect();
    let arrived = || one.origin.completed() + two.origin.completed();
    assert!(eventually(PATIENCE, || arrived() == 4));
    assert_eq!((one.origin.completed(), two.origin.completed()), (2, 2));
    let response = gateway.ask(get("/x"));
    assert_eq!(response.status, 503, "{}", response.text());
    // Seen by the origin before it is held.
    let all = || [&one, &two].iter().all(|one| one.waiting.lock().is_ok_and(|all| all.len() == 2));
    assert!(eventually(PATIENCE, all));
    one.let_go();
    two.let_go();
    for client in &mut held {
        assert_eq!(client.response().map(|response| response.status), Ok(200));
    }
    assert_eq!(statuses(&ask(&gateway, 10)), [200; 10]);
}

#[test]
fn so_many_wait_for_a_connection_and_no_more() {
    let holding = Holding::new();
    let spec = Spec::to(holding.origin.address())
        .upstream("pool: { max_connections: 1 }, bounds: { max_pending: 2 }, retry: none");
    let gateway = Gateway::single(&spec);
    let mut held = holding.fill(&gateway, 1);
    let mut waiting: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = gateway.connect();
            client.send(get("/x"));
            client
        })
        .collect();
    // They are in the queue when one more is turned away.
    let refused = || {
        let mut client = gateway.connect();
        client.patience(Duration::from_millis(300)).send(get("/x"));
        client.response().is_ok_and(|response| response.status == 503)
    };
    assert!(eventually(PATIENCE, refused), "the queue has no end");
    holding.let_go();
    for client in held.iter_mut().chain(&mut waiting) {
        assert_eq!(client.response().map(|response| response.status), Ok(200));
    }
}

#[test]
fn an_adaptive_bound_refuses_and_is_told() {
    let holding = Holding::new();
    let spec =
        Spec::to(holding.origin.address()).upstream("concurrency: { min: 2, max: 4 }, retry: none");
    let gateway = Gateway::single(&spec);
    assert_eq!(statuses(&ask(&gateway, 20)), [200; 20]);
    let limit = || standing(&gateway)["standing"]["concurrency_limit"].as_u64();
    let sane = || limit().is_some_and(|limit| (2..=4).contains(&limit));
    assert!(eventually(PATIENCE, sane), "{:?}", limit());
    let mut held = holding.fill(&gateway, 2);
    let more: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = gateway.connect();
            client.send(get("/hold"));
            client
        })
        .collect();
    // At most four are there, so at least two of six are not.
    assert!(eventually(PATIENCE, || gateway.metric("sluice_shard_upstream_fallbacks_total")
        >= Some(2.0)));
    assert!(holding.origin.seen().iter().filter(|seen| seen.target == "/hold").count() <= 4);
    holding.let_go();
    for client in &mut held {
        assert_eq!(client.response().map(|response| response.status), Ok(200));
    }
    drop(more);
    assert!(eventually(PATIENCE, || gateway.ask(get("/x")).status == 200));
}

/// The gradient: what has become slow under load is asked less at once.
#[test]
fn an_adaptive_bound_falls_as_the_upstream_slows_down() {
    let origin = Moody::new("slow");
    let settings = ["concurrency: { min: 2, max: 400 }", "retry: none"];
    let gateway = Gateway::single(&turns(&[&origin], &settings));
    let limit = || standing(&gateway)["standing"]["concurrency_limit"].as_u64().unwrap_or_default();
    let press = |clients: usize| {
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| ask(&gateway, 40));
            }
        });
    };
    press(16);
    assert!(eventually(PATIENCE, || limit() > 0));
    let before = limit();
    origin.turn(
        Script::default()
            .sleep(Duration::from_millis(40))
            .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"),
    );
    let fell = || {
        press(16);
        limit() < before
    };
    assert!(eventually(PATIENCE, fell), "from {before} to {}", limit());
    assert!(limit() >= 2);
}
