//! Counters made of access records, and their Prometheus text.
//!
//! Names are the key, not indices: a route keeps its series over epochs. The text follows the
//! Prometheus exposition format 0.0.4.

use std::{collections::HashMap, fmt::Write, net::SocketAddr, sync::Arc};

use contract::record::{Reason, Record};

use super::names::{History, Names};

/// Upper bounds of the duration buckets, in microseconds.
const BUCKETS_US: [u32; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// `BUCKETS_US` as label values, in seconds.
const BUCKET_LABELS: [&str; 15] = [
    "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5",
    "1", "2.5", "5", "10",
];

/// Series of routes or upstreams kept; what comes after is counted as [`OTHER`].
const MAX_SERIES: usize = 20_000;

/// Targets kept per upstream.
const MAX_TARGETS: usize = 4_096;

/// Stands for records whose route or upstream is not known or not kept.
const OTHER: &str = "_other";

/// Stands for requests that matched no route.
const NO_ROUTE: &str = "_none";

/// Epochs whose index-to-series tables are kept at hand.
const TABLES: usize = 4;

const REASONS: usize = Reason::ALL.len();

/// All series of this control process, from its start.
pub struct Metrics {
    routes: Series<RouteCounters>,
    upstreams: Series<UpstreamCounters>,
    errors: [(Reason, u64); REASONS],
    tables: Vec<Table>,
}

/// Counters by name. A name's place never changes.
struct Series<T> {
    places: HashMap<Arc<str>, usize>,
    counters: Vec<(Arc<str>, T)>,
}

/// Where the indices of one epoch count.
struct Table {
    epoch: u64,
    names: Arc<Names>,
    routes: Vec<usize>,
    upstreams: Vec<usize>,
}

#[derive(Clone, Default)]
struct RouteCounters {
    /// By status class, 1xx to 5xx; place 0 is everything else.
    classes: [u64; 6],
    request_bytes: u64,
    response_bytes: u64,
    duration_us: u64,
    /// One more than `BUCKETS_US`: the rest. Not cumulative.
    buckets: [u64; BUCKETS_US.len() + 1],
}

#[derive(Clone, Default)]
struct UpstreamCounters {
    retries: u64,
    targets: HashMap<SocketAddr, TargetCounters>,
    /// Targets past [`MAX_TARGETS`].
    other: TargetCounters,
}

#[derive(Clone, Copy, Default)]
struct TargetCounters {
    requests: u64,
    first_byte_us: u64,
    first_bytes: u64,
}

impl<T: Default> Series<T> {
    /// Places 0 and 1 are fixed: `_other` and `_none`.
    fn new() -> Series<T> {
        let mut series = Series { places: HashMap::new(), counters: Vec::new() };
        series.place(&Arc::from(OTHER));
        series.place(&Arc::from(NO_ROUTE));
        series
    }

    fn place(&mut self, name: &Arc<str>) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        if self.counters.len() >= MAX_SERIES {
            return 0;
        }
        let place = self.counters.len();
        self.counters.push((Arc::clone(name), T::default()));
        self.places.insert(Arc::clone(name), place);
        place
    }

    fn at(&mut self, place: usize) -> Option<&mut T> {
        self.counters.get_mut(place).map(|(_, counters)| counters)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        // The enum has no list of itself; its numbers are dense and REASONS counts them.
        let mut errors = [(Reason::None, 0); REASONS];
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            if let Some(slot) = errors.get_mut(place) {
                slot.0 = reason;
            }
        }
        Metrics { routes: Series::new(), upstreams: Series::new(), errors, tables: Vec::new() }
    }
}

