//! Which calls are made, when, and how the whole ends.

use contract::snapshot::CallMode;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn calls_are_made_at_once_and_those_that_need_another_after_it() {
    let mut from = aggregate(vec![
        call("a", "/a/${call.c.body.id}"),
        call("b", "/b"),
        call("c", "/c"),
        call("d", "/d"),
    ]);
    from.calls[3].after = vec![1];
    let world = World::new(&[
        ("a", 5, 200, "1"),
        ("b", 20, 200, "2"),
        ("c", 10, 200, r#"{"id":"x y"}"#),
        ("d", 1, 200, "3"),
    ]);
    assert_eq!(body(&from, &world), r#"{"a":1,"b":2,"c":{"id":"x y"},"d":3}"#);
    let log = world.log.borrow();
    let log: Vec<String> = log.iter().map(|(ms, way, name)| format!("{ms}{way}{name}")).collect();
    assert_eq!(log, ["0>b", "0>c", "10<c", "10>a", "15<a", "20<b", "20>d", "21<d"]);
    drop(log);
    assert_eq!(world.target("a"), "/a/x%20y");
}

#[test]
fn a_required_call_that_fails_ends_the_whole_at_once() {
    let from = aggregate(vec![call("a", "/a"), call("b", "/b"), call("c", "/c/${call.a.body}")]);
    let answers = [(404, 404), (500, 502), (301, 502), (409, 502)];
    for (status, whole) in answers {
        let world =
            World::new(&[("a", 5, status, "{}"), ("b", 50, 200, "{}"), ("c", 1, 200, "{}")]);
        let error = format!(r#"[{{"call":"a","reason":"status","status":{status}}}]"#);
        assert_eq!(broken(&from, &world), ("a".into(), whole, error));
        assert_eq!(world.now_us.get(), 5_000, "nobody waits for b");
        assert!(world.asked("c").is_empty());
    }
}

#[test]
fn time_outs_are_those_of_the_call_or_of_the_whole() {
    let mut from = aggregate(vec![optional("a", "/a"), call("b", "/b")]);
    from.deadline_ms = 100;
    http(&mut from.calls[0]).timeout_ms = 30;
    let world = World::new(&[("a", 500, 200, "1"), ("b", 90, 200, "2")]);
    let error = r#"[{"call":"a","reason":"total_timeout"}]"#;
    assert_eq!(body(&from, &world), format!(r#"{{"b":2,"errors":{error}}}"#));
    let deadlines = ["a", "b"].map(|name| world.asked(name)[0].deadline_ms);
    assert_eq!(deadlines, [30, 100]);
    let world = World::new(&[("a", 500, 200, "1"), ("b", 110, 200, "2")]);
    let (call, whole, _) = broken(&from, &world);
    assert_eq!((call.as_str(), whole, world.now_us.get()), ("b", 504, 100_000));
}

#[test]
fn a_call_that_lacks_a_value_says_so() {
    let path = "/b/${call.a.body.id}";
    for (answer, reason) in [(r#"{"id":null}"#, ""), ("{}", ""), (r#"{"id":""}"#, "")] {
        let from = aggregate(vec![call("a", "/a"), call("b", path)]);
        let world = World::new(&[("a", 0, 200, answer), ("b", 0, 200, "1")]);
        let error = format!(r#"[{{"call":"b","reason":"value_missing","where":"path"{reason}}}]"#);
        assert_eq!(broken(&from, &world), ("b".into(), 502, error), "{answer}");
    }
    for value in ["..", "."] {
        let from = aggregate(vec![call("a", "/a"), call("b", path)]);
        let answer = format!(r#"{{"id":"{value}"}}"#);
        let world = World::new(&[("a", 0, 200, &answer), ("b", 0, 200, "1")]);
        assert_eq!(broken(&from, &world).1, 502, "{value}");
    }
    // Of the request it is the client's fault.
    let from = aggregate(vec![call("b", "/b/${query.id}")]);
    assert_eq!(broken(&from, &World::default()).1, 400);
}

#[test]
fn what_is_needed_of_a_failed_call_is_told_as_its_failure() {
    let mut from = aggregate(vec![optional("a", "/a"), optional("b", "/b/${call.a.body.id}")]);
    let world = World::new(&[("a", 0, 503, "{}"), ("b", 0, 200, "1")]);
    let errors = r#"[{"call":"a","reason":"status","status":503},{"call":"b","reason":"needed_call_failed","needs":"a"}]"#;
    assert_eq!(body(&from, &world), format!(r#"{{"errors":{errors}}}"#));
    from.calls[1].mode = CallMode::Required;
    let world = World::new(&[("a", 0, 503, "{}"), ("b", 0, 200, "1")]);
    assert_eq!(broken(&from, &world).1, 502);
    // What can do without is made.
    http(&mut from.calls[1]).path = "/b".into();
    http(&mut from.calls[1]).query = vec![("id".into(), "${call.a.body.id}".into())];
    let world = World::new(&[("a", 0, 503, "{}"), ("b", 0, 200, "1")]);
    assert!(body(&from, &world).starts_with(r#"{"b":1,"#));
    assert_eq!(world.target("b"), "/b");
}

#[test]
fn what_is_not_to_be_made_is_not_and_neither_is_what_needs_it() {
    let mut from =
        aggregate(vec![call("a", "/a"), call("b", "/b/${call.a.body.id}"), call("c", "/c")]);
    from.calls[0].when = Some("${query.full}".into());
    from.response.headers = vec![("x-c".into(), "${call.c.status}".into())];
    let plan = build(&from);
    for (full, made) in
        [(None, false), (Some("0"), false), (Some("false"), false), (Some("1"), true)]
    {
        let world =
            World::new(&[("a", 0, 200, r#"{"id":1}"#), ("b", 0, 200, "1"), ("c", 0, 200, "1")]);
        let request = Asking {
            query: full.map(|full| ("full", full)).into_iter().collect(),
            ..Asking::default()
        };
        running(&plan, &request, &world, |ran, _| {
            assert_eq!(ran.broken, None);
            assert!(ran.outcomes.iter().flatten().all(Outcome::is_complete));
        });
        assert_eq!((world.asked("a").len(), world.asked("b").len()), (made.into(), made.into()));
    }
}

#[test]
fn only_what_is_listed_is_forwarded() {
    let mut from = aggregate(vec![call("a", "/a")]);
    let one = http(&mut from.calls[0]);
    one.forward_headers = vec!["x-tenant".into()];
    one.forward_query = vec!["lang".into()];
    one.query = vec![("v".into(), "1".into()), ("none".into(), "${query.none}".into())];
    one.headers =
        vec![("x-lang".into(), "${query.lang}".into()), ("x-none".into(), "${header.none}".into())];
    let plan = build(&from);
    let request = Asking {
        fields: vec![("x-tenant", "t"), ("authorization", "secret"), ("cookie", "secret")],
        query: vec![("lang", "de"), ("token", "secret"), ("lang", "en")],
    };
    let world = World::new(&[("a", 0, 200, "1")]);
    running(&plan, &request, &world, |_, _| ());
    assert_eq!(world.target("a"), "/a?lang=de&lang=en&v=1");
    let fields = world.asked("a").remove(0).fields;
    let fields: Vec<String> = fields
        .into_iter()
        .map(|(name, value)| String::from_utf8([name, value].join(&b':')).unwrap())
        .collect();
    assert_eq!(fields, ["x-tenant:t", "x-lang:de", "accept:application/json"]);
    assert_eq!(&*plan.vary, "none, x-tenant");
}

#[test]
fn answers_are_bounded_and_have_to_be_json() {
    let mut from = aggregate(vec![optional("a", "/a"), optional("b", "/b"), call("c", "/c")]);
    from.max_bytes = 20;
    let world = World::new(&[
        ("a", 1, 200, r#""123456789012""#),
        ("b", 2, 200, r#""123456789012""#),
        ("c", 3, 200, ""),
    ]);
    let errors = r#"[{"call":"b","reason":"answer_too_large","status":200}]"#;
    assert_eq!(
        body(&from, &world),
        format!(r#"{{"a":"123456789012","c":null,"errors":{errors}}}"#)
    );
    for bad in ["<html>", "{", "{} {}", "nul"] {
        let world = World::new(&[("a", 0, 200, bad), ("b", 0, 200, "1"), ("c", 0, 200, "1")]);
        assert!(
            body(&from, &world).contains(r#"{"call":"a","reason":"answer_not_json","status":200}"#)
        );
    }
}

/// A call of a random graph: on which of those before it in `order` it depends, and how.
#[derive(Clone, Debug)]
struct Node {
    needs: Vec<prop::sample::Index>,
    /// It cannot do without what it needs.
    strict: bool,
    optional: bool,
    ms: u64,
    good: bool,
}

fn node() -> impl Strategy<Value = Node> {
    let needs = vec(any::<prop::sample::Index>(), 0..3);
    (needs, any::<bool>(), prop::bool::weighted(0.7), 0..20u64, prop::bool::weighted(0.8))
        .prop_map(|(needs, strict, optional, ms, good)| Node { needs, strict, optional, ms, good })
}

proptest! {
    #[test]
    fn any_graph_with_any_failures(
        nodes in vec(node(), 1..9),
        seeds in vec(any::<u32>(), 9),
        concurrency in 1..5u16,
    ) {
        // The order of dependence is another one than that of the list.
        let count = nodes.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|at| seeds[*at]);
        let mut needs = vec![Vec::new(); count];
        for (rank, at) in order.iter().enumerate().filter(|(rank, _)| *rank > 0) {
            for index in &nodes[*at].needs {
                let need = order[index.index(rank)];
                if !needs[*at].contains(&need) {
                    needs[*at].push(need);
                }
            }
        }
        let calls = nodes.iter().enumerate().map(|(at, node)| {
            let own = format!("c{at}");
            let values = needs[at].iter().map(|need| format!("${{call.c{need}.body.id}}"));
            let mut call = match node.optional {
                true => optional(&own, ""),
                false => call(&own, ""),
            };
            let http = http(&mut call);
            http.path = format!("/{own}");
            match node.strict {
                true => http.path = values.fold(http.path.clone(), |path, value| path + "/" + &value),
                false => http.query = values.map(|value| ("q".into(), value)).collect(),
            }
            call
        });
        let mut from = aggregate(calls.collect());
        from.concurrency = concurrency;
        let plan = build(&from);
        let mut world = World::default();
        for (at, node) in nodes.iter().enumerate() {
            let does = Does::Answers(if node.good { 200 } else { 500 }, format!(r#"{{"id":"{at}"}}"#));
            world.does.insert(format!("c{at}"), (node.ms, does));
        }
        // How each would end if nothing ended the whole.
        let mut expected: Vec<Option<Option<Why>>> = vec![None; count];
        for at in &order {
            let failed = needs[*at].iter().find(|need| expected[**need] != Some(None));
            expected[*at] = Some(match failed {
                Some(need) if nodes[*at].strict => Some(Why::Needs(*need)),
                _ if !nodes[*at].good => Some(Why::Status),
                _ => None,
            });
        }
        let (found, broken, ended) = running(&plan, &Asking::default(), &world, |ran, _| {
            let ended: Vec<bool> = ran.outcomes.iter().map(Option::is_some).collect();
            (failures(ran), ran.broken, ended)
        });
        let breaks = |at: usize| !nodes[at].optional && expected[at] != Some(None);
        prop_assert_eq!(broken.is_some(), (0..count).any(breaks));
        for at in 0..count {
            let own = found.iter().find(|(one, _)| *one == at).map(|(_, why)| *why);
            match ended[at] {
                true => prop_assert_eq!(Some(own), expected[at]),
                false => prop_assert!(broken.is_some()),
            }
            prop_assert!(broken != Some(at) || breaks(at));
        }
        prop_assert!(world.most.get() <= usize::from(concurrency));
        let log = world.log.borrow();
        for (at, needs) in needs.iter().enumerate().take(count) {
            let name = format!("c{at}");
            let begun: Vec<usize> = log
                .iter()
                .enumerate()
                .filter(|(_, (_, way, own))| *way == '>' && *own == name)
                .map(|(place, _)| place)
                .collect();
            prop_assert!(begun.len() <= 1, "each at most once");
            let Some(begun) = begun.first() else { continue };
            for need in needs {
                let other = format!("c{need}");
                let over = log.iter().position(|(_, way, own)| *way == '<' && *own == other);
                // What was never made has ended without.
                let made = log.iter().any(|(_, way, own)| *way == '>' && *own == other);
                prop_assert!(!made || over.is_some_and(|over| over < *begun));
            }
        }
        drop(log);
        // The same again is the same.
        let again = World { does: world.does.clone(), ..World::default() };
        let twice = running(&plan, &Asking::default(), &again, |ran, _| (failures(ran), ran.broken));
        prop_assert_eq!((found, broken), twice);
        prop_assert_eq!(&*world.log.borrow(), &*again.log.borrow());
    }
}
