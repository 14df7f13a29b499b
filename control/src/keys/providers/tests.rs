use super::*;
use crate::{
    keys::{
        SourceKind,
        fetch::{FetchError, MAX_LIFE},
        origin::{Origin, key_set, ok, status},
    },
    spec::Fetch,
};

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), work).await.expect("ends in time");
    });
}

fn source(url: &str) -> Source {
    let fetch = Fetch { ca: None, allow_private: true, timeout_ms: 2_000 };
    Source { url: url.into(), kind: SourceKind::Keys, fetch }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn keys(kid: &str) -> Vec<VerifyKey> {
    super::super::jwk::parse(key_set(kid).as_bytes(), &super::super::REMOTE_ALGORITHMS).unwrap()
}

fn good(kid: &str, life: u64) -> Result<Answer, String> {
    Ok(Answer { keys: Some(keys(kid)), life: seconds(life), ..Answer::default() })
}

#[test]
fn failures_change_nothing_and_back_off() {
    let now = Instant::now();
    let mut entry = Entry::new(source("https://id.test/"), now);
    assert_eq!(entry.begin(now), Some(false));
    assert!(entry.take(good("a", 300), now, 0.0));
    assert_eq!(entry.due, Some(now + seconds(300)));
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let failed = Answer { error: Some(FetchError::TooLarge), ..Answer::default() };
        assert!(!entry.take(Ok(failed), now, 0.0));
        assert_eq!(entry.due, Some(now + seconds(pause)));
        assert_eq!(entry.keys, Some(keys("a")));
    }
    assert!(entry.error.is_some() && entry.counts == Counts { good: 1, failed: 8 });
    assert!(!entry.take(good("a", 300), now, 1.0), "it is what was known");
    assert_eq!(entry.due, Some(now + seconds(270)), "up to a tenth earlier");
    assert_eq!((entry.failures, &entry.error), (0, &None));
    assert!(entry.take(good("b", 300), now, 0.0));
}

#[test]
fn half_an_answer_is_better_than_none() {
    let now = Instant::now();
    let mut entry = Entry::new(source("https://id.test/"), now);
    let metadata = Metadata { issuer: "i".into(), ..Metadata::default() };
    let half = Answer {
        metadata: Some(metadata.clone()),
        error: Some(FetchError::TooLarge),
        ..Answer::default()
    };
    assert!(entry.take(Ok(half), now, 0.0));
    assert_eq!((entry.metadata, entry.keys, entry.told), (Some(metadata), None, None));
    assert_eq!(entry.due, Some(now + MIN_RETRY));
}

#[test]
fn wishes_are_granted_once_in_a_while() {
    let begun = Instant::now();
    let at = |s: u64| begun + seconds(s);
    let mut entry = Entry::new(source("https://id.test/"), begun);
    assert_eq!(entry.begin(begun), Some(false));
    entry.take(good("a", MAX_LIFE.as_secs()), begun, 0.0);
    assert_eq!(entry.begin(at(100)), None, "nobody wishes");
    let mut granted = Vec::new();
    for second in 100..200 {
        entry.wished = true;
        if let Some(alone) = entry.begin(at(second)) {
            assert!(alone, "only the keys are wished for");
            assert_eq!(entry.begin(at(second)), None, "it is being asked");
            granted.push(second);
            entry.take(good("a", MAX_LIFE.as_secs()), at(second), 0.0);
        }
    }
    assert_eq!(granted, (100..200).step_by(10).collect::<Vec<_>>());
    // A wish that came too early is not forgotten.
    entry.wished = true;
    assert_eq!(entry.begin(at(195)), None);
    assert_eq!(entry.begin(at(200)), Some(true));
    // Nor does one that never ends keep the source from being asked for ever.
    assert_eq!(entry.begin(at(799)), None);
    assert_eq!(entry.begin(at(800)), Some(false));
    // While it fails, a wish comes before the next try.
    for _ in 0..9 {
        entry.take(Err("gone".into()), at(900), 0.0);
    }
    entry.wished = true;
    assert_eq!(entry.begin(at(911)), Some(true));
}