impl Metrics {
    /// Counts `record`; returns the names of its epoch for whoever else needs them.
    pub fn count(&mut self, record: &Record<'_>, history: &History) -> Option<&Arc<Names>> {
        let table = self.table(record.epoch, history);
        let table_at = |index: u32, places: fn(&Table) -> &Vec<usize>| {
            if index == u32::MAX {
                return 1;
            }
            table
                .and_then(|table| self.tables.get(table))
                .and_then(|table| places(table).get(index as usize).copied())
                .unwrap_or(0)
        };
        let route = table_at(record.route, |table| &table.routes);
        let upstream = table_at(record.upstream, |table| &table.upstreams);

        if let Some(counters) = self.routes.at(route) {
            counters.count(record);
        }
        if record.upstream != u32::MAX
            && let Some(counters) = self.upstreams.at(upstream)
        {
            counters.count(record);
        }
        if record.reason != Reason::None
            && let Some((_, count)) = self.errors.get_mut(record.reason as usize)
        {
            *count += 1;
        }
        table.and_then(|table| self.tables.get(table)).map(|table| &table.names)
    }

    /// Place in `tables` of `epoch`, making the table on first sight.
    fn table(&mut self, epoch: u64, history: &History) -> Option<usize> {
        if let Some(at) = self.tables.iter().position(|table| table.epoch == epoch) {
            return Some(at);
        }
        let names = history.at(epoch)?;
        let table = Table {
            epoch,
            routes: names.routes.iter().map(|name| self.routes.place(name)).collect(),
            upstreams: names.upstreams.iter().map(|name| self.upstreams.place(name)).collect(),
            names,
        };
        if self.tables.len() < TABLES {
            self.tables.push(table);
            return Some(self.tables.len() - 1);
        }
        // The oldest epoch is the least likely to come again.
        let oldest =
            (0..self.tables.len()).min_by_key(|at| self.tables.get(*at).map(|t| t.epoch))?;
        *self.tables.get_mut(oldest)? = table;
        Some(oldest)
    }

    /// Appends all series as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let routes = || self.routes.counters.iter().filter(|(_, counters)| counters.requests() > 0);
        family(
            out,
            "sluice_requests_total",
            "counter",
            "Requests finished, by route and status class.",
        );
        for (name, counters) in routes() {
            for (class, count) in
                counters.classes.iter().enumerate().filter(|(_, count)| **count > 0)
            {
                let code =
                    ["other", "1xx", "2xx", "3xx", "4xx", "5xx"].get(class).unwrap_or(&"other");
                sample(out, "sluice_requests_total", &[("route", name), ("code", code)], *count);
            }
        }
        family(
            out,
            "sluice_request_duration_seconds",
            "histogram",
            "From the complete request head to the last byte of the answer.",
        );
        for (name, counters) in routes() {
            let mut cumulative = 0;
            for (label, count) in BUCKET_LABELS.iter().zip(&counters.buckets) {
                cumulative += count;
                let labels = [("route", &**name), ("le", label)];
                sample(out, "sluice_request_duration_seconds_bucket", &labels, cumulative);
            }
            let labels = [("route", &**name), ("le", "+Inf")];
            sample(out, "sluice_request_duration_seconds_bucket", &labels, counters.requests());
            seconds(
                out,
                "sluice_request_duration_seconds_sum",
                &[("route", name)],
                counters.duration_us,
            );
            sample(
                out,
                "sluice_request_duration_seconds_count",
                &[("route", name)],
                counters.requests(),
            );
        }
        family(out, "sluice_request_bytes_total", "counter", "Request body bytes received.");
        for (name, counters) in routes() {
            sample(out, "sluice_request_bytes_total", &[("route", name)], counters.request_bytes);
        }
        family(out, "sluice_response_bytes_total", "counter", "Response body bytes sent.");
        for (name, counters) in routes() {
            sample(out, "sluice_response_bytes_total", &[("route", name)], counters.response_bytes);
        }
        family(
            out,
            "sluice_errors_total",
            "counter",
            "Answers that the gateway made itself, and broken exchanges, by reason.",
        );
        for (reason, count) in self.errors.iter().filter(|(reason, _)| *reason != Reason::None) {
            sample(out, "sluice_errors_total", &[("reason", reason.name())], *count);
        }
        self.render_upstreams(out);
    }

    fn render_upstreams(&self, out: &mut String) {
        let mut targets = Vec::new();
        for (name, counters) in &self.upstreams.counters {
            let mut of_upstream: Vec<_> = counters
                .targets
                .iter()
                .map(|(address, counters)| (address.to_string(), *counters))
                .collect();
            if counters.other.requests > 0 {
                of_upstream.push((OTHER.into(), counters.other));
            }
            of_upstream.sort_by(|a, b| a.0.cmp(&b.0));
            targets
                .extend(of_upstream.into_iter().map(|(target, counters)| (name, target, counters)));
        }
        family(
            out,
            "sluice_upstream_requests_total",
            "counter",
            "Requests by upstream and the target that got the last attempt.",
        );
        for (name, target, counters) in &targets {
            let labels = [("upstream", &***name), ("target", target)];
            sample(out, "sluice_upstream_requests_total", &labels, counters.requests);
        }
        family(
            out,
            "sluice_upstream_first_byte_seconds",
            "summary",
            "From the request sent to the first byte of the answer.",
        );
        for (name, target, counters) in &targets {
            let labels = [("upstream", &***name), ("target", target)];
            seconds(out, "sluice_upstream_first_byte_seconds_sum", &labels, counters.first_byte_us);
            sample(out, "sluice_upstream_first_byte_seconds_count", &labels, counters.first_bytes);
        }
        family(out, "sluice_upstream_retries_total", "counter", "Attempts after the first.");
        for (name, counters) in &self.upstreams.counters {
            if counters.retries > 0 || !counters.targets.is_empty() {
                sample(
                    out,
                    "sluice_upstream_retries_total",
                    &[("upstream", name)],
                    counters.retries,
                );
            }
        }
    }
}

