//! Metrics of the node itself; those made of access records are in [`crate::records`].

use std::collections::{BTreeMap, HashSet};

use contract::figures::{Figure, Figures, LATENCY_BOUNDS_US};
use contract::{Counter, Segment, targets::Cause};

use crate::{
    api::model::{Certificate, Status, Target, Upstream, UpstreamStanding},
    keys::ProviderState,
    records::{family, sample, seconds},
};

/// Appends the state of control and engine, and what the shards count, as Prometheus text.
pub fn render(out: &mut String, status: &Status, segment: &Segment) {
    render_state(out, status);
    render_counters(out, segment);
}

fn render_state(out: &mut String, status: &Status) {
    family(out, "sluice_build_info", "gauge", "Always 1; says which version runs.");
    sample(out, "sluice_build_info", &[("version", &status.version)], 1);
    family(out, "sluice_config_revision", "gauge", "Revision of the spec that is published.");
    sample(out, "sluice_config_revision", &[], status.revision);
    family(out, "sluice_config_epoch", "gauge", "Epoch that is published.");
    sample(out, "sluice_config_epoch", &[], status.epoch);
    if let Some(us) = status.convergence_us {
        family(
            out,
            "sluice_config_convergence_seconds",
            "gauge",
            "From the last publish to its adoption by every shard.",
        );
        seconds(out, "sluice_config_convergence_seconds", &[], us);
    }
    family(out, "sluice_control_uptime_seconds", "gauge", "Age of the control process.");
    seconds(
        out,
        "sluice_control_uptime_seconds",
        &[],
        status.control_uptime_ms.saturating_mul(1_000),
    );
    family(
        out,
        "sluice_access_log_dropped_lines_total",
        "counter",
        "Access log lines that could not be written.",
    );
    sample(out, "sluice_access_log_dropped_lines_total", &[], status.access_log.lines_dropped);
    family(
        out,
        "sluice_unresolved_hosts",
        "gauge",
        "Upstream host names whose last look-up failed.",
    );
    sample(out, "sluice_unresolved_hosts", &[], status.unresolved.len() as u64);

    family(
        out,
        "sluice_tls_material_errors",
        "gauge",
        "Certificate files that cannot be used; what they held before stays in use.",
    );
    sample(out, "sluice_tls_material_errors", &[], status.certificate_errors.len() as u64);

    family(out, "sluice_shard_up", "gauge", "1 while the shard gives signs of life.");
    for shard in &status.shards {
        let label = shard.shard.to_string();
        sample(out, "sluice_shard_up", &[("shard", &label)], shard.healthy.into());
    }
    family(out, "sluice_shard_epoch", "gauge", "Epoch that the shard serves.");
    for shard in &status.shards {
        let label = shard.shard.to_string();
        sample(out, "sluice_shard_epoch", &[("shard", &label)], shard.epoch);
    }
}

/// Appends how providers stand.
pub fn providers(out: &mut String, providers: &[ProviderState]) {
    if providers.is_empty() {
        return;
    }
    let help = "Since the provider last said all that is needed.";
    family(out, "sluice_provider_age_seconds", "gauge", help);
    for one in providers {
        if let Some(age) = one.age {
            let us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            seconds(out, "sluice_provider_age_seconds", &[("url", &one.url)], us);
        }
    }
    family(out, "sluice_provider_keys", "gauge", "Keys of the provider that can be used.");
    for one in providers {
        if let Some(keys) = one.keys {
            sample(out, "sluice_provider_keys", &[("url", &one.url)], keys as u64);
        }
    }
    family(out, "sluice_provider_fetches_total", "counter", "Looks at the provider, by outcome.");
    for one in providers {
        for (result, count) in [("ok", one.good), ("error", one.failed)] {
            let labels = [("url", one.url.as_str()), ("result", result)];
            sample(out, "sluice_provider_fetches_total", &labels, count);
        }
    }
}

/// Appends what the cache keeps. Nothing where it was never used.
pub fn cache(out: &mut String, figures: &Figures) {
    let get = |figure| figures.get(figure);
    if get(Figure::CacheStored) == 0 {
        return;
    }
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        family(out, name, kind, help);
        sample(out, name, &[], value);
    };
    let help = "Bytes that the cache keeps, answers on their way in included.";
    one("sluice_cache_bytes", "gauge", help, get(Figure::CacheBytes));
    one("sluice_cache_max_bytes", "gauge", "Bytes that it may keep.", get(Figure::CacheBound));
    one("sluice_cache_objects", "gauge", "Answers that it keeps.", get(Figure::CacheObjects));
    let help = "Answers that were stored, again or for the first time.";
    one("sluice_cache_stored_total", "counter", help, get(Figure::CacheStored));
    let help = "Answers that went to make room for others.";
    one("sluice_cache_evicted_total", "counter", help, get(Figure::CacheEvicted));
    let help = "Answers that were purged, or made invalid by requests that change things.";
    one("sluice_cache_purged_total", "counter", help, get(Figure::CachePurged));
}

