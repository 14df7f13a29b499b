//! Metrics of the node itself; those made of access records are in [`crate::records`].

use contract::{Counter, Segment};

use crate::{
    api::model::Status,
    records::{family, sample, seconds},
};

/// Appends the state of control and engine as Prometheus text.
pub fn render(out: &mut String, status: &Status) {
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

/// Appends the counters that the shards keep themselves.
pub fn render_counters(out: &mut String, segment: &Segment) {
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
