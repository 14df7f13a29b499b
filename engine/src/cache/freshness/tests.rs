use super::*;
use proptest::prelude::*;

const NOW_S: u64 = 1_700_000_000;

fn said(fields: &[(&str, &str)]) -> Said {
    Said::read(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fn facts() -> Facts {
    Facts {
        status: 200,
        shared_credentials: false,
        unkept: false,
        asked_ms: 10_000,
        now_ms: 10_000,
        wall_s: NOW_S,
    }
}

fn control(value: &str) -> Result<Freshness, Unstorable> {
    judge(&RouteCache::default(), &said(&[("cache-control", value)]), &facts())
}

fn date(s: u64) -> String {
    String::from_utf8(crate::message::write::http_date(s).to_vec()).unwrap()
}

#[test]
fn what_is_said_first_counts() {
    let of = |value| control(value).map(|freshness| freshness.lifetime_s);
    assert_eq!(of("max-age=5, s-maxage=9"), Ok(9));
    assert_eq!(of("max-age=5"), Ok(5));
    let expires = [("cache-control", "max-age=5"), ("expires", &*date(NOW_S + 90))];
    let judged = |fields: &[(&str, &str)]| judge(&RouteCache::default(), &said(fields), &facts());
    assert_eq!(judged(&expires).unwrap().lifetime_s, 5);
    assert_eq!(judged(&expires[1..]).unwrap().lifetime_s, 90);
    let past = [("expires", &*date(NOW_S - 90))];
    assert_eq!(judged(&past), Err(Unstorable::Useless));
    assert_eq!(judged(&[("expires", "0"), ("etag", "\"a\"")]).unwrap().lifetime_s, 0);
    assert_eq!(judged(&[]), Err(Unstorable::NoFreshness));
    assert_eq!(judged(&[("etag", "\"a\"")]), Err(Unstorable::NoFreshness));
}

#[test]
fn a_route_says_what_answers_do_not() {
    let rules = RouteCache { ttl_ms: 60_000, ..RouteCache::default() };
    let judged = |status, fields: &[(&str, &str)]| {
        judge(&rules, &said(fields), &Facts { status, ..facts() })
    };
    assert_eq!(judged(200, &[]).unwrap().lifetime_s, 60);
    assert_eq!(judged(200, &[("cache-control", "max-age=3")]).unwrap().lifetime_s, 3);
    assert_eq!(judged(200, &[("cache-control", "no-store")]), Err(Unstorable::NoStore));
    assert_eq!(judged(500, &[]), Err(Unstorable::NoFreshness));
    let rules = RouteCache { statuses: vec![500], ..rules };
    let judged = |status| judge(&rules, &said(&[]), &Facts { status, ..facts() });
    assert_eq!(judged(500).unwrap().lifetime_s, 60);
    assert_eq!(judged(200), Err(Unstorable::Status));
}

#[test]
fn a_guess_is_a_share_of_what_it_has_lasted() {
    let fields = [("last-modified", &*date(NOW_S - 1_000))];
    let guess = |percent, status, more: &[(&str, &str)]| {
        let rules = RouteCache { heuristic_percent: percent, ..RouteCache::default() };
        let fields = [&fields[..], more].concat();
        judge(&rules, &said(&fields), &Facts { status, ..facts() }).map(|one| one.lifetime_s)
    };
    assert_eq!(guess(10, 200, &[]), Ok(100));
    assert_eq!(guess(0, 200, &[]), Err(Unstorable::NoFreshness));
    for status in [201, 202, 403, 502, 503, 504, 599] {
        assert_eq!(guess(10, status, &[]), Err(Unstorable::NoFreshness), "{status}");
    }
    assert_eq!(guess(10, 599, &[("cache-control", "public")]), Ok(100));
}

#[test]
fn some_answers_are_not_for_others() {
    assert_eq!(control("private, max-age=9"), Err(Unstorable::Private));
    assert_eq!(control("no-store, max-age=9"), Err(Unstorable::NoStore));
    assert!(control("private=\"x-name\", max-age=9").is_ok());
    let judged = |value| {
        let facts = Facts { shared_credentials: true, ..facts() };
        judge(&RouteCache::default(), &said(&[("cache-control", value)]), &facts).is_ok()
    };
    assert!(!judged("max-age=9") && !judged("max-age=9, must-revalidate"));
    assert!(judged("max-age=9, public") && judged("s-maxage=9"));
    let ttl = RouteCache { ttl_ms: 9_000, ..RouteCache::default() };
    let facts = Facts { shared_credentials: true, ..facts() };
    assert_eq!(judge(&ttl, &said(&[]), &facts), Err(Unstorable::Authorization));
}

#[test]
fn cookies_are_kept_by_choice() {
    let fields = [("cache-control", "max-age=9"), ("set-cookie", "a=b")];
    let judged = |set_cookie| {
        judge(&RouteCache { set_cookie, ..RouteCache::default() }, &said(&fields), &facts())
    };
    assert_eq!(judged(CacheCookies::Refuse), Err(Unstorable::SetCookie));
    assert!(judged(CacheCookies::Strip).is_ok() && judged(CacheCookies::Store).is_ok());
    let named = [("cache-control", "max-age=9, private=\"set-cookie\""), fields[1]];
    assert!(judge(&RouteCache::default(), &said(&named), &facts()).is_ok());
}

#[test]
fn statuses_have_to_be_understood_where_it_matters() {
    let judged = |status, value| {
        let facts = Facts { status, ..facts() };
        judge(&RouteCache::default(), &said(&[("cache-control", value)]), &facts).is_ok()
    };
    assert!(judged(599, "max-age=9") && !judged(599, "max-age=9, must-understand"));
    assert!(judged(200, "max-age=9, must-understand, no-store"));
    assert!(!judged(206, "max-age=9") && !judged(304, "max-age=9") && !judged(103, "max-age=9"));
}

#[test]
fn stale_answers_are_used_only_where_that_is_allowed() {
    let freshness = control("max-age=10, stale-while-revalidate=5, stale-if-error=20").unwrap();
    let at = |s: u64, wishes: &Wishes| freshness.usage(wishes, 10_000 + s * 1_000);
    let none = Wishes::default();
    assert_eq!(
        (at(9, &none), at(10, &none), at(14, &none)),
        (Use::Fresh, Use::Refresh, Use::Refresh)
    );
    assert_eq!(at(15, &none), Use::Ask);
    assert!(freshness.covers_errors(39_000) && !freshness.covers_errors(40_000));
    let patient = Wishes { max_stale_s: Some(30), ..Wishes::default() };
    assert_eq!((at(40, &patient), at(41, &patient)), (Use::Stale, Use::Ask));
    for value in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
        let value = format!("max-age=10, {value}, stale-while-revalidate=50, stale-if-error=50");
        let fields = [("cache-control", &*value), ("etag", "\"a\"")];
        let strict = judge(&RouteCache::default(), &said(&fields), &facts()).unwrap();
        assert_eq!(strict.usage(&patient, 21_000), Use::Ask, "{value}");
        assert!(!strict.covers_errors(21_000), "{value}");
    }
}

#[test]
fn requests_may_want_more() {
    let freshness = control("max-age=100").unwrap();
    let at = |s: u64, wishes: Wishes| freshness.usage(&wishes, 10_000 + s * 1_000);
    let age = |s| Wishes { max_age_s: Some(s), ..Wishes::default() };
    assert_eq!((at(5, age(5)), at(6, age(5))), (Use::Fresh, Use::Ask));
    let fresh = |s| Wishes { min_fresh_s: Some(s), ..Wishes::default() };
    assert_eq!((at(40, fresh(60)), at(41, fresh(60))), (Use::Fresh, Use::Ask));
    assert_eq!(at(0, Wishes { no_cache: true, ..Wishes::default() }), Use::Ask);
}

#[test]
fn an_answer_may_be_old_when_it_comes() {
    let aged = |fields: &[(&str, &str)], asked_ms| {
        let facts = Facts { asked_ms, now_ms: 14_000, ..facts() };
        let rules = RouteCache { stale_if_error_ms: 1 << 40, ..RouteCache::default() };
        let all = [&[("cache-control", "max-age=100")], fields].concat();
        let freshness = judge(&rules, &said(&all), &facts).unwrap();
        (freshness.age_s(14_000), freshness.usage(&Wishes::default(), 14_000))
    };
    assert_eq!(aged(&[], 14_000), (0, Use::Fresh));
    assert_eq!(aged(&[("age", "30")], 11_000), (33, Use::Fresh));
    assert_eq!(aged(&[("date", &*date(NOW_S - 50)), ("age", "30")], 14_000), (50, Use::Fresh));
    // A clock that is ahead makes nothing younger than its Age says.
    assert_eq!(aged(&[("date", &*date(NOW_S + 50)), ("age", "30")], 14_000), (30, Use::Fresh));
    assert_eq!(aged(&[("age", "abc")], 14_000).1, Use::Ask);
    assert_eq!(aged(&[("age", "0, 0")], 14_000).1, Use::Ask);
}

proptest! {
    /// No number makes the arithmetic overflow, and time only ever makes an answer older.
    #[test]
    fn ages_only_grow(
        lifetime_s: u64, initial_age_s: u64, received_ms: u64, while_revalidate_s: u64,
        if_error_s: u64, strict: bool, always_asked: bool, times in prop::array::uniform2(any::<u64>()),
        max_age_s: Option<u64>, max_stale_s: Option<u64>, min_fresh_s in prop::option::of(0..1u64 << 31),
    ) {
        let freshness = Freshness {
            lifetime_s, initial_age_s, received_ms, always_asked, strict, while_revalidate_s, if_error_s,
        };
        let wishes = Wishes { max_age_s, max_stale_s, min_fresh_s, ..Wishes::default() };
        let (early, late) = (times[0].min(times[1]), times[0].max(times[1]));
        prop_assert!(freshness.age_s(early) <= freshness.age_s(late));
        prop_assert!(freshness.left_s(early) >= freshness.left_s(late));
        if freshness.usage(&wishes, late) == Use::Fresh {
            prop_assert_eq!(freshness.usage(&wishes, early), Use::Fresh);
            prop_assert!(freshness.lifetime_s > freshness.age_s(late));
        }
        if !freshness.covers_errors(early) {
            prop_assert!(!freshness.covers_errors(late));
        }
        if strict && freshness.left_s(late) <= 0 {
            prop_assert_eq!(freshness.usage(&wishes, late), Use::Ask);
        }
    }

    /// Whatever else it says, and however a route is set, such an answer is not kept.
    #[test]
    fn what_is_forbidden_is_never_kept(
        which in prop::sample::select(vec!["no-store", "private", "private=\"\""]),
        more in prop::sample::subsequence(
            vec!["max-age=9", "s-maxage=9", "public", "immutable", "stale-if-error=9"], 0..5),
        at in any::<prop::sample::Index>(),
        status in prop::sample::select(vec![200u16, 404, 500]),
        ttl_ms in 0..100_000u64,
    ) {
        let mut all = more.clone();
        all.insert(at.index(more.len() + 1), which);
        let rules = RouteCache { ttl_ms, heuristic_percent: 50, ..RouteCache::default() };
        let said = said(&[("cache-control", &all.join(", ")), ("etag", "\"a\"")]);
        let judged = judge(&rules, &said, &Facts { status, ..facts() });
        prop_assert!(judged.is_err());
    }
}