#[test]
fn keys_come_change_and_stay_while_a_provider_is_away() {
    run(async {
        let origin = Origin::http(|_| ok("", &key_set("a")));
        let providers = Providers::new(Resolver::system());
        let (list, material) = ([source(&origin.url("/jwks"))], Material::default());
        providers.ensure(&list, &material, seconds(5)).await;
        providers.changed().await;
        let url = &list[0].url;
        let known = |kid: &str| providers.fetched(&list).sets.get(url) == Some(&keys(kid));
        assert!(known("a") && origin.hits() == 1);
        providers.ensure(&list, &material, seconds(5)).await;
        assert_eq!(origin.hits(), 1, "what is known is not asked for again");

        // Nothing is due, and a wish comes too early.
        let begun = Instant::now();
        providers.refresh(&list, &material, &[0], begun);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(origin.hits(), 1);
        origin.answer(|_| ok("", &key_set("b")));
        providers.refresh(&list, &material, &[], begun + seconds(11));
        providers.changed().await;
        assert!(known("b") && origin.hits() == 2);

        origin.answer(|_| status("503 Service Unavailable"));
        providers.refresh(&list, &material, &[], begun + seconds(3_700));
        while providers.states(&list)[0].error.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(known("b"));
        let state = providers.states(&list).remove(0);
        assert_eq!((state.keys, state.good, state.failed), (Some(1), 2, 1));
        assert!(state.age.is_some() && state.error.unwrap().contains("503"));

        // The same set, asked for in another way, begins with what is known.
        let mut slower = list.clone();
        slower[0].fetch.timeout_ms = 9_000;
        providers.ensure(&slower, &material, seconds(5)).await;
        assert!(providers.fetched(&slower).sets.contains_key(url));
        providers.retain(&slower);
        assert!(providers.fetched(&list).sets.is_empty() && providers.states(&list).is_empty());
    });
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    run(async {
        let origin = Origin::http(|_| None);
        let providers = Providers::new(Resolver::system());
        let list = [source(&origin.url("/jwks"))];
        let begun = Instant::now();
        providers.ensure(&list, &Material::default(), Duration::from_millis(100)).await;
        assert!(begun.elapsed() < seconds(2));
        let state = providers.states(&list).remove(0);
        assert_eq!((state.keys, state.age, state.error), (None, None, None));
        // It answers at last.
        let unknown = source("http://127.0.0.1:1/");
        providers.ensure(std::slice::from_ref(&unknown), &Material::default(), seconds(5)).await;
        let error = providers.states(&[unknown]).remove(0).error.unwrap();
        assert!(error.contains("cannot be reached"), "{error}");
        let mut with_ca = source("https://id.test/");
        with_ca.fetch.ca = Some("/nowhere.pem".into());
        providers.ensure(std::slice::from_ref(&with_ca), &Material::default(), seconds(5)).await;
        assert!(providers.states(&[with_ca]).remove(0).error.unwrap().contains("`ca`"));
    });
}

#[test]
fn what_was_known_before_is_asked_for_again_without_waiting() {
    run(async {
        let origin = Origin::http(|_| ok("", &key_set("b")));
        let list = [source(&origin.url("/jwks"))];
        let mut before = Fetched::default();
        before.sets.insert(list[0].url.clone(), keys("a"));
        let providers = Providers::new(Resolver::system());
        providers.recover(&list, &before);
        providers.ensure(&list, &Material::default(), seconds(5)).await;
        assert_eq!((providers.fetched(&list), origin.hits()), (before, 0));
        providers.refresh(&list, &Material::default(), &[], Instant::now());
        providers.changed().await;
        assert_eq!(providers.fetched(&list).sets[&list[0].url], keys("b"));
    });
}