/// Appends how Redis answers about limits, and how the node decides. Nothing where no limits are.
pub fn limits(out: &mut String, figures: &Figures) {
    let get = |figure| figures.get(figure);
    if get(Figure::Servers) + get(Figure::Buckets) + get(Figure::Calls) == 0 {
        return;
    }
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        family(out, name, kind, help);
        sample(out, name, &[], value);
    };
    one("sluice_limit_buckets", "gauge", "Windows that the node counts.", get(Figure::Buckets));
    let help = "Redis servers, or partitions of a Redis Cluster, that keep limits.";
    one("sluice_limit_redis_servers", "gauge", help, get(Figure::Servers));
    let help = "Of these those that cannot be asked: their limits go by on_store_failure.";
    one("sluice_limit_redis_lost", "gauge", help, get(Figure::ServersLost));
    let help = "Times that a Redis server or partition was lost.";
    one("sluice_limit_redis_losses_total", "counter", help, get(Figure::Losses));
    let help =
        "Times that a Redis server or partition had lost what it knew, and nodes told it again.";
    one("sluice_limit_redis_restatements_total", "counter", help, get(Figure::Generations));
    const CALLS: &str = "sluice_limit_redis_calls_total";
    family(out, CALLS, "counter", "Calls of Redis, by result.");
    sample(out, CALLS, &[("result", "ok")], get(Figure::Calls));
    sample(out, CALLS, &[("result", "error")], get(Figure::Failures));
    const TIME: &str = "sluice_limit_redis_seconds";
    family(out, TIME, "histogram", "How long Redis took to answer.");
    let (buckets, sum_us) = figures.latency();
    let mut below = 0;
    for (at, count) in buckets.iter().enumerate() {
        below += count;
        let le = match LATENCY_BOUNDS_US.get(at) {
            Some(us) => format!("{}.{:06}", us / 1_000_000, us % 1_000_000),
            None => "+Inf".into(),
        };
        sample(out, &format!("{TIME}_bucket"), &[("le", &le)], below);
    }
    seconds(out, &format!("{TIME}_sum"), &[], sum_us);
    sample(out, &format!("{TIME}_count"), &[], below);
}

/// Appends when the certificates in use end.
pub fn certificates(out: &mut String, certificates: &[Certificate]) {
    const NAME: &str = "sluice_certificate_expiry_seconds";
    if certificates.is_empty() {
        return;
    }
    family(out, NAME, "gauge", "When the certificate ends, in Unix time; one per first name.");
    let mut seen = HashSet::new();
    for one in certificates {
        let (kind, owner) = match (&one.listener, &one.upstream) {
            (Some(listener), _) => ("listener", listener.as_str()),
            (None, upstream) => ("upstream", upstream.as_deref().unwrap_or_default()),
        };
        let name = one.names.first().map_or(one.file.as_str(), String::as_str);
        if seen.insert((kind, owner, name)) {
            let end = one.not_after.max(0).unsigned_abs();
            sample(out, NAME, &[(kind, owner), ("name", name)], end);
        }
    }
}

