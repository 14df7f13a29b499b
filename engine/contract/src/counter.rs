//! What a shard counts, and how each count is called outside.

/// One exact count per shard. The position is the layout of the segment: append at the end of a
/// group only together with a new segment version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Counter {
    Accepted,
    Closed,
    /// Over `max_connections`.
    Refused,
    Requests,
    Responses1xx,
    Responses2xx,
    Responses3xx,
    Responses4xx,
    Responses5xx,
    ClientBytesIn,
    ClientBytesOut,
    UpstreamBytesIn,
    UpstreamBytesOut,
    UpstreamConnects,
    UpstreamConnectErrors,
    UpstreamReuses,
    /// Tries after a failed one, by how that has failed.
    RetryConnect,
    RetryExhausted,
    RetryRefused,
    RetryReset,
    RetryStale,
    RetryTimeout,
    RetryInvalid,
    RetryStatus,
    RetryGrpcStatus,
    RecordsPushed,
    RecordsDropped,
    BuffersExhausted,
    OneShotRecvs,
    CqOverflows,
    ShortSends,
    PlanSwaps,
    Panics,
    DriverEnters,
    DriverWaits,
    TlsHandshakes,
    TlsResumed,
    TlsEarlyData,
    TlsFailed,
    UpstreamTlsHandshakes,
    UpstreamTlsResumed,
    UpstreamTlsFailed,
    Http2Connections,
    Http2Faults,
    HealthChecks,
    HealthFailures,
    TargetsLost,
    TargetsRecovered,
    /// Requests refused for the node's load, by the priority of their route.
    ShedLow,
    ShedNormal,
    ShedHigh,
    RetriesOverBudget,
    Hedges,
    HedgesWon,
    Fallbacks,
    Mirrored,
    MirrorsDropped,
    /// Requests to routes with authentication, by what came of it.
    AuthKnown,
    /// Let through without a credential.
    AuthAnonymous,
    AuthMissing,
    AuthInvalid,
    /// Known, but not allowed to do this.
    AuthDenied,
    AuthUnavailable,
    AuthThrottled,
    /// Credentials of which the shard remembered what they are.
    AuthRemembered,
    StoreQuestions,
    /// Policies of routes that could not be judged.
    PolicyErrors,
    KeysOnGrace,
    KeyRecordsMalformed,
    /// Requests that limits hold for, by what came of it.
    LimitAllowed,
    /// Let in while Redis could not be asked.
    LimitShared,
    LimitLimited,
    /// Let in, though a policy that is only tried out says no.
    LimitDryRun,
    LimitUnavailable,
    /// Requests that waited for tokens.
    LimitWaits,
    /// Requests to routes that validate, by what came of it.
    ValidationPassed,
    ValidationRefused,
    /// Let in, though what is only tried out says no.
    ValidationDryRun,
    ValidationUnavailable,
    /// Calls to external processors.
    ProcessorCalls,
    /// Those that came to nothing.
    ProcessorsFailed,
    /// Requests that processors answered themselves.
    ProcessorsAnswered,
    /// Values of templates that could not stand where they should, such as with a line end in a field.
    ValuesUnfit,
    /// Requests to routes with a cache, by what came of it.
    CacheHits,
    /// Answered by what is stale: because that is allowed, or there was nothing better.
    CacheStale,
    /// Answered by what another request has brought.
    CacheCoalesced,
    /// Answered by what is stored, which is as it was.
    CacheRevalidated,
    CacheMisses,
    /// Not looked up, for their method or their form.
    CacheBypassed,
}

/// How many counters there are.
pub const COUNTERS: usize = Counter::ALL.len();

