//! Answers of the admin API as text for people.

use std::fmt::Write;

use super::{offline::count, table::Table};
use crate::{
    api::model::{
        ApiKey, Applied, Authenticator, Certificate, Consumer, LimitBucket, Listener, Route, Share,
        Status, Target, Upstream,
    },
    diff::Diff,
    records::date,
    store::RevisionLine,
};

/// A change that has not been made yet.
pub fn planned(planned: &Applied, color: bool) -> String {
    let mut text =
        format!("would change revision {}:\n{}", planned.revision, changes(planned, color));
    if !planned.canaries.is_empty() {
        // Writing to a String cannot fail.
        _ = writeln!(text, "on trial first: {}", planned.canaries.join(", "));
    }
    notes(planned, &mut text);
    text
}

/// What was done; with `whole` also what it changed.
pub fn applied(applied: &Applied, whole: bool, color: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    _ = match (applied.dry_run, applied.unchanged, applied.convergence_us) {
        (_, true, _) => writeln!(text, "nothing to change: revision {} runs", applied.revision),
        (true, ..) => writeln!(text, "would change revision {}:", applied.revision),
        (false, ..) if !applied.canaries.is_empty() => writeln!(
            text,
            "revision {} is on trial on {}: `sluice rollout` tells how it goes",
            applied.revision,
            applied.canaries.join(", ")
        ),
        (false, _, Some(us)) => writeln!(
            text,
            "revision {} (epoch {}) runs on {} after {}",
            applied.revision,
            applied.epoch,
            count(applied.shards, "shard"),
            time(us)
        ),
        (false, _, None) => writeln!(text, "revision {} runs", applied.revision),
    };
    if whole {
        text.push_str(&changes(applied, color));
    }
    notes(applied, &mut text);
    text
}

fn changes(applied: &Applied, color: bool) -> String {
    match serde_json::from_value::<Diff>(applied.diff.clone()) {
        Ok(diff) => diff.to_text(color),
        // From a control of another version, which has it for people, too.
        Err(_) => applied.changes.clone(),
    }
}

fn notes(applied: &Applied, text: &mut String) {
    for note in &applied.notes {
        // Writing to a String cannot fail.
        _ = writeln!(text, "note: {note}");
    }
}

pub fn routes(routes: &[Route], color: bool) -> String {
    let mut table = Table::new(&["NAME", "METHODS", "HOSTS", "PATH", "IF", "UPSTREAM"]);
    for route in routes {
        let conditions = match route.conditions {
            0 => String::new(),
            n => count(n, "condition"),
        };
        table.row([
            route.name.clone(),
            any(&route.methods),
            any(&route.hosts),
            route.path.clone(),
            conditions,
            shares(&route.upstreams),
        ]);
    }
    or_none(table, "no routes", color)
}

pub fn limits(limits: &[LimitBucket], color: bool) -> String {
    let mut table = Table::new(&[
        "LIMIT",
        "CONSUMER",
        "OF",
        "USED",
        "LEASED HERE",
        "LEFT",
        "RESET",
        "STATE",
        "MODE",
    ]);
    for limit in limits {
        table.row([
            limit.bucket.clone(),
            limit.consumer.clone().unwrap_or_default(),
            limit.limit.to_string(),
            limit.used.to_string(),
            limit.leased.to_string(),
            limit.remaining.to_string(),
            match limit.reset_ms {
                0 => String::new(),
                ms if ms < 10_000 => format!("{ms} ms"),
                ms => format!("{} s", ms.div_ceil(1_000)),
            },
            limit.state.clone(),
            limit.mode.clone(),
        ]);
    }
    or_none(table, "no limit counts anything now", color)
}