/// Appends how upstreams and their targets stand. What is not known is left out.
pub fn upstreams(out: &mut String, upstreams: &[Upstream]) {
    let known: Vec<(&str, &UpstreamStanding)> = upstreams
        .iter()
        .filter_map(|upstream| Some((upstream.name.as_str(), upstream.standing.as_ref()?)))
        .collect();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&UpstreamStanding) -> Option<u64>| {
        family(out, name, "gauge", help);
        for (upstream, standing) in &known {
            if let Some(value) = value(standing) {
                sample(out, name, &[("upstream", upstream)], value);
            }
        }
    };
    gauge("sluice_upstream_active_requests", "Requests under way.", &|standing| {
        Some(standing.active_requests.into())
    });
    gauge("sluice_upstream_active_retries", "Retries and hedges under way.", &|standing| {
        Some(standing.active_retries.into())
    });
    gauge(
        "sluice_upstream_concurrency_limit",
        "Adaptive bound on requests under way.",
        &|standing| standing.concurrency_limit.map(Into::into),
    );
    const LIVE: &str = "sluice_upstream_live_ratio";
    family(out, LIVE, "gauge", "Share of the targets' weight that is alive.");
    for (upstream, standing) in &known {
        // A hundredth is 10,000 millionths.
        seconds(out, LIVE, &[("upstream", upstream)], u64::from(standing.live_percent) * 10_000);
    }
    const BREAKER: &str = "sluice_upstream_breaker";
    family(out, BREAKER, "gauge", "1 for the state that the circuit breaker is in.");
    const OPENS: &str = "sluice_upstream_breaker_opens_total";
    let guarded: Vec<_> = known.iter().filter(|(_, standing)| standing.breaker != "none").collect();
    for (upstream, standing) in &guarded {
        sample(out, BREAKER, &[("upstream", upstream), ("state", &standing.breaker)], 1);
    }
    family(out, OPENS, "counter", "How often the circuit breaker opened, by reason.");
    for (upstream, standing) in &guarded {
        let labels = [("upstream", *upstream)];
        by_reason(out, OPENS, &labels, &Cause::OPENINGS, &standing.opens_by_reason);
    }
    const PROBES: &str = "sluice_upstream_breaker_probes_total";
    family(out, PROBES, "counter", "Requests that the half-open circuit breaker let through.");
    for (upstream, standing) in &guarded {
        sample(out, PROBES, &[("upstream", upstream)], standing.breaker_probes);
    }
    targets(out, upstreams);
}

fn targets(out: &mut String, upstreams: &[Upstream]) {
    // An address that is there twice is one target to the engine.
    let mut seen = HashSet::new();
    let all = upstreams.iter().flat_map(|upstream| {
        upstream.targets.iter().map(|target| (upstream.name.as_str(), target))
    });
    let known: Vec<(&str, &Target)> =
        all.filter(|(upstream, target)| seen.insert((*upstream, &target.address))).collect();
    const STATE: &str = "sluice_target_state";
    family(out, STATE, "gauge", "1 for the state that the target is in.");
    for (upstream, target) in &known {
        let labels =
            [("upstream", *upstream), ("target", &target.address), ("state", &target.state)];
        sample(out, STATE, &labels, 1);
    }
    const IN_FLIGHT: &str = "sluice_target_requests_in_flight";
    family(out, IN_FLIGHT, "gauge", "Requests that the target has under way.");
    for (upstream, target) in &known {
        let labels = [("upstream", *upstream), ("target", &target.address)];
        sample(out, IN_FLIGHT, &labels, target.in_flight.into());
    }
    const EJECTIONS: &str = "sluice_target_ejections_total";
    family(out, EJECTIONS, "counter", "How often the target was ejected, by reason.");
    for (upstream, target) in &known {
        let labels = [("upstream", *upstream), ("target", &target.address)];
        by_reason(out, EJECTIONS, &labels, &Cause::EJECTIONS, &target.ejections_by_reason);
    }
    const RETURNS: &str = "sluice_target_returns_total";
    family(out, RETURNS, "counter", "Ejections of the target that are over.");
    for (upstream, target) in &known {
        let labels = [("upstream", *upstream), ("target", &target.address)];
        sample(out, RETURNS, &labels, target.returns);
    }
    let guarded: Vec<_> = known.iter().filter(|(_, target)| target.breaker != "none").collect();
    const OPENS: &str = "sluice_target_breaker_opens_total";
    family(out, OPENS, "counter", "How often the target's circuit breaker opened, by reason.");
    for (upstream, target) in &guarded {
        let labels = [("upstream", *upstream), ("target", &target.address)];
        by_reason(out, OPENS, &labels, &Cause::OPENINGS, &target.opens_by_reason);
    }
    const PROBES: &str = "sluice_target_breaker_probes_total";
    family(out, PROBES, "counter", "Requests that the target's half-open breaker let through.");
    for (upstream, target) in &guarded {
        let labels = [("upstream", *upstream), ("target", &target.address)];
        sample(out, PROBES, &labels, target.breaker_probes);
    }
}

/// A series for each reason there is, so that the first time shows as a rise from 0.
fn by_reason(
    out: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    causes: &[Cause],
    counts: &BTreeMap<String, u64>,
) {
    for cause in causes {
        let labels = [labels, &[("reason", cause.name())]].concat();
        sample(out, name, &labels, counts.get(cause.name()).copied().unwrap_or_default());
    }
}