impl Counter {
    /// Every counter, in the order of its number. Those that share a name stand together.
    pub const ALL: [Counter; 89] = [
        Counter::Accepted,
        Counter::Closed,
        Counter::Refused,
        Counter::Requests,
        Counter::Responses1xx,
        Counter::Responses2xx,
        Counter::Responses3xx,
        Counter::Responses4xx,
        Counter::Responses5xx,
        Counter::ClientBytesIn,
        Counter::ClientBytesOut,
        Counter::UpstreamBytesIn,
        Counter::UpstreamBytesOut,
        Counter::UpstreamConnects,
        Counter::UpstreamConnectErrors,
        Counter::UpstreamReuses,
        Counter::RetryConnect,
        Counter::RetryExhausted,
        Counter::RetryRefused,
        Counter::RetryReset,
        Counter::RetryStale,
        Counter::RetryTimeout,
        Counter::RetryInvalid,
        Counter::RetryStatus,
        Counter::RetryGrpcStatus,
        Counter::RecordsPushed,
        Counter::RecordsDropped,
        Counter::BuffersExhausted,
        Counter::OneShotRecvs,
        Counter::CqOverflows,
        Counter::ShortSends,
        Counter::PlanSwaps,
        Counter::Panics,
        Counter::DriverEnters,
        Counter::DriverWaits,
        Counter::TlsHandshakes,
        Counter::TlsResumed,
        Counter::TlsEarlyData,
        Counter::TlsFailed,
        Counter::UpstreamTlsHandshakes,
        Counter::UpstreamTlsResumed,
        Counter::UpstreamTlsFailed,
        Counter::Http2Connections,
        Counter::Http2Faults,
        Counter::HealthChecks,
        Counter::HealthFailures,
        Counter::TargetsLost,
        Counter::TargetsRecovered,
        Counter::ShedLow,
        Counter::ShedNormal,
        Counter::ShedHigh,
        Counter::RetriesOverBudget,
        Counter::Hedges,
        Counter::HedgesWon,
        Counter::Fallbacks,
        Counter::Mirrored,
        Counter::MirrorsDropped,
        Counter::AuthKnown,
        Counter::AuthAnonymous,
        Counter::AuthMissing,
        Counter::AuthInvalid,
        Counter::AuthDenied,
        Counter::AuthUnavailable,
        Counter::AuthThrottled,
        Counter::AuthRemembered,
        Counter::StoreQuestions,
        Counter::PolicyErrors,
        Counter::KeysOnGrace,
        Counter::KeyRecordsMalformed,
        Counter::LimitAllowed,
        Counter::LimitShared,
        Counter::LimitLimited,
        Counter::LimitDryRun,
        Counter::LimitUnavailable,
        Counter::LimitWaits,
        Counter::ValidationPassed,
        Counter::ValidationRefused,
        Counter::ValidationDryRun,
        Counter::ValidationUnavailable,
        Counter::ProcessorCalls,
        Counter::ProcessorsFailed,
        Counter::ProcessorsAnswered,
        Counter::ValuesUnfit,
        Counter::CacheHits,
        Counter::CacheStale,
        Counter::CacheCoalesced,
        Counter::CacheRevalidated,
        Counter::CacheMisses,
        Counter::CacheBypassed,
    ];

    /// The counter of a response's class: `2` for 204. A status outside 100..=599 counts as 5xx,
    /// as it is a defect of ours if one is ever sent.
    #[inline]
    pub fn of_status(status: u16) -> Counter {
        match status {
            100..200 => Counter::Responses1xx,
            200..300 => Counter::Responses2xx,
            300..400 => Counter::Responses3xx,
            400..500 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        }
    }

