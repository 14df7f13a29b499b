//! Metrics of the node itself; those made of access records are in [`crate::records`].

use crate::{
    api::model::{Shard, Status},
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
    family(out, "sluice_engine_starts_total", "counter", "Engine starts since up.");
    sample(out, "sluice_engine_starts_total", &[], status.engine_starts);
    family(
        out,
        "sluice_control_uptime_seconds",
        "gauge",
        "Age of the control process.",
    );
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

    type Column = (&'static str, &'static str, &'static str, fn(&Shard) -> u64);
    let columns: [Column; 5] = [
        ("sluice_shard_up", "gauge", "1 while the shard gives signs of life.", |s| {
            s.healthy.into()
        }),
        ("sluice_shard_epoch", "gauge", "Epoch that the shard serves.", |s| s.epoch),
        ("sluice_shard_requests_total", "counter", "Requests finished by the shard.", |s| {
            s.requests
        }),
        ("sluice_shard_connections", "gauge", "Open client connections.", |s| s.connections),
        (
            "sluice_records_dropped_total",
            "counter",
            "Access records lost because the shard's ring was full.",
            |s| s.records_dropped,
        ),
    ];
    for (name, kind, help, value) in columns {
        family(out, name, kind, help);
        for shard in &status.shards {
            sample(out, name, &[("shard", &shard.shard.to_string())], value(shard));
        }
    }
}