impl RouteCounters {
    fn count(&mut self, record: &Record<'_>) {
        let class = usize::from(record.status / 100);
        let class = if class < self.classes.len() { class } else { 0 };
        if let Some(count) = self.classes.get_mut(class) {
            *count += 1;
        }
        self.request_bytes = self.request_bytes.wrapping_add(record.request_bytes);
        self.response_bytes = self.response_bytes.wrapping_add(record.response_bytes);
        self.duration_us = self.duration_us.wrapping_add(record.duration_us.into());
        let bucket = BUCKETS_US.partition_point(|bound| *bound < record.duration_us);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
    }

    fn requests(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl UpstreamCounters {
    fn count(&mut self, record: &Record<'_>) {
        self.retries += u64::from(record.attempts.saturating_sub(1));
        let Some(target) = record.target else { return };
        let counters = if self.targets.len() < MAX_TARGETS || self.targets.contains_key(&target) {
            self.targets.entry(target).or_default()
        } else {
            &mut self.other
        };
        counters.requests += 1;
        if record.first_byte_us > 0 {
            counters.first_bytes += 1;
            counters.first_byte_us =
                counters.first_byte_us.wrapping_add(record.first_byte_us.into());
        }
    }
}

/// `# HELP` and `# TYPE` of a metric family.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample.
pub fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    series(out, name, labels);
    _ = writeln!(out, " {value}");
}

/// One sample in seconds, given microseconds.
pub fn seconds(out: &mut String, name: &str, labels: &[(&str, &str)], value_us: u64) {
    series(out, name, labels);
    _ = writeln!(out, " {}.{:06}", value_us / 1_000_000, value_us % 1_000_000);
}

fn series(out: &mut String, name: &str, labels: &[(&str, &str)]) {
    out.push_str(name);
    for (at, (label, value)) in labels.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use contract::snapshot::{Snapshot, Upstream};

    use super::*;

    fn history(epoch: u64, upstreams: &[&str]) -> History {
        let upstream = |name: &&str| Upstream { name: name.to_string(), ..Upstream::default() };
        let mut history = History::default();
        history.add(&Snapshot {
            epoch,
            upstreams: upstreams.iter().map(upstream).collect(),
            ..Snapshot::default()
        });
        history
    }

    fn record(epoch: u64, upstream: u32, status: u16, duration_us: u32) -> Record<'static> {
        Record {
            epoch,
            route: u32::MAX,
            upstream,
            status,
            duration_us,
            first_byte_us: 10,
            attempts: 1,
            target: Some("127.0.0.1:9000".parse().unwrap()),
            response_bytes: 100,
            ..Record::default()
        }
    }

