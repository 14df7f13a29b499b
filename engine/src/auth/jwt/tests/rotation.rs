//! Keys that are not there yet, keys that change, and keys that take a while.

use contract::snapshot::JwsAlgorithm as A;

use super::gate::{Gate, gate};
use super::*;
use crate::limits;

fn set(keys: Vec<VerifyKey>) -> snapshot::KeySet {
    snapshot::KeySet {
        source: "https://issuer.example/jwks".into(),
        wish: Some(3),
        keys,
        ..loaded()
    }
}

fn good(gate: &Gate) -> Value {
    let mut claims = claims();
    (claims["iat"], claims["exp"]) = (gate.now_s().into(), (gate.now_s() + 300).into());
    claims
}

#[test]
fn without_keys_nobody_can_be_judged() {
    let signer = Signer::new(A::Es256);
    let missing = snapshot::KeySet { loaded: false, ..set(vec![]) };
    gate(snapshot_of(rules(), missing, 1), async move |gate| {
        let token = signer.token(Some("k"), &good(&gate));
        assert_eq!(gate.bearer(&token).await.status(), 503);
        assert_eq!(gate.shard.wished(), 1);
        let mut other = good(&gate);
        other["iss"] = "https://x".into();
        let told = gate.bearer(&signer.token(Some("k"), &other)).await;
        assert!(told.is_invalid_token(), "a token of others is no reason");
        // They come, and what was answered before is not remembered.
        gate.adopt(snapshot_of(rules(), set(vec![signer.key(Some("k"))]), 2));
        assert!(gate.bearer(&token).await.is_in());
    });
}

#[test]
fn a_change_of_keys_fails_no_request() {
    let (old, new) = (Signer::new(A::Es256), Signer::new(A::Es256));
    let first = snapshot_of(rules(), set(vec![old.key(Some("old"))]), 1);
    gate(first, async move |gate| {
        let token = new.token(Some("new"), &good(&gate));
        let second = snapshot_of(rules(), set(vec![old.key(Some("old")), new.key(Some("new"))]), 3);
        let (waiting, own) = (gate.clone(), token.clone());
        let (told, done) = (std::rc::Rc::new(std::cell::Cell::new(0)), std::rc::Rc::new(()));
        for _ in 0..5 {
            let (gate, token, told, done) =
                (waiting.clone(), own.clone(), told.clone(), done.clone());
            gate.io.clone().spawn(async move {
                let identity = gate.bearer(&token).await.identity();
                assert_eq!((&*identity.id, identity.until_ms), ("ada", 0));
                told.set(told.get() + 1);
                drop(done);
            });
        }
        gate.io.sleep_ms(20).await;
        // Another change first, which does not bring the key.
        gate.adopt(snapshot_of(rules(), set(vec![old.key(Some("old"))]), 2));
        gate.io.sleep_ms(120).await;
        assert_eq!((told.get(), gate.shard.wished()), (0, 1));
        gate.adopt(second);
        while std::rc::Rc::strong_count(&done) > 1 {
            gate.io.sleep_ms(10).await;
        }
        assert_eq!((told.get(), gate.shard.wished()), (5, 1));
        assert!(gate.bearer(&token).await.identity().until_ms > 0, "and is remembered from now on");
        assert!(gate.bearer(&old.token(Some("old"), &good(&gate))).await.is_in());
    });
}

#[test]
fn unknown_keys_wait_once_and_not_for_ever() {
    let (known, other) = (Signer::new(A::Es256), Signer::new(A::Es256));
    gate(snapshot_of(rules(), set(vec![known.key(Some("k"))]), 1), async move |gate| {
        let now_ms = || gate.io.clock().now_ms();
        let begun_ms = now_ms();
        let told = gate.bearer(&other.token(Some("x"), &good(&gate))).await;
        assert!(told.is_invalid_token());
        assert!((1_900..4_000).contains(&(now_ms() - begun_ms)), "{}", now_ms() - begun_ms);
        let begun_ms = now_ms();
        for n in 0..20 {
            let told = gate.bearer(&other.token(Some(&n.to_string()), &good(&gate))).await;
            assert!(told.is_invalid_token());
        }
        assert!(now_ms() - begun_ms < limits::KEY_WAIT_MS / 2, "the set was asked for just now");
        assert_eq!(gate.shard.wished(), 1);
    });
}

#[test]
fn keys_of_the_spec_are_not_waited_for() {
    let (known, other) = (Signer::new(A::Es256), Signer::new(A::Es256));
    let fixed = snapshot::KeySet { wish: None, ..set(vec![known.key(Some("k"))]) };
    gate(snapshot_of(rules(), fixed, 1), async move |gate| {
        let begun_ms = gate.io.clock().now_ms();
        let told = gate.bearer(&other.token(Some("x"), &good(&gate))).await;
        assert!(told.is_invalid_token() && gate.shard.wished() == 0);
        assert!(gate.io.clock().now_ms() - begun_ms < 1_000);
    });
}

#[test]
fn slow_signatures_are_judged_by_the_store_thread() {
    let long = Signer::rsa(A::Rs256, include_bytes!("data/rsa4096.pem"));
    let (p384, p521) = (Signer::new(A::Es384), Signer::new(A::Es512));
    let keys = [&long, &p384, &p521].map(|signer| signer.key(Some(signer.algorithm().name())));
    gate(snapshot_of(rules(), set(keys.into()), 1), async move |gate| {
        for signer in [&long, &p384, &p521] {
            let token = signer.token(Some(signer.algorithm().name()), &good(&gate));
            assert!(gate.bearer(&token).await.is_in());
            assert!(gate.bearer(&token).await.identity().until_ms > 0);
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let half = &signature[..signature.len() / 2];
            let forged = format!("{signed}.{}{half}", "AAAA".repeat(half.len() / 4));
            assert!(gate.bearer(&forged).await.is_invalid_token());
        }
        assert_eq!(gate.shard.wished(), 0);
    });
}
