use std::sync::Arc;

use contract::snapshot::{LimitPolicy, LimitScope, LimitSpan, Limits};
use proptest::prelude::*;

use super::*;
use crate::limit::Policies;
use crate::message::HeadLimits;
use crate::testing::limit_policy;

fn policies(by: Vec<LimitScope>, span: LimitSpan) -> Policies {
    let mut policy = LimitPolicy { by, ..limit_policy("gold", 5, span) };
    policy.quota.concurrency = Some(3);
    Policies::build(&Limits { policies: vec![policy], everywhere: vec![] }).unwrap()
}

fn identity(id: &str, consumer: Option<u32>, credential: Option<&str>) -> Identity {
    Identity {
        id: id.into(),
        consumer,
        credential: credential.map(Arc::from),
        groups: Arc::from(["g,1".into(), "h".into()]),
        ..Identity::default()
    }
}

struct Request {
    head: RequestHead,
    text: String,
    path: String,
    identity: Option<Identity>,
    address: Box<dyn Fn() -> IpAddr>,
}

impl Request {
    fn new(path: &str, fields: &[(&str, &str)], identity: Option<Identity>) -> Request {
        let fields: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), &HeadLimits::REQUEST).unwrap();
        let address = Box::new(|| "203.0.113.9".parse().unwrap());
        Request { head, text, path: path.into(), identity, address }
    }

    fn from(self, address: &str) -> Request {
        let address = address.parse().unwrap();
        Request { address: Box::new(move || address), ..self }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            identity: self.identity.as_ref(),
            group: None,
            address: &*self.address,
            head: &self.head,
            bytes: self.text.as_bytes(),
            path: self.path.as_bytes(),
            route: "r",
        }
    }

    /// Id, name and tag of its bucket.
    fn bucket(&self, policies: &Policies) -> Option<(BucketId, Bucket)> {
        let policy = policies.get(0).unwrap();
        let keys = KEYS.get_or_init(Keys::default);
        let values = self.subject().hash(keys, policy)?;
        let window = &policy.quota(0).windows[0];
        let (id, rule) = identify(values, window, NOON_MS);
        Some((id, self.subject().bucket(policy, window, rule, NOON_MS)))
    }
}

static KEYS: std::sync::OnceLock<Keys> = std::sync::OnceLock::new();
/// 2024-02-29T12:34:56Z, a Thursday.
const NOON_MS: u64 = 1_709_210_096_000;
const SECOND: LimitSpan = LimitSpan::Sliding(1_000);

fn name(by: LimitScope, request: &Request) -> String {
    let (_, bucket) = request.bucket(&policies(vec![by], SECOND)).unwrap();
    bucket.name.into()
}

#[test]
fn buckets_have_names_that_people_can_read() {
    let acme = || Some(identity("acme", Some(1), Some("sk_live_")));
    let plain = |identity| Request::new("/users/7/x", &[], identity);
    use LimitScope::*;
    for (by, request, expected) in [
        (Consumer, plain(acme()), "consumer=acme"),
        (Consumer, plain(Some(identity("joe", None, None))), "consumer=caller%joe"),
        (Consumer, plain(None), "consumer=ip%203.0.113.9/32"),
        (Consumer, plain(None).from("2001:db8::1:2:3"), "consumer=ip%2001:db8::/64"),
        (Consumer, plain(None).from("::ffff:203.0.113.9"), "consumer=ip%203.0.113.9/32"),
        (Credential, plain(acme()), "credential=sk_live_"),
        (Credential, plain(Some(identity("acme", Some(1), None))), "credential=acme"),
        (Group, plain(acme()), "group=g%2C1"),
        (Group, plain(None), "group="),
        (Address { v4: 24, v6: 48 }, plain(acme()), "address=ip%203.0.113.0/24"),
        (Address { v4: 0, v6: 0 }, plain(None).from("::1"), "address=ip%::/0"),
        (
            Header("X-Tenant".into()),
            Request::new("/", &[("x-tenant", "a{b}")], None),
            "header.x-tenant=a%7Bb%7D",
        ),
        (
            Header("X-T".into()),
            Request::new("/", &[("X-T", "a"), ("x-t", "b")], None),
            "header.x-t=a,b",
        ),
        (Header("X-T".into()), plain(None), "header.x-t="),
        (
            Header("User-Agent".into()),
            Request::new("/", &[("user-agent", "c")], None),
            "header.user-agent=c",
        ),
        (Path("/users/{id}/*".into()), plain(None), "path.id=7"),
        (Route, plain(None), "route=r"),
    ] {
        assert_eq!(name(by, &request), format!("gold:1s:{expected}"));
    }
    let none = plain(None).bucket(&policies(vec![Path("/teams/{id}".into())], SECOND));
    assert!(none.is_none(), "another path is not limited");
    let anonymous = Identity { anonymous: true, ..identity("guest", Some(3), None) };
    assert_eq!(name(Consumer, &plain(Some(anonymous))), "gold:1s:consumer=ip%203.0.113.9/32");
    let (_, all) = plain(acme()).bucket(&policies(vec![], SECOND)).unwrap();
    assert_eq!((&*all.name, &*all.tag, &*all.consumer), ("gold:1s", "gold", ""));
    let both = policies(vec![Consumer, Route], SECOND);
    let (_, both) = plain(acme()).bucket(&both).unwrap();
    assert_eq!(&*both.name, "gold:1s:consumer=acme,route=r");
    assert_eq!((&*both.tag, &*both.consumer), ("acme", "acme"));
}

