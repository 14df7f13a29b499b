//! What retries, breakers, fallbacks and mirrors ask of each other.

use std::collections::HashMap;

use super::Check;
use crate::spec::{
    Breaker, Fallback, LimitMs, OrNone, Retry, RetryBudget, Route, Severity, Spec, Upstream,
};

/// Names of upstreams outside of routes' lists, with the path of their field.
pub fn references(spec: &Spec) -> Vec<(String, &str)> {
    let fallbacks = spec.upstreams.iter().enumerate().filter_map(|(at, upstream)| {
        let Fallback::Upstream(name) = &upstream.fallback else { return None };
        Some((format!("upstreams[{at}].fallback.upstream"), name.as_str()))
    });
    let mirrors = spec.routes.iter().enumerate().filter_map(|(at, route)| {
        let mirror = route.mirror.as_ref()?;
        Some((format!("routes[{at}].mirror.upstream"), mirror.upstream.as_str()))
    });
    let processors = spec.routes.iter().enumerate().filter_map(|(at, route)| {
        let processor = route.external_processor.as_ref()?;
        Some((format!("routes[{at}].external_processor.upstream"), processor.upstream.as_str()))
    });
    fallbacks.chain(mirrors).chain(processors).collect()
}

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    for (at, one) in spec.upstreams.iter().enumerate() {
        upstream(check, &format!("upstreams[{at}]"), one);
    }
    let upstreams: HashMap<&str, &Upstream> =
        spec.upstreams.iter().map(|upstream| (upstream.name.as_str(), &**upstream)).collect();
    for (at, one) in spec.routes.iter().enumerate() {
        route(check, &format!("routes[{at}]"), one, &upstreams);
    }
    names(check);
    cycles(check);
    localities(check);
}

impl Check<'_> {
    /// Refuses a lower bound above its upper one.
    fn ordered(&mut self, path: &str, low: (&str, u32), high: (&str, u32)) {
        let fields = [format!("{path}.{}", low.0), format!("{path}.{}", high.0)];
        let broken = fields.iter().any(|field| self.problems.is_broken(field));
        if low.1 <= high.1 || broken {
            return;
        }
        let related = self.places.get(&fields[0]);
        let message = format!("{} must not be below {}, {}", high.0, low.0, low.1);
        let value = high.1.to_string();
        self.report(Severity::Error, "min-above-max", &fields[1], &value, message, Some(related));
    }

    pub(super) fn warn(&mut self, code: &'static str, field: &str, value: &str, message: String) {
        if !self.problems.is_broken(field) {
            self.report(Severity::Warning, code, field, value, message, None);
        }
    }
}

fn upstream(check: &mut Check<'_>, path: &str, upstream: &Upstream) {
    retry(check, path, &upstream.retry);
    tries(check, path, upstream.timeouts.try_ms, upstream.timeouts.total_ms);
    budget(check, path, upstream);
    let breakers = [("breaker", &upstream.breaker), ("target_breaker", &upstream.target_breaker)];
    for (name, one) in breakers {
        if let OrNone::Some(one) = one {
            breaker(check, &format!("{path}.{name}"), one);
        }
    }
    if let OrNone::Some(outlier) = &upstream.outlier {
        let path = format!("{path}.outlier");
        let base = ("base_ejection_ms", outlier.base_ejection_ms);
        check.ordered(&path, base, ("max_ejection_ms", outlier.max_ejection_ms));
        if (1..=100).contains(&outlier.latency_percent) {
            let message = "half of all targets are above their median; expected 0 (off), or more \
                           than 100, such as 300 for three times the median";
            let (field, value) =
                (format!("{path}.latency_percent"), outlier.latency_percent.to_string());
            let code = "out-of-range";
            check.report(Severity::Error, code, &field, &value, message.into(), None);
        }
    }
    if let OrNone::Some(concurrency) = &upstream.concurrency {
        let path = format!("{path}.concurrency");
        check.ordered(&path, ("min", concurrency.min), ("max", concurrency.max));
    }
    let blind = upstream.health.is_none()
        && upstream.outlier == OrNone::NONE
        && upstream.target_breaker == OrNone::NONE;
    if upstream.min_live_percent > 0 && blind && !check.problems.is_broken(path) {
        let message = "without health, outlier and target_breaker all targets are taken for alive, \
                       so this has no effect";
        let field = format!("{path}.min_live_percent");
        check.warn("unused-floor", &field, &upstream.min_live_percent.to_string(), message.into());
    }
}

