//! What a node believes, and for how long; at times that the test says.

use super::super::record::Record;
use super::super::table::*;
use crate::limits;

const TERMS: Terms = Terms { cache_ms: 10_000, negative_ms: 5_000, grace_ms: 30_000 };
const KEY: Digest = [7; 32];
const NEVER: u64 = u64::MAX;

fn record(consumer: &str) -> Record {
    Record { consumer: consumer.into(), expires_ms: NEVER, ..Record::default() }
}

fn standing(answer: Option<Answer>) -> Standing {
    match answer {
        Some(Answer::Known(standing)) => standing,
        other => panic!("{other:?}"),
    }
}

fn is_unknown(answer: Option<Answer>) -> bool {
    matches!(answer, Some(Answer::Unknown))
}

fn revoked(standing: &Standing) -> bool {
    standing.revoked.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn what_is_tracked_is_believed_for_as_long_as_the_settings_say() {
    let mut table = Table::new(TERMS);
    assert!(table.recall(&KEY, 0).is_none());
    let learned = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 100)));
    assert_eq!((learned.fresh_ms, learned.ends_ms, learned.on_grace), (10_000, NEVER, false));
    assert_eq!(standing(table.recall(&KEY, 5_100)).fresh_ms, 5_000);
    assert!(table.recall(&KEY, 10_100).is_none());
    // Asked again, and the same: shards may go on with what they have.
    let again = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 10_200)));
    assert!(!revoked(&learned) && std::sync::Arc::ptr_eq(&learned.revoked, &again.revoked));
    // Another record, though nobody told: they are told by that.
    let other = standing(Some(table.learn(&KEY, record("b"), 1, NEVER, 20_200)));
    assert!(revoked(&learned) && !revoked(&other));
}

#[test]
fn shards_look_again_in_a_minute_whatever_the_settings_say() {
    let mut table = Table::new(Terms { cache_ms: 3_600_000, ..TERMS });
    let learned = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 0)));
    assert_eq!(learned.fresh_ms, limits::KEY_ASK_MS);
    assert_eq!(standing(table.recall(&KEY, 600_000)).fresh_ms, limits::KEY_ASK_MS);
}

#[test]
fn what_nobody_would_tell_of_is_believed_for_a_second() {
    let mut table = Table::new(TERMS);
    assert_eq!(standing(Some(table.learn(&KEY, record("a"), 0, NEVER, 0))).fresh_ms, 1_000);
    assert!(table.recall(&KEY, 999).is_some() && table.recall(&KEY, 1_000).is_none());
    let mut table = Table::new(Terms { cache_ms: 0, ..TERMS });
    let once = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 0)));
    assert_eq!((once.fresh_ms, revoked(&once)), (0, false));
    assert!(table.recall(&KEY, 0).is_none());
    table.learn_absent(&[8; 32], false, false, 0);
    assert!(is_unknown(table.recall(&[8; 32], 999)) && table.recall(&[8; 32], 1_000).is_none());
    table.learn_absent(&[8; 32], false, true, 0);
    assert!(is_unknown(table.recall(&[8; 32], 4_999)) && table.recall(&[8; 32], 5_000).is_none());
}

#[test]
fn a_change_ends_it_at_once() {
    let mut table = Table::new(TERMS);
    let learned = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 0)));
    table.changed(&KEY);
    assert!(revoked(&learned) && table.recall(&KEY, 1).is_none());
    assert!(matches!(table.grace(&KEY, 1), Answer::Unavailable), "a revoked key has no grace");
    table.learn_absent(&KEY, false, true, 2);
    assert!(is_unknown(table.recall(&KEY, 3)));
    table.changed(&KEY);
    assert!(table.recall(&KEY, 4).is_none(), "it may have come");
}

#[test]
fn a_change_while_it_is_asked_for_is_not_lost() {
    let mut table = Table::new(TERMS);
    table.ask(&KEY);
    assert!(!table.take_changed(&KEY));
    table.changed(&KEY);
    assert!(table.take_changed(&KEY) && !table.take_changed(&KEY));
    table.flushed(1);
    assert!(table.take_changed(&KEY));
    table.asked(&KEY);
    table.changed(&KEY);
    assert!(!table.take_changed(&KEY), "nobody asks");
    assert_eq!(table.counts(), [0, 0, 0]);
}

#[test]
fn everything_gone_is_the_keys_of_that_server() {
    let mut table = Table::new(TERMS);
    let one = standing(Some(table.learn(&[1; 32], record("a"), 1, NEVER, 0)));
    let two = standing(Some(table.learn(&[2; 32], record("a"), 2, NEVER, 0)));
    table.learn_absent(&KEY, false, true, 0);
    table.flushed(1);
    assert!(revoked(&one) && !revoked(&two));
    assert!(table.recall(&KEY, 1).is_none());
    assert!(matches!(table.grace(&[1; 32], 1), Answer::Unavailable));
}