pub fn upstreams(upstreams: &[Upstream], color: bool) -> String {
    let mut table =
        Table::new(&["NAME", "BALANCE", "BREAKER", "LIVE", "ACTIVE", "RETRIES", "LIMIT"]);
    let mut targets = Table::new(&[
        "UPSTREAM",
        "TARGET",
        "ADDRESS",
        "WEIGHT",
        "STATE",
        "SINCE (UTC)",
        "IN FLIGHT",
        "EJECTIONS",
        "OPENINGS",
        "REASON",
    ]);
    for upstream in upstreams {
        let mut row = vec![upstream.name.clone(), upstream.balance.clone()];
        if let Some(standing) = &upstream.standing {
            row.extend([
                standing.breaker.clone(),
                format!("{} %", standing.live_percent),
                standing.active_requests.to_string(),
                standing.active_retries.to_string(),
                standing.concurrency_limit.map_or("none".into(), |limit| limit.to_string()),
            ]);
        }
        table.row(row);
        if upstream.targets.is_empty() {
            targets.row([upstream.name.clone(), "(none resolved)".into()]);
        }
        for (at, target) in upstream.targets.iter().enumerate() {
            targets.row([
                if at == 0 { upstream.name.clone() } else { String::new() },
                target.name.clone(),
                target.address.clone(),
                target.weight.to_string(),
                state(target),
                target.since_ms.map(|ms| date(ms / 1_000).replace('T', " ")).unwrap_or_default(),
                target.in_flight.to_string(),
                target.ejections.to_string(),
                target.breaker_opens.to_string(),
                target.reason.clone().unwrap_or_default(),
            ]);
        }
    }
    if table.is_empty() {
        return "no upstreams\n".into();
    }
    format!("{}\n{}", table.render(color), targets.render(color))
}

fn state(target: &Target) -> String {
    match (&*target.state, target.share_percent) {
        ("slow_start", share) => format!("slow_start ({share} %)"),
        (state, _) => state.into(),
    }
}

pub fn listeners(listeners: &[Listener], color: bool) -> String {
    let mut table = Table::new(&["NAME", "ADDRESS", "TLS", "PROTOCOLS", "SHARDS"]);
    for listener in listeners {
        table.row([
            listener.name.clone(),
            listener.address.clone(),
            if listener.tls { "yes" } else { "no" }.into(),
            listener.protocols.join(","),
            listener.shards.to_string(),
        ]);
    }
    or_none(table, "no listeners", color)
}

pub fn certificates(certificates: &[Certificate], color: bool) -> String {
    let mut table = Table::new(&[
        "USED BY",
        "NAMES",
        "SUBJECT",
        "ISSUER",
        "NOT AFTER (UTC)",
        "DAYS",
        "KEY",
        "CLIENTS",
        "FILE",
    ]);
    for one in certificates {
        let used_by = match (&one.listener, &one.upstream) {
            (Some(listener), _) => format!("listener {listener}"),
            (None, upstream) => format!("upstream {}", upstream.as_deref().unwrap_or("-")),
        };
        table.row([
            used_by,
            one.names.join(","),
            one.subject.clone(),
            one.issuer.clone(),
            date(one.not_after.max(0).unsigned_abs()).replace('T', " "),
            one.days_left.to_string(),
            one.key_type.clone(),
            one.client_auth.clone(),
            one.file.clone(),
        ]);
    }
    or_none(table, "no certificates", color)
}

pub fn authenticators(authenticators: &[Authenticator], color: bool) -> String {
    let mut table = Table::new(&["NAME", "KIND", "ROUTES", "KEYS", "STATE", "ISSUER", "FROM"]);
    for one in authenticators {
        table.row([
            one.name.clone(),
            one.kind.clone(),
            one.routes.to_string(),
            one.keys.map(|keys| keys.to_string()).unwrap_or_default(),
            if one.ready { "ready" } else { "waits for its provider" }.into(),
            one.issuer.clone().unwrap_or_default(),
            one.source.clone().unwrap_or_default(),
        ]);
    }
    or_none(table, "no authenticators", color)
}

pub fn consumers(consumers: &[Consumer], color: bool) -> String {
    let mut table = Table::new(&[
        "NAME",
        "GROUPS",
        "SCOPES",
        "LIMITS",
        "KEYS",
        "KEY USED (UTC)",
        "PASSWORDS",
        "CERTIFICATES",
        "SIGNING KEYS",
        "SUBJECTS",
    ]);
    for one in consumers {
        let keys = match one.expired_api_keys {
            0 => one.api_keys.to_string(),
            expired => format!("{} ({expired} ended)", one.api_keys),
        };
        table.row([
            one.name.clone(),
            one.groups.join(","),
            one.scopes.join(" "),
            one.limits.clone().unwrap_or_default(),
            keys,
            used(one.last_used_s),
            one.passwords.to_string(),
            one.certificates.to_string(),
            one.signing_keys.to_string(),
            one.subjects.to_string(),
        ]);
    }
    or_none(table, "no consumers", color)
}