fn retry(check: &mut Check<'_>, path: &str, retry: &Retry) {
    let path = format!("{path}.retry");
    let base = ("backoff_base_ms", retry.backoff_base_ms);
    check.ordered(&path, base, ("backoff_max_ms", retry.backoff_max_ms));
    let asked = retry.on.grpc_statuses != Retry::default().on.grpc_statuses;
    if asked && !retry.on.grpc_statuses.is_empty() && !retry.methods.lists("POST") {
        let message = "every gRPC call is a POST, which methods does not have, so no status of gRPC \
                       is retried; write `methods: any` or [POST] where calls may be made twice";
        check.warn("unused-grpc-status", &format!("{path}.on"), "", message.into());
    }
}

/// Retries and hedges that no budget allows.
fn budget(check: &mut Check<'_>, path: &str, upstream: &Upstream) {
    if upstream.retry_budget != (RetryBudget { percent: 0, min: 0 }) {
        return;
    }
    let field = format!("{path}.retry_budget");
    if upstream.hedge != OrNone::NONE {
        let message = "retry_budget allows no try more, so no hedge is ever sent; raise it, or \
                       write `hedge: none`";
        check.warn("unused-hedge", &format!("{path}.hedge"), "", message.into());
    }
    if upstream.retry.attempts > 1 {
        let message = "this allows no try more, so nothing is ever retried; raise it, or say so \
                       with `retry: none`";
        check.warn("unused-retry", &field, "", message.into());
    }
}

fn tries(check: &mut Check<'_>, path: &str, one: LimitMs, all: LimitMs) {
    if let (LimitMs::After(one), LimitMs::After(all)) = (one, all)
        && one > all
    {
        let message = format!("a try never gets this long, as all of them together get {all} ms");
        let field = format!("{path}.timeouts.try_ms");
        check.warn("try-past-total", &field, &one.to_string(), message);
    }
}

fn breaker(check: &mut Check<'_>, path: &str, breaker: &Breaker) {
    if check.problems.is_broken(path) {
        return;
    }
    if (breaker.consecutive, breaker.error_percent, breaker.slow_percent) == (0, 0, 0) {
        let message = "it never opens; set consecutive, error_percent or slow_percent, or write \
                       none";
        check.report(Severity::Error, "empty-breaker", path, "", message.into(), None);
    } else if breaker.slow_percent > 0 && breaker.slow_ms == 0 {
        let message = "slow_percent needs slow_ms: from how many milliseconds on is it slow?";
        let field = format!("{path}.slow_percent");
        let value = breaker.slow_percent.to_string();
        check.report(Severity::Error, "missing-field", &field, &value, message.into(), None);
    } else if breaker.slow_ms > 0 && breaker.slow_percent == 0 {
        let message = "without slow_percent this has no effect";
        let field = format!("{path}.slow_ms");
        check.warn("unused-slow-ms", &field, &breaker.slow_ms.to_string(), message.into());
    }
}