    /// The samples of a text that breaks no rule, by series as it is written.
    fn lint(text: &str) -> BTreeMap<&str, f64> {
        crate::exposition::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series, value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn counts_by_route_class_and_target() {
        let history = history(3, &["app \"1\"\\"]);
        let mut metrics = Metrics::default();
        metrics.count(&record(3, 0, 200, 100), &history);
        metrics.count(&record(3, 0, 503, 3_000), &history);
        metrics.count(&record(3, 0, 999, u32::MAX), &history);
        metrics.count(&Record { attempts: 3, ..record(3, 0, 200, 250) }, &history);
        let mut text = String::new();
        metrics.render(&mut text);
        let samples = lint(&text);
        let at = |series: &str| samples[series];
        assert_eq!(at("sluice_requests_total{route=\"_none\",code=\"2xx\"}"), 2.0);
        assert_eq!(at("sluice_requests_total{route=\"_none\",code=\"5xx\"}"), 1.0);
        assert_eq!(at("sluice_requests_total{route=\"_none\",code=\"other\"}"), 1.0);
        let bucket = |le: &str| {
            at(&format!("sluice_request_duration_seconds_bucket{{route=\"_none\",le=\"{le}\"}}"))
        };
        assert_eq!(
            [bucket("0.00025"), bucket("0.0025"), bucket("0.005"), bucket("10"), bucket("+Inf")],
            [2.0, 2.0, 3.0, 3.0, 4.0]
        );
        let target = "{upstream=\"app \\\"1\\\"\\\\\",target=\"127.0.0.1:9000\"}";
        assert_eq!(at(&format!("sluice_upstream_requests_total{target}")), 4.0);
        assert_eq!(at(&format!("sluice_upstream_first_byte_seconds_sum{target}")), 0.00004);
        assert_eq!(at("sluice_upstream_retries_total{upstream=\"app \\\"1\\\"\\\\\"}"), 2.0);
        assert_eq!(at("sluice_response_bytes_total{route=\"_none\"}"), 400.0);
    }

    #[test]
    fn unknown_epochs_and_indices_count_as_other() {
        let history = history(3, &["a"]);
        let mut metrics = Metrics::default();
        assert!(metrics.count(&Record { route: 0, ..record(2, 0, 200, 1) }, &history).is_none());
        assert!(metrics.count(&Record { route: 9, ..record(3, 9, 200, 1) }, &history).is_some());
        let mut text = String::new();
        metrics.render(&mut text);
        let samples = lint(&text);
        assert_eq!(samples["sluice_requests_total{route=\"_other\",code=\"2xx\"}"], 2.0);
        let target = "{upstream=\"_other\",target=\"127.0.0.1:9000\"}";
        assert_eq!(samples[&*format!("sluice_upstream_requests_total{target}")], 2.0);
    }

    #[test]
    fn an_upstream_keeps_its_series_over_epochs() {
        let mut history = history(1, &["a", "b"]);
        let mut metrics = Metrics::default();
        metrics.count(&record(1, 1, 200, 1), &history);
        for epoch in 2..20 {
            history.add(&Snapshot { epoch, ..history_snapshot(&["b", "a"]) });
            metrics.count(&record(epoch, 0, 200, 1), &history);
        }
        metrics.count(&record(1, 1, 200, 1), &history);
        let mut text = String::new();
        metrics.render(&mut text);
        let target = "{upstream=\"b\",target=\"127.0.0.1:9000\"}";
        assert_eq!(lint(&text)[&*format!("sluice_upstream_requests_total{target}")], 20.0);
    }

    fn history_snapshot(upstreams: &[&str]) -> Snapshot {
        Snapshot {
            upstreams: upstreams
                .iter()
                .map(|name| Upstream { name: name.to_string(), ..Upstream::default() })
                .collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_reason_is_in_its_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        let names: BTreeSet<_> = Reason::ALL.into_iter().map(Reason::name).collect();
        assert_eq!(names.len(), REASONS);
    }
}