pub fn keys(keys: &[ApiKey], color: bool) -> String {
    let mut table =
        Table::new(&["PREFIX", "CONSUMER", "EXPIRES (UTC)", "LAST USED (UTC)", "SHA-256"]);
    for one in keys {
        let ends = |ms: u64| date(ms / 1_000).replace('T', " ");
        table.row([
            one.prefix.clone(),
            one.consumer.clone(),
            one.expires_ms.map_or("never".into(), ends),
            used(one.last_used_s),
            one.sha256.clone(),
        ]);
    }
    or_none(table, "no keys", color)
}

fn used(last_used_s: Option<u64>) -> String {
    last_used_s.map_or("-".into(), |used_s| date(used_s).replace('T', " "))
}

pub fn revisions(revisions: &[RevisionLine], color: bool) -> String {
    let mut table = Table::new(&["REVISION", "CREATED (UTC)", "AUTHOR", "FROM", "MESSAGE"]);
    for revision in revisions {
        table.row([
            revision.id.to_string(),
            date(revision.created_ms / 1_000).replace('T', " "),
            revision.author.clone(),
            revision.source_name.clone(),
            revision.message.clone(),
        ]);
    }
    or_none(table, "no revisions", color)
}

pub fn status(status: &Status, color: bool) -> String {
    let mut text = String::new();
    let adopted = status.shards.iter().filter(|shard| shard.epoch == status.epoch).count();
    let convergence = match status.convergence_us {
        Some(us) => format!(" (last convergence {})", time(us)),
        None => String::new(),
    };
    // Writing to a String cannot fail.
    _ = writeln!(
        text,
        "revision    {}\nepoch       {}, adopted by {adopted} of {}{convergence}\nengine      {}\n\
         control     sluice {}, up {}\naccess log  {}",
        status.revision,
        status.epoch,
        count(status.shards.len(), "shard"),
        status.engine,
        status.version,
        time(status.control_uptime_ms.saturating_mul(1_000)),
        status.access_log.path,
    );
    if status.access_log.lines_dropped > 0 {
        _ = writeln!(text, "            {} lines dropped", status.access_log.lines_dropped);
    }
    for host in &status.unresolved {
        _ = writeln!(text, "unresolved  {}: {}", host.host, host.error);
    }
    for error in &status.certificate_errors {
        _ = writeln!(text, "file        {error} (what it held before stays in use)");
    }
    for error in status.revision_error.iter().chain(&status.store_error) {
        _ = writeln!(text, "store       {error}");
    }
    let mut table =
        Table::new(&["SHARD", "EPOCH", "STATE", "REQUESTS", "CONNECTIONS", "RECORDS DROPPED"]);
    for shard in &status.shards {
        let state = match shard.healthy {
            true => "ok".into(),
            false => format!("silent for {}", time(shard.silent_ms.saturating_mul(1_000))),
        };
        table.row([
            shard.shard.to_string(),
            shard.epoch.to_string(),
            state,
            shard.requests.to_string(),
            shard.connections.to_string(),
            shard.records_dropped.to_string(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render(color));
    text
}

fn or_none(table: Table, none: &str, color: bool) -> String {
    if table.is_empty() { format!("{none}\n") } else { table.render(color) }
}

fn any(list: &[String]) -> String {
    if list.is_empty() { "*".into() } else { list.join(",") }
}

fn shares(shares: &[Share]) -> String {
    match shares {
        [one] => one.name.clone(),
        many => {
            let each: Vec<String> =
                many.iter().map(|share| format!("{}:{}", share.name, share.weight)).collect();
            each.join(" ")
        }
    }
}

/// A length of time with a unit that fits, from microseconds.
pub fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1_000, us / 100 % 10),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
        _ => {
            let minutes = us / 60_000_000;
            match minutes {
                0..60 => format!("{minutes} min"),
                60..2_880 => format!("{} h {} min", minutes / 60, minutes % 60),
                _ => format!("{} days", minutes / 1_440),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::UpstreamStanding;

    #[test]
    fn times_have_a_unit_that_fits() {
        for (us, text) in [
            (0, "0.0 ms"),
            (1_550, "1.5 ms"),
            (42_000, "42 ms"),
            (1_900_000, "1.9 s"),
            (59_999_999, "59.9 s"),
            (3_599_000_000, "59 min"),
            (7_260_000_000, "2 h 1 min"),
            (400_000_000_000, "4 days"),
        ] {
            assert_eq!(time(us), text);
        }
    }

    #[test]
    fn callers_are_listed() {
        let one = Consumer {
            name: "app".into(),
            groups: vec!["gold".into(), "eu".into()],
            scopes: vec!["a".into(), "b".into()],
            limits: None,
            api_keys: 2,
            expired_api_keys: 1,
            last_used_s: Some(86_400),
            passwords: 0,
            certificates: 1,
            signing_keys: 0,
            subjects: 3,
        };
        assert_eq!(
            consumers(&[one], false),
            "NAME  GROUPS   SCOPES  LIMITS  KEYS         KEY USED (UTC)       PASSWORDS  \
             CERTIFICATES  SIGNING KEYS  SUBJECTS\n\
             app   gold,eu  a b             2 (1 ended)  1970-01-02 00:00:00  0          \
             1             0             3\n"
        );
        let one = Authenticator {
            name: "corp".into(),
            kind: "jwt".into(),
            issuer: Some("https://id.example.com".into()),
            source: None,
            keys: None,
            ready: false,
            routes: 3,
        };
        assert_eq!(
            authenticators(&[one], false),
            "NAME  KIND  ROUTES  KEYS  STATE                   ISSUER                  FROM\n\
             corp  jwt   3             waits for its provider  https://id.example.com\n"
        );
        assert_eq!(consumers(&[], false), "no consumers\n");
        let one = ApiKey {
            sha256: "ab".into(),
            prefix: "slk_a".into(),
            consumer: "app".into(),
            expires_ms: None,
            last_used_s: None,
        };
        let used = ApiKey { expires_ms: Some(1_000), last_used_s: Some(86_400), ..one.clone() };
        assert_eq!(
            keys(&[one, used], false),
            "PREFIX  CONSUMER  EXPIRES (UTC)        LAST USED (UTC)      SHA-256\n\
             slk_a   app       never                -                    ab\n\
             slk_a   app       1970-01-01 00:00:01  1970-01-02 00:00:00  ab\n"
        );
        assert_eq!(keys(&[], false), "no keys\n");
    }

    #[test]
    fn upstreams_tell_how_they_stand() {
        let target = Target {
            name: "users:80".into(),
            address: "127.0.0.1:80".into(),
            weight: 1,
            priority: 0,
            locality: None,
            state: "slow_start".into(),
            reason: Some("consecutive_5xx".into()),
            since_ms: Some(86_400_000),
            in_flight: 4,
            ejections: 2,
            ejections_by_reason: [("consecutive_5xx".into(), 2)].into(),
            returns: 2,
            breaker: "closed".into(),
            breaker_opens: 3,
            opens_by_reason: [("error_ratio".into(), 3)].into(),
            breaker_probes: 9,
            share_percent: 30,
        };
        let unresolved =
            Upstream { name: "b".into(), balance: "hash".into(), standing: None, targets: vec![] };
        let upstream = Upstream {
            name: "a".into(),
            balance: "weighted".into(),
            standing: Some(UpstreamStanding {
                breaker: "closed".into(),
                reason: None,
                since_ms: None,
                breaker_opens: 0,
                opens_by_reason: [].into(),
                breaker_probes: 0,
                concurrency_limit: None,
                live_percent: 75,
                active_requests: 5,
                active_retries: 1,
            }),
            targets: vec![target],
        };
        assert_eq!(
            upstreams(&[upstream, unresolved], false),
            "NAME  BALANCE   BREAKER  LIVE  ACTIVE  RETRIES  LIMIT\n\
             a     weighted  closed   75 %  5       1        none\n\
             b     hash\n\n\
             UPSTREAM  TARGET           ADDRESS       WEIGHT  STATE              SINCE (UTC)          \
             IN FLIGHT  EJECTIONS  OPENINGS  REASON\n\
             a         users:80         127.0.0.1:80  1       slow_start (30 %)  1970-01-02 00:00:00  \
             4          2          3         consecutive_5xx\n\
             b         (none resolved)\n"
        );
    }
}