fn route(check: &mut Check<'_>, path: &str, route: &Route, upstreams: &HashMap<&str, &Upstream>) {
    if let Some(one) = &route.retry {
        retry(check, path, one);
    }
    let backends =
        || route.upstreams.iter().filter_map(|backend| upstreams.get(backend.name.as_str()));
    // What the route leaves to its upstreams is theirs; where both are theirs, that is told there.
    let (one, all) = (route.timeouts.try_ms, route.timeouts.total_ms);
    if one.is_some() || all.is_some() {
        for upstream in backends() {
            let one = one.unwrap_or(upstream.timeouts.try_ms);
            tries(check, path, one, all.unwrap_or(upstream.timeouts.total_ms));
        }
    }
    let broke = |upstream: &&&Upstream| upstream.retry_budget == RetryBudget { percent: 0, min: 0 };
    if let Some(upstream) = backends().find(broke) {
        let message = |what: &str| {
            format!("retry_budget of `{}` allows no try more, so {what}", upstream.name)
        };
        if matches!(route.hedge, Some(OrNone::Some(_))) {
            let message = message("no hedge is ever sent");
            check.warn("unused-hedge", &format!("{path}.hedge"), "", message);
        }
        if route.retry.as_ref().is_some_and(|retry| retry.attempts > 1) {
            let message = message("nothing is ever retried");
            check.warn("unused-retry", &format!("{path}.retry"), "", message);
        }
    }
    let Some(mirror) = &route.mirror else { return };
    if let Some(same) = route.upstreams.iter().find(|backend| backend.name == mirror.upstream)
        && !same.name.is_empty()
    {
        let message = format!(
            "`{}` gets this route's requests already, and would get some twice; mirror to another \
             upstream",
            same.name
        );
        let field = format!("{path}.mirror.upstream");
        check.report(Severity::Error, "mirror-to-itself", &field, &same.name, message, None);
    }
}

/// A name must be one.
fn names(check: &mut Check<'_>) {
    for (field, name) in references(check.spec) {
        if name.is_empty() && !check.problems.is_broken(&field) {
            let message = "expected the name of an upstream".into();
            check.report(Severity::Error, "bad-name", &field, "", message, None);
        }
    }
}

/// Fallbacks that lead back to where they began.
fn cycles(check: &mut Check<'_>) {
    let spec = check.spec;
    let index: HashMap<&str, usize> =
        spec.upstreams.iter().map(|upstream| upstream.name.as_str()).zip(0..).collect();
    let next = |at: usize| match &spec.upstreams.get(at)?.fallback {
        Fallback::Upstream(name) => index.get(name.as_str()).copied(),
        _ => None,
    };
    // 0: not seen; otherwise the walk that saw it first.
    let mut seen = vec![0; spec.upstreams.len()];
    for start in 0..spec.upstreams.len() {
        let walk = start + 1;
        let mut at = start;
        while let Some(mark) = seen.get_mut(at).filter(|mark| **mark == 0) {
            *mark = walk;
            let Some(to) = next(at) else { break };
            if seen.get(to) == Some(&walk) {
                cycle(check, at, to);
            }
            at = to;
        }
    }
}

/// Reports the fallback of upstream `at`, which closes a circle by naming `to`.
fn cycle(check: &mut Check<'_>, at: usize, to: usize) {
    let Some(name) = check.spec.upstreams.get(to).map(|upstream| upstream.name.as_str()) else {
        return;
    };
    let field = format!("upstreams[{at}].fallback.upstream");
    let message = match at == to {
        true => format!("`{name}` cannot stand in for itself; name another upstream"),
        false => format!(
            "the fallback of `{name}` leads here, so that these stand in for each other; let the \
             last one give an answer"
        ),
    };
    let related = (at != to).then(|| check.places.get(&format!("upstreams[{to}].fallback")));
    check.report(Severity::Error, "fallback-cycle", &field, name, message, related);
}

/// Targets have a locality only to be compared with the node's.
fn localities(check: &mut Check<'_>) {
    let spec = check.spec;
    if spec.node.locality.is_some() || check.problems.is_broken("node") {
        return;
    }
    for (at, upstream) in spec.upstreams.iter().enumerate() {
        for (n, target) in upstream.targets.iter().enumerate() {
            if let Some(locality) = &target.locality {
                let message = "without `node.locality` no target is nearer than another, so this \
                               has no effect";
                let field = format!("upstreams[{at}].targets[{n}].locality");
                check.warn("unused-locality", &field, locality, message.into());
                return;
            }
        }
    }
}
