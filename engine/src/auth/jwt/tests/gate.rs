//! A shard that admits requests, without a network.

use std::rc::Rc;
use std::sync::Arc;

use contract::segment::Segment;
use contract::snapshot::{self, RouteAuth, Snapshot};

use crate::auth::{Identity, admit};
use crate::exchange::Request;
use crate::io::tests::{shard, small};
use crate::io::{Chunk, Io, Swap};
use crate::message::{HeadLimits, Progress, RequestHead};
use crate::observe::Meter;
use crate::plan::Plan;
use crate::rewrite::Client;
use crate::shard::Shard;
use crate::testing::seat;
use crate::upstream::book::Book;

#[derive(Clone)]
pub struct Gate {
    pub io: Io,
    pub shard: Rc<Shard>,
    plans: Arc<Swap<Plan>>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Told {
    In { identity: Option<Rc<Identity>>, head: Box<RequestHead>, bytes: Vec<u8> },
    Out { status: u16, challenges: Vec<String> },
}

/// Unless `snapshot` has a route, the only one asks every authenticator.
fn plan(mut snapshot: Snapshot) -> Arc<Plan> {
    if !snapshot.routes.is_empty() {
        return Arc::new(Plan::build(snapshot).unwrap());
    }
    let count = snapshot.auth.authenticators.len() as u32;
    snapshot.upstreams = vec![snapshot::Upstream { name: "u".into(), ..Default::default() }];
    snapshot.routes = vec![snapshot::Route {
        name: "r".into(),
        backends: vec![snapshot::Backend { upstream: 0, weight: 1 }],
        auth: Some(RouteAuth { authenticators: (0..count).collect(), ..RouteAuth::default() }),
        ..Default::default()
    }];
    Arc::new(Plan::build(snapshot).unwrap())
}

/// Runs `main` on a shard with `snapshot`.
pub fn gate<Fut>(snapshot: Snapshot, main: impl FnOnce(Gate) -> Fut + Send + 'static)
where
    Fut: Future<Output = ()> + 'static,
{
    gates(snapshot, 1, |gates| main(gates[0].clone()));
}

/// The same with several shards of one node.
pub fn gates<Fut>(
    mut snapshot: Snapshot,
    shards: u16,
    main: impl FnOnce(Vec<Gate>) -> Fut + Send + 'static,
) where
    Fut: Future<Output = ()> + 'static,
{
    // Many wrong tokens from one address are what these tests are made of.
    snapshot.auth.throttle.failures = 0;
    shard(small(), move |io| async move {
        let (_, segment) = Segment::create(shards, contract::ring::MIN_RING).unwrap();
        let store = crate::store::Store::start(shards.into()).unwrap();
        let book = Arc::new(Book::new(shards, None));
        let epoch = snapshot.epoch;
        let plans = Arc::new(Swap::new(plan(snapshot), epoch));
        let mut gates = Vec::new();
        for index in 0..shards {
            let meter = Meter::new(segment.shard(index), segment.ring_writer(index).unwrap());
            let seat = seat(index, shards, &book, &store);
            let shard = Shard::new(io.clone(), meter, plans.clone(), seat, [7, 9]);
            let (listening, own) = (shard.clone(), io.clone());
            io.spawn(async move { listening.desk().listen(&own, drop).await.unwrap() });
            gates.push(Gate { io: io.clone(), shard, plans: plans.clone() });
        }
        main(gates).await;
    });
}

impl Gate {
    pub fn now_s(&self) -> u64 {
        self.io.clock().wall_us() / 1_000_000
    }

    pub fn adopt(&self, snapshot: Snapshot) {
        let epoch = snapshot.epoch;
        self.plans.set(plan(snapshot), epoch);
    }

    /// A request with these fields.
    pub async fn ask(&self, fields: &str) -> Told {
        self.send(&format!("GET /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n"), "192.0.2.1").await
    }

    /// A whole request, from an address.
    pub async fn send(&self, request: &str, from: &str) -> Told {
        let bytes = request.as_bytes().to_vec();
        let mut head = self.shard.take_request_head();
        let limits = HeadLimits { max_head: 128 * 1024, ..HeadLimits::REQUEST };
        assert_eq!(head.parse(&bytes, &limits), Ok(Progress::Complete));
        let client = Client {
            address: std::net::SocketAddr::new(from.parse().unwrap(), 9),
            listener: ([127, 0, 0, 1], 80).into(),
            trusted: false,
            forwarded: false,
            tls: None,
            early: false,
        };
        let plan = self.shard.plan();
        let mut request =
            Request::new(&self.shard, plan.clone(), head, Chunk::from_vec(bytes), client, 1);
        request.normalise_path().unwrap();
        match admit(&self.shard, &mut request, plan.plan.route(0)).await {
            Ok(()) => {
                let bytes = request.bytes().to_vec();
                Told::In { identity: request.identity.take(), head: request.head, bytes }
            }
            Err(reply) => {
                let challenges = request.answer_fields.into_iter();
                let challenges = challenges
                    .filter(|(name, _)| *name == "WWW-Authenticate")
                    .map(|(_, value)| String::from_utf8(value).unwrap());
                Told::Out { status: reply.status, challenges: challenges.collect() }
            }
        }
    }

    pub async fn bearer(&self, token: &str) -> Told {
        self.ask(&format!("Authorization: Bearer {token}\r\n")).await
    }
}

impl Told {
    /// The caller, who was let in.
    pub fn identity(self) -> Rc<Identity> {
        match self {
            Told::In { identity: Some(identity), .. } => identity,
            other => panic!("{other:?}"),
        }
    }

    pub fn is_in(&self) -> bool {
        matches!(self, Told::In { .. })
    }

    /// The fields of that name that go on.
    pub fn forwarded(&self, name: &str) -> Vec<String> {
        let Told::In { head, bytes, .. } = self else { panic!("{self:?}") };
        let fields = head.fields.iter().filter(|field| field.forwarded());
        let named = fields
            .filter(|field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| String::from_utf8_lossy(field.value.of(bytes)).into_owned());
        named.collect()
    }

    /// Whether it was refused as RFC 6750 §3.1 has it for a bad token.
    pub fn is_invalid_token(&self) -> bool {
        let wanted = "Bearer realm=\"sluice\", error=\"invalid_token\"";
        matches!(self, Told::Out { status: 401, challenges } if *challenges == [wanted])
    }

    pub fn challenges(&self) -> &[String] {
        match self {
            Told::In { .. } => &[],
            Told::Out { challenges, .. } => challenges,
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Told::In { .. } => 200,
            Told::Out { status, .. } => *status,
        }
    }
}