#[test]
fn a_lost_session_puts_in_doubt_what_was_learned_under_it() {
    let mut table = Table::new(TERMS);
    let one = standing(Some(table.learn(&[1; 32], record("a"), 1, NEVER, 0)));
    let two = standing(Some(table.learn(&[2; 32], record("a"), 2, NEVER, 0)));
    table.learn_absent(&KEY, false, true, 0);
    table.lost(1, 4_000);
    assert!(revoked(&one) && !revoked(&two));
    assert!(table.recall(&KEY, 4_001).is_none());
    // Until a second after the last word it is still believed, by another flag.
    let doubted = standing(table.recall(&[1; 32], 4_500));
    assert_eq!((doubted.fresh_ms, doubted.on_grace), (500, false));
    assert!(table.recall(&[1; 32], 5_000).is_none());
    // A new session: asked for at once.
    table.begun();
    assert!(revoked(&doubted) && !revoked(&two));
}

#[test]
fn known_keys_go_on_for_the_grace_and_no_longer() {
    let mut table = Table::new(TERMS);
    assert!(matches!(table.grace(&KEY, 0), Answer::Unavailable), "it was never known");
    table.learn(&KEY, record("a"), 0, NEVER, 1_000);
    let graced = standing(Some(table.grace(&KEY, 2_000)));
    assert_eq!((graced.fresh_ms, graced.on_grace), (1_000, true));
    assert_eq!(standing(Some(table.grace(&KEY, 30_600))).fresh_ms, 400);
    assert!(matches!(table.grace(&KEY, 31_000), Answer::Unavailable));
    // While a session lives the key is confirmed all the time.
    table.learn(&KEY, record("a"), 1, NEVER, 1_000);
    assert!(matches!(table.grace(&KEY, 100_000), Answer::Known(_)));
    table.lost(1, 110_000);
    assert!(matches!(table.grace(&KEY, 139_999), Answer::Known(_)));
    assert!(matches!(table.grace(&KEY, 140_000), Answer::Unavailable));
}

#[test]
fn what_redis_forgets_by_itself_ends_then() {
    let mut table = Table::new(TERMS);
    let learned = standing(Some(table.learn(&KEY, record("a"), 1, 3_000, 0)));
    assert_eq!((learned.fresh_ms, learned.ends_ms), (3_000, 3_000));
    assert!(table.recall(&KEY, 2_999).is_some() && table.recall(&KEY, 3_000).is_none());
    assert!(matches!(table.grace(&KEY, 3_000), Answer::Unavailable));
    assert!(matches!(table.learn(&KEY, record("a"), 1, 3_000, 3_000), Answer::Unknown));
}

#[test]
fn an_unfit_record_is_nobodys_key_until_it_changes() {
    let mut table = Table::new(TERMS);
    let learned = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 0)));
    assert!(matches!(table.learn_absent(&KEY, true, true, 1), Answer::Malformed));
    assert!(revoked(&learned));
    assert!(matches!(table.recall(&KEY, 2), Some(Answer::Malformed)));
    assert!(matches!(table.learn(&KEY, record("a"), 1, NEVER, 3), Answer::Known(_)));
    assert!(matches!(table.recall(&KEY, 4), Some(Answer::Known(_))));
}

#[test]
fn use_is_noted_once_a_minute() {
    let mut table = Table::new(TERMS);
    table.learn(&KEY, record("a"), 1, NEVER, 100);
    table.recall(&KEY, 5_000);
    assert_eq!(table.take_used().into_iter().collect::<Vec<_>>(), [(KEY, 100)]);
    table.grace(&KEY, 60_099);
    assert!(table.take_used().is_empty());
    table.learn(&KEY, record("a"), 1, NEVER, 60_100);
    assert_eq!(table.take_used().into_iter().collect::<Vec<_>>(), [(KEY, 60_100)]);
    table.learn_absent(&KEY, false, true, 200_000);
    table.recall(&KEY, 200_001);
    assert!(table.take_used().is_empty());
}

#[test]
fn it_is_bounded_and_wrong_keys_drive_out_no_good_ones() {
    fn key(n: u64) -> Digest {
        let mut key = KEY;
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }
    let mut table = Table::new(TERMS);
    let mine = standing(Some(table.learn(&KEY, record("a"), 1, NEVER, 0)));
    for n in 0..3 * limits::KEYS_ABSENT as u64 {
        table.learn_absent(&key(n), false, true, 0);
    }
    assert!(!revoked(&mine) && table.recall(&KEY, 1).is_some());
    for n in 0..3 * limits::KEYS_KNOWN as u64 {
        table.learn(&key(n), record("b"), 1, NEVER, 0);
        if n == limits::KEYS_KNOWN as u64 {
            assert!(table.recall(&KEY, 1).is_some(), "what is in use stays");
        }
    }
    // Who is forgotten is told so: nobody would tell of a change.
    assert!(revoked(&mine) && table.recall(&KEY, 1).is_none());
    let [known, absent, _] = table.counts();
    assert!(known <= 2 * limits::KEYS_KNOWN && absent <= 2 * limits::KEYS_ABSENT);
    assert!(table.take_used().len() <= limits::KEYS_USED);
}