/// Appends the counters that the shards keep themselves.
fn render_counters(out: &mut String, segment: &Segment) {
    let shards: Vec<_> = (0..segment.shards())
        .map(|shard| (shard.to_string(), segment.shard(shard).counters()))
        .collect();
    let mut last = "";
    for (place, counter) in Counter::ALL.iter().enumerate() {
        // Apart from the families made of records, which have routes and targets for labels.
        let name = counter.name().strip_prefix("sluice_").unwrap_or(counter.name());
        let name = format!("sluice_shard_{name}");
        // Counters of one family stand together and differ by a label.
        if counter.name() != last {
            family(out, &name, "counter", counter.help());
            last = counter.name();
        }
        for (shard, counters) in &shards {
            let value = counters.get(place).copied().unwrap_or_default();
            match counter.label() {
                Some((key, text)) => sample(out, &name, &[("shard", shard), (key, text)], value),
                None => sample(out, &name, &[("shard", shard)], value),
            }
        }
    }
    family(out, "sluice_shard_connections_open", "gauge", "Client connections that are open.");
    for (shard, counters) in &shards {
        let open = open_connections(counters);
        sample(out, "sluice_shard_connections_open", &[("shard", shard)], open);
    }
}

/// Client connections that are open, by a shard's counters.
pub fn open_connections(counters: &[u64]) -> u64 {
    let count = |counter: Counter| counters.get(counter as usize).copied().unwrap_or_default();
    count(Counter::Accepted).saturating_sub(count(Counter::Closed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use contract::{
        Record,
        record::Reason,
        snapshot::{self as flat, Snapshot},
    };

    use super::*;
    use crate::{
        api::model::{AccessLog, Shard},
        exposition::{self, Family},
        records::Records,
    };

    fn status() -> Status {
        let shard = |shard| Shard {
            shard,
            epoch: 3,
            healthy: shard == 0,
            silent_ms: 1,
            requests: 0,
            connections: 0,
            records_dropped: 0,
        };
        Status {
            version: "1.2.3".into(),
            revision: 2,
            epoch: 3,
            converged: true,
            convergence_us: Some(1_500),
            engine: "ok".into(),
            control_uptime_ms: 12,
            shards: vec![shard(0), shard(1)],
            access_log: AccessLog { path: "-".into(), lines_dropped: 0 },
            certificate_errors: vec![],
            store: String::new(),
            store_error: None,
            revision_error: None,
            unresolved: vec![],
        }
    }

    /// An upstream whose breaker is open, with one target twice.
    fn standing(name: &str) -> Upstream {
        let target = Target {
            name: "users:80".into(),
            address: "127.0.0.1:80".into(),
            weight: 1,
            priority: 0,
            locality: None,
            state: "ejected".into(),
            reason: Some("latency".into()),
            since_ms: Some(1),
            in_flight: 4,
            ejections: 2,
            ejections_by_reason: [("latency".into(), 2)].into(),
            returns: 1,
            breaker: "closed".into(),
            breaker_opens: 4,
            opens_by_reason: [("error_ratio".into(), 4)].into(),
            breaker_probes: 12,
            share_percent: 0,
        };
        Upstream {
            name: name.into(),
            balance: "hash".into(),
            standing: Some(UpstreamStanding {
                breaker: "half_open".into(),
                reason: None,
                since_ms: None,
                breaker_opens: 3,
                opens_by_reason: [("slow_ratio".into(), 1), ("probe_failed".into(), 2)].into(),
                breaker_probes: 6,
                concurrency_limit: Some(40),
                live_percent: 25,
                active_requests: 5,
                active_retries: 1,
            }),
            targets: vec![target.clone(), target],
        }
    }

    fn value(families: &[Family], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut samples = families.iter().flat_map(|family| &family.samples);
        samples.find(|one| one.name == name && one.labels == labels).map(|one| one.value)
    }

    #[test]
    fn the_whole_page_obeys_the_format() {
        let (_fd, segment) = Segment::create(2, 1 << 16).unwrap();
        let records = Records::start(&segment, "/dev/null".into()).unwrap();
        // A name that needs every escape.
        let name = "a\"b\\c\nd";
        records.remember(&Snapshot {
            epoch: 3,
            upstreams: vec![flat::Upstream { name: name.into(), ..Default::default() }],
            ..Snapshot::default()
        });
        for (n, counter) in Counter::ALL.into_iter().enumerate() {
            segment.shard(1).count(counter, n as u64 + 1);
        }
        let mut writer = segment.ring_writer(0).unwrap();
        for (n, status) in [200, 204, 301, 404, 502, 99].into_iter().enumerate() {
            let record = Record {
                epoch: 3,
                route: u32::MAX,
                upstream: n as u32 % 2,
                status,
                reason: if status == 502 { Reason::ConnectFailed } else { Reason::None },
                duration_us: 10_u32.pow(n as u32 + 2),
                target: Some("127.0.0.1:80".parse().unwrap()),
                ..Record::default()
            };
            assert!(writer.push_record(&record));
        }
        assert!(writer.push(b"no record"));
        records.finish();

        let mut text = String::new();
        render(&mut text, &status(), &segment);
        let figures = segment.figures();
        limits(&mut text, &figures);
        cache(&mut text, &figures);
        assert!(!text.contains("sluice_limit_"), "nothing of limits where there are none");
        assert!(!text.contains("sluice_cache_bytes"), "nor of a cache that nobody has");
        figures.add(Figure::CacheStored, 4);
        cache(&mut text, &figures);
        figures.set(Figure::Servers, 2);
        figures.add(Figure::Failures, 3);
        for us in [90, 150, 900_000] {
            figures.took(us);
        }
        limits(&mut text, &figures);
        upstreams(&mut text, &[standing(name)]);
        records.render(&mut text);
        let families = exposition::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let value = |name: &str, labels: &[(&str, &str)]| value(&families, name, labels);
        for counter in Counter::ALL {
            let name = counter.name().replacen("sluice_", "sluice_shard_", 1);
            let mut labels = vec![("shard", "1")];
            labels.extend(counter.label());
            assert_eq!(value(&name, &labels), Some(counter as usize as f64 + 1.0), "{name}");
        }
        let count = "sluice_request_duration_seconds_count";
        assert_eq!(value(count, &[("route", "_none")]), Some(6.0));
        let errors = "sluice_errors_total";
        assert_eq!(value(errors, &[("reason", "connect_failed")]), Some(1.0));
        let requests = "sluice_upstream_requests_total";
        let target = ("target", "127.0.0.1:80");
        assert_eq!(value(requests, &[("upstream", name), target]), Some(3.0));
        assert_eq!(value("sluice_records_garbage_total", &[]), Some(1.0));
        assert_eq!(value("sluice_limit_redis_calls_total", &[("result", "error")]), Some(3.0));
        assert_eq!(value("sluice_cache_stored_total", &[]), Some(4.0));
        let within = |le| value("sluice_limit_redis_seconds_bucket", &[("le", le)]);
        assert_eq!((within("0.000100"), within("0.204800")), (Some(1.0), Some(2.0)));
        assert_eq!(value("sluice_limit_redis_seconds_sum", &[]), Some(0.90024));
        let upstream = ("upstream", name);
        assert_eq!(value("sluice_upstream_active_requests", &[upstream]), Some(5.0));
        assert_eq!(value("sluice_upstream_active_retries", &[upstream]), Some(1.0));
        assert_eq!(value("sluice_upstream_concurrency_limit", &[upstream]), Some(40.0));
        assert_eq!(value("sluice_upstream_live_ratio", &[upstream]), Some(0.25));
        let state = ("state", "half_open");
        assert_eq!(value("sluice_upstream_breaker", &[upstream, state]), Some(1.0));
        let opens =
            |reason| value("sluice_upstream_breaker_opens_total", &[upstream, ("reason", reason)]);
        assert_eq!(opens("slow_ratio"), Some(1.0));
        assert_eq!((opens("probe_failed"), opens("error_ratio")), (Some(2.0), Some(0.0)));
        assert_eq!(value("sluice_upstream_breaker_probes_total", &[upstream]), Some(6.0));
        let state = ("state", "ejected");
        assert_eq!(value("sluice_target_state", &[upstream, target, state]), Some(1.0));
        assert_eq!(value("sluice_target_requests_in_flight", &[upstream, target]), Some(4.0));
        let of_target = |name: &str, reason| value(name, &[upstream, target, ("reason", reason)]);
        assert_eq!(of_target("sluice_target_ejections_total", "latency"), Some(2.0));
        assert_eq!(of_target("sluice_target_ejections_total", "success_rate"), Some(0.0));
        assert_eq!(of_target("sluice_target_breaker_opens_total", "error_ratio"), Some(4.0));
        assert_eq!(value("sluice_target_returns_total", &[upstream, target]), Some(1.0));
        assert_eq!(value("sluice_target_breaker_probes_total", &[upstream, target]), Some(12.0));
        assert_eq!(value("sluice_config_convergence_seconds", &[]), Some(0.0015));
    }
}