#[test]
fn long_values_are_cut_and_stay_apart() {
    let by = |value: &str| {
        let request = Request::new("/", &[("x-t", value)], None);
        request.bucket(&policies(vec![LimitScope::Header("x-t".into())], SECOND)).unwrap().1
    };
    let long = "a".repeat(300);
    let (one, two) = (by(&format!("{long}1")), by(&format!("{long}2")));
    assert_eq!((one.name.len(), one.tag.len()), (limits::BUCKET_NAME, limits::BUCKET_TAG));
    assert!(one.name != two.name && one.tag != two.tag);
    assert!(one.name.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}".contains(&byte)));
}

#[test]
fn calendars_have_a_bucket_for_each_period() {
    use CalendarUnit::*;
    for (unit, label, end) in [
        (Minute, "minute-2024-02-29T1234", "2024-02-29T12:35:00Z"),
        (Hour, "hour-2024-02-29T12", "2024-02-29T13:00:00Z"),
        (Day, "day-2024-02-29", "2024-03-01T00:00:00Z"),
        (Week, "week-2024-W09", "2024-03-04T00:00:00Z"),
        (Month, "month-2024-02", "2024-03-01T00:00:00Z"),
        (Year, "year-2024", "2025-01-01T00:00:00Z"),
    ] {
        let policies = policies(vec![], LimitSpan::Calendar(unit));
        let policy = policies.get(0).unwrap();
        let window = &policy.quota(0).windows[0];
        let end_ms = DateTime::parse_from_rfc3339(end).unwrap().timestamp_millis() as u64;
        let (id, rule) = identify(7, window, NOON_MS);
        assert_eq!(rule.span, Span::Until { wall_ms: end_ms });
        assert_eq!(identify(7, window, end_ms - 1), (id, rule), "{label}");
        let (next, later) = identify(7, window, end_ms);
        assert!(next != id && later != rule, "{label}");
        let request = Request::new("/", &[], None);
        let bucket = request.subject().bucket(policy, window, rule, NOON_MS);
        assert_eq!(&*bucket.name, format!("gold:{label}"));
    }
}

proptest! {
    /// What is the same in one is the same in the other.
    #[test]
    fn ids_differ_where_names_do(
        one in proptest::collection::vec("[a-c,%=:]{0,3}", 0..3),
        two in proptest::collection::vec("[a-c,%=:]{0,3}", 0..3),
        tenants in proptest::array::uniform2(proptest::option::of("[a-b]{0,2}")),
    ) {
        let by = ["x-a", "x-b"].map(|name| LimitScope::Header(name.into()));
        let policies = policies(by.into(), SECOND);
        let bucket = |values: &[String], tenant: &Option<String>| {
            let fields = values.iter().map(|value| ("x-a", &**value));
            let fields: Vec<_> =
                fields.chain(tenant.iter().map(|value| ("x-b", &**value))).collect();
            Request::new("/", &fields, None).bucket(&policies).unwrap()
        };
        let (a, b) = (bucket(&one, &tenants[0]), bucket(&two, &tenants[1]));
        prop_assert_eq!(a.0 == b.0, a.1.name == b.1.name, "{:?} {:?}", a, b);
    }
}