    /// The Prometheus name. Counters that share one differ by [`Counter::label`].
    pub fn name(self) -> &'static str {
        match self {
            Counter::Accepted => "sluice_connections_accepted_total",
            Counter::Closed => "sluice_connections_closed_total",
            Counter::Refused => "sluice_connections_refused_total",
            Counter::Requests => "sluice_requests_total",
            Counter::Responses1xx
            | Counter::Responses2xx
            | Counter::Responses3xx
            | Counter::Responses4xx
            | Counter::Responses5xx => "sluice_responses_total",
            Counter::ClientBytesIn => "sluice_client_bytes_received_total",
            Counter::ClientBytesOut => "sluice_client_bytes_sent_total",
            Counter::UpstreamBytesIn => "sluice_upstream_bytes_received_total",
            Counter::UpstreamBytesOut => "sluice_upstream_bytes_sent_total",
            Counter::UpstreamConnects => "sluice_upstream_connects_total",
            Counter::UpstreamConnectErrors => "sluice_upstream_connect_errors_total",
            Counter::UpstreamReuses => "sluice_upstream_reuses_total",
            Counter::RetryConnect
            | Counter::RetryExhausted
            | Counter::RetryRefused
            | Counter::RetryReset
            | Counter::RetryStale
            | Counter::RetryTimeout
            | Counter::RetryInvalid
            | Counter::RetryStatus
            | Counter::RetryGrpcStatus => "sluice_upstream_retries_total",
            Counter::RecordsPushed => "sluice_records_pushed_total",
            Counter::RecordsDropped => "sluice_records_dropped_total",
            Counter::BuffersExhausted => "sluice_reactor_buffers_exhausted_total",
            Counter::OneShotRecvs => "sluice_reactor_one_shot_receives_total",
            Counter::CqOverflows => "sluice_reactor_completion_overflows_total",
            Counter::ShortSends => "sluice_reactor_short_sends_total",
            Counter::PlanSwaps => "sluice_plan_swaps_total",
            Counter::Panics => "sluice_panics_total",
            Counter::DriverEnters => "sluice_reactor_enters_total",
            Counter::DriverWaits => "sluice_reactor_waits_total",
            Counter::TlsHandshakes => "sluice_tls_handshakes_total",
            Counter::TlsResumed => "sluice_tls_handshakes_resumed_total",
            Counter::TlsEarlyData => "sluice_tls_early_data_total",
            Counter::TlsFailed => "sluice_tls_failed_total",
            Counter::UpstreamTlsHandshakes => "sluice_upstream_tls_handshakes_total",
            Counter::UpstreamTlsResumed => "sluice_upstream_tls_handshakes_resumed_total",
            Counter::UpstreamTlsFailed => "sluice_upstream_tls_failed_total",
            Counter::Http2Connections => "sluice_http2_connections_total",
            Counter::Http2Faults => "sluice_http2_faults_total",
            Counter::HealthChecks => "sluice_health_checks_total",
            Counter::HealthFailures => "sluice_health_check_failures_total",
            Counter::TargetsLost => "sluice_targets_lost_total",
            Counter::TargetsRecovered => "sluice_targets_recovered_total",
            Counter::ShedLow | Counter::ShedNormal | Counter::ShedHigh => {
                "sluice_requests_shed_total"
            }
            Counter::RetriesOverBudget => "sluice_upstream_retries_over_budget_total",
            Counter::Hedges => "sluice_upstream_hedges_total",
            Counter::HedgesWon => "sluice_upstream_hedges_won_total",
            Counter::Fallbacks => "sluice_upstream_fallbacks_total",
            Counter::Mirrored => "sluice_mirrored_total",
            Counter::MirrorsDropped => "sluice_mirrors_dropped_total",
            Counter::AuthKnown
            | Counter::AuthAnonymous
            | Counter::AuthMissing
            | Counter::AuthInvalid
            | Counter::AuthDenied
            | Counter::AuthUnavailable
            | Counter::AuthThrottled => "sluice_auth_total",
            Counter::AuthRemembered => "sluice_auth_remembered_total",
            Counter::StoreQuestions => "sluice_store_questions_total",
            Counter::PolicyErrors => "sluice_policy_errors_total",
            Counter::KeysOnGrace => "sluice_api_keys_on_grace_total",
            Counter::KeyRecordsMalformed => "sluice_api_key_records_malformed_total",
            Counter::LimitAllowed
            | Counter::LimitShared
            | Counter::LimitLimited
            | Counter::LimitDryRun
            | Counter::LimitUnavailable => "sluice_limit_total",
            Counter::LimitWaits => "sluice_limit_waits_total",
            Counter::ValidationPassed
            | Counter::ValidationRefused
            | Counter::ValidationDryRun
            | Counter::ValidationUnavailable => "sluice_validation_total",
            Counter::ProcessorCalls => "sluice_processor_calls_total",
            Counter::ProcessorsFailed => "sluice_processor_failures_total",
            Counter::ProcessorsAnswered => "sluice_processor_answers_total",
            Counter::ValuesUnfit => "sluice_template_values_unfit_total",
            Counter::CacheHits
            | Counter::CacheStale
            | Counter::CacheCoalesced
            | Counter::CacheRevalidated
            | Counter::CacheMisses
            | Counter::CacheBypassed => "sluice_cache_requests_total",
        }
    }

    /// What tells counters of the same name apart, as a Prometheus label.
    pub fn label(self) -> Option<(&'static str, &'static str)> {
        match self {
            Counter::Responses1xx => Some(("class", "1xx")),
            Counter::Responses2xx => Some(("class", "2xx")),
            Counter::Responses3xx => Some(("class", "3xx")),
            Counter::Responses4xx => Some(("class", "4xx")),
            Counter::Responses5xx => Some(("class", "5xx")),
            Counter::RetryConnect => Some(("reason", "connect")),
            Counter::RetryExhausted => Some(("reason", "exhausted")),
            Counter::RetryRefused => Some(("reason", "refused")),
            Counter::RetryReset => Some(("reason", "reset")),
            Counter::RetryStale => Some(("reason", "stale")),
            Counter::RetryTimeout => Some(("reason", "timeout")),
            Counter::RetryInvalid => Some(("reason", "invalid")),
            Counter::RetryStatus => Some(("reason", "status")),
            Counter::RetryGrpcStatus => Some(("reason", "grpc_status")),
            Counter::ShedLow => Some(("priority", "low")),
            Counter::ShedNormal => Some(("priority", "normal")),
            Counter::ShedHigh => Some(("priority", "high")),
            Counter::AuthKnown => Some(("outcome", "known")),
            Counter::AuthAnonymous => Some(("outcome", "anonymous")),
            Counter::AuthMissing => Some(("outcome", "missing")),
            Counter::AuthInvalid => Some(("outcome", "invalid")),
            Counter::AuthDenied => Some(("outcome", "denied")),
            Counter::AuthUnavailable => Some(("outcome", "unavailable")),
            Counter::AuthThrottled => Some(("outcome", "throttled")),
            Counter::LimitAllowed => Some(("outcome", "allowed")),
            Counter::LimitShared => Some(("outcome", "shared")),
            Counter::LimitLimited => Some(("outcome", "limited")),
            Counter::LimitDryRun => Some(("outcome", "dry_run")),
            Counter::LimitUnavailable => Some(("outcome", "unavailable")),
            Counter::ValidationPassed => Some(("outcome", "passed")),
            Counter::ValidationRefused => Some(("outcome", "refused")),
            Counter::ValidationDryRun => Some(("outcome", "dry_run")),
            Counter::ValidationUnavailable => Some(("outcome", "unavailable")),
            Counter::CacheHits => Some(("outcome", "hit")),
            Counter::CacheStale => Some(("outcome", "stale")),
            Counter::CacheCoalesced => Some(("outcome", "coalesced")),
            Counter::CacheRevalidated => Some(("outcome", "revalidated")),
            Counter::CacheMisses => Some(("outcome", "miss")),
            Counter::CacheBypassed => Some(("outcome", "bypass")),
            _ => None,
        }
    }

    /// One sentence for Prometheus' `# HELP`, the same for counters of the same name.
    pub fn help(self) -> &'static str {
        match self {
            Counter::Accepted => "Client connections accepted.",
            Counter::Closed => "Client connections closed, for whatever reason.",
            Counter::Refused => "Client connections closed at once, over max_connections.",
            Counter::Requests => "Requests whose head was read in full.",
            Counter::Responses1xx
            | Counter::Responses2xx
            | Counter::Responses3xx
            | Counter::Responses4xx
            | Counter::Responses5xx => "Responses sent to clients, by class of the status.",
            Counter::ClientBytesIn => "Bytes received from clients.",
            Counter::ClientBytesOut => "Bytes sent to clients.",
            Counter::UpstreamBytesIn => "Bytes received from upstreams.",
            Counter::UpstreamBytesOut => "Bytes sent to upstreams.",
            Counter::UpstreamConnects => "Connections opened to upstreams.",
            Counter::UpstreamConnectErrors => "Connections to upstreams that failed or timed out.",
            Counter::UpstreamReuses => "Requests sent on a pooled upstream connection.",
            Counter::RetryConnect
            | Counter::RetryExhausted
            | Counter::RetryRefused
            | Counter::RetryReset
            | Counter::RetryStale
            | Counter::RetryTimeout
            | Counter::RetryInvalid
            | Counter::RetryStatus
            | Counter::RetryGrpcStatus => "Tries made after a failed one, by how that has failed.",
            Counter::RecordsPushed => "Access records put into the ring.",
            Counter::RecordsDropped => "Access records dropped as the ring was full.",
            Counter::BuffersExhausted => "Receives that found no provided buffer (ENOBUFS).",
            Counter::OneShotRecvs => "Receives done one-shot instead of multishot.",
            Counter::CqOverflows => "Completion queue overflows.",
            Counter::ShortSends => "Sends that took only a part and were continued.",
            Counter::PlanSwaps => "Plans adopted.",
            Counter::Panics => "Panics caught at a request's edge: defects, please report them.",
            Counter::DriverEnters => "io_uring_enter calls of the reactor.",
            Counter::DriverWaits => "io_uring_enter calls that waited for a completion.",
            Counter::TlsHandshakes => "TLS handshakes completed with clients.",
            Counter::TlsResumed => {
                "TLS handshakes with clients that resumed a session: the hit rate is this of all."
            }
            Counter::TlsEarlyData => "TLS connections that took early data.",
            Counter::TlsFailed => "TLS handshakes with clients that failed or timed out.",
            Counter::UpstreamTlsHandshakes => "TLS handshakes completed with upstreams.",
            Counter::UpstreamTlsResumed => "TLS handshakes with upstreams that resumed a session.",
            Counter::UpstreamTlsFailed => "TLS handshakes with upstreams that failed.",
            Counter::Http2Connections => "Client connections that spoke HTTP/2.",
            Counter::Http2Faults => {
                "HTTP/2 client connections ended for breaking the protocol or a budget."
            }
            Counter::HealthChecks => "Health checks of upstream targets.",
            Counter::HealthFailures => "Health checks that failed.",
            Counter::TargetsLost => "Times that a target became unhealthy by its checks.",
            Counter::TargetsRecovered => "Unhealthy targets that became healthy again.",
            Counter::ShedLow | Counter::ShedNormal | Counter::ShedHigh => {
                "Requests refused as the node was asked too much, by their route's priority."
            }
            Counter::RetriesOverBudget => "Retries and hedges that the retry budget refused.",
            Counter::Hedges => "Requests that got a second try beside a slow first one.",
            Counter::HedgesWon => "Hedged requests that the second try answered.",
            Counter::Fallbacks => {
                "Requests that an upstream did not take: breaker, bounds, nothing alive."
            }
            Counter::Mirrored => "Requests copied to a mirror.",
            Counter::MirrorsDropped => {
                "Requests that a mirror should have got and did not: too many, too large, or not taken."
            }
            Counter::AuthKnown
            | Counter::AuthAnonymous
            | Counter::AuthMissing
            | Counter::AuthInvalid
            | Counter::AuthDenied
            | Counter::AuthUnavailable
            | Counter::AuthThrottled => {
                "Requests to routes with authentication, by what came of it."
            }
            Counter::ProcessorCalls => "Calls to external processors.",
            Counter::ProcessorsFailed => "Calls to external processors that came to nothing.",
            Counter::ProcessorsAnswered => "Requests that external processors answered themselves.",
            Counter::AuthRemembered => "Credentials judged by what the shard remembered of them.",
            Counter::StoreQuestions => {
                "Credentials that could not be judged at once: someone was asked, or it took computing."
            }
            Counter::PolicyErrors => {
                "Requests refused as their route's policy could not be judged."
            }
            Counter::KeysOnGrace => {
                "Times that a known API key went on although Redis could not be asked."
            }
            Counter::KeyRecordsMalformed => {
                "API keys that were refused as their record in Redis does not say whose they are."
            }
            Counter::LimitAllowed
            | Counter::LimitShared
            | Counter::LimitLimited
            | Counter::LimitDryRun
            | Counter::LimitUnavailable => {
                "Requests that limits hold for, by what came of it; shared: let in without Redis."
            }
            Counter::LimitWaits => "Requests that waited for tokens of a limit.",
            Counter::ValidationPassed
            | Counter::ValidationRefused
            | Counter::ValidationDryRun
            | Counter::ValidationUnavailable => {
                "Requests to routes that validate, by what came of it; dry_run: let in all the same."
            }
            Counter::ValuesUnfit => {
                "Values of templates that could not stand where they should, so that the rule was skipped."
            }
            Counter::CacheHits
            | Counter::CacheStale
            | Counter::CacheCoalesced
            | Counter::CacheRevalidated
            | Counter::CacheMisses
            | Counter::CacheBypassed => "Requests to routes with a cache, by what came of it.",
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn positions_names_and_labels_are_unambiguous() {
        let mut seen = HashSet::new();
        let mut last = "";
        for (position, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, position);
            let name = counter.name();
            assert!(name.starts_with("sluice_") && name.ends_with("_total"), "{name}");
            assert!(seen.insert((name, counter.label())), "{name} twice");
            let known = Counter::ALL[..position].iter().any(|c| c.name() == name);
            assert_eq!(known, name == last, "counters named {name} stand together");
            last = name;
        }
    }

    #[test]
    fn a_status_counts_in_its_class() {
        assert_eq!(Counter::of_status(101), Counter::Responses1xx);
        assert_eq!(Counter::of_status(204), Counter::Responses2xx);
        assert_eq!(Counter::of_status(304), Counter::Responses3xx);
        assert_eq!(Counter::of_status(499), Counter::Responses4xx);
        assert_eq!(Counter::of_status(502), Counter::Responses5xx);
        assert_eq!(Counter::of_status(0), Counter::Responses5xx);
    }
}
