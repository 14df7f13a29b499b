//! The scripts, in a real Redis, say the same as the server in Rust.

use std::sync::Arc;

use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use fred::types::config::{Config, ServerConfig};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::limit::protocol::{Beat, Call, FORGET_MS, NodeId, SILENT_MS, Statement};
use crate::limit::rule::{Rule, Span};
use crate::limit::server::Server;
use crate::store::limits::partition::PARTITIONS;
use crate::store::limits::script::{self, Place};
use crate::store::redis::server::RedisServer;

/// Of which bucket, what it holds, needs and wants, and what was spent when.
type Said = (usize, [u64; 4], Vec<(u64, u64)>);

#[derive(Clone, Debug)]
enum Step {
    Beat { node: usize, restated: bool, leaves: bool, old: bool },
    Call { node: usize, buckets: Vec<Said>, old: bool, again: bool },
    Flush,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let rarely = || prop::bool::weighted(0.05);
    let beat = (0usize..4, prop::bool::weighted(0.8), prop::bool::weighted(0.03), rarely())
        .prop_map(|(node, restated, leaves, old)| Step::Beat { node, restated, leaves, old });
    let numbers = [0u64..6, 0..4, 0..6, 0..40];
    let spent = prop::collection::vec((0u64..1_500, 0u64..4), 0..3);
    let bucket = (0usize..4, numbers, spent);
    let call = (0usize..4, prop::collection::vec(bucket, 1..3), rarely(), rarely())
        .prop_map(|(node, buckets, old, again)| Step::Call { node, buckets, old, again });
    let step = prop_oneof![
        8 => beat,
        20 => call,
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ];
    let pause = prop_oneof![
        60 => 0u64..60,
        20 => 0u64..700,
        10 => 0u64..3_000,
        1 => FORGET_MS / 2..2 * FORGET_MS,
    ];
    prop::collection::vec((pause, step), 1..80)
}

/// What a node knows.
#[derive(Clone, Default)]
struct Known {
    generation: u64,
    heard_ms: u64,
    share: u64,
    members: Vec<NodeId>,
    gone_ms: u64,
    seq: u64,
}

const RULES: [Rule; 4] = [
    Rule { limit: 20, span: Span::Sliding { ms: 1_000 } },
    Rule { limit: 7, span: Span::Until { wall_ms: 1_700_000_900_000 } },
    Rule { limit: 12, span: Span::Concurrent },
    Rule { limit: 30, span: Span::Sliding { ms: 3_600_000 } },
];

#[test]
fn scripts_say_what_the_server_in_rust_says() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = ServerConfig::new_centralized("127.0.0.1", redis.port);
    let client = Client::new(Config { server, ..Config::default() }, None, None, None);
    runtime.block_on(async { client.init().await }).unwrap();
    let mut runner = TestRunner::new(ProptestConfig::default());
    let places = prop_oneof![Just(None), Just(Some(PARTITIONS[3]))];
    let result = runner.run(&(places, steps()), |(place, steps)| {
        runtime.block_on(async { client.flushall::<()>(false).await }).unwrap();
        runtime.block_on(compare(&client, place, steps))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn compare(
    client: &Client,
    place: Place,
    steps: Vec<(u64, Step)>,
) -> Result<(), TestCaseError> {
    let mut model = Server::new("run1");
    let (mut run, mut random, mut now) = (1, 0, 1_700_000_000_000u64);
    // The last two are runs of one node.
    let nodes: Vec<NodeId> = ["a#1", "b#1", "c#1", "c#2"].map(Arc::from).into();
    let mut known = vec![Known::default(); 4];
    let run_script = async |text: &'static str, keys: Vec<String>, args: Vec<String>| -> Value {
        client.eval(text, keys, args).await.unwrap()
    };
    for (at, (pause, step)) in steps.into_iter().enumerate() {
        now += pause;
        match step {
            Step::Flush => {
                model.flush();
                client.flushall::<()>(false).await.unwrap();
            }
            Step::Restart => {
                run += 1;
                model.restart(&format!("run{run}"), true);
            }
            Step::Beat { node, restated, leaves, old } => {
                random += 1;
                let own = &mut known[node];
                let beat = Beat {
                    node: nodes[node].clone(),
                    generation: own.generation,
                    run_id: model.run_id(),
                    heard_ms: if old { 0 } else { own.heard_ms },
                    share: own.share,
                    members: own.members.clone(),
                    gone_ms: own.gone_ms,
                    restated,
                    leaves,
                };
                let expected = model.beat(&beat, random, now);
                let (keys, args) = script::beat(&beat, random, place, Some(now));
                let value = run_script(script::BEAT, keys, args).await;
                let said = script::beaten(&value, place);
                prop_assert_eq!(said.as_ref(), Ok(&expected), "step {}: {:?}", at, beat);
                *own = Known {
                    generation: expected.generation,
                    heard_ms: expected.now_ms,
                    share: expected.share,
                    members: expected.members,
                    gone_ms: expected.gone_ms,
                    ..*own
                };
            }
            Step::Call { node, buckets, old, again } => {
                let own = &mut known[node];
                let mut statements: Vec<Statement> = Vec::new();
                for (bucket, [hold, need, more, want], spent) in buckets {
                    if statements.iter().any(|one| one.key.ends_with(&bucket.to_string())) {
                        continue;
                    }
                    own.seq += u64::from(!again);
                    statements.push(Statement {
                        key: format!("sluice:limit:{{t}}:{bucket}").into(),
                        rule: RULES[bucket],
                        seq: own.seq,
                        hold,
                        spent,
                        need,
                        waiting: need + more,
                        want: need + more + want,
                    });
                }
                let call = Call {
                    node: nodes[node].clone(),
                    generation: own.generation,
                    heard_ms: own.heard_ms.saturating_sub(if old { SILENT_MS } else { 0 }),
                    statements,
                };
                let expected = model.call(&call, now);
                let (keys, args) = script::call(&call, place, Some(now));
                let value = run_script(script::CALL, keys, args).await;
                let said = script::answer(&value);
                prop_assert_eq!(said.as_ref(), Ok(&expected), "step {}: {:?}", at, call);
                if let crate::limit::protocol::Answer::Verdicts { now_ms, .. } = expected {
                    own.heard_ms = own.heard_ms.max(now_ms);
                }
            }
        }
    }
    Ok(())
}
